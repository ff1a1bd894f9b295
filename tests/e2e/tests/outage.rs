//! The API server stands still for a minute: nothing changes, nothing crashes, all goes on.
//!
//! Nothing else can run beside it, and it works on the built-in cluster alone.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use lull_e2e::{
    Agent, App, Namespace, Workload,
    agent::Run,
    all_answered,
    cluster::COMPONENTS,
    eventually, in_namespace_for,
    two_pods::{self, TwoPods},
};
use sample_app::wire::RunSpec;

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);
/// The promise of issue 6: so long without an API server changes nothing.
const OUTAGE: Duration = Duration::from_secs(60);
/// The load goes on for so many answers after it: 250 a second at most, so for a window twice.
const AFTERWARDS: u64 = 3_000;
/// From the order of the late requests until they come: the outage has begun by then.
const LATE: Duration = Duration::from_secs(15);
/// Longest time of this test: the outage, falling asleep before and after, and a busy machine.
const TEST: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_minute_without_an_api_server_changes_nothing_and_all_goes_on() -> anyhow::Result<()> {
    in_namespace_for(TEST, "outage", async |namespace| {
        let (agent, [busy, idle, asleep]) =
            tokio::try_join!(Agent::deploy(namespace), three_asleep(namespace))?;
        let load = TwoPods::load(&agent, &busy, TEST).await?;
        let before = restarts(&busy).await?;
        // Awake and without traffic from now on: its window ends in the outage.
        agent.get(&idle.url("/")).await?;
        let late = agent.start(&late_requests(&asleep)).await?;

        outage().await?;

        let at_its_end = answers(&load.run, 1).await?;
        let late = late.finished().await?;
        idle.asleep().await?;
        answers(&load.run, at_its_end + AFTERWARDS).await?;
        let load = load.stop().await.context("warm traffic")?;
        all_answered(&late).context("held through the outage")?;
        let first_ms = late.first_ok_ms.context("none was answered")?;
        ensure!(
            first_ms > sample_app::ms(OUTAGE / 2) && late.via_activator == late.sent,
            "they were not held: {late:?}"
        );
        let after = restarts(&busy).await?;
        ensure!(after == before, "before {before:?}, after {after:?}");
        eprintln!(
            "{} answered, {OUTAGE:?} of it without an API server; {} held for {first_ms:.0} ms",
            load.ok, late.ok
        );
        agent.get(&idle.url("/")).await?;
        for workload in [&busy, &idle, &asleep] {
            workload.asleep().await?;
        }
        Ok(())
    })
    .await
}

async fn three_asleep(namespace: &Namespace) -> anyhow::Result<[Workload; 3]> {
    let (busy, idle, asleep) = (
        two_pods::app("busy"),
        App::new("idle"),
        App::new("asleep").annotate("lull.dev/hold-timeout", "300s"),
    );
    let (busy, idle, asleep) = tokio::try_join!(
        busy.deploy_asleep(namespace),
        idle.deploy_asleep(namespace),
        asleep.deploy_asleep(namespace)
    )?;
    // A pod that ends still answers what comes in the first moment after sleep.
    tokio::try_join!(busy.pods_gone(), idle.pods_gone(), asleep.pods_gone())?;
    Ok([busy, idle, asleep])
}

/// Waits until the load has had so many answers; how many those are then.
async fn answers(load: &Run<'_>, enough: u64) -> anyhow::Result<u64> {
    eventually("answers of the load", FOLLOW, async || {
        let ok = load.so_far().await?.ok;
        ensure!(ok >= enough, "{ok} of {enough}");
        Ok(ok)
    })
    .await
}

/// Twenty callers of a sleeping workload, who come in the outage.
fn late_requests(asleep: &Workload) -> RunSpec {
    let delay_ms = u64::try_from(LATE.as_millis()).unwrap_or(u64::MAX);
    RunSpec {
        url: asleep.url("/"),
        connections: 20,
        requests: Some(20),
        delay_ms,
        timeout_ms: 200_000,
        ..RunSpec::default()
    }
}

/// The API server stands still; it goes on at the end, whatever happens.
async fn outage() -> anyhow::Result<()> {
    let cluster = std::env::var("LULL_CLUSTER").context("LULL_CLUSTER must name the cluster")?;
    let paused = lull_cluster::paused(&cluster, "kube-apiserver")?;
    // Nothing can be asked meanwhile: the length is what the test is about.
    tokio::time::sleep(OUTAGE).await;
    drop(paused);
    Ok(())
}

/// How often each container of Lull's components and of the busy workload was started anew.
async fn restarts(busy: &Workload) -> anyhow::Result<BTreeMap<String, i32>> {
    let mut pods = busy.pods().await?;
    for component in COMPONENTS {
        pods.extend(busy.cluster.component_pods(component).await?);
    }
    let mut restarts = BTreeMap::new();
    for pod in pods {
        let status = pod.status.clone().unwrap_or_default();
        for container in status.container_statuses.unwrap_or_default() {
            let name = format!("{} of {}", container.name, pod.name_any());
            restarts.insert(name, container.restart_count);
        }
    }
    Ok(restarts)
}
