//! No activator at all: what sleeps is woken and answers directly, and sleeps again when they are
//! back.
//!
//! Nothing else can run beside it: it wakes every workload of the cluster.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_contract::scaled_workload::State;
use lull_e2e::{
    Agent, App, Workload,
    activators::{self, COMPONENT},
    all_answered, components, eventually, in_namespace_for,
};
use sample_app::wire::RunSpec;

/// Longest wait for a wake that nobody has asked for: 15 s without an activator, a pod, a busy machine.
const WOKEN: Duration = Duration::from_secs(90);
/// Longest time of this test: activators drain before they go, and it falls asleep twice.
const TEST: Duration = Duration::from_secs(600);
/// Requests that are answered without any activator.
const REQUESTS: u64 = 50;

#[tokio::test]
async fn without_any_activator_what_sleeps_is_woken_and_sleeps_again_when_they_are_back()
-> anyhow::Result<()> {
    in_namespace_for(TEST, "no-activator", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_asleep(namespace).await?;
        // A pod that ends still answers what comes in the first moment after sleep.
        workload.pods_gone().await?;
        let there = activators::ready(&workload.cluster).await?.len();
        let without = without_any(&agent, &workload).await;
        // Also where that failed: every other test needs them.
        let back = components::scale(&workload.cluster, COMPONENT, there).await;
        without?;
        back?;
        workload.asleep().await?;
        workload.pods_gone().await?;
        let result = agent.run(&requests(&workload)).await?;
        all_answered(&result)?;
        ensure!(result.via_activator > 0, "nothing was held: {result:?}");
        Ok(())
    })
    .await
}

/// Takes all activators away and waits until `workload` answers by itself, and tells why.
async fn without_any(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    components::scale(&workload.cluster, COMPONENT, 0).await?;
    eventually("a wake without an activator", WOKEN, async || {
        let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
        let status = scaled.status.context("no status")?;
        let (state, reason) = (status.state, &status.reason);
        ensure!(
            state == State::Awake && reason.contains("no activator"),
            "{state}: {reason}"
        );
        let warned = status.conditions.iter().find(|c| c.type_ == "Warnings");
        let warned = warned.map(|condition| condition.reason.as_str());
        ensure!(warned == Some("NoActivator"), "warnings: {warned:?}");
        Ok(())
    })
    .await?;
    let result = agent.run(&requests(workload)).await?;
    all_answered(&result).context("without any activator")?;
    ensure!(result.via_activator == 0, "by what? {result:?}");
    Ok(())
}

fn requests(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/"),
        connections: 5,
        requests: Some(REQUESTS),
        keep_alive: false,
        timeout_ms: 60_000,
        ..RunSpec::default()
    }
}
