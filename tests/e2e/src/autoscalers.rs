//! Lull's autoscalers: who leads which shard of the workloads.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, ResourceExt as _, api::ListParams};
use lull_contract::Shards;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{Cluster, Workload, cluster::call, eventually};

/// As [`COMPONENTS`](crate::cluster::COMPONENTS) has it.
const COMPONENT: &str = "autoscaler";
/// The replicas' variable for the number of shards.
const SHARDS: &str = "AUTOSCALER_SHARDS";
/// Longest wait for an even spread: a shard is handed over after 10 s, to one that lost it after 60.
const SPREAD: Duration = Duration::from_secs(90);

/// Between two renewals of a lease that is kept: several within the time for which others wait for one.
const RENEW: Duration = Duration::from_millis(300);

/// A lease that stays with its holder, who can't renew it, until this is dropped.
#[derive(Debug)]
#[must_use = "another one takes the lease when this is dropped"]
pub struct Kept {
    _task: JoinSet<()>,
}

/// How the workloads are divided, as the first replica has been told.
///
/// # Errors
/// Where there is no replica or it hasn't been told.
pub async fn shards(cluster: &Cluster) -> anyhow::Result<Shards> {
    let pods = cluster.component_pods(COMPONENT).await?;
    let containers = pods
        .iter()
        .flat_map(|pod| &pod.spec)
        .flat_map(|s| &s.containers);
    let mut variables = containers.flat_map(|container| container.env.iter().flatten());
    let shards = variables.find(|variable| variable.name == SHARDS);
    let shards = shards.and_then(|variable| variable.value.as_deref());
    let shards = shards.with_context(|| format!("no {COMPONENT} has {SHARDS}"))?;
    Ok(shards.parse()?)
}

/// The Lease of each shard that has had one.
///
/// # Errors
/// Where they can't be listed.
pub async fn leases(cluster: &Cluster) -> anyhow::Result<BTreeMap<u16, LeaseSpec>> {
    let shards = shards(cluster).await?;
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let leases = call("list leases", api.list(&ListParams::default())).await?;
    let of_shards = leases.items.into_iter().filter_map(|lease| {
        let (division, shard) = Shards::of_lease(&lease.name_any())?;
        (division == shards).then_some((shard, lease.spec?))
    });
    Ok(of_shards.collect())
}

/// The Lease of the workload's shard.
///
/// # Errors
/// Where there is none.
pub async fn lease(workload: &Workload) -> anyhow::Result<LeaseSpec> {
    let shards = shards(&workload.cluster).await?;
    let shard = shards.of(&workload.namespace, &workload.name);
    let mut leases = leases(&workload.cluster).await?;
    let lease = leases.remove(&shard);
    lease.with_context(|| format!("shard {shard} has no lease"))
}

/// Renews the Lease of the workload's shard in its holder's name: no other replica leads it meanwhile.
///
/// # Errors
/// Where the first renewal fails.
pub async fn keep_lease(workload: &Workload) -> anyhow::Result<Kept> {
    let (cluster, shards) = (workload.cluster.clone(), shards(&workload.cluster).await?);
    let name = shards.lease(shards.of(&workload.namespace, &workload.name));
    renew(&cluster, &name).await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            tokio::time::sleep(RENEW).await;
            if let Err(error) = renew(&cluster, &name).await {
                eprintln!("lease {name}: {error:#}");
            }
        }
    });
    Ok(Kept { _task: task })
}

async fn renew(cluster: &Cluster, lease: &str) -> anyhow::Result<()> {
    let namespace = &cluster.lull_namespace;
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease}");
    let now = MicroTime(jiff::Timestamp::now());
    let patch = json!({ "spec": { "renewTime": now } });
    let kind = "application/merge-patch+json";
    cluster.patch(&path, kind, &patch).await
}

/// Who leads each shard, once every ready replica leads as many as the others, or one more.
///
/// # Errors
/// Where that doesn't come.
pub async fn spread(cluster: &Cluster) -> anyhow::Result<BTreeMap<u16, String>> {
    eventually("shards that are spread", SPREAD, async || {
        let (shards, ready) = (
            shards(cluster).await?,
            cluster.ready_names(COMPONENT).await?,
        );
        let leases = leases(cluster).await?.into_iter();
        let leaders: BTreeMap<u16, String> = leases
            .filter_map(|(shard, lease)| Some((shard, lease.holder_identity?)))
            .collect();
        let led = |name: &String| leaders.values().filter(|leader| *leader == name).count();
        let led: Vec<usize> = ready.iter().map(led).collect();
        let (least, most) = (led.iter().min(), led.iter().max());
        let is_even = most
            .zip(least)
            .is_some_and(|(most, least)| most - least <= 1);
        let all: usize = led.iter().sum();
        ensure!(
            is_even && all == usize::from(shards.count()),
            "{leaders:?}, ready: {ready:?}"
        );
        Ok(leaders)
    })
    .await
}

/// A name that begins with `prefix` and puts a workload of `namespace` into `shard`.
#[must_use]
pub fn name_in((shards, shard): (Shards, u16), namespace: &str, prefix: &str) -> String {
    let names = (0_u32..).map(|number| format!("{prefix}-{number}"));
    let mut of_shard = names.filter(|name| shards.of(namespace, name) == shard);
    // Of endlessly many names some are in each shard.
    of_shard.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_for_every_shard() {
        let shards: Shards = "5".parse().unwrap();
        for shard in shards.all() {
            let name = name_in((shards, shard), "ns", "shop");
            assert!(name.starts_with("shop-"), "{name}");
            assert_eq!(shards.of("ns", &name), shard);
        }
    }
}
