//! How workloads are divided among the autoscaler's replicas: into shards, each behind a Lease.

use std::{ops::Range, str::FromStr};

use crate::names::spread_hash;

/// Most shards: each is a write every half second.
pub const MAX: u16 = 64;
/// Name of the only Lease where there is one shard, and the beginning of all others.
const LEASE: &str = "lull-autoscaler";

/// A division of all workloads into so many shards, 1 to [`MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shards(u16);

/// The text was not a number of shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of shards: write 1 to {MAX}")]
pub struct ShardsError(String);

// === impl Shards ===

impl Shards {
    /// How many there are.
    #[must_use]
    pub fn count(self) -> u16 {
        self.0
    }

    /// Every shard.
    #[must_use]
    pub fn all(self) -> Range<u16> {
        0..self.0
    }

    /// The shard of a workload.
    #[must_use]
    pub fn of(self, namespace: &str, name: &str) -> u16 {
        let hash = spread_hash(format!("{namespace}/{name}").as_bytes());
        // The remainder is below a u16.
        u16::try_from(hash % u64::from(self.0)).unwrap_or(0)
    }

    /// Name of the Lease of `shard`: `lull-autoscaler-<shard>-of-<count>`, and `lull-autoscaler`
    /// where there is only one shard, as before there were shards.
    ///
    /// It tells the division, so that replicas of two divisions see each other.
    #[must_use]
    pub fn lease(self, shard: u16) -> String {
        match self.0 {
            1 => LEASE.to_owned(),
            count => format!("{LEASE}-{shard}-of-{count}"),
        }
    }

    /// The division and the shard that a Lease of this name stands for, if it is one of ours.
    #[must_use]
    pub fn of_lease(name: &str) -> Option<(Self, u16)> {
        let rest = name.strip_prefix(LEASE)?;
        let (shard, count) = if rest.is_empty() {
            ("0", "1")
        } else {
            rest.strip_prefix('-')?.split_once("-of-")?
        };
        let (shards, shard): (Self, u16) = (count.parse().ok()?, shard.parse().ok()?);
        (shard < shards.0 && shards.lease(shard) == name).then_some((shards, shard))
    }
}

impl FromStr for Shards {
    type Err = ShardsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = text.parse::<u16>().ok();
        count
            .filter(|count| (1..=MAX).contains(count))
            .map(Self)
            .ok_or_else(|| ShardsError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(count: &str) -> Shards {
        count.parse().unwrap()
    }

    #[test]
    fn their_number_is_checked() {
        assert_eq!(shards("64").count(), 64);
        for wrong in ["", "0", "65", "-1", "two", "1.5"] {
            assert!(wrong.parse::<Shards>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_lease_tells_its_shard_and_division() {
        assert_eq!(shards("1").lease(0), "lull-autoscaler");
        assert_eq!(shards("3").lease(2), "lull-autoscaler-2-of-3");
        for count in ["1", "2", "64"].map(shards) {
            for shard in count.all() {
                assert_eq!(
                    Shards::of_lease(&count.lease(shard)),
                    Some((count, shard)),
                    "{count:?}"
                );
            }
        }
        let others = [
            "lull-webhook",
            "lull-autoscaler-",
            "lull-autoscaler-2-of-2",
            "lull-autoscaler-0-of-1",
            "lull-autoscaler-+1-of-2",
            "lull-autoscaler-0-of-65",
        ];
        for other in others {
            assert_eq!(Shards::of_lease(other), None, "{other}");
        }
    }

    #[test]
    fn workloads_are_spread_evenly_also_where_their_names_are_alike() {
        for count in [2, 3, 8_u16] {
            let shards = shards(&count.to_string());
            let mut sizes = vec![0; usize::from(count)];
            for number in 0..4_000 {
                let shard = shards.of(&format!("team-{number}"), &format!("app-{number}"));
                sizes[usize::from(shard)] += 1;
            }
            let even = 4_000 / i32::from(count);
            let off = |size: &i32| (size - even).abs() * 5 < even;
            assert!(sizes.iter().all(off), "{sizes:?}");
        }
    }
}
