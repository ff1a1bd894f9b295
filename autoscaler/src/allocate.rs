//! Which activator port stands for which (workload, app port).

use std::{collections::HashSet, ops::RangeInclusive};

use lull_contract::{Shards, names::fnv1a};

/// A port of the workload's shard's part of `range` that is not in `used`, or `None` where all are
/// taken.
///
/// Every so many-th port belongs to a shard: leaders that can't see what others give out at the same
/// time never give out the same.
///
/// The search starts at a hash of `namespace/name:app_port`, so that a workload that leaves and
/// comes back mostly gets the number it had, and numbers that just got free are seldom the next.
#[must_use]
pub fn free_port(
    (namespace, name, app_port): (&str, &str, u16),
    used: &HashSet<u16>,
    (range, shards): (&RangeInclusive<u16>, Shards),
) -> Option<u16> {
    let (first, each) = (u64::from(*range.start()), u64::from(shards.count()));
    let all = u64::from(*range.end()).checked_sub(first)? + 1;
    let own = u64::from(shards.of(namespace, name));
    // As many as there are of own, own + each, own + 2 each, ... below all.
    let count = all.checked_sub(own)?.div_ceil(each);
    let hash = fnv1a(format!("{namespace}/{name}:{app_port}").as_bytes());
    (0..count)
        .map(|step| (hash % count + step) % count * each + own)
        .filter_map(|offset| u16::try_from(first + offset).ok())
        .find(|port| !used.contains(port) && !is_ours(*port))
}

fn is_ours(port: u16) -> bool {
    use lull_contract::ports::{METRICS, SIDECAR_SMALL_PORTS, WEBHOOK};
    SIDECAR_SMALL_PORTS.contains(&port) || [METRICS, WEBHOOK].contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(count: u16) -> Shards {
        count.to_string().parse().unwrap()
    }

    #[test]
    fn ports_are_stable_distinct_and_end() {
        let (range, mut used) = (10_000..=10_002, HashSet::new());
        let free = |used: &HashSet<u16>| free_port(("ns", "shop", 8080), used, (&range, shards(1)));
        let first = free(&used).unwrap();
        assert_eq!(free(&used), Some(first));
        for _ in 0..3 {
            assert!(used.insert(free(&used).unwrap()));
        }
        assert_eq!(free(&used), None);
    }

    #[test]
    fn every_port_belongs_to_one_shard_and_all_are_given_out() {
        for (count, size) in [(2, 7), (3, 9), (64, 100), (5, 2)] {
            let (shards, range) = (shards(count), 10_000..=10_000 + size - 1);
            let mut given: HashSet<u16> = HashSet::new();
            for number in 0..2_000 {
                let name = format!("shop-{number}");
                let port = free_port(("ns", &name, 80), &given, (&range, shards));
                if let Some(port) = port {
                    assert_eq!((port - 10_000) % count, shards.of("ns", &name));
                    assert!(given.insert(port) && range.contains(&port));
                }
            }
            assert_eq!(given.len(), usize::from(size), "{count} shards");
        }
    }

    #[test]
    fn our_own_ports_are_never_given_away() {
        assert_eq!(
            free_port(("ns", "a", 1), &HashSet::new(), (&(9090..=9091), shards(1))),
            None
        );
    }
}
