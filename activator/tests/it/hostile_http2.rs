//! Callers of HTTP/2 that mean harm: their connections end, or cost no more than others.

use std::{future::poll_fn, net::SocketAddr};

use bytes::Bytes;
use h2::SendStream;
use http::Response;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinHandle,
    time::{Duration, timeout},
};

use crate::{
    floods::{self, End, Flood},
    frames::{
        self, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, STATUS_200,
        WINDOW_UPDATE, frame, open,
    },
    h2_faults::{Fate, broken_frames, broken_requests, fate, large_when_unpacked, send},
    harness::{Activator, FakePod, get, loopback, soon, until, workload},
    hostile::Beside,
};

const WHOLE: u8 = END_HEADERS | END_STREAM;

async fn with_pod() -> (Activator, SocketAddr, FakePod) {
    let (activator, port) = Activator::with(workload("shop")).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    get(port, "/", "").await.assert_status(200);
    (activator, port, pod)
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection_and_wake_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    for (what, bytes) in broken_frames() {
        assert_eq!(send(port, &bytes).await, Fate::Ended, "{what}");
    }
    let mut bad = TcpStream::connect(port).await.unwrap();
    bad.write_all(&[PREFACE, &[0xff; 1_000]].concat())
        .await
        .unwrap();
    assert_eq!(fate(&mut bad).await, Fate::Ended);
    let held = activator.report("").await.workloads[0].held;
    // One of them has begun a request before it breaks the rules.
    assert!(held.requests <= 1 && held.in_flight == 0, "{held:?}");
    assert!(activator.report("").await.edge <= edge + 1);
    activator.stop().await;
}

#[tokio::test]
async fn requests_that_break_the_rules_reach_no_pod_and_wake_nobody() {
    let (activator, port, pod) = with_pod().await;
    let served = pod.served();
    let asleep = activator.add(workload("bank")).await;
    let edge = activator.report("").await.edge;
    for (what, bytes) in broken_requests() {
        for port in [port, asleep] {
            let fate = send(port, &bytes).await;
            assert_ne!(fate, Fate::Answered(STATUS_200[0]), "{what}");
        }
    }
    assert_eq!(pod.served(), served);
    assert_eq!(activator.report("").await.edge, edge);
    activator.stop().await;
}

/// How a flood may end where pods answer the requests in it.
fn ends(flood: &Flood) -> &'static [End] {
    match flood.name {
        "too many GETs" | "data without data" => &[End::Closed, End::Taken],
        _ => flood.ends,
    }
}

/// Floods, and fails where an end is none that is expected or somebody else felt it.
async fn check(floods: Vec<Flood>) {
    for flood in floods {
        let (activator, port, pod) = with_pod().await;
        for reads in [true, false] {
            let beside = Beside::start(&activator).await;
            let end = flood.run(port, reads).await;
            // Who is not taken in any more costs nothing either.
            let is_fine = end == End::Stuck || ends(&flood).contains(&end);
            assert!(is_fine, "{}: {end:?}", flood.name);
            beside.assert_unharmed().await;
            get(port, "/", "").await.assert_status(200);
        }
        if flood.name == "streams reset at once" {
            assert!(pod.served() < 1_000, "{} reached the app", pod.served());
        }
        // All of it is given back.
        until(|| async { activator.forwarding().await == 0 }).await;
        activator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_as_soon_as_they_are_opened() {
    check(floods::resets()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_the_activator_is_made_to_reset() {
    check(floods::made_resets()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_are_allowed() {
    check(floods::streams()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end() {
    check(floods::heads()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_without_end() {
    check(floods::trailers()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_frames_without_data() {
    check(floods::empty_data()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_want_an_answer() {
    check(floods::questions()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_nobody_waits_for() {
    check(floods::noise()).await;
}

#[tokio::test]
async fn a_head_that_is_large_when_unpacked_is_refused() {
    let (activator, port, pod) = with_pod().await;
    let served = pod.served();
    let mut caller = frames::connect(port).await;
    let [first, second] = large_when_unpacked();
    caller.write_all(&first).await.unwrap();
    let answer = frames::read_until(&mut caller, |it| it.stream == 1).await;
    assert_eq!(answer.payload.first(), STATUS_200.first(), "{answer:?}");
    caller.write_all(&second).await.unwrap();
    while let Some(answer) = frames::read(&mut caller).await {
        if answer.stream == 3 {
            // Status as literal, its name from the table.
            let is_refused = answer.kind == RST_STREAM || answer.payload.ends_with(b"431");
            assert!(is_refused, "{answer:?}");
            break;
        }
    }
    assert_eq!(pod.served(), served + 1);
    drop(caller);
    activator.stop().await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_leave_no_place_held() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let [flood] = <[Flood; 1]>::try_from(floods::resets()).unwrap();
    flood.run(port, true).await;
    activator.until_held(0).await;
    let bytes = "lull_activator_held_bytes 0\n";
    until(|| async { activator.metrics().await.contains(bytes) }).await;
    activator.stop().await;
}

/// A pod that answers one request for as long as it may; what it sent then, and the answer, which goes on.
async fn endless_pod() -> (FakePod, JoinHandle<(usize, SendStream<Bytes>)>) {
    let (listener, address) = loopback().await;
    let app = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_request, mut answer) = connection.accept().await.unwrap().unwrap();
        let head = Response::new(());
        let mut body = answer.send_response(head, false).unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let mut sent = 0;
        loop {
            body.reserve_capacity(16 << 10);
            let room = poll_fn(|cx| body.poll_capacity(cx));
            let Ok(Some(Ok(room))) = timeout(Duration::from_secs(1), room).await else {
                return (sent, body);
            };
            sent += room;
            if body
                .send_data(Bytes::from(vec![b'x'; room]), false)
                .is_err()
            {
                return (sent, body);
            }
        }
    });
    (FakePod::before("shop-1", address).await, app)
}

#[tokio::test]
async fn a_caller_that_opens_no_window_stops_its_pod_and_nobody_else() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let (pod, app) = endless_pod().await;
    activator.add_pod(&pod);
    let mut caller = frames::connect(port).await;
    let closed = frame(SETTINGS, 0, 0, &frames::settings(&[(4, 0)]));
    let asks = [closed, open(1, "GET", WHOLE)].concat();
    caller.write_all(&asks).await.unwrap();
    let answer = frames::read_until(&mut caller, |it| it.stream == 1).await;
    assert_eq!(answer.kind, HEADERS);
    let beside = Beside::start(&activator).await;
    let (sent, _answer) = soon(app).await.unwrap();
    assert!(sent < 4 << 20, "{sent} bytes are kept for nobody");
    beside.assert_unharmed().await;
    // It comes as soon as it may.
    let window = 1_000_u32.to_be_bytes();
    caller
        .write_all(&frame(WINDOW_UPDATE, 0, 1, &window))
        .await
        .unwrap();
    let data = frames::read_until(&mut caller, |it| it.stream == 1).await;
    assert_eq!(data.kind, DATA);
    assert!((1..=1_000).contains(&data.payload.len()), "{data:?}");
    drop(caller);
    activator.stop().await;
}
