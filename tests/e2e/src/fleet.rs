//! Many workloads at once.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{Api, api::ListParams};
use lull_contract::scaled_workload::{ScaledWorkload, State};

use crate::{App, Cluster, Namespace, Workload, eventually, say};

/// Workloads of one namespace.
const OF_NAMESPACE: usize = 100;
/// Objects created at once.
const AT_ONCE: usize = 16;
/// Longest wait for all of them to be asleep.
const ASLEEP: Duration = Duration::from_secs(1_200);
/// Between two lines about those that are not.
const TELL: Duration = Duration::from_secs(20);

/// Deploys `count` apps into namespaces called `<prefix>-0`, `<prefix>-1`, ...
///
/// # Errors
/// Where the API server refuses something.
pub async fn deploy(
    cluster: &Cluster,
    prefix: &str,
    count: usize,
    app: impl Fn(usize) -> App,
) -> anyhow::Result<Vec<Workload>> {
    let mut workloads = Vec::with_capacity(count);
    for first in (0..count).step_by(OF_NAMESPACE) {
        let name = format!("{prefix}-{}", first / OF_NAMESPACE);
        let namespace = Namespace::named(cluster.clone(), &name).await?;
        let numbers: Range<usize> = first..count.min(first + OF_NAMESPACE);
        let apps: Vec<App> = numbers.map(&app).collect();
        let deployed: Vec<Workload> = stream::iter(&apps)
            .map(|app| app.deploy(&namespace))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        workloads.extend(deployed);
    }
    Ok(workloads)
}

/// Waits until there are `count` ScaledWorkloads on the cluster and all are asleep.
///
/// # Errors
/// Where that takes longer than 20 minutes.
pub async fn all_asleep(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    let workloads: Api<ScaledWorkload> = Api::all(cluster.client.clone());
    let mut told = Instant::now();
    eventually("all workloads to be asleep", ASLEEP, async || {
        let listed = workloads.list(&ListParams::default()).await?;
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        for workload in &listed.items {
            // One without a status is being enrolled, too.
            let state = workload.status.as_ref().map(|status| status.state);
            *states
                .entry(state.unwrap_or_default().to_string())
                .or_default() += 1;
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            say(format!("{states:?}"));
        }
        // Not too often: it is a large list.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asleep = states.get(&State::Asleep.to_string());
        ensure!(asleep == Some(&count), "{states:?}");
        Ok(())
    })
    .await
}
