//! Who answers for a Service, by its EndpointSlices.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
};

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::{
    core::v1::Pod,
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    runtime::watcher::{self, Event, watcher},
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{Cluster, Workload, cluster::call, timeline::begins};

/// Ready endpoints of a Service, by what stands behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backends {
    /// The workload's pods, by name.
    pub pods: BTreeSet<String>,
    /// Lull's activators, by name.
    pub activators: BTreeSet<String>,
    /// Addresses that are neither.
    pub unknown: BTreeSet<String>,
}

/// Watches how many ready endpoints the workload's public Service has, all its slices together.
#[derive(Debug)]
pub struct Union {
    seen: Arc<Mutex<Seen>>,
    /// Stops watching when dropped.
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Ready endpoints of each slice.
    ready: BTreeMap<String, usize>,
    /// Fewest of all together, once the first list was there.
    fewest: Option<usize>,
}

/// Which slices are those of the workload's public Service.
fn of_service(workload: &Workload) -> String {
    format!("kubernetes.io/service-name={}", workload.name)
}

/// The ready endpoints in all slices of the workload's public Service.
///
/// # Errors
/// Where slices or pods can't be listed.
pub async fn backends(workload: &Workload) -> anyhow::Result<Backends> {
    let mut all = Backends::default();
    for one in by_family(workload).await?.into_values() {
        all.pods.extend(one.pods);
        all.activators.extend(one.activators);
        all.unknown.extend(one.unknown);
    }
    Ok(all)
}

/// The same by address family, as slices name it: those of which there is a slice, with or without an
/// endpoint.
///
/// # Errors
/// Where slices or pods can't be listed.
pub async fn by_family(workload: &Workload) -> anyhow::Result<BTreeMap<String, Backends>> {
    let slices: Api<EndpointSlice> =
        Api::namespaced(workload.cluster.client.clone(), &workload.namespace);
    let its = ListParams::default().labels(&of_service(workload));
    let slices = call("list slices", slices.list(&its)).await?;
    let pods = by_address(workload.pods().await?);
    let activators = by_address(workload.cluster.component_pods("activator").await?);
    let mut families: BTreeMap<String, Backends> = BTreeMap::new();
    let endpoints = slices.items.into_iter().flat_map(|slice| {
        let family = slice.address_type;
        families.entry(family.clone()).or_default();
        slice
            .endpoints
            .into_iter()
            .map(move |endpoint| (family.clone(), endpoint))
    });
    let endpoints: Vec<(String, Endpoint)> = endpoints.collect();
    for (family, endpoint) in endpoints {
        let backends = families.entry(family).or_default();
        if !is_ready(&endpoint) {
            continue;
        }
        for address in endpoint.addresses {
            if let Some(pod) = pods.get(&address) {
                backends.pods.insert(pod.clone());
            } else if let Some(activator) = activators.get(&address) {
                backends.activators.insert(activator.clone());
            } else {
                backends.unknown.insert(address);
            }
        }
    }
    Ok(families)
}

/// Fails unless the Service's endpoints are `pods_at_least` or more pods and nothing else.
///
/// # Errors
/// With what they are.
pub async fn pods_only(workload: &Workload, pods_at_least: usize) -> anyhow::Result<Backends> {
    let backends = backends(workload).await.context("look at the slices")?;
    anyhow::ensure!(
        backends.pods.len() >= pods_at_least
            && backends.activators.is_empty()
            && backends.unknown.is_empty(),
        "behind the Service are {backends:?}; {}",
        workload.status_line().await
    );
    Ok(backends)
}

/// Pods that end or have ended, and whose endpoints say nothing of it yet, by namespace and name: callers are led to
/// them until somebody takes note.
///
/// # Errors
/// Where slices or pods can't be listed.
pub async fn unnoticed_ends(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let slices: Api<EndpointSlice> = Api::all(cluster.client.clone());
    let slices = call("list slices", slices.list(&ListParams::default())).await?;
    // Later than the slices, so that none of a pod's endpoints is older than the pod.
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let pods = call("list pods", pods.list(&ListParams::default())).await?;
    Ok(unnoticed(&slices.items, &pods.items))
}

fn unnoticed(slices: &[EndpointSlice], pods: &[Pod]) -> BTreeSet<String> {
    let place =
        |namespace: Option<&str>, name: &str| format!("{}/{name}", namespace.unwrap_or_default());
    let alive = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| place(pod.metadata.namespace.as_deref(), &pod.name_any()));
    let alive: BTreeSet<String> = alive.collect();
    let called = slices.iter().flat_map(|slice| {
        let namespace = slice.metadata.namespace.as_deref();
        let endpoints = slice
            .endpoints
            .iter()
            .filter(|endpoint| is_called(endpoint));
        endpoints.filter_map(move |endpoint| {
            let pod = endpoint.target_ref.as_ref()?;
            let is_pod = pod.kind.as_deref() == Some("Pod");
            let name = pod.name.as_deref().filter(|_| is_pod)?;
            Some(place(pod.namespace.as_deref().or(namespace), name))
        })
    });
    called.filter(|pod| !alive.contains(pod)).collect()
}

/// Absent means ready: https://kubernetes.io/docs/reference/kubernetes-api/ EndpointConditions
fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready) != Some(false)
}

/// Whether callers are led to it as to one that goes on.
fn is_called(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let ends = conditions.and_then(|conditions| conditions.terminating) == Some(true);
    is_ready(endpoint) && !ends
}

// === impl Union ===

impl Union {
    /// Starts watching.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(workload: &Workload) -> anyhow::Result<Self> {
        let client = workload.cluster.client.clone();
        let api: Api<EndpointSlice> = Api::namespaced(client, &workload.namespace);
        let its = watcher::Config::default().labels(&of_service(workload));
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (noted, mut task) = (Arc::clone(&seen), JoinSet::new());
        let (begun_tx, begun_rx) = oneshot::channel();
        task.spawn(async move {
            let mut begun_tx = Some(begun_tx);
            let mut events = pin!(watcher(api, its));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        if noted.lock().note(event) {
                            // Nobody listens any more once a start has failed.
                            begun_tx.take().map(|begun| begun.send(()));
                        }
                    }
                    Err(error) => eprintln!("watch of slices: {error}"),
                }
            }
        });
        begins(begun_rx).await?;
        Ok(Self { seen, _task: task })
    }

    /// Fewest ready endpoints so far.
    #[must_use]
    pub fn fewest(&self) -> usize {
        self.seen.lock().fewest.unwrap_or_default()
    }
}

// === impl Seen ===

impl Seen {
    /// Whether all slices are known after the event.
    fn note(&mut self, event: Event<EndpointSlice>) -> bool {
        match event {
            Event::Init => {
                self.ready.clear();
                return false;
            }
            Event::InitApply(slice) => {
                self.apply(&slice);
                return false;
            }
            Event::InitDone => {}
            Event::Apply(slice) => self.apply(&slice),
            Event::Delete(slice) => {
                self.ready.remove(&slice.name_any());
            }
        }
        let now: usize = self.ready.values().sum();
        self.fewest = Some(self.fewest.map_or(now, |fewest| fewest.min(now)));
        true
    }

    fn apply(&mut self, slice: &EndpointSlice) {
        let ready = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint));
        self.ready.insert(slice.name_any(), ready.count());
    }
}

fn by_address(pods: Vec<Pod>) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for pod in pods {
        let name = pod.metadata.name.unwrap_or_default();
        let addresses = pod
            .status
            .and_then(|status| status.pod_ips)
            .unwrap_or_default();
        names.extend(
            addresses
                .into_iter()
                .map(|address| (address.ip, name.clone())),
        );
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, ready: &[bool]) -> EndpointSlice {
        let endpoints = ready
            .iter()
            .map(|ready| json!({ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }));
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "addressType": "IPv4",
            "endpoints": endpoints.collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_that_ends_is_unnoticed_while_its_endpoint_is_as_before() {
        let pod = |name: &str, ends: Option<&str>| -> Pod {
            let metadata = json!({ "name": name, "namespace": "shop", "deletionTimestamp": ends });
            serde_json::from_value(json!({ "metadata": metadata })).unwrap()
        };
        let endpoint = |name: &str, conditions: Value| {
            json!({
                "addresses": ["10.0.0.1"],
                "conditions": conditions,
                "targetRef": { "kind": "Pod", "name": name, "namespace": "shop" },
            })
        };
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": { "name": "a", "namespace": "shop" },
            "addressType": "IPv4",
            "endpoints": [
                endpoint("runs", json!({ "ready": true })),
                endpoint("ends", json!({ "ready": true })),
                endpoint("noticed", json!({ "ready": false, "serving": true, "terminating": true })),
                endpoint("published", json!({ "ready": true, "terminating": true })),
                endpoint("gone", json!({})),
                { "addresses": ["10.0.0.2"] },
            ],
        }))
        .unwrap();
        let now = Some("2026-11-26T22:00:00Z");
        let pods = [
            pod("runs", None),
            pod("ends", now),
            pod("noticed", now),
            pod("published", now),
        ];
        let expected = ["shop/ends", "shop/gone"].map(str::to_owned);
        assert_eq!(unnoticed(&[slice], &pods), BTreeSet::from(expected));
    }

    #[test]
    fn the_fewest_of_all_slices_together_is_kept() {
        let mut seen = Seen::default();
        let rows = [
            (Event::Init, None),
            (Event::InitApply(slice("pods", &[true, true])), None),
            (Event::InitDone, Some(2)),
            (Event::Apply(slice("ours", &[true])), Some(2)),
            (Event::Apply(slice("pods", &[false])), Some(1)),
            (Event::Apply(slice("pods", &[true])), Some(1)),
            (Event::Delete(slice("ours", &[true])), Some(1)),
            (Event::Apply(slice("pods", &[])), Some(0)),
        ];
        for (event, expected) in rows {
            seen.note(event);
            assert_eq!(seen.fewest, expected, "{:?}", seen.ready);
        }
    }
}
