//! How long the held have recently waited; pure.

use std::time::Duration;

/// A mean in which the newest wait counts for one eighth, as TCP's of its round trips (RFC 6298,
/// 2.3): one odd wake does not change what the next callers are told.
#[derive(Debug, Default)]
pub(super) struct RecentWait {
    /// `None` = nobody has waited.
    mean: Option<Duration>,
}

// === impl RecentWait ===

impl RecentWait {
    /// Somebody waited so long, and was served.
    pub(super) fn note(&mut self, waited: Duration) {
        self.mean = Some(self.mean.map_or(waited, |mean| (mean * 7 + waited) / 8));
    }

    /// After how many seconds a caller that can't be held may well be served: at least 1.
    pub(super) fn retry_after(&self) -> u64 {
        let mean = self.mean.unwrap_or_default();
        let begun = u64::from(mean.subsec_nanos() > 0);
        (mean.as_secs() + begun).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_told_whole_seconds_and_never_none() {
        for (waited_ms, seconds) in [(0, 1), (600, 1), (1_000, 1), (1_001, 2), (9_500, 10)] {
            let mut recent = RecentWait::default();
            assert_eq!(recent.retry_after(), 1, "nobody has waited");
            recent.note(Duration::from_millis(waited_ms));
            assert_eq!(recent.retry_after(), seconds, "{waited_ms} ms");
        }
    }

    #[test]
    fn an_odd_wake_counts_for_an_eighth_and_a_new_pace_is_learned() {
        let mut recent = RecentWait::default();
        recent.note(Duration::from_secs(2));
        recent.note(Duration::from_secs(18));
        assert_eq!(recent.retry_after(), 4);
        for _ in 0..40 {
            recent.note(Duration::from_secs(18));
        }
        assert_eq!(recent.retry_after(), 18);
    }
}
