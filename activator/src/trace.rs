//! One OpenTelemetry trace for each wake, sent to a collector (OTLP over HTTP); off by default.

use std::time::{Duration, SystemTime};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId,
    trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use tokio::sync::mpsc;

use crate::workload::{Phase, Wake};

/// Wakes that wait to be sent; what comes beyond is not worth memory.
const MAX_WAITING: usize = 256;
/// Longest time for one trace: the next wakes wait for it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where a collector takes traces (OTLP specification, "OTLP/HTTP Request").
const TRACES_PATH: &str = "/v1/traces";

/// A wake that has ended.
#[derive(Debug)]
struct Ended {
    namespace: String,
    workload: String,
    wake: Wake,
    at: SystemTime,
}

/// Takes the wakes that have ended.
#[derive(Debug)]
pub(crate) struct Traces(Option<mpsc::Sender<Ended>>);

/// Sends them.
#[derive(Debug)]
pub(crate) struct Exporter {
    endpoint: String,
    pod: String,
    ended_rx: mpsc::Receiver<Ended>,
}

/// Both ends; without an `endpoint` nothing is sent. `pod` = who sends.
pub(crate) fn traces(endpoint: Option<&str>, pod: &str) -> (Traces, Option<Exporter>) {
    let Some(endpoint) = endpoint else {
        return (Traces(None), None);
    };
    let (ended_tx, ended_rx) = mpsc::channel(MAX_WAITING);
    let exporter = Exporter {
        endpoint: format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/')),
        pod: pod.to_owned(),
        ended_rx,
    };
    (Traces(Some(ended_tx)), Some(exporter))
}

// === impl Traces ===

impl Traces {
    /// The wake of `workload` has ended just now.
    pub(crate) fn woken(&self, (namespace, workload): (&str, &str), wake: &Wake) {
        let Some(ended_tx) = &self.0 else { return };
        let ended = Ended {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            wake: *wake,
            at: SystemTime::now(),
        };
        if ended_tx.try_send(ended).is_err() {
            tracing::debug!(%namespace, name = %workload, "too many wakes: one is not traced");
        }
    }
}

// === impl Exporter ===

impl Exporter {
    /// Sends one trace after the other for as long as there may be wakes.
    pub(crate) async fn run(mut self) {
        let exporter = match self.build() {
            Ok(exporter) => exporter,
            Err(error) => {
                tracing::error!(endpoint = self.endpoint, %error, "wakes are not traced");
                return;
            }
        };
        while let Some(ended) = self.ended_rx.recv().await {
            if let Err(error) = exporter.export(ended.spans()).await {
                tracing::warn!(endpoint = self.endpoint, %error, "a wake's trace was not taken");
            }
        }
    }

    fn build(&self) -> Result<SpanExporter, ExporterBuildError> {
        let builder = SpanExporter::builder().with_http();
        let mut exporter = builder
            .with_endpoint(&self.endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let resource = Resource::builder()
            .with_service_name("lull-activator")
            .with_attribute(KeyValue::new("k8s.pod.name", self.pod.clone()))
            .build();
        exporter.set_resource(&resource);
        Ok(exporter)
    }
}

// === impl Ended ===

impl Ended {
    /// A span for the whole, and one below it from each phase to the next.
    fn spans(&self) -> Vec<SpanData> {
        let ids = RandomIdGenerator::default();
        let trace_id = ids.new_trace_id();
        let span = |parent, name, (from, to): (SystemTime, SystemTime)| SpanData {
            span_context: SpanContext::new(
                trace_id,
                ids.new_span_id(),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name,
            start_time: from,
            end_time: to,
            attributes: vec![
                KeyValue::new("k8s.namespace.name", self.namespace.clone()),
                KeyValue::new("lull.workload", self.workload.clone()),
            ],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("lull").build(),
        };
        let phases: Vec<(Phase, Duration)> = self.wake.phases().collect();
        let total = phases.last().map_or(Duration::ZERO, |(_, took)| *took);
        let begun = self.at.checked_sub(total).unwrap_or(self.at);
        let whole = span(SpanId::INVALID, "wake".into(), (begun, self.at));
        let root = whole.span_context.span_id();
        let mut spans = vec![whole];
        let mut from = begun;
        for (phase, took) in phases {
            // Seen by two watches, so a later phase may have been seen first.
            let to = (begun + took).max(from);
            spans.push(span(root, phase.name().into(), (from, to)));
            from = to;
        }
        spans
    }
}
