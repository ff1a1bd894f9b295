//! HTTP/2 that breaks its rules: the stream or the connection ends, nothing reaches the app, and
//! nobody beside feels it.

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::{
    beside::Hello,
    frames::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, field, frame,
    },
    proxy::{Proxy, UNPROBED},
};

const WHOLE: u8 = END_HEADERS | END_STREAM;

/// What became of stream 1.
#[derive(Debug, PartialEq)]
enum Fate {
    /// Answered with this first byte of a header block: 0x88 is 200.
    Answered(u8),
    /// It, or its connection, ended.
    Ended,
}

/// Sends `bytes` after the preface and settings.
async fn send(hello: &Hello, bytes: &[u8]) -> Fate {
    let mut caller = frames::connect(hello.traffic()).await;
    caller.write_all(bytes).await.unwrap();
    fate(&mut caller).await
}

async fn fate(caller: &mut TcpStream) -> Fate {
    while let Some(frame) = frames::read(caller).await {
        match frame.kind {
            HEADERS if frame.stream == 1 => return Fate::Answered(frame.payload[0]),
            RST_STREAM if frame.stream == 1 => return Fate::Ended,
            GOAWAY => return Fate::Ended,
            _ => {}
        }
    }
    Fate::Ended
}

fn get(more: &[u8]) -> Vec<u8> {
    frame(
        HEADERS,
        WHOLE,
        1,
        &[&frames::request("GET", "/"), more].concat(),
    )
}

fn pseudo(fields: &[(&str, &str)]) -> Vec<u8> {
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect();
    frame(HEADERS, WHOLE, 1, &block)
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    let block = frames::request("GET", "/");
    let open = frame(HEADERS, END_HEADERS, 1, &frames::request("POST", "/"));
    let max = 0x7fff_ffff_u32.to_be_bytes();
    for (what, bytes) in [
        ("too large", frame(DATA, 0, 1, &[0; 16_385])),
        ("headers on stream 0", frame(HEADERS, WHOLE, 0, &block)),
        ("an even stream", frame(HEADERS, WHOLE, 2, &block)),
        ("data on stream 0", frame(DATA, 0, 0, b"x")),
        ("data on an idle stream", frame(DATA, 0, 1, b"x")),
        ("reset of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4])),
        ("reset of stream 0", frame(RST_STREAM, 0, 0, &[0; 4])),
        (
            "reset of a wrong length",
            [&open[..], &frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        ),
        ("settings of a wrong length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
        (
            "settings out of range",
            frame(SETTINGS, 0, 0, &frames::settings(&[(4, u32::MAX)])),
        ),
        (
            "a frame size out of range",
            frame(SETTINGS, 0, 0, &frames::settings(&[(5, 1)])),
        ),
        ("ping of a wrong length", frame(PING, 0, 0, &[0; 7])),
        ("ping on a stream", frame(PING, 0, 1, &[0; 8])),
        (
            "a window above its most",
            frame(WINDOW_UPDATE, 0, 0, &max).repeat(2),
        ),
        ("a window by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &block),
        ),
        (
            "a frame between",
            [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        (
            "another stream between",
            [frame(HEADERS, 0, 1, &block), frame(CONTINUATION, 4, 3, &[])].concat(),
        ),
        ("a push", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        (
            "padding longer than the frame",
            frame(HEADERS, WHOLE | 8, 1, &[200, 0]),
        ),
        (
            "a table's entry that is not there",
            frame(HEADERS, WHOLE, 1, &[0xff, 0xff, 0x0f]),
        ),
        (
            "a number without end",
            frame(HEADERS, WHOLE, 1, &[0xff; 40]),
        ),
        (
            "huffman code of nothing",
            frame(HEADERS, WHOLE, 1, &[0, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
    ] {
        assert_eq!(send(&hello, &bytes).await, Fate::Ended, "{what}");
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
        send(&hello, &get(&field("x", "1"))).await,
        Fate::Answered(0x88)
    );
    let beside = hello.beside();
    let seen = hello.seen();
    let host = (":authority", "shop");
    let (method, scheme, path) = ((":method", "GET"), (":scheme", "http"), (":path", "/"));
    for (what, bytes) in [
        ("an upper case name", get(&field("X", "1"))),
        ("an empty name", get(&field("", "1"))),
        ("a space in a name", get(&field("x y", "1"))),
        ("a colon in a name", get(&field("x:y", "1"))),
        ("a line in a name", get(&field("x: 1\r\ny", "1"))),
        ("a line in a value", get(&field("x", "1\r\ny: 2"))),
        ("an LF in a value", get(&field("x", "1\ny: 2"))),
        ("a NUL in a value", get(&field("x", "1\0"))),
        ("connection", get(&field("connection", "close"))),
        ("keep-alive", get(&field("keep-alive", "1"))),
        ("proxy-connection", get(&field("proxy-connection", "close"))),
        (
            "transfer-encoding",
            get(&field("transfer-encoding", "chunked")),
        ),
        ("upgrade", get(&field("upgrade", "websocket"))),
        ("te", get(&field("te", "gzip"))),
        (
            "a pseudo-header at the end",
            get(&[field("x", "1"), field(":path", "/")].concat()),
        ),
        ("an unknown pseudo-header", get(&field(":x", "1"))),
        ("one of answers", get(&field(":status", "200"))),
        ("two paths", get(&field(":path", "/"))),
        ("two methods", get(&field(":method", "GET"))),
        ("no path", pseudo(&[method, scheme, host])),
        ("no method", pseudo(&[scheme, path, host])),
        ("no scheme", pseudo(&[method, path, host])),
        (
            "an empty path",
            pseudo(&[method, scheme, (":path", ""), host]),
        ),
        (
            "a path without a slash",
            pseudo(&[method, scheme, (":path", "x"), host]),
        ),
        (
            "a space in a path",
            pseudo(&[method, scheme, (":path", "/ HTTP/1.1"), host]),
        ),
        (
            "a line in a path",
            pseudo(&[method, scheme, (":path", "/\r\nx: 1"), host]),
        ),
        (
            "a line in an authority",
            pseudo(&[method, scheme, path, (":authority", "a\r\nx: 1")]),
        ),
        (
            "a space in a method",
            pseudo(&[(":method", "GET /"), scheme, path, host]),
        ),
        (
            "a length without a body",
            get(&field("content-length", "5")),
        ),
        (
            "two lengths",
            get(&[field("content-length", "0"), field("content-length", "5")].concat()),
        ),
        ("no length", get(&field("content-length", "x"))),
    ] {
        assert_eq!(send(&hello, &bytes).await, Fate::Ended, "{what}");
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
