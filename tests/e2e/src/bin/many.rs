//! Thousands of workloads that are asleep: how long that takes, and what they cost the activators.
//!
//! Cold starts among them are measured by `coldstart` on the same cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::DeleteParams};
use lull_contract::ports;
use lull_e2e::{App, Cluster, activators, cluster, eventually, fleet, process, say};

/// Longest wait for a new activator to be ready.
const START: Duration = Duration::from_secs(120);
/// Activators settle for so long before their memory is read.
const SETTLE: Duration = Duration::from_secs(10);

/// Fills the cluster of the current kubeconfig with workloads that are asleep.
#[derive(Debug, Parser)]
struct Args {
    /// How many.
    #[arg(long, default_value_t = 5_000)]
    workloads: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.workloads > 0, "--workloads 0: must be at least 1");
    let cluster = Cluster::connect().await?;
    report(&cluster, "before").await?;
    let begun = Instant::now();
    // Without pods from the beginning.
    let app = |number: usize| App::new(&format!("sleeper-{number}")).replicas(0);
    fleet::deploy(&cluster, "many", args.workloads, app).await?;
    say(format!(
        "{} workloads created in {:.0} s",
        args.workloads,
        begun.elapsed().as_secs_f64()
    ));
    fleet::all_asleep(&cluster, args.workloads).await?;
    say(format!(
        "all enrolled and asleep after {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    tokio::time::sleep(SETTLE).await;
    report(&cluster, "with all of them").await?;
    restart(&cluster, args.workloads).await
}

/// Memory of each autoscaler and activator, and the activators' open ports.
async fn report(cluster: &Cluster, when: &str) -> anyhow::Result<()> {
    let resident = |name: &str| -> anyhow::Result<String> {
        let mib = process::resident_bytes(name)? as f64 / f64::from(1 << 20);
        Ok(format!("{when}: {name} has {mib:.1} MiB resident"))
    };
    for pod in cluster.component_pods("autoscaler").await? {
        say(resident(&pod.name_any())?);
    }
    for name in activators::ready(cluster).await? {
        let ports = listeners(cluster, &name).await?;
        say(format!("{} and {ports} ports open", resident(&name)?));
    }
    Ok(())
}

/// Ports that the activator `name` has open for workloads.
async fn listeners(cluster: &Cluster, name: &str) -> anyhow::Result<usize> {
    const LINE: &str = "lull_activator_listeners ";
    let metrics = cluster.page(name, ports::METRICS, "metrics").await?;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(LINE));
    let value = value.with_context(|| format!("no {LINE}in {metrics}"))?;
    Ok(value.parse()?)
}

/// Ends one activator and tells how long the next took from the first sight of its process to ready.
async fn restart(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    let before = activators::ready(cluster).await?;
    let victim = before.first().context("no activator is ready")?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let params = DeleteParams::default();
    let deleted = pods.delete(victim, &params);
    cluster::call("end an activator", deleted).await?;
    let (name, started) = eventually("a new container", START, async || {
        let listed = cluster.component_pods("activator").await?;
        let new = listed.iter().find(|pod| !before.contains(&pod.name_any()));
        let new = new.context("no new pod")?;
        process::pid(&new.name_any())?;
        Ok((new.name_any(), Instant::now()))
    })
    .await?;
    eventually("the new activator's ports", START, async || {
        let open = listeners(cluster, &name).await?;
        ensure!(open >= count, "{open} ports are open");
        Ok(())
    })
    .await?;
    say(format!(
        "a new activator had all ports open {:.2} s after its process was seen",
        started.elapsed().as_secs_f64()
    ));
    eventually("the new activator", START, async || {
        let ready = activators::ready(cluster).await?;
        ensure!(ready.contains(&name), "ready: {ready:?}");
        Ok(())
    })
    .await?;
    say(format!(
        "and was seen ready {:.2} s after it",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}
