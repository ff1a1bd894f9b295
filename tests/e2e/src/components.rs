//! Lull's components as pods that come and go, in good order or without.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    Cluster,
    cluster::{COMPONENTS, call, is_not_found, is_ready},
    eventually,
};

/// Longest wait for a pod to go and another to come: it drains first. Also what came while the API
/// server or a controller stood still for a minute is waited for.
const CHANGE: Duration = Duration::from_secs(160);

/// The chart's name of a component's Deployment.
fn deployment(component: &str) -> String {
    format!("lull-{component}")
}

/// Ends the pod `name` as a drain of its node would, and waits until it has gone and as many of its
/// `component` are ready as before.
///
/// # Errors
/// Where that doesn't happen in time.
pub async fn end(cluster: &Cluster, component: &str, name: &str) -> anyhow::Result<()> {
    let before = cluster.ready_names(component).await?.len();
    delete(cluster, name, &DeleteParams::default()).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let what = format!("another {component}");
    eventually(&what, CHANGE, async || {
        let gone = pods.get_opt(name).await?.is_none();
        let now = cluster.ready_names(component).await?;
        ensure!(gone && now.len() >= before, "gone: {gone}, ready: {now:?}");
        Ok(())
    })
    .await
}

/// Takes the pod `name` off the API server at once, as when its node is lost.
///
/// # Errors
/// Where the API server refuses.
pub async fn lose(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    delete(cluster, name, &DeleteParams::default().grace_period(0)).await
}

async fn delete(cluster: &Cluster, name: &str, params: &DeleteParams) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    call(&format!("delete {name}"), pods.delete(name, params))
        .await
        .map(drop)
}

/// Sets how many pods `component` is to have, and waits until so many are ready and no others are
/// there.
///
/// # Errors
/// Where the API server refuses, or that doesn't happen in time.
pub async fn scale(cluster: &Cluster, component: &str, replicas: usize) -> anyhow::Result<()> {
    want(cluster, component, replicas).await?;
    let what = format!("{replicas} pods of {component}");
    eventually(&what, CHANGE, async || {
        let all = cluster.component_pods(component).await?.len();
        let ready = cluster.ready_names(component).await?;
        ensure!(
            all == replicas && ready.len() == replicas,
            "there are {all}, ready {ready:?}"
        );
        Ok(())
    })
    .await
}

/// Sets how many pods `component` is to have.
async fn want(cluster: &Cluster, component: &str, replicas: usize) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let (name, params) = (deployment(component), PatchParams::default());
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let patched = api.patch(&name, &params, &patch);
    call(&format!("scale {name}"), patched).await.map(drop)
}

/// How many pods of each component are ready.
///
/// # Errors
/// Where they can't be listed.
pub async fn counts(cluster: &Cluster) -> anyhow::Result<BTreeMap<&'static str, usize>> {
    let mut counts = BTreeMap::new();
    for component in COMPONENTS {
        counts.insert(component, cluster.ready_names(component).await?.len());
    }
    Ok(counts)
}

/// Takes all of Lull away at once: each process has a second and no more.
///
/// # Errors
/// Where the API server refuses, or that doesn't happen in time.
pub async fn vanish(cluster: &Cluster) -> anyhow::Result<()> {
    // The kubelet is told; it would let what only leaves the API server end in its own time.
    let at_once = DeleteParams::default().grace_period(1);
    for component in COMPONENTS {
        want(cluster, component, 0).await?;
    }
    eventually("all of Lull to be gone", CHANGE, async || {
        let mut left = Vec::new();
        for component in COMPONENTS {
            let pods = cluster.component_pods(component).await?;
            left.extend(pods.iter().map(Pod::name_any));
        }
        for name in &left {
            match delete(cluster, name, &at_once).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        ensure!(left.is_empty(), "there still are {left:?}");
        Ok(())
    })
    .await
}

/// Brings each component back with so many pods, and waits until they are ready.
///
/// # Errors
/// Where the API server refuses, or that doesn't happen in time.
pub async fn come_back(
    cluster: &Cluster,
    counts: &BTreeMap<&'static str, usize>,
) -> anyhow::Result<()> {
    let all = counts
        .iter()
        .map(|(component, count)| scale(cluster, component, *count));
    try_join_all(all).await.map(drop)
}

/// Rolls all pods of `component` out anew and waits until only new ones are there.
///
/// # Errors
/// Where that doesn't happen in time.
pub async fn roll_out(cluster: &Cluster, component: &str) -> anyhow::Result<()> {
    let before = cluster.ready_names(component).await?;
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let now = sample_app::unix_us().to_string();
    let template = json!({ "metadata": { "annotations": { "lull-e2e/restarted": now } } });
    let patch = Patch::Merge(json!({ "spec": { "template": template } }));
    let (name, params) = (deployment(component), PatchParams::default());
    let patched = api.patch(&name, &params, &patch);
    call(&format!("roll {name} out"), patched).await?;
    only_others(cluster, component, &before).await
}

/// Waits until as many others of `component` as `before` are ready, and they alone are there.
async fn only_others(
    cluster: &Cluster,
    component: &str,
    before: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let what = format!("new pods of {component} alone");
    eventually(&what, CHANGE, async || {
        let pods = cluster.component_pods(component).await?;
        let all: BTreeSet<String> = pods.iter().map(Pod::name_any).collect();
        let now = cluster.ready_names(component).await?;
        ensure!(
            all == now && now.len() >= before.len() && now.is_disjoint(before),
            "before {before:?}, there are {all:?}, ready {now:?}"
        );
        Ok(())
    })
    .await
}

/// How often containers of the pod `name` have been started anew.
///
/// # Errors
/// Where the pod is gone.
pub fn restarts(pods: &[Pod], name: &str) -> anyhow::Result<i32> {
    let status = of_name(pods, name)?.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let containers = containers.into_iter().flatten();
    Ok(containers.map(|container| container.restart_count).sum())
}

/// Fails unless the pod `name` is ready and a container of it has been started anew since `before`, its
/// [`restarts`] then: what is there since a moment ago may not know yet that its process has ended.
///
/// # Errors
/// With what it is.
pub fn is_restarted(pods: &[Pod], (name, before): (&str, i32)) -> anyhow::Result<()> {
    let now = restarts(pods, name)?;
    ensure!(
        is_ready(of_name(pods, name)?) && now > before,
        "{name} is not ready, or was not started anew: {now} times, {before} before"
    );
    Ok(())
}

fn of_name<'a>(pods: &'a [Pod], name: &str) -> anyhow::Result<&'a Pod> {
    let mut pods = pods.iter();
    let pod = pods.find(|pod| pod.metadata.name.as_deref() == Some(name));
    pod.with_context(|| format!("{name} is gone"))
}
