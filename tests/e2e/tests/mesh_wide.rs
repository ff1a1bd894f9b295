//! What is everybody's in a mesh that requires mutual TLS: what istiod sends to all Envoys, and policies
//! for the whole mesh.
//!
//! Nothing else can run beside these.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Cluster, Workload, all_answered, eventually, in_mesh, istiod, mesh, namespace,
    slices,
};
use sample_app::wire::{ProbeSpec, RunSpec};

/// Longest wait for what Istio, Kubernetes or Lull is about to do.
const FOLLOW: Duration = Duration::from_secs(120);
/// Longest wait until namespaces of tests before are gone, with pods that drain.
const GONE: Duration = Duration::from_secs(240);
/// Longest time of a request that wakes.
const PATIENCE_MS: u64 = 60_000;

/// Waits until pods alone are behind the Service, and Istio knows of nothing else.
async fn awake(workload: &Workload) -> anyhow::Result<()> {
    eventually("pods alone behind the Service", FOLLOW, async || {
        slices::pods_only(workload, 1).await?;
        let entries = mesh::entries(workload).await?.len();
        ensure!(entries == 0, "Istio has {entries} entries");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sleep_is_pushed_as_a_change_of_endpoints_alone() -> anyhow::Result<()> {
    // A Service that goes is pushed to everybody.
    namespace::all_gone(&Cluster::connect().await?, GONE).await?;
    in_mesh("pushes", async |namespace| {
        let cluster = &namespace.cluster;
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        awake(&workload).await?;
        let before = istiod::settled(cluster).await?;
        workload.put_to_sleep().await?;
        let pushed = istiod::settled(cluster).await?.since(&before);
        for kind in ["cds", "lds", "rds"] {
            ensure!(pushed.of(kind) == 0.0, "{kind} was pushed: {pushed:?}");
        }
        ensure!(
            pushed.of("eds") > 0.0,
            "no endpoints were pushed: {pushed:?}"
        );
        eprintln!("pushed for a sleep: {pushed:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn where_the_mesh_denies_everybody_who_is_allowed_by_name_still_wakes_it()
-> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    mesh::denied_to_all(&cluster, async || {
        in_mesh("denied", async |namespace| {
            let caller = Agent::deploy_with_account("caller", namespace).await?;
            let stranger = Agent::deploy_with_account("stranger", namespace).await?;
            let workload = App::new("shop").deploy_awake(namespace).await?;
            eventually("everybody to be denied", FOLLOW, async || {
                is_denied(&caller, &workload).await?;
                is_denied(&stranger, &workload).await
            })
            .await?;
            mesh::allow_only(&workload, &mesh::principal(namespace, "caller")).await?;
            caller.is_answered(&workload.url("/"), FOLLOW).await?;
            is_denied(&stranger, &workload).await?;

            for sleep in 1..=2 {
                // A pod whose report can't be pulled is taken for busy: it would never sleep.
                workload.put_to_sleep().await?;
                let result = caller.run(&burst(&workload)).await?;
                all_answered(&result).with_context(|| format!("woken from sleep {sleep}"))?;
                // So kubelet's probes get through.
                awake(&workload).await?;
                is_denied(&stranger, &workload).await?;
                eprintln!("{} answered, {:?} ms", result.ok, result.latency_ms);
            }
            Ok(())
        })
        .await
    })
    .await
}

/// Fails unless a call of `agent` gets the 403 of a policy.
async fn is_denied(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    let spec = ProbeSpec {
        url: workload.url("/"),
        timeout_ms: PATIENCE_MS,
        ..ProbeSpec::default()
    };
    let answer = agent.probe(&spec).await?;
    ensure!(answer.status == Some(403), "wanted 403: {answer:?}");
    Ok(())
}

/// Twenty callers at once.
fn burst(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=5"),
        connections: 20,
        requests: Some(500),
        timeout_ms: PATIENCE_MS,
        ..RunSpec::default()
    }
}
