//! Which replica should hold which shard.

use std::collections::{BTreeSet, HashMap};

use lull_contract::{Shards, names::spread_hash};

/// The replica that should hold each shard, in the shards' order: all who see the same replicas
/// give the same answer, and nobody has two shards more than another.
///
/// Each shard goes to the first by rendezvous hashing that has room.
#[must_use]
pub fn preferred<'a>(shards: Shards, replicas: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let mut room = Room::of(shards, replicas.len());
    let mut has: HashMap<&str, usize> = HashMap::new();
    shards
        .all()
        .filter_map(|shard| {
            let rank = |name: &str| spread_hash(format!("{shard}/{name}").as_bytes());
            let with_room = replicas
                .iter()
                .copied()
                .filter(|name| room.is_for(has.get(name).copied().unwrap_or(0)));
            let name = with_room.max_by_key(|name| rank(name))?;
            let count = has.entry(name).or_default();
            room.take(*count);
            *count += 1;
            Some(name)
        })
        .collect()
}

/// How many shards each replica can have: the mean rounded down, and some one more.
#[derive(Debug)]
struct Room {
    each: usize,
    more: usize,
}

// === impl Room ===

impl Room {
    fn of(shards: Shards, replicas: usize) -> Self {
        let (count, replicas) = (usize::from(shards.count()), replicas.max(1));
        Self {
            each: count / replicas,
            more: count % replicas,
        }
    }

    /// Whether one that has so many can have another.
    fn is_for(&self, has: usize) -> bool {
        has < self.each || (has == self.each && self.more > 0)
    }

    fn take(&mut self, has: usize) {
        if has == self.each {
            self.more = self.more.saturating_sub(1);
        }
    }
}
