//! Thousands of workloads that are asleep: how long that takes, and what they cost the activators.
//!
//! Cold starts among them are measured by `coldstart` on the same cluster.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::{TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use lull_contract::{
    ports,
    scaled_workload::{ScaledWorkload, State},
};
use lull_e2e::{App, Cluster, Namespace, activators, cluster, eventually, process, say};

/// Workloads of one namespace.
const OF_NAMESPACE: usize = 100;
/// Objects created at once.
const AT_ONCE: usize = 16;
/// Longest wait for all of them to be asleep.
const ASLEEP: Duration = Duration::from_secs(1_200);
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
    fill(&cluster, args.workloads).await?;
    say(format!(
        "{} workloads created in {:.0} s",
        args.workloads,
        begun.elapsed().as_secs_f64()
    ));
    all_asleep(&cluster, args.workloads).await?;
    say(format!(
        "all enrolled and asleep after {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    tokio::time::sleep(SETTLE).await;
    report(&cluster, "with all of them").await?;
    restart(&cluster, args.workloads).await
}

/// Creates the workloads, without pods from the beginning.
async fn fill(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    for first in (0..count).step_by(OF_NAMESPACE) {
        let name = format!("many-{}", first / OF_NAMESPACE);
        let namespace = &Namespace::named(cluster.clone(), &name).await?;
        let numbers = first..count.min(first + OF_NAMESPACE);
        stream::iter(numbers.map(Ok::<_, anyhow::Error>))
            .try_for_each_concurrent(AT_ONCE, async |number| {
                let app = App::new(&format!("sleeper-{number}")).replicas(0);
                app.deploy(namespace).await.map(drop)
            })
            .await?;
    }
    Ok(())
}

async fn all_asleep(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    let workloads: Api<ScaledWorkload> = Api::all(cluster.client.clone());
    let mut told = Instant::now();
    eventually("all workloads to be asleep", ASLEEP, async || {
        let listed = workloads.list(&ListParams::default()).await?;
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        for workload in &listed.items {
            // One without a status is being enrolled, too.
            let state = workload.status.as_ref().map(|status| status.state);
            *states
                .entry(state.unwrap_or_default().to_string())
                .or_default() += 1;
        }
        if told.elapsed() > Duration::from_secs(20) {
            told = Instant::now();
            say(format!("{states:?}"));
        }
        // Not too often: it is a large list.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asleep = states.get(&State::Asleep.to_string());
        ensure!(asleep == Some(&count), "{states:?}");
        Ok(())
    })
    .await
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
