//! How long the API server takes to answer just now, and how often it is called, by this process's own calls. Pure.

use std::time::Duration;

/// A call is an eighth of what is known after it: a single slow one says little.
const WEIGHT: u32 = 8;
/// What was longer ago says nothing of now.
const HOLDS: Duration = Duration::from_secs(10);
/// Without a call for so long there are few, whatever the average says; what is shorter is chance.
const PAUSE: Duration = Duration::from_secs(1);

/// An average of the last calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    took: Duration,
    /// Between two answers.
    gap: Duration,
    /// When the last of them was answered; `None` before the first.
    at: Option<Duration>,
}

// === impl Pace ===

impl Pace {
    /// Takes note of a call that was answered at `now` and took so long.
    pub(crate) fn answered(&mut self, took: Duration, now: Duration) {
        (self.took, self.gap) = match self.known(now) {
            Some(at) => (
                average(self.took, took),
                average(self.gap, now.saturating_sub(at)),
            ),
            None => (took, HOLDS),
        };
        self.at = Some(now);
    }

    /// How long a call takes at `now`; `None` where none was made lately.
    pub(crate) fn usual(&self, now: Duration) -> Option<Duration> {
        self.known(now).map(|_| self.took)
    }

    /// How long it is from one call to the next at `now`.
    pub(crate) fn gap(&self, now: Duration) -> Duration {
        match self.known(now).map(|at| now.saturating_sub(at)) {
            Some(since) if since < PAUSE => self.gap,
            Some(since) => self.gap.max(since),
            None => HOLDS,
        }
    }

    /// When the last call was answered, where that says something of `now`.
    fn known(&self, now: Duration) -> Option<Duration> {
        self.at.filter(|at| now.saturating_sub(*at) < HOLDS)
    }
}

fn average(usual: Duration, last: Duration) -> Duration {
    (usual * (WEIGHT - 1) + last) / WEIGHT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slow_calls_are_the_usual_and_one_is_not() {
        let (ms, now) = (Duration::from_millis, Duration::from_secs(100));
        let mut pace = Pace::default();
        assert_eq!(pace.usual(now), None);
        pace.answered(ms(8), now);
        pace.answered(ms(800), now);
        assert_eq!(pace.usual(now), Some(ms(107)));
        for _ in 0..40 {
            pace.answered(ms(800), now);
        }
        let usual = pace.usual(now).unwrap();
        assert!(usual > ms(780) && usual <= ms(800), "{usual:?}");
    }

    #[test]
    fn calls_are_many_where_one_comes_soon_after_the_other_and_only_as_long() {
        let (ms, begin) = (Duration::from_millis, Duration::from_secs(100));
        let mut pace = Pace::default();
        assert_eq!(pace.gap(begin), HOLDS);
        pace.answered(ms(8), begin);
        assert_eq!(pace.gap(begin), HOLDS, "one alone");
        let mut now = begin;
        for _ in 0..60 {
            now += ms(40);
            pace.answered(ms(8), now);
        }
        let gap = pace.gap(now);
        assert!(gap >= ms(40) && gap < ms(50), "{gap:?}");
        assert_eq!(pace.gap(now + ms(900)), gap, "by chance");
        assert_eq!(pace.gap(now + ms(1_100)), ms(1_100));
        assert_eq!(pace.gap(now + HOLDS), HOLDS);
    }

    #[test]
    fn what_was_long_ago_says_nothing_of_now() {
        let (ms, secs) = (Duration::from_millis, Duration::from_secs);
        let mut pace = Pace::default();
        pace.answered(ms(800), secs(100));
        assert_eq!(pace.usual(secs(109)), Some(ms(800)));
        assert_eq!(pace.usual(secs(110)), None);
        pace.answered(ms(8), secs(111));
        assert_eq!(pace.usual(secs(111)), Some(ms(8)));
    }
}
