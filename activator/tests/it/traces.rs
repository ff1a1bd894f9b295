//! What a collector gets to see.

use std::net::SocketAddr;

use lull_traces::collector::{Collector, Sent, Span};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::harness::{Activator, FakePod, Raw, get, loopback, soon, workload};
use crate::tls::hello;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const PHASES: [&str; 6] = [
    "created",
    "scheduled",
    "running",
    "listening",
    "answering",
    "first-byte",
];

async fn traced() -> (Collector, Activator, SocketAddr) {
    let collector = Collector::start().await.unwrap();
    let endpoint = [("ACTIVATOR_OTLP_ENDPOINT", collector.endpoint.as_str())];
    let activator = Activator::start(&endpoint).await;
    let port = activator.add(workload("shop")).await;
    (collector, activator, port)
}

fn header(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{CALLER}-{flags}\r\n")
}

/// The answer to a request with `headers`, and what of tracing its pod got.
async fn exchange(activator: &Activator, port: SocketAddr, headers: String) -> (Raw, String) {
    let (listener, address) = loopback().await;
    let caller = tokio::spawn(async move { get(port, "/", &headers).await });
    activator.until_held(1).await;
    let pod = FakePod::before("shop-1", address).await;
    activator.add_pod(&pod);
    let seen = soon(answer_one(&listener)).await;
    (soon(caller).await.unwrap(), seen)
}

/// Answers one request like a pod; its `traceparent`, empty where it has none.
async fn answer_one(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let mut lines = head.lines();
    let line = lines.find_map(|line| line.strip_prefix("traceparent: "));
    line.unwrap_or_default().to_owned()
}

#[track_caller]
fn named<'a>(spans: &'a [Sent], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|(_, span)| span.name == name);
    let (service, span) = found
        .next()
        .unwrap_or_else(|| panic!("{name} in {spans:?}"));
    assert!(found.next().is_none(), "two of {name} in {spans:?}");
    assert_eq!(service, "lull-activator");
    span
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `span` tells whom it calls.
fn told(span: &Span) -> String {
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

/// Whether the phases follow each other below `wake`.
fn assert_phases(spans: &[Sent], wake: &Span) {
    let mut end = wake.start_time_unix_nano;
    for name in PHASES {
        let phase = named(spans, name);
        assert_eq!(phase.trace_id, wake.trace_id);
        assert_eq!(phase.parent_span_id, wake.span_id);
        assert_eq!(phase.start_time_unix_nano, end);
        end = phase.end_time_unix_nano;
    }
    assert_eq!(end, wake.end_time_unix_nano);
}

#[tokio::test]
async fn a_held_request_is_in_its_callers_trace_and_the_wake_below_it() {
    let (mut collector, activator, port) = traced().await;
    let (raw, seen) = exchange(&activator, port, header("01")).await;
    raw.assert_status(200);
    let spans = collector.spans(3 + PHASES.len()).await;
    let request = named(spans, "request");
    assert_eq!(hex(&request.trace_id), TRACE);
    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!(seen, told(request), "the pod goes on below it");
    let held = named(spans, "held");
    let wake = named(spans, "wake");
    for part in [held, wake] {
        assert_eq!(part.trace_id, request.trace_id);
        assert_eq!(part.parent_span_id, request.span_id);
    }
    assert_eq!(held.start_time_unix_nano, request.start_time_unix_nano);
    assert!(held.end_time_unix_nano <= request.end_time_unix_nano);
    assert_phases(spans, wake);
    activator.stop().await;
}

#[tokio::test]
async fn a_held_request_without_a_trace_begins_one() {
    let (mut collector, activator, port) = traced().await;
    let (raw, seen) = exchange(&activator, port, String::new()).await;
    raw.assert_status(200);
    let spans = collector.spans(3 + PHASES.len()).await;
    let request = named(spans, "request");
    assert!(request.parent_span_id.is_empty());
    assert_eq!(seen, told(request));
    assert_eq!(named(spans, "wake").parent_span_id, request.span_id);
    activator.stop().await;
}

// Its end waits for a thread that speaks to the collector.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_is_not_kept_passes_unchanged_and_the_wake_has_its_own() {
    let (mut collector, activator, port) = traced().await;
    let (raw, seen) = exchange(&activator, port, header("00")).await;
    raw.assert_status(200);
    assert_eq!(seen, format!("00-{TRACE}-{CALLER}-00"));
    // The last spans go out at the end, so these are all.
    activator.stop().await;
    let spans = collector.spans(1 + PHASES.len()).await;
    let wake = named(spans, "wake");
    assert!(wake.parent_span_id.is_empty());
    assert_ne!(hex(&wake.trace_id), TRACE);
    assert_phases(spans, wake);
    assert_eq!(spans.len(), 1 + PHASES.len(), "{spans:?}");
}

#[tokio::test]
async fn a_connection_of_bytes_wakes_in_a_trace_of_its_own() {
    let (mut collector, activator, port) = traced().await;
    let (listener, address) = loopback().await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(&hello("")).await.unwrap();
    activator.until_held(1).await;
    let pod = FakePod::before("shop-1", address).await;
    activator.add_pod(&pod);
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let spans = collector.spans(1 + PHASES.len()).await;
    let wake = named(spans, "wake");
    assert!(wake.parent_span_id.is_empty());
    assert_phases(spans, wake);
    drop((stream, caller));
    activator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sampled_request_that_is_not_held_has_one_span() {
    let (mut collector, activator, port) = traced().await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    // Held until the pod is there.
    get(port, "/", "").await.assert_status(200);
    get(port, "/", &header("01")).await.assert_status(200);
    activator.stop().await;
    let spans = collector.spans(1).await;
    let of_caller = spans
        .iter()
        .filter(|(_, span)| hex(&span.trace_id) == TRACE);
    let names: Vec<&str> = of_caller.map(|(_, span)| span.name.as_str()).collect();
    assert_eq!(names, ["request"]);
}
