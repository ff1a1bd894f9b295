//! Prometheus metrics; labels are closed enums.

use std::{sync::atomic::AtomicU64, time::Duration};

use http::StatusCode;
use lull_contract::headers::ErrorSource;
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

use crate::{
    budget::Amount,
    workload::{Phase, Wake},
};

/// 1 ms doubled up to about 9 minutes: the longest hold by default, 300 s, lies within.
const DURATION_BUCKETS: (f64, f64, u16) = (0.001, 2.0, 20);

/// Everything that we count. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<ClassLabel, Counter>,
    rejected: Family<ReasonLabel, Counter>,
    connections: Family<KindLabel, Counter>,
    hold: Histogram,
    wake: Family<PhaseLabel, Histogram, fn() -> Histogram>,
    /// Ports that could not be opened, each try.
    pub(crate) bind_failures: Counter,
    /// Connects to pods that failed.
    pub(crate) connect_failures: Counter,
    /// TLS connections and requests that were taken to a pod once more, each time.
    pub(crate) redials: Counter,
    /// TLS and TCP connections that are passed on.
    pub(crate) splices: Gauge<u64, AtomicU64>,
    /// Set when somebody asks.
    pub(crate) held: Gauge<u64, AtomicU64>,
    /// Set when somebody asks.
    pub(crate) held_bytes: Gauge<u64, AtomicU64>,
    /// What may be held by all workloads together; set once.
    held_limit: Gauge<u64, AtomicU64>,
    held_bytes_limit: Gauge<u64, AtomicU64>,
    /// Set when somebody asks.
    pub(crate) listeners: Gauge<u64, AtomicU64>,
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

/// Why we answered in the pod's place, or closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// Too many are held.
    HoldFull,
    /// No pod could take it in time.
    HoldTimeout,
    /// What neither wakes nor counts, while no pod is there.
    Asleep,
    /// The pod broke after the request had been sent.
    PodError,
    /// The connection said nothing, or not enough to know what it carries.
    Silent,
    /// The connection carries nothing that we know.
    Garbage,
    /// Its TLS ClientHello was broken, too long or too slow.
    BadHello,
    /// Its TLS ClientHello asked for another namespace.
    WrongSni,
    /// The head of a request had begun and did not end in time.
    SlowHead,
    /// We failed.
    Internal,
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
struct PhaseLabel {
    phase: Phase,
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
        metrics.start_at_zero();
        let own = registry.sub_registry_with_prefix("lull_activator");
        metrics.name_held(own);
        own.register(
            "requests",
            "HTTP requests that ended, by class of the status; none = the caller left before",
            metrics.requests.clone(),
        );
        own.register(
            "rejected",
            "Requests and connections that no pod answered, by reason",
            metrics.rejected.clone(),
        );
        own.register(
            "connections",
            "Connections, by what they carry",
            metrics.connections.clone(),
        );
        own.register(
            "hold_seconds",
            "Time that requests and connections were held until a pod could take them",
            metrics.hold.clone(),
        );
        own.register(
            "wake_seconds",
            "Time from the first one held without a pod to each phase of the wake",
            metrics.wake.clone(),
        );
        own.register(
            "bind_failures",
            "Tries to open a workload's port that failed",
            metrics.bind_failures.clone(),
        );
        own.register(
            "connect_failures",
            "Connects to pods that failed",
            metrics.connect_failures.clone(),
        );
        own.register(
            "redials",
            "TLS ClientHellos and requests that a pod did not answer and that went to a pod once more",
            metrics.redials.clone(),
        );
        own.register(
            "splices",
            "TLS and TCP connections whose bytes are passed between caller and pod",
            metrics.splices.clone(),
        );
        own.register(
            "listeners",
            "Ports open for workloads",
            metrics.listeners.clone(),
        );
        metrics
    }

    fn name_held(&self, own: &mut Registry) {
        for (name, help, gauge) in [
            ("held", "Requests and connections held", &self.held),
            ("held_limit", "How many may be held", &self.held_limit),
            ("held_bytes", "Memory of what is held", &self.held_bytes),
            (
                "held_bytes_limit",
                "Memory that they may take",
                &self.held_bytes_limit,
            ),
        ] {
            own.register(name, help, gauge.clone());
        }
    }

    fn new() -> Self {
        Self {
            requests: Family::default(),
            rejected: Family::default(),
            connections: Family::default(),
            hold: durations(),
            wake: Family::new_with_constructor(durations),
            bind_failures: Counter::default(),
            connect_failures: Counter::default(),
            redials: Counter::default(),
            splices: Gauge::default(),
            held: Gauge::default(),
            held_bytes: Gauge::default(),
            held_limit: Gauge::default(),
            held_bytes_limit: Gauge::default(),
            listeners: Gauge::default(),
        }
    }

    /// Makes every series: a rate needs its zero.
    fn start_at_zero(&self) {
        for code_class in CodeClass::ALL {
            let _ = self.requests.get_or_create(&ClassLabel { code_class });
        }
        for reason in Reason::ALL {
            let _ = self.rejected.get_or_create(&ReasonLabel { reason });
        }
        for phase in Phase::ALL {
            let _ = self.wake.get_or_create(&PhaseLabel { phase });
        }
        for kind in Kind::ALL {
            let _ = self.connections.get_or_create(&KindLabel { kind });
        }
    }

    /// Shows what may be held.
    pub(crate) fn may_hold(&self, most: Amount) {
        self.held_limit.set(most.count as u64);
        self.held_bytes_limit.set(most.bytes as u64);
    }

    pub(crate) fn ended(&self, code_class: CodeClass) {
        self.requests
            .get_or_create(&ClassLabel { code_class })
            .inc();
    }

    pub(crate) fn rejected(&self, reason: Reason) {
        self.rejected.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn connected(&self, kind: Kind) {
        self.connections.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn woken(&self, wake: &Wake) {
        for (phase, took) in wake.phases() {
            let histogram = self.wake.get_or_create(&PhaseLabel { phase });
            histogram.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn held_for(&self, time: Duration) {
        self.hold.observe(time.as_secs_f64());
    }
}

fn durations() -> Histogram {
    let (start, factor, length) = DURATION_BUCKETS;
    Histogram::new(exponential_buckets(start, factor, length))
}

// === impl CodeClass ===

impl CodeClass {
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
    const ALL: [Self; 10] = [
        Self::HoldFull,
        Self::HoldTimeout,
        Self::Asleep,
        Self::PodError,
        Self::Silent,
        Self::Garbage,
        Self::BadHello,
        Self::WrongSni,
        Self::SlowHead,
        Self::Internal,
    ];

    /// As the label and the `lull-reason` header say it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::HoldFull => "hold-full",
            Self::HoldTimeout => "hold-timeout",
            Self::Asleep => "asleep",
            Self::PodError => "pod-error",
            Self::Silent => "silent",
            Self::Garbage => "garbage",
            Self::BadHello => "bad-hello",
            Self::WrongSni => "wrong-sni",
            Self::SlowHead => "slow-head",
            Self::Internal => "internal",
        }
    }

    /// Who caused it.
    pub(crate) const fn source(self) -> ErrorSource {
        match self {
            Self::HoldTimeout | Self::PodError => ErrorSource::App,
            Self::HoldFull | Self::Asleep | Self::Internal => ErrorSource::Activator,
            Self::Silent | Self::Garbage | Self::BadHello | Self::WrongSni | Self::SlowHead => {
                ErrorSource::Client
            }
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

// === impl Phase ===

impl EncodeLabelValue for Phase {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 4] = [Self::Http1, Self::H2c, Self::Tls, Self::Tcp];
}

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

#[cfg(test)]
mod tests {
    use lull_process::docs;

    use super::*;

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let documented = include_str!("../../docs/metrics.md");
        let differences = docs::registry_differences(documented, "activator", Metrics::register);
        assert_eq!(differences, [""; 0]);
    }
}
