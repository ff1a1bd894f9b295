//! The autoscaler's replicas: who leads what, and what happens when a leader dies.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use lull_e2e::{
    Agent, App, Workload, autoscalers, eventually, in_namespace, process,
    two_pods::{self, TwoPods},
};

/// The promise of issue 6: another one decides so long after the leader's crash.
const TAKEOVER: Duration = Duration::from_secs(3);
/// Longest time of the load, which is stopped before.
const LOAD: Duration = Duration::from_secs(240);
/// For what the test itself needs to see it: API calls on a busy machine.
const SIGHT: Duration = Duration::from_millis(750);

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

/// Nothing else can run beside it: it kills a replica.
#[tokio::test]
async fn replicas_share_the_work_and_replace_each_other() -> anyhow::Result<()> {
    in_namespace("autoscalers", async |namespace| {
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
        let deployed = apps.iter().map(|app| app.deploy_asleep(namespace));
        let busy = two_pods::app("busy");
        let (one_of_each, busy) =
            tokio::try_join!(try_join_all(deployed), busy.deploy_asleep(namespace))?;
        wake_and_sleep(&agent, &one_of_each).await?;
        // A pod that ends still answers what comes in the first moment after sleep.
        busy.pods_gone().await?;
        another_leads_after_a_crash_and_no_count_moves(&agent, &busy, &one_of_each).await
    })
    .await
}

/// Wakes one workload of each shard, and waits until all of them sleep again: only the leader of its
/// shard puts a workload to sleep.
async fn wake_and_sleep(agent: &Agent, one_of_each: &[Workload]) -> anyhow::Result<()> {
    for workload in one_of_each {
        let woken = agent.get(&workload.url("/")).await?;
        ensure!(woken.status == Some(200), "{}: {woken:?}", workload.name);
    }
    for slept in join_all(one_of_each.iter().map(Workload::asleep)).await {
        slept?;
    }
    Ok(())
}

/// The leader of `busy`'s shard is killed under load. The one that replaces it has decided by what it hears
/// itself once it has put a workload of that shard to sleep: until then the load goes on.
async fn another_leads_after_a_crash_and_no_count_moves(
    agent: &Agent,
    busy: &Workload,
    one_of_each: &[Workload],
) -> anyhow::Result<()> {
    let load = TwoPods::load(agent, busy, LOAD).await?;
    replace_leader(busy).await?;
    wake_and_sleep(agent, one_of_each).await?;
    load.stop().await?;
    busy.asleep().await.map(drop)
}
