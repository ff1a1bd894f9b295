//! Prometheus metrics, all named `lull_autoscaler_*`.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
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

/// All metrics.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    scales: Family<ScaleLabels, Counter>,
    /// Workloads with a task of their own.
    pub workloads: Gauge,
    /// Reports of pods or activators that could not be had.
    pub pulls_failed: Counter,
    /// Reports that were refused.
    pub reports_refused: Counter,
    /// Failed evaluations of a workload, mostly API errors.
    pub errors: Counter,
}

// === impl Direction ===

impl Direction {
    const ALL: [Self; 4] = [Self::Wake, Self::Up, Self::Down, Self::Sleep];
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for direction in Direction::ALL {
            // Makes the series: a rate needs its zero.
            let _ = metrics.scales.get_or_create(&ScaleLabels { direction });
        }
        let registry = registry.sub_registry_with_prefix("lull_autoscaler");
        registry.register(
            "scales",
            "Replica counts written, by direction",
            metrics.scales.clone(),
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
        metrics
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
