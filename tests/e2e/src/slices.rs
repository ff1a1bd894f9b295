//! Who answers for a Service, by its EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{Api, api::ListParams};

use crate::{Workload, cluster::call};

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

/// The ready endpoints in all slices of the workload's public Service.
///
/// # Errors
/// Where slices or pods can't be listed.
pub async fn backends(workload: &Workload) -> anyhow::Result<Backends> {
    let slices: Api<EndpointSlice> =
        Api::namespaced(workload.cluster.client.clone(), &workload.namespace);
    let service = format!("kubernetes.io/service-name={}", workload.name);
    let slices = call(
        "list slices",
        slices.list(&ListParams::default().labels(&service)),
    )
    .await?;
    let pods = by_address(workload.pods().await?);
    let activators = by_address(workload.cluster.component_pods("activator").await?);
    let mut backends = Backends::default();
    let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
    for endpoint in endpoints {
        // Absent means ready: https://kubernetes.io/docs/reference/kubernetes-api/ EndpointConditions
        let ready = endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready);
        if ready == Some(false) {
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
    Ok(backends)
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
