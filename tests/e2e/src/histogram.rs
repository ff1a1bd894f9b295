//! Prometheus histograms of our own pods, summed.

use std::collections::BTreeMap;

use anyhow::Context as _;

/// Counts by upper bound, as Prometheus' text has them: each includes those below.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram(BTreeMap<u64, f64>);

// === impl Histogram ===

impl Histogram {
    /// Adds what `metrics`, Prometheus' text, says of the histogram `name`.
    ///
    /// # Errors
    /// Where it isn't there or can't be read.
    pub fn add(&mut self, name: &str, metrics: &str) -> anyhow::Result<()> {
        let prefix = format!("{name}_bucket{{le=\"");
        let mut found = false;
        for line in metrics.lines() {
            let Some(rest) = line.strip_prefix(&prefix) else {
                continue;
            };
            found = true;
            let parsed = rest.split_once("\"} ").and_then(|(bound, count)| {
                let bound: f64 = bound.parse().ok()?;
                Some((bound, count.trim().parse::<f64>().ok()?))
            });
            let (bound, count) = parsed.with_context(|| format!("can't read {line}"))?;
            // Bounds are never negative, so their bits are in the same order.
            *self.0.entry(bound.to_bits()).or_default() += count;
        }
        found
            .then_some(())
            .with_context(|| format!("no {name} in the metrics"))
    }

    /// Without what was there `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let count = |bound: &u64| before.0.get(bound).copied().unwrap_or(0.0);
        Self(
            self.0
                .iter()
                .map(|(bound, now)| (*bound, now - count(bound)))
                .collect(),
        )
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.0.values().copied().fold(0.0, f64::max)
    }

    /// The smallest bound that `share` of all values (0 to 1) do not exceed; NaN of none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = self.count() * share;
        let enough = |(_, count): &(&u64, &f64)| **count >= wanted && **count > 0.0;
        self.0
            .iter()
            .find(enough)
            .map_or(f64::NAN, |(bound, _)| f64::from_bits(*bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE x histogram\nx_sum 1\nx_bucket{le=\"0.001\"} 1\n\
        x_bucket{le=\"0.01\"} 3\nx_bucket{le=\"+Inf\"} 4\n";

    #[test]
    fn pods_are_summed_and_what_was_before_is_left_out() {
        let (mut before, mut now) = (Histogram::default(), Histogram::default());
        before.add("x", TEXT).unwrap();
        now.add("x", TEXT).unwrap();
        now.add("x", TEXT).unwrap();
        assert_eq!(now.count(), 8.0);
        let since = now.since(&before);
        assert_eq!((since.quantile(0.25), since.quantile(0.5)), (0.001, 0.01));
        assert!(since.quantile(1.0).is_infinite());
    }

    #[test]
    fn what_is_missing_or_strange_is_told() {
        let mut histogram = Histogram::default();
        assert!(histogram.add("y", TEXT).is_err());
        assert!(histogram.add("x", "x_bucket{le=\"a\"} 1\n").is_err());
        assert!(histogram.quantile(0.5).is_nan());
    }
}
