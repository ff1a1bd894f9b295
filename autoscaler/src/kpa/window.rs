//! Averages over the last seconds, from integrals rather than samples.
//!
//! A reporter's counters give the exact integral of load between two pulls. [`Window::record_span`]
//! spreads it over the seconds that it covers, so a pull that comes late fills its gap, and an
//! average is what happened, not what was seen by chance.

use std::{collections::VecDeque, time::Duration};

/// Sums per second of a ring of the last `seconds` seconds.
///
/// Time is a `Duration` since an origin that the owner chooses (the process's start); bucket `k`
/// covers `[k, k+1)` seconds. The window trims itself when time moves on.
#[derive(Debug, Clone)]
pub struct Window {
    seconds: u64,
    /// Bucket number of `buckets[0]`.
    first: u64,
    buckets: VecDeque<f64>,
}

// === impl Window ===

impl Window {
    /// A window of `length`, rounded up to whole seconds, at least one.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
        Self {
            seconds: seconds.max(1),
            first: 0,
            buckets: VecDeque::new(),
        }
    }

    /// Adds `value` to the bucket of `at`; what is older than the window is ignored.
    pub fn record(&mut self, at: Duration, value: f64) {
        let second = at.as_secs();
        let Some(last) = self.last() else {
            self.restart(second, value);
            return;
        };
        if second >= last + self.seconds.max(2) {
            self.restart(second, value);
        } else if second > last {
            self.buckets.extend((last + 1..second).map(|_| 0.0));
            self.buckets.push_back(value);
            self.trim();
        } else if second >= self.first {
            if let Some(bucket) = usize::try_from(second - self.first)
                .ok()
                .and_then(|i| self.buckets.get_mut(i))
            {
                *bucket += value;
            }
        } else if second + self.seconds > last {
            // Late, but inside the window: the window reaches further back than was known.
            for _ in second + 1..self.first {
                self.buckets.push_front(0.0);
            }
            self.buckets.push_front(value);
            self.first = second;
        }
    }

    /// Spreads `amount` evenly over `[from, to)`, bucket by bucket.
    pub fn record_span(&mut self, from: Duration, to: Duration, amount: f64) {
        let length = to.saturating_sub(from).as_secs_f64();
        if length <= 0.0 {
            self.record(to, amount);
            return;
        }
        // What lies before the window belongs to nobody's average.
        let mut start = from.max(to.saturating_sub(Duration::from_secs(self.seconds)));
        while start < to {
            let end = Duration::from_secs(start.as_secs() + 1).min(to);
            self.record(start, amount * (end - start).as_secs_f64() / length);
            start = end;
        }
    }

    /// Average per second over the window that ends at `now`, 6 decimals; 0 where nothing is known.
    ///
    /// Seconds before the first record are unknown and don't count; seconds after the last one do
    /// not dilute: the window is shorter there (Knative's linear aggregation).
    #[must_use]
    pub fn average(&self, now: Duration) -> f64 {
        let (Some(last), now) = (self.last(), now.as_secs()) else {
            return 0.0;
        };
        let oldest = (now + 1).saturating_sub(self.seconds).max(self.first);
        let (skip, end) = (oldest - self.first, last.min(now) + 1);
        let counted = end.saturating_sub(oldest);
        let sum: f64 = self
            .buckets
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
            .take(usize::try_from(counted).unwrap_or(usize::MAX))
            .sum();
        let average = sum / f64::from(u32::try_from(counted.max(1)).unwrap_or(u32::MAX));
        // Float residue must not keep a pod alive.
        (average * 1e6).round() / 1e6
    }

    fn last(&self) -> Option<u64> {
        let len = u64::try_from(self.buckets.len())
            .ok()
            .filter(|len| *len > 0)?;
        Some(self.first + len - 1)
    }

    fn restart(&mut self, second: u64, value: f64) {
        self.buckets.clear();
        self.buckets.push_back(value);
        self.first = second;
    }

    /// Keeps one second more than the window: averages are read for the last *whole* second, while
    /// the newest one is still being written.
    fn trim(&mut self) {
        while u64::try_from(self.buckets.len()).unwrap_or(u64::MAX) > self.seconds + 1 {
            self.buckets.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} != {b}");
    }

    #[test]
    fn the_ring_follows_knatives_vectors() {
        let mut window = Window::new(at(5));
        window.record(at(0), 1.0);
        near(window.average(at(0)), 1.0);
        for (second, value) in [(1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)] {
            window.record(at(second), value);
        }
        near(window.average(at(4)), 3.0);
        near(window.average(at(10)), 0.0);
        window.record(at(6), 91.0);
        near(window.average(at(6)), 20.6);
    }

    #[test]
    fn values_of_one_second_add_up_and_a_whole_gap_restarts() {
        let mut window = Window::new(at(5));
        window.record(at(1), 1.0);
        window.record(at(1), 10.0);
        near(window.average(at(1)), 11.0);
        window.record(at(6), 10.0);
        near(window.average(at(6)), 10.0);
        window.record(at(0), 5.0);
        near(window.average(at(6)), 10.0);
    }

    /// Section 6.1, steps 5 to 11.
    #[test]
    fn late_values_count_where_they_belong_and_old_ones_nowhere() {
        let mut window = Window::new(at(5));
        for (second, value) in [(2, 3.0), (3, 4.0), (4, 5.0), (6, 91.0)] {
            window.record(at(second), value);
        }
        near(window.average(at(6)), 20.6);
        window.record(at(9), 0.0);
        window.record(at(6), 1893.0);
        near(window.average(at(9)), 1984.0 / 5.0);
        window.record(at(10), 5.0);
        near(window.average(at(10)), (1984.0 + 5.0) / 5.0);
        window.record(at(3), 1e6);
        window.record(at(5), 1e6);
        near(window.average(at(10)), (1984.0 + 5.0) / 5.0);
        window.record(at(15), 10.0);
        near(window.average(at(15)), 10.0);
    }

    #[test]
    fn residue_of_floats_is_nothing() {
        let mut window = Window::new(at(5));
        window.record(at(0), 3.6e-17);
        assert!(window.average(at(0)) == 0.0);
    }

    #[test]
    fn a_late_span_fills_its_gap_exactly() {
        let mut window = Window::new(at(10));
        // Two requests in flight for four seconds, heard of once.
        window.record_span(
            Duration::from_millis(500),
            Duration::from_millis(4_500),
            8.0,
        );
        near(window.buckets.iter().sum::<f64>(), 8.0);
        near(window.buckets[0], 1.0);
        near(window.buckets[1], 2.0);
        near(window.buckets[4], 1.0);
    }

    #[test]
    fn the_newest_second_does_not_hide_the_whole_one_before_it() {
        // A panic window of one second, pulled at x.05: the newest bucket is nearly empty.
        let mut window = Window::new(at(1));
        for second in 1..=5 {
            let end = Duration::from_millis(second * 1000 + 50);
            window.record_span(end - at(1), end, 200.0);
            if second > 1 {
                near(window.average(end - at(1)), 200.0);
            }
        }
    }

    proptest! {
        #[test]
        fn a_span_loses_nothing_inside_the_window(from in 0u64..5_000, length in 1u64..9_000, amount in 0.0f64..1e6) {
            let mut window = Window::new(at(10));
            window.record_span(
                Duration::from_millis(from),
                Duration::from_millis(from + length),
                amount,
            );
            let sum: f64 = window.buckets.iter().sum();
            prop_assert!((sum - amount).abs() <= amount * 1e-9 + 1e-9);
        }
    }
}
