//! HTTP/2 callers that send or leave in great numbers and mean no harm: nobody's connection ends by it.

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    frames::{
        self, ACK, CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS,
        frame, open,
    },
    process::{soon, until},
    proxy::{Proxy, UNPROBED},
};

/// What the proxy may have at most.
const MEMORY_MIB: u64 = 40;

fn is_pong(seen: &frames::Frame) -> bool {
    seen.kind == PING && seen.flags & ACK != 0
}

/// An app that never answers; the connection to it is one for many callers.
async fn hanging(overrides: &[(&str, &str)]) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request: Request<Incoming>| {
                if request.uri().path() == "/" {
                    pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(String::new()))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    Proxy::start(address, overrides).await
}

/// What one caller cancels must not make the app end the connection that others use.
#[tokio::test]
async fn a_caller_that_cancels_all_the_time_does_not_harm_others_at_the_app() {
    let proxy = hanging(&[UNPROBED]).await;
    let (mut sender, connection) = h2::client::handshake(proxy.connect().await).await.unwrap();
    tokio::spawn(connection);
    let mut caller = frames::connect(proxy.traffic()).await;
    for number in 0..1_000 {
        let stream = 2 * number + 1;
        let flags = END_HEADERS | END_STREAM;
        caller.write_all(&open(stream, "GET", flags)).await.unwrap();
        // The time of this is also time for the other to reach the app.
        let request = Request::get("http://shop/beside").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        assert_eq!(soon(response).await.unwrap().status(), 200, "{number}");
        let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        caller.write_all(&reset).await.unwrap();
    }
    proxy.in_flight(0).await;
    let peak = proxy.process.peak_kib();
    assert!(peak < MEMORY_MIB << 10, "{peak} KiB");
}

/// An app that answers what has been cancelled, as one does that is busy when it is told so. What has a
/// body it answers at once.
#[derive(Default)]
struct Late {
    connections: AtomicUsize,
    heads: AtomicUsize,
}

impl Late {
    async fn start() -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let late = Arc::<Self>::default();
        let started = Arc::clone(&late);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                late.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Arc::clone(&late).serve(stream));
            }
        });
        (address, started)
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut preface = [0; frames::PREFACE.len()];
        soon(stream.read_exact(&mut preface)).await.unwrap();
        let streams = frame(SETTINGS, 0, 0, &frames::settings(&[(3, 200)]));
        stream.write_all(&streams).await.unwrap();
        let answer = |stream| {
            let head = frame(HEADERS, END_HEADERS, stream, frames::STATUS_200);
            [head, frame(DATA, END_STREAM, stream, b"late")].concat()
        };
        while let Some(seen) = frames::read(&mut stream).await {
            if seen.kind == HEADERS {
                self.heads.fetch_add(1, Ordering::SeqCst);
            }
            let said = match seen.kind {
                HEADERS if seen.flags & END_STREAM == 0 => answer(seen.stream),
                RST_STREAM if seen.payload == CANCEL.to_be_bytes() => answer(seen.stream),
                SETTINGS if seen.flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
                _ => continue,
            };
            if stream.write_all(&said).await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test]
async fn answers_to_what_was_cancelled_do_not_end_the_connection_of_others() {
    let (address, app) = Late::start().await;
    let proxy = Proxy::start(address, &[UNPROBED]).await;
    let mut caller = frames::connect(proxy.traffic()).await;
    let mut sent = 0;
    for batch in 0..15 {
        let streams = (0..100).map(move |number| 2 * (100 * batch + number) + 1);
        let get = |stream| open(stream, "GET", END_HEADERS | END_STREAM);
        let heads: Vec<u8> = streams.clone().flat_map(get).collect();
        caller.write_all(&heads).await.unwrap();
        sent += 100;
        until(|| async { app.heads.load(Ordering::SeqCst) == sent }).await;
        let reset = |stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        let resets: Vec<u8> = streams.flat_map(reset).collect();
        caller.write_all(&resets).await.unwrap();
        proxy.in_flight(0).await;
    }
    // What this one is answered comes behind all of that.
    let (mut sender, connection) = h2::client::handshake(proxy.connect().await).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://shop/beside").body(()).unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    body.send_data("x".into(), true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
}

/// What was on its way when they were refused is no fault of theirs.
#[tokio::test]
async fn callers_that_are_refused_in_their_uploads_keep_their_connection() {
    let limits = [
        UNPROBED,
        ("QP_CONTAINER_CONCURRENCY", "1"),
        ("QP_QUEUE_DEPTH", "0"),
    ];
    let proxy = hanging(&limits).await;
    let mut caller = frames::connect(proxy.traffic()).await;
    let first = open(1, "GET", END_HEADERS | END_STREAM);
    caller.write_all(&first).await.unwrap();
    proxy.in_flight(1).await;
    let streams = (1..=400).map(|number| 2 * number + 1);
    let post = |stream| open(stream, "POST", END_HEADERS);
    let heads: Vec<u8> = streams.clone().flat_map(post).collect();
    caller.write_all(&heads).await.unwrap();
    for _ in streams.clone() {
        frames::read_until(&mut caller, |frame| frame.kind == HEADERS).await;
    }
    let data = |stream| frame(DATA, 0, stream, &[0; 1_000]).repeat(4);
    let late: Vec<u8> = streams.flat_map(data).collect();
    caller.write_all(&late).await.unwrap();
    let last = open(1_001, "GET", END_HEADERS | END_STREAM);
    caller.write_all(&last).await.unwrap();
    frames::read_until(&mut caller, |frame| frame.stream == 1_001).await;
    proxy.in_flight(1).await;
}

/// As a stream of small messages has them.
#[tokio::test]
async fn many_small_frames_may_wait_for_a_slot() {
    let proxy = hanging(&[UNPROBED, ("QP_CONTAINER_CONCURRENCY", "1")]).await;
    let mut caller = frames::connect(proxy.traffic()).await;
    let first = open(1, "GET", END_HEADERS | END_STREAM);
    let waiting = open(3, "POST", END_HEADERS);
    caller.write_all(&[first, waiting].concat()).await.unwrap();
    proxy.in_flight(2).await;
    let small = frame(DATA, 0, 3, b"ten bytes.").repeat(5_000);
    caller.write_all(&small).await.unwrap();
    caller.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    frames::read_until(&mut caller, is_pong).await;
    proxy.in_flight(2).await;
}

/// As an Envoy sends what it has collected during a wake, before it knows how much is allowed.
#[tokio::test]
async fn thousands_at_once_are_refused_one_by_one() {
    let limits = [
        UNPROBED,
        ("QP_CONTAINER_CONCURRENCY", "1"),
        ("QP_QUEUE_DEPTH", "2000"),
    ];
    let proxy = hanging(&limits).await;
    let mut caller = frames::connect(proxy.traffic()).await;
    let get = |number: u32| open(2 * number + 1, "GET", END_HEADERS | END_STREAM);
    let mut burst: Vec<u8> = (0..5_000).flat_map(get).collect();
    burst.extend(frame(PING, 0, 0, &[0; 8]));
    caller.write_all(&burst).await.unwrap();
    frames::read_until(&mut caller, is_pong).await;
    proxy.in_flight(1_024).await;
}
