//! From the end of a span to the collector.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Method};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    parent::{TRACE_PARENT, TraceParent},
    span::Span,
};

/// Spans that wait to be sent, about half a KiB each; what comes beyond is not worth memory.
const MAX_WAITING: usize = 1024;
/// Spans that are sent at once, which keeps a batch far below what collectors take (4 MiB).
const MAX_BATCH: usize = 512;
/// From a span to the sending of the batch that it is in: one call a second at most.
const BATCH_PAUSE: Duration = Duration::from_secs(1);
/// Longest time for one batch: the next ones wait for it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for what is being sent when the process ends, and again for what waits then.
const LAST_BATCH: Duration = Duration::from_millis(300);
/// Name of the span of a request.
const REQUEST: &str = "request";
/// Where a collector takes traces (OTLP specification, "OTLP/HTTP Request").
const TRACES_PATH: &str = "/v1/traces";

/// Takes spans that have ended. Without a collector it takes none, which costs nothing.
#[derive(Debug)]
pub struct Traces(Option<Queue>);

#[derive(Debug)]
struct Queue {
    spans_tx: mpsc::Sender<Span>,
    lost: Arc<AtomicU64>,
}

/// Sends them.
#[derive(Debug)]
pub struct Exporter {
    endpoint: String,
    resource: Resource,
    spans_rx: mpsc::Receiver<Span>,
    /// Spans that the queue did not take.
    lost: Arc<AtomicU64>,
}

/// Both ends; without an `endpoint`, the collector's address without a path, nothing is sent.
/// `service` and `attributes` = who sends.
pub fn traces(
    endpoint: Option<&str>,
    service: &'static str,
    attributes: impl IntoIterator<Item = (&'static str, String)>,
) -> (Traces, Option<Exporter>) {
    let Some(endpoint) = endpoint else {
        return (Traces::off(), None);
    };
    let (spans_tx, spans_rx) = mpsc::channel(MAX_WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let attributes = attributes
        .into_iter()
        .map(|(key, value)| KeyValue::new(key, value));
    let exporter = Exporter {
        endpoint: format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/')),
        resource: Resource::builder()
            .with_service_name(service)
            .with_attributes(attributes)
            .build(),
        spans_rx,
        lost: Arc::clone(&lost),
    };
    (Traces(Some(Queue { spans_tx, lost })), Some(exporter))
}

// === impl Traces ===

impl Traces {
    /// Takes nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Whether spans are worth making.
    #[inline]
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of a request, as a part of the caller's trace; `None` where that one has none, or
    /// does not want it kept.
    #[inline]
    #[must_use]
    pub fn join(&self, method: &Method, headers: &HeaderMap) -> Option<Box<Span>> {
        match self.is_on() {
            true => joined(method, headers),
            false => None,
        }
    }

    /// The span of a request whose caller has no trace, as the first of a new one; `None` where the
    /// caller said anything about one.
    #[must_use]
    pub fn begin(&self, method: &Method, headers: &HeaderMap) -> Option<Box<Span>> {
        let begins = self.is_on() && !headers.contains_key(TRACE_PARENT);
        begins.then(|| served(Span::root(REQUEST), method))
    }

    /// Hands `span` over, which ends now unless it has an end.
    pub fn end(&self, mut span: Span) {
        let Some(queue) = &self.0 else { return };
        span.end_now();
        if queue.spans_tx.try_send(span).is_err() {
            queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn joined(method: &Method, headers: &HeaderMap) -> Option<Box<Span>> {
    let parent = TraceParent::of(headers).filter(TraceParent::is_sampled)?;
    Some(served(Span::below(parent, REQUEST), method))
}

fn served(span: Span, method: &Method) -> Box<Span> {
    let mut span = Box::new(span.served());
    span.asked(method);
    span
}

// === impl Exporter ===

impl Exporter {
    /// Sends batches until `stop` is cancelled, and then what waits. What a collector does not take
    /// is lost: the next batch has news.
    pub async fn run(mut self, stop: CancellationToken) {
        let exporter = match self.build() {
            Ok(exporter) => exporter,
            Err(error) => {
                tracing::error!(endpoint = self.endpoint, %error, "traces are not sent");
                return;
            }
        };
        while let Some(mut batch) = self.batch(&stop).await {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(BATCH_PAUSE) => {}
            }
            self.fill(&mut batch, MAX_BATCH);
            tokio::select! {
                () = self.send(&exporter, batch) => {}
                () = late(&stop) => {}
            }
        }
        let mut last = Vec::new();
        self.fill(&mut last, MAX_WAITING);
        if !last.is_empty() {
            // Nobody is left to tell of what is lost.
            let _ = timeout(LAST_BATCH, self.send(&exporter, last)).await;
        }
    }

    fn build(&self) -> Result<SpanExporter, ExporterBuildError> {
        let builder = SpanExporter::builder().with_http();
        let mut exporter = builder
            .with_endpoint(&self.endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        exporter.set_resource(&self.resource);
        Ok(exporter)
    }

    /// The next spans, at least one; `None` at the end.
    async fn batch(&mut self, stop: &CancellationToken) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        tokio::select! {
            // Without an order, a busy process would go on sending after its end.
            biased;
            () = stop.cancelled() => None,
            count = self.spans_rx.recv_many(&mut batch, MAX_BATCH) => (count > 0).then_some(batch),
        }
    }

    /// Adds what waits, up to `most` in all.
    fn fill(&mut self, batch: &mut Vec<Span>, most: usize) {
        while batch.len() < most
            && let Ok(span) = self.spans_rx.try_recv()
        {
            batch.push(span);
        }
    }

    async fn send(&self, exporter: &SpanExporter, batch: Vec<Span>) {
        let endpoint = &self.endpoint;
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(endpoint, lost, "spans came faster than they can be sent");
        }
        let spans: Vec<SpanData> = batch.into_iter().map(SpanData::from).collect();
        let count = spans.len();
        if let Err(error) = exporter.export(spans).await {
            tracing::warn!(endpoint, count, %error, "the collector did not take spans");
        }
    }
}

/// Returns when what is being sent has had its last time.
async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(LAST_BATCH).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(TRACE_PARENT, value.parse().unwrap())])
    }

    fn on() -> (Traces, Exporter) {
        let (traces, exporter) = traces(Some("http://127.0.0.1:1/"), "test", []);
        (traces, exporter.unwrap())
    }

    #[test]
    fn without_a_collector_there_are_no_spans() {
        let (off, exporter) = traces(None, "test", []);
        assert!(exporter.is_none());
        assert!(off.join(&Method::GET, &headers(PARENT)).is_none());
        assert!(off.begin(&Method::GET, &HeaderMap::new()).is_none());
    }

    #[test]
    fn a_span_joins_its_callers_trace_where_that_is_kept() {
        let (traces, _exporter) = on();
        let span = traces.join(&Method::GET, &headers(PARENT)).unwrap();
        let parent = TraceParent::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(span.context().trace_id(), parent.trace_id());
        assert_ne!(span.context(), parent);
        let data = SpanData::from(*span);
        assert_eq!(data.parent_span_id, parent.span_id());
        assert!(data.parent_span_is_remote);
        let unsampled = PARENT.replace("-01", "-00");
        for other in [unsampled.as_str(), "nonsense"] {
            let headers = headers(other);
            assert!(traces.join(&Method::GET, &headers).is_none(), "{other}");
            assert!(traces.begin(&Method::GET, &headers).is_none(), "{other}");
        }
        let none = HeaderMap::new();
        assert!(traces.join(&Method::GET, &none).is_none());
        assert!(traces.begin(&Method::GET, &none).is_some());
    }

    #[tokio::test]
    async fn what_the_queue_does_not_take_is_counted() {
        let (traces, exporter) = on();
        assert_eq!(exporter.endpoint, "http://127.0.0.1:1/v1/traces");
        for _ in 0..MAX_WAITING + 3 {
            traces.end(Span::root("x"));
        }
        assert_eq!(exporter.lost.load(Ordering::Relaxed), 3);
    }
}
