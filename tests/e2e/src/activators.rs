//! Lull's activators as pods that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::ensure;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use lull_contract::ports;
use serde_json::{Value, json};

use crate::{Cluster, Workload, cluster::call, eventually, process};

/// The chart's name of the Deployment.
const DEPLOYMENT: &str = "lull-activator";
/// Longest wait for a pod to go and another to come: it drains first.
const CHANGE: Duration = Duration::from_secs(100);

/// Names of the activators that are ready and stay.
///
/// # Errors
/// Where they can't be listed.
pub async fn ready(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    cluster.ready_names("activator").await
}

/// Requests and connections that all of them hold for `workload`, by their own pages.
///
/// # Errors
/// Where one can't be asked.
pub async fn held(workload: &Workload) -> anyhow::Result<u64> {
    let cluster = &workload.cluster;
    let mut sum = 0;
    for pod in ready(cluster).await? {
        let pages = cluster.page(&pod, ports::ADMIN, "workloads").await?;
        let pages: Vec<Value> = serde_json::from_str(&pages)?;
        let ours = pages.iter().filter(|page| {
            page["namespace"] == workload.namespace.as_str()
                && page["name"] == workload.name.as_str()
        });
        sum += ours.filter_map(|page| page["held"].as_u64()).sum::<u64>();
    }
    Ok(sum)
}

/// Resident memory of each that is ready, MiB, by name; the nodes must run on this machine.
///
/// # Errors
/// Where they can't be listed, or one isn't found here.
pub async fn resident_mib(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, f64>> {
    let names = ready(cluster).await?.into_iter();
    let with_memory = names.map(|name| {
        let bytes = process::resident_bytes(&name)?;
        Ok((name, bytes as f64 / f64::from(1 << 20)))
    });
    with_memory.collect()
}

/// Ends the pod `name` as a drain of its node would, and waits until it has gone and as many are
/// ready as before.
///
/// # Errors
/// Where that doesn't happen in time.
pub async fn end(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let before = ready(cluster).await?.len();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    call(
        "end an activator",
        pods.delete(name, &DeleteParams::default()),
    )
    .await?;
    eventually("another activator", CHANGE, async || {
        let gone = pods.get_opt(name).await?.is_none();
        let now = ready(cluster).await?;
        ensure!(gone && now.len() >= before, "gone: {gone}, ready: {now:?}");
        Ok(())
    })
    .await
}

/// Rolls all of them out anew and waits until only new ones are there.
///
/// # Errors
/// Where that doesn't happen in time.
pub async fn roll_out(cluster: &Cluster) -> anyhow::Result<()> {
    let before = ready(cluster).await?;
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let now = sample_app::unix_us().to_string();
    let template = json!({ "metadata": { "annotations": { "lull-e2e/restarted": now } } });
    let patch = Patch::Merge(json!({ "spec": { "template": template } }));
    let params = PatchParams::default();
    let patched = api.patch(DEPLOYMENT, &params, &patch);
    call("roll the activators out", patched).await?;
    eventually("new activators alone", CHANGE, async || {
        let pods = cluster.component_pods("activator").await?;
        let all: BTreeSet<String> = pods.iter().map(Pod::name_any).collect();
        let now = ready(cluster).await?;
        ensure!(
            all == now && now.len() >= before.len() && now.is_disjoint(&before),
            "before {before:?}, there are {all:?}, ready {now:?}"
        );
        Ok(())
    })
    .await
}
