//! The autoscaler's replicas: who leads what, and what happens when a leader dies.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use lull_contract::scaled_workload::State;
use lull_e2e::{
    Agent, App, Workload, all_answered, autoscalers, eventually, in_namespace, process,
};
use sample_app::wire::RunSpec;

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);
/// The promise of issue 6: another one decides so long after the leader's crash.
const TAKEOVER: Duration = Duration::from_secs(3);
/// For what the test itself needs to see it: API calls on a busy machine.
const SIGHT: Duration = Duration::from_millis(750);

async fn state(workload: &Workload) -> anyhow::Result<(State, u32)> {
    let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
    let status = scaled.status.context("no status")?;
    Ok((status.state, status.ready))
}

/// Kills the replica that leads `workload`'s shard, and waits for one that leads it after that.
async fn replace_leader(workload: &Workload) -> anyhow::Result<()> {
    let leader = autoscalers::lease(workload).await?.holder_identity;
    let leader = leader.context("nobody leads")?;
    process::kill(&leader)?;
    let (killed_at, killed) = (jiff::Timestamp::now(), Instant::now());
    eventually("a leader", TAKEOVER + SIGHT, async || {
        let lease = autoscalers::lease(workload).await?;
        let renewed = lease.renew_time.context("never renewed")?.0;
        ensure!(renewed > killed_at, "last renewed at {renewed}");
        Ok(())
    })
    .await?;
    let took = killed.elapsed();
    eprintln!("the lease was renewed {took:.2?} after the kill");
    Ok(())
}

/// One after the other: both kill replicas.
#[tokio::test]
async fn replicas_share_the_work_and_replace_each_other() -> anyhow::Result<()> {
    each_replica_decides_for_its_shard_and_another_one_after_its_crash().await?;
    a_leader_that_dies_under_load_is_replaced_and_no_count_moves().await
}

async fn each_replica_decides_for_its_shard_and_another_one_after_its_crash() -> anyhow::Result<()>
{
    in_namespace("shards", async |namespace| {
        let cluster = &namespace.cluster;
        let leaders = autoscalers::spread(cluster).await?;
        let replicas = BTreeSet::from_iter(leaders.values());
        ensure!(replicas.len() > 1, "one leads alone: {leaders:?}");
        let (shards, agent) = (
            autoscalers::shards(cluster).await?,
            Agent::deploy(namespace).await?,
        );
        let of_shard = |shard| autoscalers::name_in((shards, shard), &namespace.name, "shop");
        let apps: Vec<App> = shards
            .all()
            .map(|shard| App::new(&of_shard(shard)))
            .collect();
        let workloads = apps.iter().map(|app| app.deploy_asleep(namespace));
        let workloads = try_join_all(workloads).await?;
        wake_and_sleep(&agent, &workloads).await?;
        let first = workloads.first().context("there is no shard")?;
        replace_leader(first).await?;
        wake_and_sleep(&agent, &workloads).await
    })
    .await
}

/// Only the leader of its shard puts a workload to sleep.
async fn wake_and_sleep(agent: &Agent, workloads: &[Workload]) -> anyhow::Result<()> {
    for workload in workloads {
        let woken = agent.get(&workload.url("/")).await?;
        ensure!(woken.status == Some(200), "{}: {woken:?}", workload.name);
    }
    for slept in join_all(workloads.iter().map(Workload::asleep)).await {
        slept?;
    }
    Ok(())
}

async fn a_leader_that_dies_under_load_is_replaced_and_no_count_moves() -> anyhow::Result<()> {
    in_namespace("leader", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        // Of one shard, so of one leader.
        let shards = autoscalers::shards(&namespace.cluster).await?;
        let shard = shards.of(&namespace.name, "busy");
        let asleep = autoscalers::name_in((shards, shard), &namespace.name, "asleep");
        let (busy, asleep) = (
            App::new("busy").annotate("lull.dev/max-scale", "2"),
            App::new(&asleep),
        );
        let (busy, asleep) = tokio::try_join!(
            busy.deploy_asleep(namespace),
            asleep.deploy_asleep(namespace)
        )?;
        // A pod that ends still answers what comes in the first moment after sleep.
        busy.pods_gone().await?;
        let load = agent
            .start(&RunSpec {
                url: busy.url("/?sleep_ms=600"),
                connections: 150,
                seconds: Some(40.0),
                // Kept ones would all stay with the pod that was ready first.
                keep_alive: false,
                ..RunSpec::default()
            })
            .await?;
        eventually("two pods that carry the load", FOLLOW, async || {
            let now = state(&busy).await?;
            ensure!(now == (State::Awake, 2), "{now:?}");
            Ok(())
        })
        .await?;

        let pods = busy.ready_pods().await?;
        replace_leader(&busy).await?;
        // Any replica wakes; that the new leader does, shows that it decides.
        let woken = agent.get(&asleep.url("/")).await?;
        ensure!(woken.status == Some(200), "{woken:?}");

        let result = load.finished().await?;
        all_answered(&result)?;
        ensure!(
            result.by_pod.len() == 2,
            "other pods than the two came: {:?}",
            result.by_pod
        );
        let now = busy.ready_pods().await?;
        ensure!(now == pods, "ready before the kill: {pods:?}, now {now:?}");
        let replicas = busy.replicas().await?;
        ensure!(replicas == 2, "{replicas} replicas at the end of the load");
        asleep.asleep().await?;
        busy.asleep().await?;
        Ok(())
    })
    .await
}
