//! Kubernetes: three watches that feed the directory. Nothing is ever written.

use std::{collections::BTreeSet, fmt::Debug};

use futures::StreamExt;
use k8s_openapi::api::core::v1 as k8s;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use lull_contract::{names, scaled_workload::ScaledWorkload};
use lull_kubernetes::{pauses, watched};
use lull_process::readiness::Pending;
use serde::de::DeserializeOwned;

use crate::{
    directory::{Directory, WorkloadEntry},
    pod::Pod,
};

/// What is not ready before the first complete lists.
#[derive(Debug)]
pub(crate) struct Guards {
    pub(crate) workloads: Pending,
    pub(crate) pods: Pending,
    pub(crate) activators: Pending,
}

/// Which pods are the activators.
#[derive(Debug)]
pub(crate) struct Peers {
    /// `None` = this is the only one.
    pub(crate) namespace: Option<String>,
    /// Label selector.
    pub(crate) labels: String,
}

/// Where one kind of object goes.
struct Sink<K> {
    apply: fn(&Directory, &K),
    remove: fn(&Directory, &str, &str),
    keep: fn(&Directory, &BTreeSet<(String, String)>),
}

/// Follows ScaledWorkloads and pods; does not end.
pub(crate) async fn run(client: Client, directory: Directory, peers: Peers, guards: Guards) {
    let workloads = follow(
        Api::all(client.clone()),
        watched(),
        directory.clone(),
        Sink::<ScaledWorkload> {
            apply: |directory, object| {
                if let Some(entry) = WorkloadEntry::from_kubernetes(object) {
                    directory.apply_workload(entry);
                }
            },
            remove: Directory::remove_workload,
            keep: Directory::keep_workloads,
        },
        guards.workloads,
    );
    let pods = follow(
        Api::all(client.clone()),
        watched().labels(names::POD_LABEL),
        directory.clone(),
        Sink::<k8s::Pod> {
            apply: |directory, object| {
                if let Some(pod) = Pod::from_kubernetes(object) {
                    directory.apply_pod(pod);
                }
            },
            remove: Directory::remove_pod,
            keep: Directory::keep_pods,
        },
        guards.pods,
    );
    let activators = async {
        let Some(namespace) = &peers.namespace else {
            drop(guards.activators);
            return;
        };
        follow(
            Api::namespaced(client, namespace),
            watched().labels(&peers.labels),
            directory,
            Sink::<k8s::Pod> {
                apply: |directory, object| {
                    if let Some(pod) = Pod::from_kubernetes(object) {
                        directory.apply_activator(&pod);
                    }
                },
                remove: |directory, _, name| directory.remove_activator(name),
                keep: Directory::keep_activators,
            },
            guards.activators,
        )
        .await;
    };
    futures::join!(workloads, pods, activators);
}

async fn follow<K>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    directory: Directory,
    sink: Sink<K>,
    pending: Pending,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut pending = Some(pending);
    let mut listed = BTreeSet::new();
    // Retries for ever, also where the resource is not known yet.
    let events = watcher(api, config)
        .backoff(pauses())
        .modify(|object| object.managed_fields_mut().clear());
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(key(&object));
                apply(&directory, &sink, &object);
            }
            Ok(Event::InitDone) => {
                (sink.keep)(&directory, &listed);
                listed.clear();
                pending.take();
            }
            Ok(Event::Apply(object)) => apply(&directory, &sink, &object),
            Ok(Event::Delete(object)) => {
                let (namespace, name) = key(&object);
                (sink.remove)(&directory, &namespace, &name);
            }
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch failed: tried again");
            }
        }
    }
}

/// An object that can't be read is skipped, and what was known of it stays.
fn apply<K: Resource>(directory: &Directory, sink: &Sink<K>, object: &DeserializeGuard<K>) {
    match &object.0 {
        Ok(object) => (sink.apply)(directory, object),
        Err(invalid) => {
            let (namespace, name) = key(object);
            tracing::warn!(%namespace, %name, error = %invalid.error, "object can't be read");
        }
    }
}

fn key<K: Resource>(object: &K) -> (String, String) {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}
