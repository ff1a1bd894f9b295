//! Prometheus metrics, all named `lull_autoscaler_*`.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Direction of a written scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Direction {
    /// From zero.
    Wake,
    /// More pods.
    Up,
    /// Fewer pods.
    Down,
    /// To zero.
    Sleep,
}

/// Labels of a scale.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ScaleLabels {
    direction: Direction,
}

/// What the call that wakes, scales and puts to sleep is for.
pub const WRITING_SCALE: &str = "writing /scale";

/// Labels of an API call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    what: Call,
    done: Done,
}

/// What an API call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Call {
    /// Writing `/scale`.
    Scale,
    /// Everything else.
    Other,
}

/// Whether a call did what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Done {
    /// It did.
    Yes,
    /// It was refused, met a newer object, or got no answer.
    No,
}

/// Half a millisecond in steps of a quarter up to 28 s: what a wake waits for us is a few
/// milliseconds, and a wake that waits for an election takes seconds.
const WAKE_BUCKETS: (f64, f64, u16) = (0.000_5, 1.25, 50);

/// All metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    scales: Family<ScaleLabels, Counter>,
    api_calls: Family<CallLabels, Counter>,
    /// From the first one held to the patch of `/scale`, seconds: sent, and answered.
    wake_sent: Histogram,
    wake_written: Histogram,
    /// Workloads with a task of their own.
    pub workloads: Gauge,
    /// Reports of pods or activators that could not be had.
    pub pulls_failed: Counter,
    /// Reports that were refused.
    pub reports_refused: Counter,
    /// Failed evaluations of a workload, mostly API errors.
    pub errors: Counter,
    /// 1 while the newest edit of the cluster-wide settings is not taken.
    pub settings_rejected: Gauge,
}

// === impl Direction ===

impl Direction {
    const ALL: [Self; 4] = [Self::Wake, Self::Up, Self::Down, Self::Sleep];
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new();
        for direction in Direction::ALL {
            // Makes the series: a rate needs its zero.
            let _ = metrics.scales.get_or_create(&ScaleLabels { direction });
        }
        for done in [Done::Yes, Done::No] {
            for what in [Call::Scale, Call::Other] {
                let _ = metrics.api_calls.get_or_create(&CallLabels { what, done });
            }
        }
        let registry = registry.sub_registry_with_prefix("lull_autoscaler");
        registry.register(
            "scales",
            "Replica counts written, by direction",
            metrics.scales.clone(),
        );
        registry.register(
            "api_calls",
            "Calls of the API server for workloads, but for Events and watches",
            metrics.api_calls.clone(),
        );
        registry.register(
            "wake_sent_seconds",
            "Time from the first one held at an activator until the patch of /scale is sent",
            metrics.wake_sent.clone(),
        );
        registry.register(
            "wake_written_seconds",
            "Time from the first one held at an activator until the patch of /scale is answered",
            metrics.wake_written.clone(),
        );
        registry.register(
            "workloads",
            "Workloads that are looked after",
            metrics.workloads.clone(),
        );
        registry.register(
            "pulls_failed",
            "Reports that could not be fetched",
            metrics.pulls_failed.clone(),
        );
        registry.register(
            "reports_refused",
            "Reports that could not be used",
            metrics.reports_refused.clone(),
        );
        registry.register(
            "errors",
            "Evaluations of a workload that failed and are repeated",
            metrics.errors.clone(),
        );
        registry.register(
            "settings_rejected",
            "Whether the newest edit of the cluster-wide settings is wrong and not taken",
            metrics.settings_rejected.clone(),
        );
        metrics
    }

    fn new() -> Self {
        let wakes = || {
            let (start, factor, length) = WAKE_BUCKETS;
            Histogram::new(exponential_buckets(start, factor, length))
        };
        Self {
            scales: Family::default(),
            api_calls: Family::default(),
            wake_sent: wakes(),
            wake_written: wakes(),
            workloads: Gauge::default(),
            pulls_failed: Counter::default(),
            reports_refused: Counter::default(),
            errors: Counter::default(),
            settings_rejected: Gauge::default(),
        }
    }

    /// Counts a wake whose patch was sent and answered so long after the first one was held.
    pub fn woken(&self, sent: Duration, written: Duration) {
        self.wake_sent.observe(sent.as_secs_f64());
        self.wake_written.observe(written.as_secs_f64());
    }

    /// Counts an API call.
    pub fn called(&self, what: &'static str, done: bool) {
        let done = if done { Done::Yes } else { Done::No };
        let what = match what {
            WRITING_SCALE => Call::Scale,
            _ => Call::Other,
        };
        self.api_calls
            .get_or_create(&CallLabels { what, done })
            .inc();
    }

    /// Counts a written scale.
    pub fn scaled(&self, from: u32, to: u32) {
        let direction = match (from, to) {
            (0, _) => Direction::Wake,
            (_, 0) => Direction::Sleep,
            (from, to) if to > from => Direction::Up,
            _ => Direction::Down,
        };
        self.scales.get_or_create(&ScaleLabels { direction }).inc();
    }
}

#[cfg(test)]
mod tests {
    use lull_process::docs;

    use super::*;

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let documented = include_str!("../../docs/metrics.md");
        let differences = docs::registry_differences(documented, "autoscaler", Metrics::register);
        assert_eq!(differences, [""; 0]);
    }
}
