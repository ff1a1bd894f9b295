//! Chance that a seed repeats.

use std::time::Duration;

use anyhow::Context as _;

/// Random numbers: SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators,
/// 2014), which needs no more than one number to begin with.
#[derive(Debug, Clone)]
pub struct Chance(u64);

// === impl Chance ===

impl Chance {
    /// The numbers that `seed` stands for.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `E2E_SEED`, or one that the clock gives.
    ///
    /// # Errors
    /// Where the variable is no number.
    pub fn seed_from_env() -> anyhow::Result<u64> {
        match std::env::var("E2E_SEED")
            .ok()
            .filter(|text| !text.is_empty())
        {
            Some(text) => text
                .parse::<u64>()
                .with_context(|| format!("E2E_SEED={text:?}: must be a number of up to 64 bits")),
            None => Ok(sample_app::unix_us()),
        }
    }

    /// Other numbers: what takes from them doesn't depend on who else takes how many from these.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.number())
    }

    /// One of the numbers below `count`, and 0 where there are none.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let number = self.number().checked_rem(count).unwrap_or_default();
        // It is below a usize.
        usize::try_from(number).unwrap_or_default()
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// No longer than `longest`; to the millisecond.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let millis = usize::try_from(longest.as_millis()).unwrap_or(usize::MAX);
        let millis = self.below(millis.saturating_add(1));
        Duration::from_millis(u64::try_from(millis).unwrap_or_default())
    }

    /// One of `items`; `None` of none.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Puts `items` in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_what_it_gave() {
        let drawn = |seed| {
            let mut chance = Chance::new(seed);
            let mut items: Vec<u32> = (0..20).collect();
            chance.shuffle(&mut items);
            (items, chance.split().below(1_000), chance.below(1_000))
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        let mut sorted = drawn(7).0;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<u32>>());
    }

    #[test]
    fn what_is_drawn_is_within_its_bounds() {
        let mut chance = Chance::new(1);
        let longest = Duration::from_millis(5);
        let all: std::collections::BTreeSet<Duration> =
            (0..200).map(|_| chance.up_to(longest)).collect();
        assert!(all.len() == 6 && all.contains(&longest), "{all:?}");
        assert_eq!((chance.below(0), chance.below(1)), (0, 0));
        assert_eq!(chance.one_of::<u8>(&[]), None);
    }
}
