//! How long the API server takes to answer just now, by this process's own calls. Pure.

use std::time::Duration;

/// A call is an eighth of what is known after it: a single slow one says little.
const WEIGHT: u32 = 8;
/// What was longer ago says nothing of now.
const HOLDS: Duration = Duration::from_secs(10);

/// An average of the last calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    took: Duration,
    /// When the last of them was answered; `None` before the first.
    at: Option<Duration>,
}

// === impl Pace ===

impl Pace {
    /// Takes note of a call that was answered at `now` and took so long.
    pub(crate) fn answered(&mut self, took: Duration, now: Duration) {
        self.took = match self.usual(now) {
            Some(usual) => (usual * (WEIGHT - 1) + took) / WEIGHT,
            None => took,
        };
        self.at = Some(now);
    }

    /// How long a call takes at `now`; `None` where none was made lately.
    pub(crate) fn usual(&self, now: Duration) -> Option<Duration> {
        let is_recent = self.at.is_some_and(|at| now.saturating_sub(at) < HOLDS);
        is_recent.then_some(self.took)
    }
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
