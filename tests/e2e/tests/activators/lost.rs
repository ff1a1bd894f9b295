//! Activators that are lost or replaced leave nothing behind in the endpoints of sleepers.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Workload, activators, components, eventually, in_namespace_for, slices,
};

use crate::TURN;

/// Longest time of this test: activators drain when they are replaced, and others may have their turn before.
const TEST: Duration = Duration::from_secs(1_500);
/// Longest wait for endpoints that are alive. How soon they are among a thousand workloads is what
/// `make dead-activators` measures.
const ALIVE: Duration = Duration::from_secs(15);
/// Longest wait for an answer: who connects before kube-proxy has heard tries anew.
const ANSWERED: Duration = Duration::from_secs(30);
/// Longest wait for another activator in the place of a lost one.
const BACK: Duration = Duration::from_secs(120);

/// After a restart, callers of sleepers were sent to addresses that nobody had any more, and heard nothing.
#[tokio::test]
async fn kubeelasti_175_sleepers_are_reached_by_living_activators_alone() -> anyhow::Result<()> {
    in_namespace_for(TEST, "tickets-175", async |namespace| {
        let cluster = &namespace.cluster;
        let (lost, replaced) = (App::new("lost"), App::new("replaced"));
        let (agent, lost, replaced) = tokio::try_join!(
            Agent::deploy(namespace),
            lost.deploy_asleep(namespace),
            replaced.deploy_asleep(namespace)
        )?;
        tokio::try_join!(lost.pods_gone(), replaced.pods_gone())?;
        let _turn = TURN.lock().await;
        // Whoever had it before may have woken them.
        tokio::try_join!(lost.asleep(), replaced.asleep())?;
        tokio::try_join!(lost.pods_gone(), replaced.pods_gone())?;

        let there = activators::ready(cluster).await?;
        let victim = there.first().context("no activator is ready")?;
        components::lose(cluster, victim).await?;
        tokio::try_join!(listed_alive(&lost), listed_alive(&replaced))?;
        agent.is_answered(&lost.url("/"), ANSWERED).await?;
        eventually("another activator", BACK, async || {
            let ready = activators::ready(cluster).await?;
            ensure!(ready.len() >= there.len(), "ready are {ready:?}");
            Ok(())
        })
        .await?;

        components::roll_out(cluster, activators::COMPONENT).await?;
        listed_alive(&replaced).await?;
        agent.is_answered(&replaced.url("/"), ANSWERED).await
    })
    .await
}

/// Waits until the sleeper's endpoints are activators that are ready, and no address of anybody else.
async fn listed_alive(sleeper: &Workload) -> anyhow::Result<()> {
    let what = format!("living activators alone behind {}", sleeper.name);
    eventually(&what, ALIVE, async || {
        let backends = slices::backends(sleeper).await?;
        let ready = activators::ready(&sleeper.cluster).await?;
        let are_alive = backends.unknown.is_empty() && backends.activators.is_subset(&ready);
        ensure!(
            are_alive && backends.pods.is_empty() && !backends.activators.is_empty(),
            "{backends:?}, ready are {ready:?}"
        );
        Ok(())
    })
    .await
}
