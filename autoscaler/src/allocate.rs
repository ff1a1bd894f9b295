//! Which activator port stands for which (workload, app port).

use std::{collections::HashSet, ops::RangeInclusive};

use lull_contract::names::fnv1a;

/// A port of `range` that is neither in `used` nor refused by it, or `None` where all are taken.
///
/// The search starts at a hash of `namespace/name:app_port`, so that a workload that leaves and
/// comes back mostly gets the number it had, and numbers that just got free are seldom the next.
#[must_use]
pub fn free_port(
    (namespace, name, app_port): (&str, &str, u16),
    used: &HashSet<u16>,
    range: &RangeInclusive<u16>,
) -> Option<u16> {
    let first = u64::from(*range.start());
    let count = u64::from(*range.end()).checked_sub(first)? + 1;
    let start = fnv1a(format!("{namespace}/{name}:{app_port}").as_bytes()) % count;
    (0..count)
        .filter_map(|step| u16::try_from(first + (start + step) % count).ok())
        .find(|port| !used.contains(port) && !is_ours(*port))
}

fn is_ours(port: u16) -> bool {
    use lull_contract::ports::{METRICS, SIDECAR_SMALL_PORTS, WEBHOOK};
    SIDECAR_SMALL_PORTS.contains(&port) || [METRICS, WEBHOOK].contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_stable_distinct_and_end() {
        let range = 10_000..=10_002;
        let mut used = HashSet::new();
        let first = free_port(("ns", "shop", 8080), &used, &range).unwrap();
        assert_eq!(free_port(("ns", "shop", 8080), &used, &range), Some(first));
        for _ in 0..3 {
            let port = free_port(("ns", "shop", 8080), &used, &range).unwrap();
            assert!(used.insert(port));
        }
        assert_eq!(free_port(("ns", "shop", 8080), &used, &range), None);
    }

    #[test]
    fn our_own_ports_are_never_given_away() {
        assert_eq!(
            free_port(("ns", "a", 1), &HashSet::new(), &(9090..=9091)),
            None
        );
    }
}
