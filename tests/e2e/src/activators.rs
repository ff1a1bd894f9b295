//! Lull's activators: which are ready, what they hold, what they need.

use std::collections::{BTreeMap, BTreeSet};

use lull_contract::ports;
use serde_json::Value;

use crate::{Cluster, Workload, counters, process};

/// As [`COMPONENTS`](crate::cluster::COMPONENTS) has it.
pub const COMPONENT: &str = "activator";

/// Names of the activators that are ready and stay.
///
/// # Errors
/// Where they can't be listed.
pub async fn ready(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    cluster.ready_names(COMPONENT).await
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

/// Connections with TLS that those have taken so far that are ready.
///
/// # Errors
/// Where one can't be asked.
pub async fn tls_connections(cluster: &Cluster) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pod in ready(cluster).await? {
        let metrics = cluster.page(&pod, ports::METRICS, "metrics").await?;
        let name = "lull_activator_connections_total";
        sum += counters::sum(&metrics, name, &["kind=\"tls\""]);
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
