//! Something that takes time and belongs to a trace.

use std::time::SystemTime;

use http::{Method, StatusCode};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, Value,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

use crate::parent::TraceParent;

/// Methods that have names in OpenTelemetry's semantic conventions.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// One span; it begins when it is made and ends when it is handed to [`crate::Traces::end`], unless
/// it is told otherwise.
#[derive(Debug)]
pub struct Span {
    own: TraceParent,
    /// Invalid for the first of a trace.
    parent: SpanId,
    kind: SpanKind,
    name: &'static str,
    start: SystemTime,
    /// The same as `start`, by a clock that never jumps.
    begun: Instant,
    end: Option<SystemTime>,
    attributes: Vec<KeyValue>,
    status: Status,
}

// === impl Span ===

impl Span {
    /// The first of a new trace, which is to be kept.
    #[must_use]
    pub fn root(name: &'static str) -> Self {
        let ids = RandomIdGenerator::default();
        let own = TraceParent::sampled(ids.new_trace_id(), ids.new_span_id());
        Self::new(own, SpanId::INVALID, name)
    }

    /// A part of `parent`.
    #[must_use]
    pub fn below(parent: TraceParent, name: &'static str) -> Self {
        let own = parent.with_span(RandomIdGenerator::default().new_span_id());
        Self::new(own, parent.span_id(), name)
    }

    fn new(own: TraceParent, parent: SpanId, name: &'static str) -> Self {
        Self {
            own,
            parent,
            kind: SpanKind::Internal,
            name,
            start: SystemTime::now(),
            begun: Instant::now(),
            end: None,
            attributes: Vec::new(),
            status: Status::Unset,
        }
    }

    /// The same for something that another process has asked for.
    #[must_use]
    pub(crate) fn served(self) -> Self {
        Self {
            kind: SpanKind::Server,
            ..self
        }
    }

    /// The same from `start` to `end`.
    #[must_use]
    pub fn between(self, start: SystemTime, end: SystemTime) -> Self {
        Self {
            start,
            end: Some(end),
            ..self
        }
    }

    /// It is a request with `method`, whose own text may be as long as a caller likes.
    pub(crate) fn asked(&mut self, method: &Method) {
        let known = METHODS.into_iter().find(|known| *known == method.as_str());
        self.set("http.request.method", known.unwrap_or("_OTHER"));
    }

    /// It was answered with `status`; one of 500 and more is a failure.
    pub fn answered(&mut self, status: StatusCode) {
        self.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() && self.status == Status::Unset {
            self.failed("");
        }
    }

    /// Says more about it; `key` as in OpenTelemetry's semantic conventions where they have one.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(key, value));
    }

    /// It did not do what it was for; of several reasons the last one counts.
    pub fn failed(&mut self, reason: &'static str) {
        let description = reason.into();
        self.status = Status::Error { description };
    }

    /// What its parts and those whom it calls are told.
    #[must_use]
    pub fn context(&self) -> TraceParent {
        self.own
    }

    /// When it began.
    #[must_use]
    pub fn start(&self) -> SystemTime {
        self.start
    }

    /// It ends now, unless it has ended before.
    pub(crate) fn end_now(&mut self) {
        let end = self.start + self.begun.elapsed();
        self.end.get_or_insert(end);
    }
}

impl From<Span> for SpanData {
    fn from(span: Span) -> Self {
        let is_remote = span.kind == SpanKind::Server && span.parent != SpanId::INVALID;
        Self {
            span_context: SpanContext::new(
                span.own.trace_id(),
                span.own.span_id(),
                span.own.flags(),
                false,
                TraceState::NONE,
            ),
            parent_span_id: span.parent,
            parent_span_is_remote: is_remote,
            span_kind: span.kind,
            name: span.name.into(),
            start_time: span.start,
            end_time: span.end.unwrap_or(span.start),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.status,
            instrumentation_scope: InstrumentationScope::builder("lull").build(),
        }
    }
}
