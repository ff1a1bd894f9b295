//! Whether burst capacity is enough for activators to leave: by all that is known, and for a window.

use std::time::Duration;

use lull_contract::Settings;

use super::Verdict;
use crate::kpa::Decision;

/// The memory of one workload's burst capacity.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Burst {
    /// When a decision was made last that was short of it.
    short_at: Option<Duration>,
}

// === impl Burst ===

impl Burst {
    /// A decision was made for so many `ready` pods. Without any, all that is asked for is missing,
    /// which says nothing about the pods that come.
    pub(super) fn note(&mut self, decision: &Decision, ready: u32, now: Duration) {
        if ready > 0 && decision.excess_burst_capacity < 0 {
            self.short_at = Some(now);
        }
    }

    /// Whether it is enough, by a verdict at `now`, and has been for a window: where it is about zero,
    /// chance alone makes it short every few seconds.
    ///
    /// What is not known counts as busy: a silent pod is full. Where none is asked for, no load is
    /// needed to say that there is enough.
    pub(super) fn is_enough(self, settings: &Settings, verdict: &Verdict, now: Duration) -> bool {
        let excess = verdict.decision.excess_burst_capacity;
        if settings.target_burst_capacity == 0 {
            // A decision that is kept may be about what was asked for before.
            return excess >= 0;
        }
        let full = (f64::from(verdict.silent) * settings.total_per_pod()).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a saturating cast of a whole number"
        )]
        let full = full as i64;
        let was_enough = self.short_at.is_none_or(|at| now >= at + settings.window.0);
        verdict.may_shrink && was_enough && excess >= full
    }
}
