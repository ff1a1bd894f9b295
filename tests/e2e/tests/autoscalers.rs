//! The autoscaler's replicas: who leads, and what happens when the leader dies.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use lull_contract::scaled_workload::State;
use lull_e2e::{
    Agent, App, Cluster, Workload, all_answered, cluster, eventually, in_namespace, process,
};
use sample_app::wire::RunSpec;

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);
/// The promise of issue 6: another one decides so long after the leader's crash.
const TAKEOVER: Duration = Duration::from_secs(3);
/// For what the test itself needs to see it: API calls on a busy machine.
const SIGHT: Duration = Duration::from_millis(750);

async fn lease(cluster: &Cluster) -> anyhow::Result<LeaseSpec> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let lease = cluster::call("read the lease", leases.get("lull-autoscaler")).await?;
    lease.spec.context("the lease is empty")
}

async fn state(workload: &Workload) -> anyhow::Result<(State, u32)> {
    let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
    let status = scaled.status.context("no status")?;
    Ok((status.state, status.ready))
}

#[tokio::test]
async fn a_leader_that_dies_under_load_is_replaced_and_no_count_moves() -> anyhow::Result<()> {
    in_namespace("leader", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let (busy, asleep) = (
            App::new("busy").annotate("lull.dev/max-scale", "2"),
            App::new("asleep"),
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
        let leader = lease(&busy.cluster).await?.holder_identity;
        let leader = leader.context("nobody leads")?;
        let killed_at = jiff::Timestamp::now();
        let killed = Instant::now();
        process::kill(&leader)?;
        eventually("a leader", TAKEOVER + SIGHT, async || {
            let lease = lease(&busy.cluster).await?;
            let renewed = lease.renew_time.context("never renewed")?.0;
            ensure!(renewed > killed_at, "last renewed at {renewed}");
            Ok(())
        })
        .await?;
        let took = killed.elapsed();
        // Any replica wakes; that the new leader does, shows that it decides.
        let woken = agent.get(&asleep.url("/")).await?;
        ensure!(woken.status == Some(200), "{woken:?}");
        eprintln!("the lease was renewed {took:.2?} after the kill");

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
