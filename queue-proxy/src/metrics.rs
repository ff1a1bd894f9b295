//! Prometheus metrics; labels are closed enums.

use std::{sync::atomic::AtomicU64, time::Duration};

use http::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// 1 ms doubled up to about 9 minutes: the default timeout of 300 s lies within.
const DURATION_BUCKETS: (f64, f64, u16) = (0.001, 2.0, 20);

/// Everything that we count. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<ClassLabel, Counter>,
    rejected: Family<ReasonLabel, Counter>,
    connections: Family<KindLabel, Counter>,
    duration: Histogram,
    queue_wait: Histogram,
    /// Set when somebody asks.
    pub(crate) in_flight: Gauge<u64, AtomicU64>,
    /// Set when somebody asks.
    pub(crate) queued: Gauge<u64, AtomicU64>,
    /// Set when somebody asks.
    pub(crate) app_up: Gauge<u64, AtomicU64>,
}

/// Class of a response's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CodeClass {
    /// 101 Switching Protocols.
    Informational,
    /// 2xx.
    Success,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx and beyond.
    ServerError,
    /// The caller left before there was an answer.
    None,
}

/// Why we answered in the app's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// Slots and waiting places were taken.
    QueueFull,
    /// The answer did not start, or end, in time.
    Timeout,
    /// The app does not listen.
    AppRefused,
    /// The app can't be dialled.
    AppUnreachable,
    /// The app closed the connection or spoke something else.
    AppFailed,
    /// The request makes no sense here.
    BadRequest,
}

/// What a connection turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// HTTP/1.
    Http1,
    /// HTTP/2 by prior knowledge.
    H2c,
    /// TLS, passed as bytes.
    Tls,
    /// Bytes on a port declared TCP.
    Tcp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    code_class: CodeClass,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: Kind,
}

// === impl Metrics ===

impl Metrics {
    /// Names everything in `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new();
        let own = registry.sub_registry_with_prefix("lull_queue_proxy");
        own.register(
            "requests",
            "Requests that ended, by class of the status; none = the caller left before",
            metrics.requests.clone(),
        );
        own.register(
            "rejected",
            "Requests that the app did not answer, by reason",
            metrics.rejected.clone(),
        );
        own.register(
            "connections",
            "Connections accepted, by what they carry",
            metrics.connections.clone(),
        );
        own.register(
            "request_duration_seconds",
            "Time from a request's arrival to the end of its answer",
            metrics.duration.clone(),
        );
        own.register(
            "queue_wait_seconds",
            "Time that requests waited for a slot",
            metrics.queue_wait.clone(),
        );
        own.register(
            "in_flight",
            "Requests and byte streams in flight, waiting ones included",
            metrics.in_flight.clone(),
        );
        own.register(
            "queued",
            "Requests that wait for a slot",
            metrics.queued.clone(),
        );
        own.register(
            "app_up",
            "1 while the app answers its readiness checks",
            metrics.app_up.clone(),
        );
        metrics
    }

    fn new() -> Self {
        let (start, factor, length) = DURATION_BUCKETS;
        let histogram = || Histogram::new(exponential_buckets(start, factor, length));
        Self {
            requests: Family::default(),
            rejected: Family::default(),
            connections: Family::default(),
            duration: histogram(),
            queue_wait: histogram(),
            in_flight: Gauge::default(),
            queued: Gauge::default(),
            app_up: Gauge::default(),
        }
    }

    pub(crate) fn ended(&self, code_class: CodeClass, lasted: Duration) {
        self.requests
            .get_or_create(&ClassLabel { code_class })
            .inc();
        self.duration.observe(lasted.as_secs_f64());
    }

    pub(crate) fn rejected(&self, reason: Reason) {
        self.rejected.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn connected(&self, kind: Kind) {
        self.connections.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.queue_wait.observe(time.as_secs_f64());
    }
}

// === impl CodeClass ===

impl CodeClass {
    pub(crate) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            100..200 => Self::Informational,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

impl EncodeLabelValue for CodeClass {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::None => "none",
        };
        text.encode(encoder)
    }
}

// === impl Reason ===

impl Reason {
    /// As the label and the `lull-reason` header say it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::Timeout => "timeout",
            Self::AppRefused => "app-refused",
            Self::AppUnreachable => "app-unreachable",
            Self::AppFailed => "app-failed",
            Self::BadRequest => "bad-request",
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

// === impl Kind ===

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Http1 => "http1",
            Self::H2c => "h2c",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        };
        text.encode(encoder)
    }
}
