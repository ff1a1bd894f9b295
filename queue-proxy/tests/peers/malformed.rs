//! HTTP/2 that breaks its rules: the stream or the connection ends, nothing reaches the app, and
//! nobody beside feels it.

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::{
    beside::Hello,
    frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, field, frame},
    h2_faults::{Fate, broken_frames, broken_requests, fate, get, send},
    proxy::{Proxy, UNPROBED},
};

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    for (what, bytes) in broken_frames() {
        assert_eq!(send(hello.traffic(), &bytes).await, Fate::Ended, "{what}");
    }
    let mut bad = hello.proxy.connect().await;
    bad.write_all(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(fate(&mut bad).await, Fate::Ended);
    let mut bad = hello.proxy.connect().await;
    bad.write_all(&[PREFACE, &[0xff; 1_000]].concat())
        .await
        .unwrap();
    assert_eq!(fate(&mut bad).await, Fate::Ended);
    let asked = beside.unharmed().await;
    assert_eq!(hello.seen(), asked);
    hello.proxy.in_flight(0).await;
}

#[tokio::test]
async fn requests_that_break_the_rules_do_not_reach_the_app() {
    let hello = Hello::start(&[]).await;
    assert_eq!(
        send(hello.traffic(), &get(&field("x", "1"))).await,
        Fate::Answered(0x88)
    );
    let beside = hello.beside();
    let seen = hello.seen();
    for (what, bytes) in broken_requests() {
        assert_eq!(send(hello.traffic(), &bytes).await, Fate::Ended, "{what}");
    }
    let asked = beside.unharmed().await;
    assert_eq!(hello.seen(), asked + seen);
}

/// Answers requests whose body has come whole, and no others.
async fn careful() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request: Request<Incoming>| {
                let body = request.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(Response::new(Full::new(body)))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn a_body_of_another_length_than_said_is_not_whole() {
    let proxy = Proxy::start(careful().await, &[UNPROBED]).await;
    for (length, data, expected) in [
        ("5", "hello", Fate::Answered(0x88)),
        ("5", "hell", Fate::Ended),
        ("5", "hello!", Fate::Ended),
        ("5", "", Fate::Ended),
        ("0", "x", Fate::Ended),
    ] {
        let head = [
            frames::request("POST", "/"),
            field("content-length", length),
        ]
        .concat();
        let bytes = [
            frame(HEADERS, END_HEADERS, 1, &head),
            frame(DATA, END_STREAM, 1, data.as_bytes()),
        ];
        let mut caller = frames::connect(proxy.traffic()).await;
        caller.write_all(&bytes.concat()).await.unwrap();
        assert_eq!(fate(&mut caller).await, expected, "{length} {data}");
    }
    proxy.in_flight(0).await;
}
