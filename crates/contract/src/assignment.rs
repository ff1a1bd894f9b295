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
}

/// The names of the activators for the workload with this uid, at most [`MAX_PER_WORKLOAD`].
///
/// The second is on another node than the first wherever one is. One that comes or goes changes
/// the answer only for workloads that get or had it (rendezvous hashing), but for the second's node.
#[must_use]
pub fn assigned<'a>(
    uid: &str,
    activators: impl IntoIterator<Item = Activator<'a>>,
) -> Vec<&'a str> {
    let mut ranked: Vec<Activator<'a>> = activators.into_iter().collect();
    ranked.sort_by_cached_key(|one| (rank(uid, one.name), one.name));
    ranked.dedup();
    let first = ranked.first().map(|first| first.node);
    let elsewhere = ranked.iter().position(|one| Some(one.node) != first);
    if let Some(place) = elsewhere.filter(|place| *place > 1) {
        let second = ranked.remove(place);
        ranked.insert(1, second);
    }
    ranked.truncate(MAX_PER_WORKLOAD);
    ranked.iter().map(|one| one.name).collect()
}

fn rank(uid: &str, name: &str) -> u64 {
    spread_hash(format!("{uid}/{name}").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    fn on_one_node(names: &[&'static str]) -> Vec<Activator<'static>> {
        let on_node = |name: &&'static str| Activator { name, node: "n" };
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
            let activators = NAMES.map(|name| Activator {
                name,
                node: node(name),
            });
            let nodes: HashSet<_> = assigned(&uid, activators).into_iter().map(node).collect();
            assert_eq!(nodes.len(), 2);
        }
    }
}
