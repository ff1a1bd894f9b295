//! What is known of the cluster: one watch each, kept in memory, and a callback per changed object.

use std::{fmt::Debug, sync::Arc};

use futures::TryStreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use lull_contract::{
    names::{POD_LABEL, WORKLOAD_LABEL},
    scaled_workload::ScaledWorkload,
};
use lull_process::readiness::{Pending, Readiness};
use serde::de::DeserializeOwned;

use crate::{
    cache::{Cache, Writer},
    mesh::Entries,
    objects::SERVICE_NAME_LABEL,
};

/// Every watched kind.
#[derive(Clone)]
pub struct Stores {
    /// All Deployments.
    pub deployments: Cache<Deployment>,
    /// All Services.
    pub services: Cache<Service>,
    /// All EndpointSlices, grouped by their Service.
    pub slices: Cache<EndpointSlice>,
    /// All ScaledWorkloads.
    pub workloads: Cache<ScaledWorkload>,
    /// Pods that carry our label, grouped by its value.
    pub pods: Cache<Pod>,
    /// Our activators.
    pub activators: Cache<Pod>,
    /// WorkloadEntries that we wrote.
    pub entries: Entries,
}

/// Which object changed, as far as its workload is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// The workload of this namespace and name.
    Workload(String, String),
    /// The workload of this namespace whose [`POD_LABEL`] value is this.
    Label(String, String),
    /// Any workload of this namespace.
    Namespace(String),
    /// An activator: any workload.
    Activators,
    /// A list is complete, and what it no longer holds is gone: any workload, known or not.
    Everything,
}

/// Told about each change; must not block.
pub type OnTouched = Arc<dyn Fn(Touched) + Send + Sync>;

// === impl Stores ===

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}

impl Stores {
    /// Starts all watches; `readiness` waits for each one's first list.
    #[must_use]
    pub fn start(
        client: &Client,
        (namespace, activators): (&str, &str),
        readiness: &Readiness,
        on_touched: &OnTouched,
    ) -> Self {
        let all = watcher::Config::default;
        let of_namespace = |ns: Option<String>| Touched::Namespace(ns.unwrap_or_default());
        Self {
            deployments: watch(
                Api::<Deployment>::all(client.clone()),
                all(),
                ("deployments", readiness),
                on_touched,
                |_| None,
                |d| Touched::Workload(d.namespace().unwrap_or_default(), d.name_any()),
            ),
            services: watch(
                Api::<Service>::all(client.clone()),
                all(),
                ("services", readiness),
                on_touched,
                |_| None,
                move |s| of_namespace(s.namespace()),
            ),
            slices: watch(
                Api::<EndpointSlice>::all(client.clone()),
                all(),
                ("endpointslices", readiness),
                on_touched,
                |slice| label(slice, SERVICE_NAME_LABEL),
                move |slice| match label(slice, WORKLOAD_LABEL) {
                    // One that we wrote: nobody else looks at it.
                    Some(ours) => {
                        Touched::Label(slice.namespace().unwrap_or_default(), ours.to_owned())
                    }
                    None => of_namespace(slice.namespace()),
                },
            ),
            workloads: watch(
                Api::<ScaledWorkload>::all(client.clone()),
                all(),
                ("scaledworkloads", readiness),
                on_touched,
                |_| None,
                |w| Touched::Workload(w.namespace().unwrap_or_default(), w.name_any()),
            ),
            pods: watch(
                Api::<Pod>::all(client.clone()),
                all().labels(POD_LABEL),
                ("pods", readiness),
                on_touched,
                |pod| label(pod, POD_LABEL),
                |p| {
                    let label = p.labels().get(POD_LABEL).cloned().unwrap_or_default();
                    Touched::Label(p.namespace().unwrap_or_default(), label)
                },
            ),
            activators: watch(
                Api::<Pod>::namespaced(client.clone(), namespace),
                all().labels(activators),
                ("activators", readiness),
                on_touched,
                |_| None,
                |_| Touched::Activators,
            ),
            entries: Entries::start(client, readiness, on_touched),
        }
    }
}

fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    (name, readiness): (&'static str, &Readiness),
    on_touched: &OnTouched,
    group_of: fn(&K) -> Option<&str>,
    touched: impl Fn(&K) -> Touched + Send + 'static,
) -> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let writer = Writer::new(group_of);
    let cache = writer.cache();
    let pending = (name, Some(readiness.expect(name)));
    let told = (Arc::clone(on_touched), touched);
    tokio::spawn(follow(api, config, pending, writer, told));
    cache
}

/// Watches and fills the cache; the guard goes with the first complete list. Does not end.
pub(crate) async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    (name, mut pending): (&'static str, Option<Pending>),
    mut writer: Writer<K>,
    (on_touched, touched): (OnTouched, impl Fn(&K) -> Touched + Send + 'static),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let stream = watcher::watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear());
    let mut stream = std::pin::pin!(stream);
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(error) => {
                // The watcher comes back by itself, with backoff.
                tracing::warn!(%error, "watch of {name} failed");
                continue;
            }
        };
        let is_listed = matches!(event, Event::InitDone);
        let change = change_of(&event, &touched);
        writer.take(event);
        if is_listed {
            drop(pending.take());
        }
        if let Some(change) = change {
            on_touched(change);
        }
    }
    tracing::error!("watch of {name} ended");
}

/// Who is told when `event` has been taken note of.
///
/// An object of a list that is not complete can't be seen yet, so nobody looks for it; and what was
/// deleted while the watch was away is named by no event.
fn change_of<K>(event: &Event<K>, touched: impl Fn(&K) -> Touched) -> Option<Touched> {
    match event {
        Event::Apply(object) | Event::Delete(object) => Some(touched(object)),
        Event::Init | Event::InitApply(_) => None,
        Event::InitDone => Some(Touched::Everything),
    }
}

pub(crate) fn label<'a>(object: &'a impl Resource, key: &str) -> Option<&'a str> {
    let labels = object.meta().labels.as_ref();
    labels
        .and_then(|labels| labels.get(key))
        .map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_touches_everything_once_it_is_complete() {
        let touched = |_: &Pod| Touched::Activators;
        let told = [
            Event::Init,
            Event::InitApply(Pod::default()),
            Event::InitDone,
        ]
        .map(|event| change_of(&event, touched));
        assert_eq!(told, [None, None, Some(Touched::Everything)]);
        let one = change_of(&Event::Delete(Pod::default()), touched);
        assert_eq!(one, Some(Touched::Activators));
    }
}
