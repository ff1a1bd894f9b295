//! What is known of the cluster: one watch each, kept in memory, and a callback per changed object.

use std::{fmt::Debug, hash::Hash, sync::Arc};

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
        reflector::{self, Store, store::Writer},
        watcher::{self, Event},
    },
};
use lull_contract::{names::POD_LABEL, scaled_workload::ScaledWorkload};
use lull_process::readiness::Readiness;
use serde::de::DeserializeOwned;

/// Every watched kind.
#[derive(Clone)]
pub struct Stores {
    /// All Deployments.
    pub deployments: Store<Deployment>,
    /// All Services.
    pub services: Store<Service>,
    /// All EndpointSlices.
    pub slices: Store<EndpointSlice>,
    /// All ScaledWorkloads.
    pub workloads: Store<ScaledWorkload>,
    /// Pods that carry our label.
    pub pods: Store<Pod>,
    /// Our activators.
    pub activators: Store<Pod>,
}

/// Which object changed, as far as its workload is concerned.
#[derive(Debug, Clone)]
pub enum Touched {
    /// The workload of this namespace and name.
    Workload(String, String),
    /// The workload of this namespace whose [`POD_LABEL`] value is this.
    Label(String, String),
    /// Any workload of this namespace.
    Namespace(String),
    /// An activator: any workload.
    Activators,
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
                |d| Touched::Workload(d.namespace().unwrap_or_default(), d.name_any()),
            ),
            services: watch(
                Api::<Service>::all(client.clone()),
                all(),
                ("services", readiness),
                on_touched,
                move |s| of_namespace(s.namespace()),
            ),
            slices: watch(
                Api::<EndpointSlice>::all(client.clone()),
                all(),
                ("endpointslices", readiness),
                on_touched,
                move |s| of_namespace(s.namespace()),
            ),
            workloads: watch(
                Api::<ScaledWorkload>::all(client.clone()),
                all(),
                ("scaledworkloads", readiness),
                on_touched,
                |w| Touched::Workload(w.namespace().unwrap_or_default(), w.name_any()),
            ),
            pods: watch(
                Api::<Pod>::all(client.clone()),
                all().labels(POD_LABEL),
                ("pods", readiness),
                on_touched,
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
                |_| Touched::Activators,
            ),
        }
    }
}

fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    (name, readiness): (&'static str, &Readiness),
    on_touched: &OnTouched,
    touched: impl Fn(&K) -> Touched + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq,
{
    let writer = Writer::<K>::new(());
    let store = writer.as_reader();
    let mut pending = Some(readiness.expect(name));
    let on_touched = Arc::clone(on_touched);
    let stream = watcher::watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear());
    let stream = reflector::reflector(writer, stream);
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        loop {
            match stream.try_next().await {
                Ok(Some(Event::InitDone)) => drop(pending.take()),
                Ok(Some(Event::Apply(o) | Event::InitApply(o) | Event::Delete(o))) => {
                    on_touched(touched(&o));
                }
                Ok(Some(Event::Init)) => {}
                Ok(None) => break,
                // The watcher comes back by itself, with backoff.
                Err(error) => tracing::warn!(%error, "watch of {name} failed"),
            }
        }
        tracing::error!("watch of {name} ended");
    });
    store
}
