//! Who is behind a caller's address: for people, never for a decision.
//!
//! ```text
//! address --> pods of enrolled workloads, which are watched ----------> name
//!         `-> any other pod: asked of the API server --> Lookups -----> name
//! ```
//!
//! Watching all pods of a cluster for this would cost more than it is worth. So the others are asked for
//! one by one, when somebody is about to be shown them, after everything else that the API server is asked
//! for, and what was found out is kept for a while. Until then an address stays an address.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1 as core;
use kube::{Api, ResourceExt, api::ListParams};
use lull_contract::{report::SeenCaller, view::Caller};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    context::{Context, WriteError},
    pod::{Pod, has_ended},
    purpose::Purpose,
};

/// Label by which a Deployment's ReplicaSets differ; their names end with its value.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// How long an answer holds: an address may be another pod's by then.
const HOLDS: Duration = Duration::from_secs(120);
/// Addresses of which anything is kept; with their names that is at most some hundred KiB.
const MAX_FOUND: usize = 1_024;
/// Addresses that are asked for at one time; the others when they are shown again.
const AT_ONCE: usize = 8;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long they wait for wakes that want the API server.
const CALM: Duration = Duration::from_secs(10);

/// A pod that calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// `namespace/name`.
    pod: String,
    /// `namespace/name` of what it belongs to.
    workload: Option<String>,
}

/// What was found out of addresses that are of no pod that is watched.
#[derive(Debug)]
pub struct Lookups {
    is_on: bool,
    found: Mutex<HashMap<IpAddr, Found>>,
    /// One asks at a time.
    turn: Arc<Semaphore>,
}

#[derive(Debug)]
struct Found {
    /// On the process's clock.
    at: Duration,
    /// `None`: no pod has that address alone, or nobody could say.
    named: Option<Named>,
}

// === impl Named ===

impl Named {
    fn of(pod: &Pod) -> Self {
        let in_namespace = |name: &str| format!("{}/{name}", pod.namespace);
        Self {
            pod: in_namespace(&pod.name),
            workload: pod.workload.as_deref().map(in_namespace),
        }
    }
}

// === impl Lookups ===

impl Lookups {
    /// Nothing found yet; where it is not `is_on`, nothing is ever asked.
    #[must_use]
    pub fn new(is_on: bool) -> Self {
        Self {
            is_on,
            found: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Whose `address` it is at `now`, as far as that is known.
    fn get(&self, address: &str, now: Duration) -> Option<Named> {
        let address: IpAddr = address.parse().ok()?;
        let found = self.found.lock();
        let found = found.get(&address).filter(|found| found.holds(now));
        found.and_then(|found| found.named.clone())
    }

    /// Those of `addresses` that are to be asked for at `now`, each once.
    fn unknown(&self, addresses: impl Iterator<Item = IpAddr>, now: Duration) -> Vec<IpAddr> {
        let found = self.found.lock();
        let is_known = |address: &IpAddr| {
            let found = found.get(address);
            found.is_some_and(|found| found.holds(now))
        };
        let mut unknown: Vec<IpAddr> = Vec::new();
        for address in addresses.filter(|_| self.is_on) {
            let is_a_pods = !address.is_loopback() && !address.is_unspecified();
            if is_a_pods && !is_known(&address) && !unknown.contains(&address) {
                unknown.push(address);
            }
        }
        unknown.truncate(AT_ONCE);
        unknown
    }

    fn keep(&self, address: IpAddr, named: Option<Named>, now: Duration) {
        let mut found = self.found.lock();
        if found.len() >= MAX_FOUND {
            found.retain(|_, found| found.holds(now));
        }
        if found.len() < MAX_FOUND {
            found.insert(address, Found { at: now, named });
        }
    }
}

// === impl Found ===

impl Found {
    fn holds(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) < HOLDS
    }
}

/// `seen` with its pod, where that is known.
pub(crate) fn resolve(ctx: &Context, seen: &SeenCaller) -> Caller {
    let pod = ctx.stores.pods.find(|pod| pod.has_address(&seen.address));
    let watched = pod.as_deref().map(Named::of);
    let named = watched.or_else(|| ctx.lookups.get(&seen.address, ctx.now()));
    Caller {
        asked: seen.asked.clone(),
        ..caller(&seen.address, named)
    }
}

/// The pods that have `addresses`, as far as they are known: one look at all that are watched.
pub(crate) fn names<'a>(
    ctx: &Context,
    addresses: impl Iterator<Item = &'a str> + Clone,
) -> HashMap<String, Named> {
    let mut names = watched(ctx, &addresses.clone().collect());
    let now = ctx.now();
    let others = addresses.filter(|address| !names.contains_key(*address));
    let found = others.filter_map(|address| {
        let named = ctx.lookups.get(address, now)?;
        Some((address.to_owned(), named))
    });
    let found: Vec<(String, Named)> = found.collect();
    names.extend(found);
    names
}

fn watched(ctx: &Context, addresses: &HashSet<&str>) -> HashMap<String, Named> {
    let mut names = HashMap::new();
    if addresses.is_empty() {
        return names;
    }
    // Each status of a workload that is called does so.
    ctx.stores.pods.visit(|pod| {
        for ip in pod.ip.iter().chain(&pod.more_ips) {
            if addresses.contains(ip.as_str()) {
                names.insert(ip.clone(), Named::of(pod));
            }
        }
    });
    names
}

/// Who has this `address`.
pub(crate) fn caller(address: &str, named: Option<Named>) -> Caller {
    let (pod, workload) = named.map_or((None, None), |it| (Some(it.pod), it.workload));
    Caller {
        address: address.to_owned(),
        pod,
        workload,
        ..Caller::default()
    }
}

/// Asks which pods have those of `addresses` that nobody knows, and waits for the answers for `patience`;
/// what comes later is there when it is asked for again.
///
/// # Cancel safety
/// Safe: the questions go on by themselves.
pub(crate) async fn learn(ctx: &Arc<Context>, addresses: &[String], patience: Duration) {
    let texts: HashSet<&str> = addresses.iter().map(String::as_str).collect();
    let watched = watched(ctx, &texts);
    let others = addresses.iter().filter(|it| !watched.contains_key(*it));
    let others = others.filter_map(|address| address.parse().ok());
    let unknown = ctx.lookups.unknown(others, ctx.now());
    if unknown.is_empty() {
        return;
    }
    // Where others are asked for just now, these are when they are shown again.
    if let Ok(turn) = Arc::clone(&ctx.lookups.turn).try_acquire_owned() {
        let asking = tokio::spawn(ask_all(Arc::clone(ctx), unknown, turn));
        // Its end, and its failure, are seen by what is known.
        let _ = timeout(patience, asking).await;
    }
}

async fn ask_all(ctx: Arc<Context>, addresses: Vec<IpAddr>, _turn: OwnedSemaphorePermit) {
    for address in addresses {
        // After everything that callers depend on.
        ctx.pressure.calm(CALM).await;
        let turn = ctx.turns.take(Duration::MAX).await;
        let answer = ask(&ctx, address).await;
        drop(turn);
        let named = answer.unwrap_or_else(|error| {
            tracing::debug!(%address, %error, "nobody knows whose address it is");
            None
        });
        ctx.lookups.keep(address, named, ctx.now());
        sleep(PAUSE).await;
    }
}

/// The pod that has `address`. The API server has no index for this and looks at all pods, so it is asked
/// for what it has in memory.
async fn ask(ctx: &Context, address: IpAddr) -> Result<Option<Named>, WriteError> {
    let pods: Api<core::Pod> = Api::all(ctx.client.clone());
    let of_address = format!("status.podIP={address}");
    let params = ListParams::default().fields(&of_address).match_any();
    let list = ctx.call(Purpose::NameCaller, pods.list(&params)).await?;
    Ok(only(&list.items))
}

/// Whose address it is that `pods` have: one that has ended keeps it while another may have got it, and
/// those in their node's network have the node's, as whatever else calls from there.
fn only(pods: &[core::Pod]) -> Option<Named> {
    let mut there = pods
        .iter()
        .filter(|pod| !pod.status.as_ref().is_some_and(has_ended));
    let pod = there.next()?;
    let is_of_node = pod.spec.as_ref().and_then(|spec| spec.host_network);
    if is_of_node == Some(true) {
        return None;
    }
    let namespace = pod.namespace().unwrap_or_default();
    let in_namespace = |name: &str| format!("{namespace}/{name}");
    Some(Named {
        pod: in_namespace(&pod.name_any()),
        workload: owner(pod).map(in_namespace),
    })
}

/// Name of what has made the pod: of a ReplicaSet's, mostly a Deployment.
fn owner(pod: &core::Pod) -> Option<&str> {
    let mut owners = pod.owner_references().iter();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    let hash = pod.labels().get(TEMPLATE_HASH);
    let deployment = hash
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    Some(deployment.unwrap_or(&owner.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(owner: &Value, labels: &Value, more: &Value) -> core::Pod {
        let metadata = json!({
            "name": "p", "namespace": "prod", "labels": labels, "ownerReferences": [owner],
        });
        let mut pod = json!({ "metadata": metadata, "spec": { "containers": [] } });
        for (key, value) in more.as_object().unwrap() {
            pod[key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    fn owned_by(kind: &str, name: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true })
    }

    #[test]
    fn a_pod_is_named_by_what_people_call_its_workload() {
        let hash = json!({ TEMPLATE_HASH: "5d8f7" });
        let rows = [
            (owned_by("ReplicaSet", "checkout-5d8f7"), "prod/checkout"),
            (owned_by("ReplicaSet", "by-hand"), "prod/by-hand"),
            (owned_by("ReplicaSet", "5d8f7"), "prod/5d8f7"),
            (owned_by("StatefulSet", "db-5d8f7"), "prod/db-5d8f7"),
        ];
        for (owner, expected) in rows {
            let named = only(&[pod(&owner, &hash, &json!({}))]).unwrap();
            assert_eq!(named.pod, "prod/p");
            assert_eq!(named.workload.as_deref(), Some(expected));
        }
        let nobodys: core::Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "prod" } }))
                .unwrap();
        assert_eq!(only(&[nobodys]).unwrap().workload, None);
    }

    #[test]
    fn an_address_that_is_not_one_pod_s_alone_names_nobody() {
        let job = owned_by("Job", "import");
        let ended = pod(
            &job,
            &json!({}),
            &json!({ "status": { "phase": "Succeeded" } }),
        );
        let of_node = json!({ "spec": { "containers": [], "hostNetwork": true } });
        let of_node = pod(&owned_by("DaemonSet", "agent"), &json!({}), &of_node);
        let runs = pod(&owned_by("StatefulSet", "db"), &json!({}), &json!({}));
        assert_eq!(only(&[]), None);
        assert_eq!(only(std::slice::from_ref(&ended)), None);
        assert_eq!(only(&[of_node]), None);
        let named = only(&[ended, runs]).unwrap();
        assert_eq!(named.workload.as_deref(), Some("prod/db"));
    }

    #[test]
    fn a_name_is_told_for_as_long_as_it_holds() {
        let lookups = Lookups::new(true);
        let named = only(&[pod(&owned_by("Job", "import"), &json!({}), &json!({}))]);
        lookups.keep([10, 0, 0, 7].into(), named.clone(), Duration::ZERO);
        assert_eq!(lookups.get("10.0.0.7", HOLDS / 2), named);
        assert_eq!(lookups.get("10.0.0.7", HOLDS), None);
        assert_eq!(lookups.get("10.0.0.8", Duration::ZERO), None);
    }

    #[test]
    fn what_was_found_out_is_asked_for_again_after_a_while_and_is_bounded() {
        let lookups = Lookups::new(true);
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
        let unknown = |numbers: &[u32], now| {
            let addresses = numbers.iter().map(|number| address(*number));
            lookups.unknown(addresses, now).len()
        };
        let (begin, later) = (Duration::ZERO, HOLDS);
        assert_eq!(unknown(&[1, 1, 2], begin), 2, "each once");
        lookups.keep(address(1), None, begin);
        assert_eq!(unknown(&[1, 2], begin), 1, "also that nobody has it");
        assert_eq!(unknown(&[1, 2], later), 2);
        let many: Vec<u32> = (1..3_000).collect();
        assert_eq!(unknown(&many, begin), AT_ONCE);
        for number in many {
            lookups.keep(address(number), None, begin);
        }
        assert_eq!(lookups.found.lock().len(), MAX_FOUND);
        lookups.keep(address(5_000), None, later);
        assert_eq!(lookups.found.lock().len(), 1);
    }

    #[test]
    fn nothing_is_asked_of_the_pod_s_own_addresses_nor_where_it_is_turned_off() {
        let (on, off) = (Lookups::new(true), Lookups::new(false));
        let unknown = |lookups: &Lookups, address: &str| {
            let address = address.parse().unwrap();
            lookups.unknown([address].into_iter(), Duration::ZERO).len()
        };
        assert_eq!(unknown(&on, "127.0.0.6"), 0);
        assert_eq!(unknown(&on, "fd00::7"), 1);
        assert_eq!(unknown(&off, "fd00::7"), 0);
    }
}
