//! A histogram of durations whose observation costs two additions.
//!
//! prometheus-client's takes a mutex and compares floats one bucket after the other; this one is
//! on the path of every request.

use std::{
    array, fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Upper bound of the first bucket, microseconds; each next bound is twice as high.
const FIRST_US: u64 = 125;
/// Bounds from 125 us to 524 s: the default timeout of 300 s lies within.
const BOUNDS: usize = 23;
const MICROS_PER_SECOND: f64 = 1e6;

/// Durations by powers of two, at a resolution of one microsecond. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// How many fell between a bound and the one before; the last: above every bound.
    counts: [AtomicU64; BOUNDS + 1],
    /// Wraps after 584,000 years.
    sum_us: AtomicU64,
}

// === impl Histogram ===

impl Histogram {
    /// Counts one duration.
    pub(crate) fn observe(&self, duration: Duration) {
        let us = micros(duration);
        self.inner.counts[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.inner.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// `as_micros` would compute in 128 bits.
fn micros(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(u64::from(duration.subsec_micros()))
}

fn bucket(us: u64) -> usize {
    // Whole multiples of the first bound, rounded up: 0 and 1 belong to bucket 0, 2 to 1, 3 and 4
    // to 2, 5 to 8 to 3.
    let multiples = us.div_ceil(FIRST_US);
    let width = u64::BITS - multiples.saturating_sub(1).leading_zeros();
    (width as usize).min(BOUNDS)
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let buckets: [(f64, u64); BOUNDS + 1] = array::from_fn(|index| {
            let bound = if index < BOUNDS {
                (FIRST_US << index) as f64 / MICROS_PER_SECOND
            } else {
                f64::INFINITY
            };
            (bound, self.inner.counts[index].load(Ordering::Relaxed))
        });
        // Not a counter of its own, so that it always agrees with the buckets.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.inner.sum_us.load(Ordering::Relaxed) as f64 / MICROS_PER_SECOND;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

// === impl Inner ===

impl Default for Inner {
    fn default() -> Self {
        Self {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, metrics::histogram, registry::Registry};
    use proptest::prelude::*;

    use super::*;

    fn encoded(register: impl FnOnce(&mut Registry)) -> String {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for index in 0..BOUNDS {
            let bound = FIRST_US << index;
            assert_eq!(bucket(bound), index, "{bound}");
            assert_eq!(bucket(bound + 1), index + 1, "{bound}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BOUNDS));
    }

    #[test]
    fn the_longest_duration_is_counted() {
        let histogram = Histogram::default();
        histogram.observe(Duration::MAX);
        let text = encoded(|registry| registry.register("x", "x", histogram));
        assert!(text.contains("x_bucket{le=\"524.288\"} 0\n"), "{text}");
        assert!(text.contains("x_bucket{le=\"+Inf\"} 1\n"), "{text}");
    }

    #[test]
    fn threads_lose_nothing() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for ms in 0..1_000 {
                        histogram.observe(Duration::from_millis(ms));
                    }
                });
            }
        });
        let text = encoded(|registry| registry.register("x", "x", histogram.clone()));
        assert!(
            text.contains("x_count 4000\n") && text.contains("x_sum 1998.0\n"),
            "{text}"
        );
    }

    proptest! {
        /// prometheus-client's own histogram with the same bounds prints the same text.
        #[test]
        fn the_text_is_prometheus_clients(
            all_us in proptest::collection::vec((0u64..=30).prop_flat_map(|bits| 0..(1u64 << bits)), 0..50),
        ) {
            let ours = Histogram::default();
            let bounds = histogram::exponential_buckets(0.000_125, 2.0, 23);
            let theirs = histogram::Histogram::new(bounds);
            for us in &all_us {
                ours.observe(Duration::from_micros(*us));
                theirs.observe(*us as f64 / MICROS_PER_SECOND);
            }
            let without_sum = |text: String| -> Vec<String> {
                // Their sum is rounded at each step.
                text.lines().filter(|line| !line.contains("_sum")).map(str::to_owned).collect()
            };
            prop_assert_eq!(
                without_sum(encoded(|registry| registry.register("x", "x", ours))),
                without_sum(encoded(|registry| registry.register("x", "x", theirs)))
            );
        }
    }
}
