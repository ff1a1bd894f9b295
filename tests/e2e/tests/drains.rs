//! The last pod of a workload is evicted, alone and in the drain of its node, under load.
//!
//! The node takes no new pods meanwhile, so nothing else may run beside it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Namespace, Workload, activators, agent::Run, all_answered, eventually, evict,
    in_namespace_for, slices,
};
use sample_app::wire::RunSpec;
use serde_json::json;

/// Longest wait for pods and endpoints to follow: a pod that ends drains first.
const FOLLOW: Duration = Duration::from_secs(90);
/// Longest time of a part of the test: more than all its waits together, so that it never ends between
/// the node's closing and its opening.
const PART: Duration = Duration::from_secs(600);
/// Content type of a node's patch.
const MERGE: &str = "application/merge-patch+json";

/// One after the other: the second one takes the node from everybody.
#[tokio::test]
async fn eviction_of_the_last_pod_and_drain_of_its_node_lose_nothing() -> anyhow::Result<()> {
    in_namespace_for(PART, "evicted", async |namespace| {
        let (agent, workload) = deployed(namespace).await?;
        let loads = loads(&agent, &workload).await?;
        let last = last_pod(&workload).await?;
        evict(&workload, &last).await?;
        another_alone(&workload, &last).await?;
        answered(loads).await
    })
    .await?;
    in_namespace_for(PART, "drained", async |namespace| {
        let (agent, workload) = deployed(namespace).await?;
        let loads = loads(&agent, &workload).await?;
        let node = node_of(&workload).await?;
        let last = last_pod(&workload).await?;
        cordon(&workload, (&node, true)).await?;
        let drained = drained(&workload, &last).await;
        cordon(&workload, (&node, false)).await?;
        drained?;
        another_alone(&workload, &last).await?;
        answered(loads).await
    })
    .await
}

async fn deployed(namespace: &Namespace) -> anyhow::Result<(Agent, Workload)> {
    let agent = Agent::deploy(namespace).await?;
    let app = App::new("shop").annotate("lull.dev/max-scale", "1");
    let workload = app.deploy(namespace).await?;
    workload.enrolled().await?;
    workload.rolled_out().await?;
    Ok((agent, workload))
}

async fn last_pod(workload: &Workload) -> anyhow::Result<String> {
    let mut pods = workload.ready_pods().await?;
    ensure!(pods.len() == 1, "not one pod alone: {pods:?}");
    pods.pop().context("no pod is ready")
}

async fn node_of(workload: &Workload) -> anyhow::Result<String> {
    let pods = workload.pods().await?;
    let mut nodes = pods.into_iter().filter_map(|pod| pod.spec?.node_name);
    nodes.next().context("no pod has a node")
}

/// Whether the node takes new pods.
async fn cordon(workload: &Workload, (node, is_closed): (&str, bool)) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "unschedulable": is_closed } });
    let path = format!("/api/v1/nodes/{node}");
    workload.cluster.patch(&path, MERGE, &patch).await
}

/// Evicts the pod and waits until it has gone, and callers are held or another node has another pod.
async fn drained(workload: &Workload, last: &str) -> anyhow::Result<()> {
    evict(workload, last).await?;
    eventually(
        "the pod to go and its callers to be held",
        FOLLOW,
        async || {
            let pods = workload.pods().await?;
            let mut names = pods.iter().map(|pod| pod.metadata.name.as_deref());
            ensure!(names.all(|name| name != Some(last)), "{last} is there");
            let held = activators::held(workload).await?;
            let ready = workload.ready_pods().await?.len();
            ensure!(held > 0 || ready > 0, "{held} are held, {ready} are ready");
            Ok(())
        },
    )
    .await
}

/// Waits until another pod than `last` is behind the Service, and nothing else.
async fn another_alone(workload: &Workload, last: &str) -> anyhow::Result<()> {
    eventually("another pod alone", FOLLOW, async || {
        let backends = slices::pods_only(workload, 1).await?;
        ensure!(!backends.pods.contains(last), "{last} is still there");
        Ok(())
    })
    .await
}

/// On kept connections, and each request on its own.
async fn loads<'a>(agent: &'a Agent, workload: &Workload) -> anyhow::Result<[Run<'a>; 2]> {
    let kept = RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 20,
        seconds: Some(280.0),
        rate: Some(100.0),
        timeout_ms: 120_000,
        ..RunSpec::default()
    };
    let loads = agent.start_kept_and_new(kept).await?;
    // A workload that slept at the beginning has activators behind it for a moment.
    eventually("pods alone behind the Service", FOLLOW, async || {
        slices::pods_only(workload, 1).await
    })
    .await?;
    Ok(loads)
}

async fn answered(loads: [Run<'_>; 2]) -> anyhow::Result<()> {
    for load in loads {
        let result = load.stop().await?;
        all_answered(&result)?;
        eprintln!(
            "{} answered, {} by way of an activator, {:?} ms",
            result.ok, result.via_activator, result.latency_ms
        );
    }
    Ok(())
}
