//! Pauses that grow.

use std::time::Duration;

/// `first`, doubled so many times, but no more than `most`.
#[must_use]
pub fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest() {
        let (first, most) = (Duration::from_millis(50), Duration::from_secs(1));
        let pauses = [0, 1, 4, 5, u32::MAX].map(|times| doubled(first, times, most).as_millis());
        assert_eq!(pauses, [50, 100, 800, 1_000, 1_000]);
    }
}
