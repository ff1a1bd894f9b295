//! Which activators are listed for a workload.
//!
//! Where there are many, each workload has a few of them: an activator then listens to few wakes of
//! each, and a hard limit is divided among few. All who ask get the same answer without talking.

use crate::names::spread_hash;

/// Most activators that are listed for one workload: two may be lost at once, and a hard limit is
/// not cut into crumbs.
pub const MAX_PER_WORKLOAD: usize = 3;

/// An activator that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activator<'a> {
    /// Name of its pod.
    pub name: &'a str,
    /// Where it runs.
    pub node: &'a str,
    /// Zone of that node; empty: not known.
    pub zone: &'a str,
}

/// The names of the activators for the workload with this uid, at most [`MAX_PER_WORKLOAD`].
///
/// Each is in another zone than those before it wherever one is, else on another node. One that comes
/// or goes changes the answer only for workloads that get or had it (rendezvous hashing), but for
/// those whose places in zones and on nodes it changes.
#[must_use]
pub fn assigned<'a>(
    uid: &str,
    activators: impl IntoIterator<Item = Activator<'a>>,
) -> Vec<&'a str> {
    let mut ranked: Vec<Activator<'a>> = activators.into_iter().collect();
    ranked.sort_by_cached_key(|one| (rank(uid, one.name), one.name));
    ranked.dedup();
    let mut listed: Vec<Activator<'a>> = Vec::new();
    while listed.len() < MAX_PER_WORKLOAD && !ranked.is_empty() {
        let place = (0..ranked.len()).min_by_key(|place| nearness(&listed, ranked[*place]));
        listed.extend(place.map(|place| ranked.remove(place)));
    }
    listed.iter().map(|one| one.name).collect()
}

/// Whether `one` is in a zone, and whether it is on a node, of those that are `listed`.
fn nearness(listed: &[Activator<'_>], one: Activator<'_>) -> (bool, bool) {
    let zone = listed.iter().any(|other| other.zone == one.zone);
    let node = listed.iter().any(|other| other.node == one.node);
    (zone, node)
}

fn rank(uid: &str, name: &str) -> u64 {
    spread_hash(format!("{uid}/{name}").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    fn on(name: &'static str, node: &'static str, zone: &'static str) -> Activator<'static> {
        Activator { name, node, zone }
    }

    fn on_one_node(names: &[&'static str]) -> Vec<Activator<'static>> {
        let on_node = |name: &&'static str| on(name, "n", "");
        names.iter().map(on_node).collect()
    }

    fn uids() -> impl Iterator<Item = String> {
        (0..4000).map(|number| format!("uid-{number}"))
    }

    #[test]
    fn few_are_all_listed() {
        let mut listed = assigned("uid", on_one_node(&NAMES[..3]));
        listed.sort_unstable();
        assert_eq!(listed, ["a", "b", "c"]);
        assert!(assigned("uid", []).is_empty());
    }

    #[test]
    fn workloads_are_spread_evenly() {
        let mut listed: HashMap<&str, usize> = HashMap::new();
        for uid in uids() {
            for name in assigned(&uid, on_one_node(&NAMES)) {
                *listed.entry(name).or_default() += 1;
            }
        }
        // 4000 x 3 / 8 = 1500 each.
        assert!(
            listed.values().all(|count| (1350..1650).contains(count)),
            "{listed:?}"
        );
    }

    #[test]
    fn one_that_goes_changes_nothing_for_those_who_did_not_have_it() {
        for uid in uids() {
            let before = assigned(&uid, on_one_node(&NAMES));
            let after = assigned(&uid, on_one_node(&NAMES[1..]));
            if !before.contains(&"a") {
                assert_eq!(before, after);
            }
            let kept = before.iter().filter(|name| **name != "a");
            assert!(kept.into_iter().all(|name| after.contains(name)));
        }
    }

    #[test]
    fn the_order_in_which_they_are_seen_does_not_matter() {
        let mut back: Vec<_> = on_one_node(&NAMES);
        back.reverse();
        assert_eq!(assigned("u", back), assigned("u", on_one_node(&NAMES)));
    }

    #[test]
    fn two_nodes_are_used_where_there_are_two() {
        for uid in uids() {
            let node = |name: &'static str| if name == "h" { "other" } else { "n" };
            let activators = NAMES.map(|name| on(name, node(name), ""));
            let nodes: HashSet<_> = assigned(&uid, activators).into_iter().map(node).collect();
            assert_eq!(nodes.len(), 2);
        }
    }

    #[test]
    fn every_zone_is_used_and_then_every_node() {
        for uid in uids() {
            let place = |name: &'static str| match name {
                "a" => on(name, "n1", "z1"),
                "b" => on(name, "n2", "z2"),
                "c" | "d" => on(name, "n3", "z3"),
                _ => on(name, "n4", "z3"),
            };
            let listed = assigned(&uid, NAMES.map(place));
            let zones: HashSet<_> = NAMES
                .into_iter()
                .filter(|name| listed.contains(name))
                .map(|name| place(name).zone)
                .collect();
            assert_eq!(zones.len(), 3, "{listed:?}");
            // Two zones for three: the third is on a node of its own.
            let listed = assigned(&uid, NAMES[1..].iter().copied().map(place));
            let nodes: HashSet<_> = NAMES
                .into_iter()
                .filter(|name| listed.contains(name))
                .map(|name| place(name).node)
                .collect();
            assert_eq!(nodes.len(), 3, "{listed:?}");
        }
    }
}
