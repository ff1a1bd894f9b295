//! Counts of everything that passes: exact integrals, not samples.

use std::{sync::Arc, time::Duration};

use lull_contract::report::Load;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How often the last requests are looked at.
const IDLE_PAUSE: Duration = Duration::from_millis(5);

/// Requests in flight and their integral over time; the caller says what time it is.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    load: Load,
    /// When `load` was brought up to date last.
    at_us: u64,
}

/// The traffic of this pod. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    start: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    meter: Meter,
    /// Everything in flight, also what does not count as traffic.
    active: u64,
    last_arrival: Option<Instant>,
}

/// One request or byte stream in flight; dropping it says that it has ended.
#[derive(Debug)]
#[must_use = "dropping the ticket ends the request"]
pub(crate) struct Ticket {
    inner: Arc<Inner>,
    counted: bool,
}

/// What a drain wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Requests and byte streams in flight, also those that do not count as traffic.
    pub(crate) active: u64,
    /// Arrival of the last request that counts.
    pub(crate) last_arrival: Option<Instant>,
}

// === impl Meter ===

impl Meter {
    /// A request arrives at `now_us`, microseconds on any clock that does not go back.
    pub(crate) fn enter(&mut self, now_us: u64) {
        self.advance(now_us);
        self.load.in_flight += 1;
        self.load.requests += 1;
    }

    /// A request ends at `now_us`.
    pub(crate) fn leave(&mut self, now_us: u64) {
        self.advance(now_us);
        self.load.in_flight = self.load.in_flight.saturating_sub(1);
    }

    /// The load up to `now_us`.
    pub(crate) fn read(&mut self, now_us: u64) -> Load {
        self.advance(now_us);
        self.load
    }

    fn advance(&mut self, now_us: u64) {
        // Two threads may ask in another order than they read their clocks: time never goes back.
        let elapsed = now_us.saturating_sub(self.at_us);
        self.at_us = self.at_us.max(now_us);
        let added = self.load.in_flight.saturating_mul(elapsed);
        self.load.in_flight_us = self.load.in_flight_us.saturating_add(added);
    }
}

// === impl Traffic ===

impl Traffic {
    /// Starts the clock.
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                start: Instant::now(),
                counts: Mutex::default(),
            }),
        }
    }

    /// Something arrives at `now`; `counted` = it is traffic.
    pub(crate) fn enter(&self, now: Instant, counted: bool) -> Ticket {
        let mut counts = self.inner.counts.lock();
        counts.active += 1;
        if counted {
            counts.meter.enter(self.inner.micros(now));
            counts.last_arrival = Some(now);
        }
        Ticket {
            inner: Arc::clone(&self.inner),
            counted,
        }
    }

    /// The load until now, and microseconds since the start.
    pub(crate) fn load(&self) -> (Load, u64) {
        let now_us = self.inner.micros(Instant::now());
        (self.inner.counts.lock().meter.read(now_us), now_us)
    }

    /// Microseconds from the start until `at`.
    pub(crate) fn micros(&self, at: Instant) -> u64 {
        self.inner.micros(at)
    }

    /// Returns when nothing is in flight.
    pub(crate) async fn idle(&self) {
        while self.activity().active > 0 {
            tokio::time::sleep(IDLE_PAUSE).await;
        }
    }

    /// What a drain wants to know.
    pub(crate) fn activity(&self) -> Activity {
        let counts = self.inner.counts.lock();
        Activity {
            active: counts.active,
            last_arrival: counts.last_arrival,
        }
    }
}

// === impl Inner ===

impl Inner {
    fn micros(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.start))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

// === impl Ticket ===

impl Ticket {
    /// Whether it is traffic.
    pub(crate) fn is_counted(&self) -> bool {
        self.counted
    }

    /// It turns out to be traffic, from `now` on; whether that is news. Nothing changes where it was.
    pub(crate) fn count(&mut self, now: Instant) -> bool {
        if self.counted {
            return false;
        }
        self.counted = true;
        let mut counts = self.inner.counts.lock();
        counts.meter.enter(self.inner.micros(now));
        counts.last_arrival = Some(now);
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now_us = self.inner.micros(Instant::now());
        let mut counts = self.inner.counts.lock();
        counts.active = counts.active.saturating_sub(1);
        if self.counted {
            counts.meter.leave(now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Average concurrency between two readings, as the autoscaler takes it.
    fn average(before: (Load, u64), after: (Load, u64)) -> f64 {
        (after.0.in_flight_us - before.0.in_flight_us) as f64 / (after.1 - before.1) as f64
    }

    /// Knative's vectors (research/kpa-vectors.md 6.4).
    #[test]
    fn two_requests_of_half_a_second_average_one() {
        let mut meter = Meter::default();
        for begin in [0, SECOND / 2] {
            meter.enter(begin);
            meter.leave(begin + SECOND / 2);
        }
        let load = meter.read(SECOND);
        assert_eq!((load.in_flight_us, load.requests), (SECOND, 2));
    }

    #[test]
    fn a_request_over_several_windows_counts_one_in_each_and_arrives_once() {
        let mut meter = Meter::default();
        meter.enter(0);
        let mut before = (Load::default(), 0);
        for window in 1..=3 {
            let after = (meter.read(window * SECOND), window * SECOND);
            assert!((average(before, after) - 1.0).abs() < f64::EPSILON);
            let arrived = after.0.requests - before.0.requests;
            assert_eq!(arrived, u64::from(window == 1));
            before = after;
        }
    }

    #[test]
    fn two_that_overlap_all_the_time_average_two() {
        let mut meter = Meter::default();
        meter.enter(0);
        meter.enter(0);
        assert_eq!(meter.read(SECOND).in_flight_us, 2 * SECOND);
    }

    #[test]
    fn a_clock_reading_that_comes_late_takes_nothing_back() {
        let mut meter = Meter::default();
        meter.enter(10);
        assert_eq!(meter.read(20).in_flight_us, 10);
        assert_eq!(meter.read(15).in_flight_us, 10);
        assert_eq!(meter.read(20).in_flight_us, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_count_is_active_but_no_traffic() {
        let traffic = Traffic::new();
        let probe = traffic.enter(Instant::now(), false);
        let request = traffic.enter(Instant::now(), true);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(traffic.activity().active, 2);
        let (load, now_us) = traffic.load();
        assert_eq!((load.in_flight, load.requests), (1, 1));
        assert_eq!((load.in_flight_us, now_us), (SECOND, SECOND));
        drop((probe, request));
        assert_eq!(traffic.activity().active, 0);
        assert_eq!(traffic.load().0.in_flight, 0);
    }

    proptest! {
        /// The integral is the sum of the requests' own durations, however they overlap.
        #[test]
        fn the_integral_is_the_sum_of_durations(
            requests in proptest::collection::vec((0u64..10_000, 0u64..10_000), 0..50),
        ) {
            let mut events: Vec<(u64, bool)> = Vec::new();
            for (begin, length) in &requests {
                events.extend([(*begin, true), (begin + length, false)]);
            }
            // At one instant arrivals come first, so that nothing leaves before it came.
            events.sort_by_key(|(at, arrives)| (*at, !arrives));
            let mut meter = Meter::default();
            for (at, arrives) in events {
                if arrives { meter.enter(at) } else { meter.leave(at) }
            }
            let load = meter.read(30_000);
            prop_assert_eq!(load.in_flight, 0);
            prop_assert_eq!(load.in_flight_us, requests.iter().map(|(_, length)| length).sum::<u64>());
            prop_assert_eq!(load.requests, requests.len() as u64);
        }
    }
}
