//! HTTP/2 callers that mean harm by sending much of what is allowed in little: each is bounded or
//! ended, and nobody beside feels it.

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
    time::Duration,
};

use crate::{
    beside::Hello,
    frames::{
        self, ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, field, frame,
    },
    process::{soon, until},
    proxy::{Proxy, UNPROBED},
};

const MIB: usize = 1 << 20;
/// What the proxy may have at most while others do harm.
const MEMORY_MIB: u64 = 40;
/// Who sends more than this is let go on.
const MUCH: usize = 4 * MIB;

/// How a caller that sends too much was treated.
#[derive(Debug, PartialEq)]
enum End {
    Closed,
    /// Nobody took what it sent any more, as it did not take what it was sent.
    Stuck,
    /// Everything was taken.
    Taken,
}

fn open(stream: u32, method: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &frames::request(method, "/"))
}

/// Sends `begin` and then what `more` makes of one number after the other.
async fn flood(hello: &Hello, reads: bool, begin: &[u8], more: fn(u32) -> Vec<u8>) -> End {
    let stream = frames::connect(hello.traffic()).await;
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        let mut bytes = begin.to_vec();
        let (mut sent, mut number) = (0, 0);
        while sent < MUCH {
            while bytes.len() < 65_536 {
                bytes.extend(more(number));
                number += 1;
            }
            let quiet = Duration::from_secs(1);
            match tokio::time::timeout(quiet, writer.write_all(&bytes)).await {
                Err(_) => return End::Stuck,
                Ok(Err(_)) => return End::Closed,
                Ok(Ok(())) => sent += bytes.len(),
            }
            bytes.clear();
        }
        End::Taken
    };
    let reading = async {
        if !reads {
            pending::<()>().await;
        }
        let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
    };
    soon(async {
        tokio::select! {
            end = writing => end,
            () = reading => End::Closed,
        }
    })
    .await
}

/// Floods, and fails where the end is none of `ends` or somebody else felt it.
async fn check(begin: &[u8], more: fn(u32) -> Vec<u8>, ends: &[End]) {
    let hello = Hello::start(&[]).await;
    for reads in [true, false] {
        let beside = hello.beside();
        let end = flood(&hello, reads, begin, more).await;
        let asked = beside.unharmed().await;
        assert!(ends.contains(&end), "{end:?}");
        assert!(
            hello.seen() < asked + 1_000,
            "{} reached the app",
            hello.seen()
        );
        hello.proxy.in_flight(0).await;
    }
    hello.assert_peak_below(MEMORY_MIB);
}

/// CVE-2023-44487.
#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_opened() {
    let more = |number| {
        let stream = 2 * number + 1;
        let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        [open(stream, "GET", END_HEADERS | END_STREAM), reset].concat()
    };
    check(&[], more, &[End::Closed]).await;
}

/// CVE-2025-8671.
#[tokio::test]
async fn streams_that_the_proxy_is_made_to_reset() {
    let more = |number| {
        let stream = 2 * number + 1;
        let fault = frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
        [open(stream, "POST", END_HEADERS), fault].concat()
    };
    check(&[], more, &[End::Closed]).await;
}

#[tokio::test]
async fn more_streams_than_are_allowed() {
    let get = |number| open(2 * number + 1, "GET", END_HEADERS | END_STREAM);
    check(&[], get, &[End::Closed]).await;
    let post = |number| open(2 * number + 1, "POST", END_HEADERS);
    check(&[], post, &[End::Closed]).await;
}

/// CVE-2024-27316.
#[tokio::test]
async fn heads_without_end() {
    let begin = open(1, "GET", 0);
    let more = |_| frame(CONTINUATION, 0, 1, &field("x", "1").repeat(100));
    check(&begin, more, &[End::Closed]).await;
    let empty = |_| frame(CONTINUATION, 0, 1, &[]);
    check(&begin, empty, &[End::Closed]).await;
}

#[tokio::test]
async fn trailers_without_end() {
    let post = open(1, "POST", END_HEADERS);
    let begin = [post, frame(HEADERS, END_STREAM, 1, &field("x", "1"))].concat();
    let more = |_| frame(CONTINUATION, 0, 1, &field("x", "1").repeat(100));
    check(&begin, more, &[End::Closed]).await;
}

/// CVE-2019-9518.
#[tokio::test]
async fn data_frames_without_data() {
    let begin = open(1, "POST", END_HEADERS);
    check(&begin, |_| frame(DATA, 0, 1, &[]), &[End::Closed]).await;
}

/// CVE-2019-9512 and 9515: each of these asks for an answer.
#[tokio::test]
async fn frames_that_want_an_answer() {
    let ends = [End::Closed, End::Stuck, End::Taken];
    check(&[], |_| frame(PING, 0, 0, &[0; 8]), &ends).await;
    check(&[], |_| frame(SETTINGS, 0, 0, &[]), &ends).await;
    let window = |number| frame(SETTINGS, 0, 0, &frames::settings(&[(4, number % 100_000)]));
    check(&[], window, &ends).await;
}

#[tokio::test]
async fn frames_that_nobody_waits_for() {
    check(&[], |_| frame(SETTINGS, ACK, 0, &[]), &[End::Closed]).await;
    let ends = [End::Closed, End::Taken];
    check(&[], |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), &ends).await;
    let priority = |number| frame(PRIORITY, 0, 2 * number + 1, &[0, 0, 0, 0, 1]);
    check(&[], priority, &ends).await;
    check(&[], |_| frame(99, 0, 0, &[0; 100]), &ends).await;
}

/// A field of 4 KB is put into the table once and named 16,000 times: 64 MB of headers.
#[tokio::test]
async fn a_head_that_is_large_when_unpacked() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    let mut caller = frames::connect(hello.traffic()).await;
    // A literal that is to be kept: name of 1 byte, value of 4000, whose length takes two bytes
    // more (RFC 7541, 5.1: 127, then 3873 in groups of seven bits).
    let kept = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
    let first = [frames::request("GET", "/"), kept].concat();
    let named = [frames::request("GET", "/"), vec![0x80 | 62; 16_000]].concat();
    let flags = END_HEADERS | END_STREAM;
    caller
        .write_all(&frame(HEADERS, flags, 1, &first))
        .await
        .unwrap();
    let answer = frames::read_until(&mut caller, |frame| frame.stream == 1).await;
    let (kind, status) = (answer.kind, answer.payload[0]);
    assert_eq!((kind, status), (HEADERS, frames::STATUS_200[0]));
    caller
        .write_all(&frame(HEADERS, flags, 3, &named))
        .await
        .unwrap();
    while let Some(answer) = frames::read(&mut caller).await {
        // Status as literal, its name from the table.
        let refused = answer.kind == RST_STREAM || answer.payload.ends_with(b"431");
        if answer.stream == 3 {
            assert!(refused, "{answer:?}");
            break;
        }
    }
    let asked = beside.unharmed().await;
    assert_eq!(hello.seen(), asked + 1);
    hello.assert_peak_below(MEMORY_MIB);
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
    let is_answer = |frame: &frames::Frame| frame.kind == PING && frame.flags & ACK != 0;
    frames::read_until(&mut caller, is_answer).await;
    proxy.in_flight(2).await;
}
