//! Requests, counted.

use anyhow::ensure;
use lull_e2e::{Agent, Workload, all_answered, eventually, slices};
use sample_app::wire::{RunResult, RunSpec};

use crate::FOLLOW;

/// Whom policies keep out gets no answer at all.
const REFUSED_MS: u64 = 2_000;

/// `count` requests, each on a connection of its own and all at once.
pub(crate) async fn requests(agent: &Agent, url: String, count: u32) -> anyhow::Result<RunResult> {
    let spec = RunSpec {
        url,
        connections: count,
        requests: Some(count.into()),
        keep_alive: false,
        ..RunSpec::default()
    };
    agent.run(&spec).await
}

/// Ten requests a second until it is stopped, on connections that are kept.
pub(crate) fn steady(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/"),
        connections: 2,
        rate: Some(10.0),
        seconds: Some(300.0),
        ..RunSpec::default()
    }
}

/// Fails unless none of ten requests gets any answer.
pub(crate) async fn gets_nothing(agent: &Agent, url: &str) -> anyhow::Result<()> {
    let spec = RunSpec {
        url: url.to_owned(),
        connections: 10,
        requests: Some(10),
        keep_alive: false,
        timeout_ms: REFUSED_MS,
        ..RunSpec::default()
    };
    let result = agent.run(&spec).await?;
    ensure!(
        result.done && result.sent == 10 && result.ok == 0 && result.by_status.is_empty(),
        "{} gets answers from {url}: {result:?}",
        agent.pod()
    );
    Ok(())
}

/// Waits until the workload sleeps and has no pod left, and wakes it by counted requests.
pub(crate) async fn sleeps_and_wakes(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    workload.asleep().await?;
    workload.pods_gone().await?;
    woken(agent, workload).await
}

/// Wakes the sleeping workload: every request is answered, all of them by way of an activator.
pub(crate) async fn woken(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    let result = requests(agent, workload.url("/?sleep_ms=50"), 50).await?;
    all_answered(&result)?;
    ensure!(
        result.via_activator == result.sent,
        "not all were held: {result:?}"
    );
    Ok(())
}

/// What `then` sees while the workload's pods alone answer for it; a load that is counted keeps it awake.
pub(crate) async fn while_served(
    agent: &Agent,
    workload: &Workload,
    then: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let load = agent.start(&steady(workload)).await?;
    eventually("its pods alone", FOLLOW, async || {
        slices::pods_only(workload, 1).await
    })
    .await?;
    // kube-proxy follows a moment later. A request that fails is no reason to look again.
    let direct = eventually("answers by pods alone", FOLLOW, async || {
        let result = requests(agent, workload.url("/"), 20).await?;
        ensure!(result.failed > 0 || result.via_activator == 0, "{result:?}");
        Ok(result)
    });
    all_answered(&direct.await?)?;
    then().await?;
    all_answered(&load.stop().await?)
}
