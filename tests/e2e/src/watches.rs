//! What many workloads do, each by one watch of the whole cluster.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Resource, ResourceExt as _, core::DynamicObject, runtime::watcher};
use lull_contract::{
    names,
    scaled_workload::{ScaledWorkload, State},
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    Cluster, Kind, Workload,
    timeline::{begins, follow},
};

/// Namespace and name.
type Key = (String, String);

/// Tells when workloads of one kind have got replicas.
#[derive(Debug)]
pub struct Wakes {
    waiting: Arc<Mutex<HashMap<Key, oneshot::Sender<Instant>>>>,
    _tasks: JoinSet<()>,
}

/// Knows which workloads are asleep, as Lull says.
#[derive(Debug)]
pub struct Sleepers {
    asleep: Arc<Mutex<HashSet<Key>>>,
    _tasks: JoinSet<()>,
}

/// Tells when one address left the slices that Lull writes.
#[derive(Debug)]
pub struct Departures {
    slices: Arc<Mutex<HashMap<Key, Listing>>>,
    _tasks: JoinSet<()>,
}

/// A slice that lists the address, or has.
#[derive(Debug)]
struct Listing {
    /// Of the slice's Service.
    service: Key,
    left: Option<Instant>,
}

fn key(workload: &Workload) -> Key {
    (workload.namespace.clone(), workload.name.clone())
}

fn key_of(object: &impl Resource) -> Key {
    let metadata = object.meta();
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    (part(&metadata.namespace), part(&metadata.name))
}

/// The workload that `scaled` is about: its own name has the kind in it.
fn key_of_target(scaled: &ScaledWorkload) -> Key {
    let (namespace, _) = key_of(scaled);
    (namespace, scaled.spec.target.name.clone())
}

// === impl Wakes ===

impl Wakes {
    /// Starts watching all workloads of `kind`.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(cluster: &Cluster, kind: Kind) -> anyhow::Result<Self> {
        let resource = kind.resource();
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let waiting: Arc<Mutex<HashMap<Key, oneshot::Sender<Instant>>>> = Arc::default();
        let noted = Arc::clone(&waiting);
        let mut tasks = JoinSet::new();
        let all = watcher::Config::default();
        let begun = follow(&mut tasks, api, all, move |object: &DynamicObject, _| {
            let replicas = object.data["spec"]["replicas"].as_i64();
            if replicas.is_some_and(|replicas| replicas > 0) {
                let waits = noted.lock().remove(&key_of(object));
                // Nobody listens where the wait was given up.
                waits.map(|waits| waits.send(Instant::now()));
            }
        });
        begins(begun).await?;
        Ok(Self {
            waiting,
            _tasks: tasks,
        })
    }

    /// Hears when the event comes that shows `workload` with replicas next.
    #[must_use]
    pub fn next(&self, workload: &Workload) -> oneshot::Receiver<Instant> {
        let (seen_tx, seen_rx) = oneshot::channel();
        self.waiting.lock().insert(key(workload), seen_tx);
        seen_rx
    }
}

// === impl Sleepers ===

impl Sleepers {
    /// Starts watching all ScaledWorkloads.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let api: Api<ScaledWorkload> = Api::all(cluster.client.clone());
        let asleep: Arc<Mutex<HashSet<Key>>> = Arc::default();
        let noted = Arc::clone(&asleep);
        let mut tasks = JoinSet::new();
        let all = watcher::Config::default();
        let begun = follow(&mut tasks, api, all, move |scaled: &ScaledWorkload, _| {
            let state = scaled.status.as_ref().map(|status| status.state);
            let mut asleep = noted.lock();
            if state == Some(State::Asleep) {
                asleep.insert(key_of_target(scaled));
            } else {
                asleep.remove(&key_of_target(scaled));
            }
        });
        begins(begun).await?;
        Ok(Self {
            asleep,
            _tasks: tasks,
        })
    }

    /// Whether `workload` is asleep.
    #[must_use]
    pub fn has(&self, workload: &Workload) -> bool {
        self.asleep.lock().contains(&key(workload))
    }
}

// === impl Departures ===

impl Departures {
    /// Starts watching all slices that Lull writes; those that list `address` then are followed.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(cluster: &Cluster, address: &str) -> anyhow::Result<Self> {
        let api: Api<EndpointSlice> = Api::all(cluster.client.clone());
        let ours = format!("{}={}", names::SLICE_MANAGED_BY_LABEL, names::MANAGED_BY);
        let ours = watcher::Config::default().labels(&ours);
        let slices: Arc<Mutex<HashMap<Key, Listing>>> = Arc::default();
        let (noted, address) = (Arc::clone(&slices), address.to_owned());
        let mut tasks = JoinSet::new();
        let begun = follow(&mut tasks, api, ours, move |slice: &EndpointSlice, _| {
            note(&mut noted.lock(), slice, &address);
        });
        begins(begun).await?;
        Ok(Self {
            slices,
            _tasks: tasks,
        })
    }

    /// When the address had left all slices of the workload's Service: `None` while it is in one, or
    /// where it never was.
    #[must_use]
    pub fn left(&self, workload: &Workload) -> Option<Instant> {
        let (slices, service) = (self.slices.lock(), key(workload));
        let its = slices.values().filter(|slice| slice.service == service);
        let left: Option<Vec<Instant>> = its.map(|slice| slice.left).collect();
        left?.into_iter().max()
    }

    /// Slices that list the address now.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let slices = self.slices.lock();
        slices.values().filter(|slice| slice.left.is_none()).count()
    }
}

/// Follows a slice from the first time that it lists `address`.
fn note(slices: &mut HashMap<Key, Listing>, slice: &EndpointSlice, address: &str) {
    let mut addresses = slice.endpoints.iter().flat_map(|e| &e.addresses);
    let is_listed = addresses.any(|listed| listed == address);
    let place = key_of(slice);
    match slices.get_mut(&place) {
        Some(known) if is_listed => known.left = None,
        Some(known) => _ = known.left.get_or_insert_with(Instant::now),
        None if is_listed => {
            let service = slice.labels().get("kubernetes.io/service-name");
            let service = (place.0.clone(), service.cloned().unwrap_or_default());
            let left = None;
            slices.insert(place, Listing { service, left });
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_slices_that_had_the_address_are_left_by_it() {
        let slice = |name: &str, addresses: &[&str]| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "ns" },
                "addressType": "IPv4",
                "endpoints": [{ "addresses": addresses }],
            }))
            .unwrap()
        };
        let mut slices = HashMap::new();
        let states = [
            ("one", &["a", "b"][..]),
            ("other", &["b"][..]),
            ("two", &["a"][..]),
            ("one", &["b"][..]),
        ];
        for (name, addresses) in states {
            note(&mut slices, &slice(name, addresses), "a");
        }
        let left = |name: &str| slices[&("ns".to_owned(), name.to_owned())].left;
        assert!(slices.len() == 2 && left("one").is_some() && left("two").is_none());
    }
}
