//! Which activator port stands for which (workload, app port), and which one a new one gets.
//!
//! ```text
//! all objects --observe--> who has which port, which have become free, who shares one
//! a workload --allocate--> a port that is nobody's, and was nobody else's of late
//! ```
//!
//! Callers may go on for a while with what they were told of a port, and in plain HTTP nothing but the
//! port says whom they mean: so one that has become free rests before another workload gets it. Every
//! replica keeps all this, by its own watches, so that it outlives a leader; not the last of all
//! replicas.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt;
use lull_contract::{
    Shards,
    names::fnv1a,
    scaled_workload::{ScaledWorkload, WorkloadPort},
};
use parking_lot::Mutex;

use crate::{
    context::{Context, Key, WriteError},
    objects::is_lulls,
};

/// How long a port rests; as long as none is left that has rested so long, the next one.
const RESTS: [Duration; 4] = [
    Duration::from_secs(15 * 60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(2 * 60),
    STRAGGLERS,
];
/// For so long after they have been told otherwise callers come in any case: an activator keeps a port
/// open for half a minute more.
pub(crate) const STRAGGLERS: Duration = Duration::from_secs(60);

/// An app port of a workload.
type Owner = (Key, u16);

/// The activators' ports.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    known: Mutex<Known>,
}

/// What is known of them.
#[derive(Debug, Default)]
struct Known {
    /// Objects have been looked at.
    is_observed: bool,
    /// Given out since, and maybe in no object yet: by workload, app ports with theirs.
    reserved: HashMap<Key, Vec<(u16, u16)>>,
    /// Those that stand in objects, and whose they are where that is known.
    used: HashMap<u16, Option<Owner>>,
    /// Those that rest.
    freed: HashMap<u16, Freed>,
    /// Those of workloads of which an older workload has the same.
    shared: HashMap<Owner, u16>,
}

/// A port that stands in no object any more.
#[derive(Debug)]
struct Freed {
    /// Whose it was, where that is known.
    owner: Option<Owner>,
    /// When that was seen, since the start of the process.
    at: Duration,
}

/// Takes note of all ports that stand in objects: in `workloads`, which are all there are, and in what
/// callers are told of activators, which may outlive its workload.
pub(crate) fn observe(ctx: &Context, workloads: &[Arc<ScaledWorkload>]) {
    let (slices, entries) = (ctx.stores.slices.all(), ctx.stores.entries.all());
    let slices = slices.iter().filter(|slice| is_lulls(slice));
    let listed = slices
        .flat_map(|slice| slice.ports.iter().flatten())
        .filter_map(|port| u16::try_from(port.port?).ok());
    let entries = entries.iter();
    let told = entries.flat_map(|entry| entry.spec.ports.values().copied());
    ctx.ports.observe(workloads, listed.chain(told), ctx.now());
}

// === impl Ports ===

impl Ports {
    /// None is known to be in use.
    #[must_use]
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            range,
            known: Mutex::default(),
        }
    }

    /// Whether objects have been looked at.
    pub(crate) fn is_observed(&self) -> bool {
        self.known.lock().is_observed
    }

    /// Takes note, at `now`, of all workloads and of the `other` ports that stand in objects.
    fn observe(
        &self,
        workloads: &[Arc<ScaledWorkload>],
        other: impl Iterator<Item = u16>,
        now: Duration,
    ) {
        let mut used: HashMap<u16, Option<Owner>> = other.map(|port| (port, None)).collect();
        let mut shared = HashMap::new();
        let holders = workloads.iter().flat_map(|workload| held(workload));
        let mut holders: Vec<_> = holders.collect();
        // The oldest first.
        holders.sort();
        for (_, owner, port) in holders {
            if matches!(used.get(&port), Some(Some(_))) {
                shared.insert(owner, port);
            } else {
                used.insert(port, Some(owner));
            }
        }
        let mut known = self.known.lock();
        known.is_observed = true;
        known.shared = shared;
        known.replace_used(used, now);
    }

    /// Whether an older workload has the port of `key`'s app port, too.
    pub(crate) fn is_shared(&self, key: &Key, port: &WorkloadPort) -> bool {
        let known = self.known.lock();
        let of = |app_port| known.shared.get(&(key.clone(), app_port));
        !known.shared.is_empty() && of(port.app_port) == Some(&port.activator_port)
    }

    /// A new port for `owner`, of its shard, reserved until it stands in an object or is
    /// [let go](Self::keep_only): other shards' leaders give out others at the same time. `used` are
    /// those that stand in ScaledWorkloads now.
    ///
    /// # Errors
    /// [`WriteError::PortsExhausted`].
    pub(crate) fn allocate(
        &self,
        owner: Owner,
        mut used: HashSet<u16>,
        (shards, now): (Shards, Duration),
    ) -> Result<u16, WriteError> {
        let mut known = self.known.lock();
        // However often the write that it was reserved for is tried.
        let mut own = known.reserved.get(&owner.0).into_iter().flatten();
        if let Some((_, port)) = own.find(|(app_port, _)| *app_port == owner.1) {
            return Ok(*port);
        }
        // Not its own: who comes back before the next look gets the number that callers know.
        let others = known.used.iter();
        let others = others.filter(|(_, holder)| holder.as_ref() != Some(&owner));
        used.extend(others.map(|(port, _)| *port));
        let reserved = known.reserved.values().flatten();
        used.extend(reserved.map(|(_, port)| *port));
        let place = (owner.0.namespace.as_str(), owner.0.name.as_str(), owner.1);
        let port = RESTS.into_iter().find_map(|rest| {
            let resting = known.resting(&owner, now, rest);
            let taken: HashSet<u16> = used.iter().copied().chain(resting).collect();
            free_port(place, &taken, (&self.range, shards))
        });
        let port = port.ok_or_else(|| WriteError::PortsExhausted(self.range.clone()))?;
        let (key, app_port) = owner;
        let own = known.reserved.entry(key).or_default();
        own.push((app_port, port));
        Ok(port)
    }

    /// Lets go of what is reserved for `key`, but for these app ports: no object will have it.
    pub(crate) fn keep_only(&self, key: &Key, app_ports: &[u16], now: Duration) {
        let mut known = self.known.lock();
        let Some(own) = known.reserved.remove(key) else {
            return;
        };
        let is_kept = |(app_port, _): &(u16, u16)| app_ports.contains(app_port);
        let (kept, let_go): (Vec<_>, Vec<_>) = own.into_iter().partition(is_kept);
        for (app_port, port) in let_go {
            // A write without an answer may have been made.
            known.free(port, Some((key.clone(), app_port)), now);
        }
        if !kept.is_empty() {
            known.reserved.insert(key.clone(), kept);
        }
    }
}

/// The ports of a workload, with its age.
fn held(workload: &ScaledWorkload) -> impl Iterator<Item = (Option<Timestamp>, Owner, u16)> {
    let created = workload.creation_timestamp().map(|time| time.0);
    let key = Key {
        namespace: workload.namespace().unwrap_or_default(),
        name: workload.name_any(),
    };
    // 0 is any port, which nobody shares.
    let ports = workload.spec.ports.iter();
    let ports = ports.filter(|port| port.activator_port != 0);
    ports.map(move |port| (created, (key.clone(), port.app_port), port.activator_port))
}

// === impl Known ===

impl Known {
    /// Takes note that these ports stand in objects now, and no others.
    fn replace_used(&mut self, used: HashMap<u16, Option<Owner>>, now: Duration) {
        let before = std::mem::replace(&mut self.used, used);
        for (port, owner) in before {
            let Some(holder) = self.used.get_mut(&port) else {
                self.free(port, owner, now);
                continue;
            };
            if holder.is_none() {
                // It is left in what callers are told.
                *holder = owner;
            }
        }
        let used = &self.used;
        self.reserved.retain(|_, own| {
            own.retain(|(_, port)| !matches!(used.get(port), Some(Some(_))));
            !own.is_empty()
        });
        let longest = RESTS[0];
        self.freed.retain(|port, freed| {
            !used.contains_key(port) && now.saturating_sub(freed.at) < longest
        });
    }

    fn free(&mut self, port: u16, owner: Option<Owner>, at: Duration) {
        self.freed.insert(port, Freed { owner, at });
    }

    /// Ports that have not rested for so long, but for `owner`'s own: who comes back may have them.
    fn resting(&self, owner: &Owner, now: Duration, rest: Duration) -> impl Iterator<Item = u16> {
        let freed = self.freed.iter().filter(move |(_, freed)| {
            let is_its_own = freed.owner.as_ref() == Some(owner);
            !is_its_own && now.saturating_sub(freed.at) < rest
        });
        freed.map(|(port, _)| *port)
    }
}

/// A port of the workload's shard's part of `range` that is not in `used`, or `None` where all are
/// taken.
///
/// Every so many-th port belongs to a shard: leaders that can't see what others give out at the same
/// time never give out the same.
///
/// The search starts at a hash of `namespace/name:app_port`, so that a workload that leaves and
/// comes back mostly gets the number it had, and numbers that just got free are seldom the next.
fn free_port(
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
    use serde_json::json;

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

    /// The namespace's workload of this name, made so many seconds after the first, with this port for
    /// its app port 80.
    fn workload(name: &str, made: i64, port: u16) -> Arc<ScaledWorkload> {
        let spec = json!({
            "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": "u" },
            "podSelector": {},
            "ports": [{ "appPort": 80, "protocol": "http", "activatorPort": port }],
            "settings": lull_contract::Settings::default(),
            "originalReplicas": 1,
        });
        let created = Timestamp::from_second(made).unwrap();
        let metadata =
            json!({ "name": name, "namespace": "ns", "creationTimestamp": created.to_string() });
        let workload = json!({
            "apiVersion": "lull.dev/v1alpha1", "kind": "ScaledWorkload",
            "metadata": metadata, "spec": spec,
        });
        Arc::new(serde_json::from_value(workload).unwrap())
    }

    fn owner(name: &str) -> Owner {
        let (namespace, name) = ("ns".to_owned(), name.to_owned());
        (Key { namespace, name }, 80)
    }

    /// What `name` gets so many minutes after the start.
    fn given(ports: &Ports, name: &str, minutes: u64) -> Option<u16> {
        let now = Duration::from_secs(60 * minutes);
        let given = ports.allocate(owner(name), HashSet::new(), (shards(1), now));
        given.ok()
    }

    fn see(ports: &Ports, workloads: &[Arc<ScaledWorkload>], listed: &[u16], minutes: u64) {
        let now = Duration::from_secs(60 * minutes);
        ports.observe(workloads, listed.iter().copied(), now);
    }

    #[test]
    fn a_port_that_has_become_free_rests_before_another_workload_has_it() {
        let ports = Ports::new(10_000..=10_001);
        assert!(!ports.is_observed());
        see(&ports, &[workload("shop", 0, 10_000)], &[], 0);
        assert!(ports.is_observed());
        see(&ports, &[], &[10_000], 1);
        assert_eq!(given(&ports, "bank", 1), Some(10_001));
        assert_eq!(
            given(&ports, "pay", 1),
            None,
            "callers are still told of it"
        );
        see(&ports, &[], &[], 2);
        assert_eq!(given(&ports, "pay", 2), None, "stragglers");
        assert_eq!(given(&ports, "shop", 2), Some(10_000), "its own");
        assert_eq!(given(&ports, "bank", 2), Some(10_001), "as it was reserved");
    }

    #[test]
    fn the_longest_rest_counts_first_and_too_few_ports_shorten_it() {
        let ports = Ports::new(10_000..=10_001);
        let both = [workload("a", 0, 10_000), workload("b", 0, 10_001)];
        see(&ports, &both, &[], 0);
        see(&ports, &both[..1], &[], 10);
        see(&ports, &[], &[], 14);
        // Of the two one has rested for 6 minutes, the other for 2.
        assert_eq!(given(&ports, "shop", 16), Some(10_001));
        assert_eq!(given(&ports, "bank", 16), Some(10_000));
    }

    #[test]
    fn who_comes_back_at_once_gets_its_own_port() {
        let ports = Ports::new(10_000..=10_000);
        see(&ports, &[workload("shop", 0, 10_000)], &[], 0);
        assert_eq!(given(&ports, "bank", 0), None);
        assert_eq!(given(&ports, "shop", 0), Some(10_000));
    }

    #[test]
    fn what_no_object_will_have_is_let_go() {
        let ports = Ports::new(10_000..=10_000);
        assert_eq!(given(&ports, "shop", 0), Some(10_000));
        see(&ports, &[], &[], 1);
        assert_eq!(
            given(&ports, "bank", 1),
            None,
            "it may be about to be written"
        );
        let (shop, _) = owner("shop");
        let at = |minutes: u64| Duration::from_secs(60 * minutes);
        ports.keep_only(&shop, &[80], at(1));
        assert_eq!(given(&ports, "bank", 3), None);
        ports.keep_only(&shop, &[], at(3));
        assert_eq!(
            given(&ports, "bank", 3),
            None,
            "the write may have been made"
        );
        assert_eq!(given(&ports, "bank", 5), Some(10_000));
    }

    #[test]
    fn the_younger_of_two_with_one_port_gets_another() {
        let ports = Ports::new(10_000..=10_001);
        let (old, young) = (workload("zoo", 1, 10_000), workload("bank", 2, 10_000));
        see(&ports, &[Arc::clone(&young), old], &[10_000], 0);
        let is_shared = |name: &str, port: u16| {
            let (key, _) = owner(name);
            ports.is_shared(&key, &workload(name, 0, port).spec.ports[0])
        };
        assert!(is_shared("bank", 10_000) && !is_shared("zoo", 10_000));
        assert!(!is_shared("bank", 10_001), "it has got another one");
        assert_eq!(given(&ports, "bank", 0), Some(10_001));
        see(&ports, &[young], &[], 1);
        assert!(!is_shared("bank", 10_000), "the other one is gone");
    }
}
