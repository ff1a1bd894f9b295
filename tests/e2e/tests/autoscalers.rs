//! The autoscaler's replicas: who leads, and what happens when the leader dies.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, ResourceExt as _};
use lull_contract::scaled_workload::State;
use lull_e2e::{
    Agent, App, Cluster, Workload, activators, all_answered, cluster, eventually, in_namespace,
};
use rustix::process::{Pid, Signal, kill_process};
use sample_app::wire::RunSpec;

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);
/// The promise of issue 6: another one decides so long after the leader's crash.
const TAKEOVER: Duration = Duration::from_secs(3);
/// The promise of issue 6: so long without an API server changes nothing.
const OUTAGE: Duration = Duration::from_secs(60);
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

/// One after the other: both disturb every workload of the cluster.
#[tokio::test]
async fn leaders_die_and_the_api_server_stands_still_and_no_count_moves() -> anyhow::Result<()> {
    a_leader_dies_under_load().await?;
    the_api_server_stands_still_under_load().await
}

async fn a_leader_dies_under_load() -> anyhow::Result<()> {
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
                url: busy.url("/?sleep_ms=300"),
                connections: 150,
                seconds: Some(40.0),
                ..RunSpec::default()
            })
            .await?;
        eventually("two pods that carry the load", FOLLOW, async || {
            let now = state(&busy).await?;
            ensure!(now == (State::Awake, 2), "{now:?}");
            Ok(())
        })
        .await?;

        let leader = lease(&busy.cluster).await?.holder_identity;
        let leader = leader.context("nobody leads")?;
        let killed_at = jiff::Timestamp::now();
        let killed = Instant::now();
        activators::kill(&leader)?;
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
        let replicas = busy.replicas().await?;
        ensure!(replicas == 2, "{replicas} replicas at the end of the load");
        asleep.asleep().await?;
        busy.asleep().await?;
        Ok(())
    })
    .await
}

async fn the_api_server_stands_still_under_load() -> anyhow::Result<()> {
    in_namespace("outage", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let (busy, asleep) = (
            App::new("busy").annotate("lull.dev/max-scale", "2"),
            App::new("asleep"),
        );
        let (busy, asleep) = tokio::try_join!(
            busy.deploy_asleep(namespace),
            asleep.deploy_asleep(namespace)
        )?;
        busy.pods_gone().await?;
        let load = agent
            .start(&RunSpec {
                url: busy.url("/?sleep_ms=300"),
                connections: 150,
                seconds: Some(OUTAGE.as_secs_f64() + 40.0),
                ..RunSpec::default()
            })
            .await?;
        eventually("two pods that carry the load", FOLLOW, async || {
            let now = state(&busy).await?;
            ensure!(now == (State::Awake, 2), "{now:?}");
            Ok(())
        })
        .await?;
        let before = restarts(&busy.cluster).await?;

        let stopped = ApiServer::stop().await?;
        // Nothing can be asked meanwhile: the length is what the test is about.
        tokio::time::sleep(OUTAGE).await;
        drop(stopped);

        let result = load.finished().await?;
        all_answered(&result)?;
        ensure!(
            result.by_pod.len() == 2,
            "other pods than the two came: {:?}",
            result.by_pod
        );
        let replicas = busy.replicas().await?;
        ensure!(replicas == 2, "{replicas} replicas at the end of the load");
        let after = restarts(&busy.cluster).await?;
        ensure!(after == before, "before {before:?}, after {after:?}");
        let woken = agent.get(&asleep.url("/")).await?;
        ensure!(woken.status == Some(200), "{woken:?}");
        eprintln!(
            "{} answered, {OUTAGE:?} of it without an API server",
            result.ok
        );
        asleep.asleep().await?;
        busy.asleep().await?;
        Ok(())
    })
    .await
}

/// Pods of Lull and how often their containers were started anew.
async fn restarts(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, i32>> {
    let mut restarts = BTreeMap::new();
    for component in ["activator", "autoscaler", "webhook"] {
        for pod in cluster.component_pods(component).await? {
            let status = pod.status.clone().unwrap_or_default();
            let containers = status.container_statuses.unwrap_or_default();
            let count = containers.iter().map(|one| one.restart_count).sum();
            restarts.insert(pod.name_any(), count);
        }
    }
    Ok(restarts)
}

/// The API server's process, which stands still until this is dropped.
struct ApiServer(Pid);

// === impl ApiServer ===

impl ApiServer {
    async fn stop() -> anyhow::Result<Self> {
        let url = kube::Config::infer().await?.cluster_url;
        let host = url.host().context("the API server has no address")?;
        let address = format!("--advertise-address={host}");
        let is_it = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            let is_program = words
                .next()
                .is_some_and(|it| it.ends_with(b"kube-apiserver"));
            is_program && words.any(|word| word == address.as_bytes())
        };
        let processes = std::fs::read_dir("/proc").context("list /proc")?;
        let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let pid = pids.find(is_it).and_then(Pid::from_raw);
        let pid = pid.with_context(|| {
            format!("no kube-apiserver of {host} on this machine: this needs CLUSTER=builtin")
        })?;
        kill_process(pid, Signal::STOP).context("stop the API server")?;
        Ok(Self(pid))
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Err(error) = kill_process(self.0, Signal::CONT) {
            eprintln!("the API server does not go on: {error}");
        }
    }
}
