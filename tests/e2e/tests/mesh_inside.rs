//! Lull's own pods inside of the mesh, the activators excepted: autoscaler and webhook with Istio's
//! container do what they do without it, where mutual TLS is required and where a policy denies
//! everybody everything.
//!
//! Every test needs Lull's pods, so nothing may run beside this.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use lull_contract::names::ISTIO_PROXY_CONTAINER;
use lull_e2e::{
    Agent, App, Cluster, Workload, all_answered, in_mesh_for, mesh, release, workload::has_sidecar,
};
use sample_app::wire::RunSpec;

/// Longest time of what is done while Lull's pods are in the mesh.
const TEST: Duration = Duration::from_secs(720);
/// Longest wait for what Istio is about to do.
const FOLLOW: Duration = Duration::from_secs(120);
/// Components that may be in the mesh.
const INSIDE: [&str; 2] = ["autoscaler", "webhook"];
/// Cycles of sleep and wake.
const CYCLES: u32 = 3;

#[tokio::test]
async fn autoscaler_and_webhook_work_inside_of_the_mesh() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let chart = release::chart();
    let upgrade = ["upgrade", "lull", &chart, "--reuse-values"];
    let inside: Vec<&str> = upgrade
        .into_iter()
        .chain(["--set", "mesh.inject=true"])
        .collect();
    let outcome = match release::helm(&cluster, &inside, &INSIDE).await {
        Ok(()) => mesh::denied_to_all(&cluster, async || works(&cluster).await).await,
        Err(error) => Err(error),
    };
    // Whatever came of it: others need Lull as it was.
    let outside: Vec<&str> = upgrade
        .into_iter()
        .chain(["--set", "mesh.inject=false"])
        .collect();
    let back = release::helm(&cluster, &outside, &[]).await;
    outcome.and(back)
}

async fn works(cluster: &Cluster) -> anyhow::Result<()> {
    for (component, is_inside) in [
        ("autoscaler", true),
        ("webhook", true),
        ("activator", false),
    ] {
        for pod in cluster.component_pods(component).await? {
            // The last ones of before may still be going.
            let is_leaving = pod.metadata.deletion_timestamp.is_some();
            let is_right = is_leaving || is_meshed(&pod) == is_inside;
            ensure!(is_right, "{} in the mesh: {}", pod.name_any(), !is_inside);
        }
    }
    in_mesh_for(TEST, "inside", async |namespace| {
        let agent = Agent::deploy_with_account("caller", namespace).await?;
        // Enrolled now: the API server has called the webhook.
        let workload = App::new("shop").deploy_awake(namespace).await?;
        let pods = workload.pods().await?;
        ensure!(pods.iter().all(has_sidecar), "a pod has no queue-proxy");
        mesh::allow_only(&workload, &mesh::principal(namespace, "caller")).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        workload.put_to_sleep().await?;
        for cycle in 1..=CYCLES {
            // A pod whose report can't be pulled is taken for busy: it would never sleep.
            let woken = agent.run(&load(&workload)).await?;
            all_answered(&woken).with_context(|| format!("cycle {cycle}"))?;
            workload.asleep().await?;
            workload.pods_gone().await?;
            eprintln!("{} answered, {:?} ms", woken.ok, woken.latency_ms);
        }
        Ok(())
    })
    .await
}

fn load(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 10,
        seconds: Some(5.0),
        rate: Some(100.0),
        ..RunSpec::default()
    }
}

/// A native sidecar is among the first containers.
fn is_meshed(pod: &Pod) -> bool {
    let is_istio = |container: &Container| container.name == ISTIO_PROXY_CONTAINER;
    pod.spec.as_ref().is_some_and(|spec| {
        let first = spec.init_containers.iter().flatten();
        first.chain(&spec.containers).any(is_istio)
    })
}
