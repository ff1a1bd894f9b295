//! What a collector gets to see.

use lull_traces::collector::{Collector, Sent, Span};
use tokio::io::AsyncWriteExt;

use crate::harness::{Proxy, body, h2_get, h2c, read_to, soon};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// `Status.code` of a failure.
const FAILED: i32 = 2;

async fn traced(overrides: &[(&str, &str)]) -> (Collector, Proxy) {
    let collector = Collector::start().await.unwrap();
    let endpoint = [("QP_OTLP_ENDPOINT", collector.endpoint.as_str())];
    let proxy = Proxy::start(&[&endpoint[..], overrides].concat()).await;
    (collector, proxy)
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// What the app saw of tracing in a request that had `value`; empty where it saw nothing.
async fn seen(proxy: &Proxy, value: Option<&str>) -> String {
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let mut request = h2_get("/seen");
    if let Some(value) = value {
        let headers = request.headers_mut();
        headers.insert("traceparent", value.parse().unwrap());
    }
    let lines = body(soon(sender.send_request(request)).await.unwrap()).await;
    let line = lines
        .lines()
        .find_map(|it| it.strip_prefix("traceparent: "));
    line.unwrap_or_default().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of<'a>(spans: &'a [Sent], name: &str) -> Vec<&'a Span> {
    assert!(
        spans
            .iter()
            .all(|(service, _)| service == "lull-queue-proxy")
    );
    let all = spans.iter().map(|(_, span)| span);
    all.filter(|span| span.name == name).collect()
}

#[tokio::test]
async fn a_sampled_request_is_in_its_callers_trace_and_the_app_below_it() {
    let (mut collector, proxy) = traced(&[]).await;
    let told = seen(&proxy, Some(&parent("01"))).await;
    let spans = collector.spans(1).await;
    let request = of(spans, "request")[0];
    assert_eq!(hex(&request.trace_id), TRACE);
    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!(told, format!("00-{TRACE}-{}-01", hex(&request.span_id)));
    assert!(request.start_time_unix_nano <= request.end_time_unix_nano);
    assert_eq!(request.status.as_ref().map_or(0, |status| status.code), 0);
    assert_eq!(spans.len(), 1, "{spans:?}");
}

#[tokio::test]
async fn the_wait_for_a_slot_is_a_part_of_the_request() {
    let (mut collector, proxy) = traced(&[("QP_CONTAINER_CONCURRENCY", "1")]).await;
    let first = proxy.spawn_get("/gate");
    proxy.inside(1).await;
    let request = async { seen(&proxy, Some(&parent("01"))).await };
    let waits = async {
        proxy.queued(1).await;
        proxy.app.gate.add_permits(1);
    };
    soon(async { tokio::join!(request, waits) }).await;
    soon(first).await.unwrap();
    let spans = collector.spans(2).await;
    let (queued, request) = (of(spans, "queued")[0], of(spans, "request")[0]);
    assert_eq!(queued.trace_id, request.trace_id);
    assert_eq!(queued.parent_span_id, request.span_id);
    assert_eq!(queued.start_time_unix_nano, request.start_time_unix_nano);
    assert!(queued.end_time_unix_nano <= request.end_time_unix_nano);
}

#[tokio::test]
async fn what_is_not_sampled_has_no_span_and_passes_unchanged() {
    let (mut collector, proxy) = traced(&[]).await;
    assert_eq!(seen(&proxy, None).await, "");
    let unsampled = parent("00");
    for value in [unsampled.as_str(), "nonsense"] {
        assert_eq!(seen(&proxy, Some(value)).await, value);
    }
    // Spans come in order: what there was before would come before this one.
    seen(&proxy, Some(&parent("01"))).await;
    let spans = collector.spans(1).await;
    assert_eq!(of(spans, "request").len(), 1, "{spans:?}");
    assert_eq!(hex(&spans[0].1.parent_span_id), CALLER);
}

#[tokio::test]
async fn an_answer_of_our_own_is_a_failure_with_its_reason() {
    let (mut collector, proxy) = traced(&[("QP_RESPONSE_START_TIMEOUT", "50ms")]).await;
    let mut stream = proxy.connect().await;
    let head = format!(
        "GET /gate HTTP/1.1\r\nhost: shop\r\ntraceparent: {}\r\n\r\n",
        parent("01")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    let spans = collector.spans(1).await;
    let status = of(spans, "request")[0].status.clone().unwrap();
    assert_eq!((status.code, &*status.message), (FAILED, "timeout"));
}

// Its end waits for a thread that speaks to the collector.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_spans_go_out_at_the_end() {
    let (mut collector, proxy) = traced(&[]).await;
    seen(&proxy, Some(&parent("01"))).await;
    proxy.shutdown.cancel();
    soon(proxy.task).await.unwrap();
    assert_eq!(collector.spans(1).await.len(), 1);
}
