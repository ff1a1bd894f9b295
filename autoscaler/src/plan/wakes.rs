//! How long a workload's wakes have taken lately, as coarsely as a plan is made from it.
//!
//! Of those that are kept the longest counts: a single one that takes longer than callers wait loses
//! requests, and of ten values the 95th percentile is the longest, too. It is told by steps, so that it
//! stays what it is from one wake to the next: it rises with a wake that is of a higher step, and falls
//! when as many shorter ones have followed as are kept ([`MAX_WAKES`]).
//!
//! [`MAX_WAKES`]: lull_contract::view::MAX_WAKES

use std::time::Duration;

use lull_contract::view::WakeView;

/// Up to here nothing is said of a wake: less than Istio's connect timeout of 10 s, since what is close
/// to it is longer some day.
const SHORT: Duration = Duration::from_secs(8);
/// Ends of the steps above, seconds.
const STEPS: [u64; 10] = [10, 15, 20, 30, 40, 60, 90, 120, 180, 300];
/// End of the last step; what is longer counts as this.
const LAST_STEP: Duration = Duration::from_secs(600);

/// The step of the longest of `wakes`; `None` where all of them are short.
#[must_use]
pub fn longest_wake(wakes: &[WakeView]) -> Option<Duration> {
    let longest = wakes.iter().filter_map(|wake| wake.waited_ms).max()?;
    let longest = Duration::from_millis(longest);
    if longest <= SHORT {
        return None;
    }
    let mut steps = STEPS.into_iter().map(Duration::from_secs);
    let step = steps.find(|step| longest <= *step);
    Some(step.unwrap_or(LAST_STEP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wake(waited_ms: u64) -> WakeView {
        WakeView {
            waited_ms: Some(waited_ms),
            ..WakeView::default()
        }
    }

    #[test]
    fn the_longest_counts_by_its_step() {
        let rows: [(&[u64], Option<u64>); 8] = [
            (&[], None),
            (&[600, 8_000, 700], None),
            (&[8_001], Some(10)),
            (&[10_000], Some(10)),
            (&[700, 10_001, 9_000], Some(15)),
            (&[59_000], Some(60)),
            (&[600_000], Some(600)),
            (&[3_600_000], Some(600)),
        ];
        for (wakes, step) in rows {
            let views: Vec<WakeView> = wakes.iter().map(|ms| wake(*ms)).collect();
            let expected = step.map(Duration::from_secs);
            assert_eq!(longest_wake(&views), expected, "{wakes:?}");
        }
    }

    #[test]
    fn wakes_that_are_alike_change_nothing_and_short_ones_only_when_no_long_one_is_kept() {
        let mut kept = vec![wake(11_000)];
        let said = longest_wake(&kept);
        for ms in [10_500, 14_900, 2_000, 12_345, 3_000] {
            kept.insert(0, wake(ms));
            assert_eq!(longest_wake(&kept), said, "after {ms} ms");
        }
        kept.retain(|wake| wake.waited_ms <= Some(8_000));
        assert_eq!(longest_wake(&kept), None);
    }

    #[test]
    fn a_slow_answer_is_no_long_wake_and_one_that_was_not_waited_for_says_nothing() {
        let slow_answer = WakeView {
            total_ms: Some(45_000),
            ..wake(900)
        };
        assert_eq!(longest_wake(&[slow_answer, WakeView::default()]), None);
    }
}
