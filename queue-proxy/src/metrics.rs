//! Prometheus metrics; labels are closed enums.
//!
//! Every series is there from the start: a rate needs its zero, and a request finds its counter by
//! an index rather than in a map behind a lock.

use std::{fmt, hash::Hash, sync::atomic::AtomicU64, time::Duration};

use http::StatusCode;
use lull_contract::headers::ErrorSource;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::histogram::Histogram;

/// Everything that we count. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// In the order of [`CodeClass::ALL`].
    requests: [Counter; CodeClass::ALL.len()],
    /// In the order of [`Reason::ALL`].
    rejected: [Counter; Reason::ALL.len()],
    /// In the order of [`Kind::ALL`].
    connections: [Counter; Kind::ALL.len()],
    duration: Histogram,
    queue_wait: Histogram,
    /// Lines of the access log that could not be written.
    pub(crate) access_log_dropped: Counter,
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
    /// The caller left before there was an answer, or its stream was refused as the app had refused it.
    None,
}

/// Why we answered in the app's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// Slots and waiting places were taken.
    QueueFull,
    /// No slot became free in time.
    QueueTimeout,
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
struct RejectedLabels {
    reason: Reason,
    source: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: Kind,
}

// === impl Metrics ===

impl Metrics {
    /// Names everything in `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let own = registry.sub_registry_with_prefix("lull_queue_proxy");
        let metrics = Self {
            requests: counters(
                own,
                "requests",
                "Requests that ended, by class of the status; none = the caller left before",
                CodeClass::ALL.map(|code_class| ClassLabel { code_class }),
            ),
            rejected: counters(
                own,
                "rejected",
                "Requests that the app did not answer, by reason and by who caused it",
                Reason::ALL.map(|reason| RejectedLabels {
                    reason,
                    source: reason.source().as_str(),
                }),
            ),
            connections: counters(
                own,
                "connections",
                "Connections accepted, by what they carry",
                Kind::ALL.map(|kind| KindLabel { kind }),
            ),
            duration: Histogram::default(),
            queue_wait: Histogram::default(),
            access_log_dropped: Counter::default(),
            in_flight: Gauge::default(),
            queued: Gauge::default(),
            app_up: Gauge::default(),
        };
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
            "access_log_dropped",
            "Lines of the access log that could not be written",
            metrics.access_log_dropped.clone(),
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

    pub(crate) fn ended(&self, code_class: CodeClass, lasted: Duration) {
        self.requests[code_class as usize].inc();
        self.duration.observe(lasted);
    }

    pub(crate) fn rejected(&self, reason: Reason) {
        self.rejected[reason as usize].inc();
    }

    pub(crate) fn connected(&self, kind: Kind) {
        self.connections[kind as usize].inc();
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.queue_wait.observe(time);
    }
}

/// One counter for each of `labels`, which are all that there will be.
fn counters<L, const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    labels: [L; N],
) -> [Counter; N]
where
    L: EncodeLabelSet + Clone + fmt::Debug + Eq + Hash + Send + Sync + 'static,
{
    let family = Family::<L, Counter>::default();
    registry.register(name, help, family.clone());
    labels.map(|label| family.get_or_create_owned(&label))
}

// === impl CodeClass ===

impl CodeClass {
    /// In the order of their declaration.
    const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::None,
    ];

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
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
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
    /// In the order of their declaration.
    const ALL: [Self; 7] = [
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Timeout,
        Self::AppRefused,
        Self::AppUnreachable,
        Self::AppFailed,
        Self::BadRequest,
    ];

    /// As the label and the `lull-reason` header say it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Timeout => "timeout",
            Self::AppRefused => "app-refused",
            Self::AppUnreachable => "app-unreachable",
            Self::AppFailed => "app-failed",
            Self::BadRequest => "bad-request",
        }
    }

    /// Who caused it.
    ///
    /// A timeout is the app's from the moment at which it was given the request, also where the
    /// caller was slow to send or to read: we can't see which of them waited for the other.
    pub(crate) const fn source(self) -> ErrorSource {
        match self {
            Self::QueueFull | Self::QueueTimeout => ErrorSource::QueueProxy,
            Self::Timeout | Self::AppRefused | Self::AppUnreachable | Self::AppFailed => {
                ErrorSource::App
            }
            Self::BadRequest => ErrorSource::Client,
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.as_str().encode(encoder)
    }
}

// === impl Kind ===

impl Kind {
    /// In the order of their declaration.
    const ALL: [Self; 4] = [Self::Http1, Self::H2c, Self::Tls, Self::Tcp];

    /// As the label and the access log say it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::H2c => "h2c",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.as_str().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_order<T: Copy + PartialEq + fmt::Debug>(all: &[T], index: impl Fn(T) -> usize) {
        let indices: Vec<usize> = all.iter().map(|one| index(*one)).collect();
        assert_eq!(indices, (0..all.len()).collect::<Vec<_>>(), "{all:?}");
    }

    #[test]
    fn labels_are_listed_in_the_order_by_which_counters_are_found() {
        in_order(&CodeClass::ALL, |class| class as usize);
        in_order(&Reason::ALL, |reason| reason as usize);
        in_order(&Kind::ALL, |kind| kind as usize);
    }

    #[test]
    fn every_series_is_there_from_the_start_and_counts_what_it_says() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.rejected(Reason::AppFailed);
        metrics.connected(Kind::Tcp);
        metrics.ended(CodeClass::None, Duration::from_millis(3));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"requests_total{code_class="2xx"} 0"#,
            r#"requests_total{code_class="none"} 1"#,
            r#"rejected_total{reason="app-failed",source="app"} 1"#,
            r#"rejected_total{reason="queue-full",source="queue-proxy"} 0"#,
            r#"connections_total{kind="tcp"} 1"#,
            r#"request_duration_seconds_bucket{le="0.004"} 1"#,
            r#"request_duration_seconds_bucket{le="0.002"} 0"#,
        ] {
            let line = format!("lull_queue_proxy_{line}\n");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }
}
