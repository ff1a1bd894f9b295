//! What the webhook counts.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Seconds; an admission is microseconds of work on objects of some kilobytes.
const BUCKETS: [f64; 8] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25];

/// The webhook's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    admissions: Family<AdmissionLabels, Counter>,
    duration: Histogram,
    /// 1 while the newest edit of the cluster-wide settings is not taken.
    pub settings_rejected: Gauge,
    /// When the served certificate ends, seconds since 1970; 0 while none is served.
    pub certificate_end: Gauge,
}

/// How an admission request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Changed; the template has the sidecar.
    Injected,
    /// Changed; the template has no sidecar.
    Uninjected,
    /// Changed; a Service is as its mode needs it, or the user's again.
    Kept,
    /// Admitted as it came.
    Unchanged,
    /// Refused, with reasons for the user.
    Refused,
    /// The request itself was not understood.
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdmissionLabels {
    result: Outcome,
}

// === impl Outcome ===

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Injected,
        Self::Uninjected,
        Self::Kept,
        Self::Unchanged,
        Self::Refused,
        Self::Error,
    ];
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let value = match self {
            Self::Injected => "injected",
            Self::Uninjected => "uninjected",
            Self::Kept => "kept",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Error => "error",
        };
        EncodeLabelValue::encode(&value, encoder)
    }
}

// === impl Metrics ===

impl Metrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("lull_webhook");
        let metrics = Self {
            admissions: Family::default(),
            duration: Histogram::new(BUCKETS),
            settings_rejected: Gauge::default(),
            certificate_end: Gauge::default(),
        };
        for result in Outcome::ALL {
            // Makes the series: a rate needs its zero.
            let _ = metrics
                .admissions
                .get_or_create(&AdmissionLabels { result });
        }
        registry.register(
            "admissions",
            "Admission requests by how they ended",
            metrics.admissions.clone(),
        );
        registry.register(
            "admission_duration_seconds",
            "Time to decide about an admission request",
            metrics.duration.clone(),
        );
        registry.register(
            "settings_rejected",
            "Whether the newest edit of the cluster-wide settings is wrong or deletes them and is not taken",
            metrics.settings_rejected.clone(),
        );
        registry.register(
            "certificate_end_timestamp_seconds",
            "When the served certificate ends, in seconds since 1970; 0 while none is served",
            metrics.certificate_end.clone(),
        );
        metrics
    }

    /// Counts one admission request.
    pub fn admitted(&self, result: Outcome, took: Duration) {
        let labels = AdmissionLabels { result };
        self.admissions.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use lull_process::docs;

    use super::*;

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let documented = include_str!("../../docs/metrics.md");
        let differences = docs::registry_differences(documented, "webhook", Metrics::register);
        assert_eq!(differences, [""; 0]);
    }
}
