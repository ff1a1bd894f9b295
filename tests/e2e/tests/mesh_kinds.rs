//! Istio's kinds come to a cluster without a mesh, and go again: Lull's autoscaler notices both, and is not
//! started anew.
//!
//! The kinds are the whole cluster's, so nothing may run beside this. There is no Istio: a container with
//! the name of Istio's stands for it, which is what tells that a pod is in the mesh.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail, ensure};
use kube::ResourceExt as _;
use lull_contract::names::{ISTIO_PROXY_CONTAINER, MULTICLUSTER_SERVICE_LABEL};
use lull_e2e::{
    Agent, App, Cluster, Workload, command, components, in_namespace_for, mesh, slices,
};

/// Longest time of this test: some sleeps, and the half minutes between looks for the kinds; that they are gone
/// takes two looks.
const TEST: Duration = Duration::from_secs(480);
/// Sleeps until it must have been noticed: each takes 10 s and more, with its wake.
const SLEEPS: u32 = 10;
/// What the API server has of Istio's.
const GROUP: &str = "/apis/networking.istio.io/v1";
/// A port on which the container that stands for Istio's listens.
const PROXY_PORT: u16 = 15_099;

/// By what a sleeping workload's callers are told of activators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// By slices that everybody reads.
    Everybody,
    /// By WorkloadEntries, and slices that Istio does not read.
    Mesh,
    /// Something between the two.
    Both,
}

#[tokio::test]
async fn kinds_of_a_mesh_that_come_later_and_go_again_are_noticed_without_a_restart()
-> anyhow::Result<()> {
    in_namespace_for(TEST, "kinds", async |namespace| {
        let cluster = &namespace.cluster;
        let there = cluster.get_if_there(GROUP).await?;
        ensure!(there.is_none(), "the cluster has Istio's kinds already");
        let agent = Agent::deploy(namespace).await?;
        let app = App::new("shop").beside(ISTIO_PROXY_CONTAINER, PROXY_PORT);
        let workload = app.deploy_asleep(namespace).await?;
        ensure!(told(&workload).await? == Told::Everybody, "before");
        let before = autoscalers(cluster).await?;

        kubectl(&["apply", "--server-side"]).await?;
        let came = sleeps_until(&agent, &workload, Told::Mesh).await;
        // Whatever came of it: others expect none.
        kubectl(&["delete", "--wait"]).await?;
        came.context("with the kinds")?;
        let gone = sleeps_until(&agent, &workload, Told::Everybody).await;
        gone.context("without them")?;

        let after = autoscalers(cluster).await?;
        ensure!(after == before, "started anew: {before:?}, now {after:?}");
        Ok(())
    })
    .await
}

/// Wakes the workload and lets it sleep until its callers are told of activators as `wanted`: what stands
/// there for a sleeper stays until its pods say better.
async fn sleeps_until(agent: &Agent, workload: &Workload, wanted: Told) -> anyhow::Result<()> {
    for sleep in 1..=SLEEPS {
        agent.get(&workload.url("/")).await?;
        workload.asleep().await?;
        if told(workload).await? == wanted {
            eprintln!("{wanted:?} after {sleep} sleeps");
            return Ok(());
        }
    }
    bail!("not {wanted:?}: {}", workload.status_line().await)
}

async fn told(workload: &Workload) -> anyhow::Result<Told> {
    let namespace = &workload.namespace;
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices\
         ?labelSelector={MULTICLUSTER_SERVICE_LABEL}"
    );
    let hidden = workload.cluster.get(&path).await?;
    let has_hidden = hidden["items"]
        .as_array()
        .is_some_and(|all| !all.is_empty());
    let is_known = workload.cluster.get_if_there(GROUP).await?.is_some();
    let has_entries = is_known && !mesh::entries(workload).await?.is_empty();
    // Whoever doesn't ask Istio finds them in either case.
    let backends = slices::backends(workload).await?;
    ensure!(!backends.activators.is_empty(), "asleep: {backends:?}");
    Ok(match (has_entries, has_hidden) {
        (true, true) => Told::Mesh,
        (false, false) => Told::Everybody,
        _ => Told::Both,
    })
}

/// Names of the autoscaler's pods, and how often each has been started anew.
async fn autoscalers(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, i32>> {
    let pods = cluster.component_pods("autoscaler").await?;
    let names = pods.iter().map(|pod| pod.name_any());
    names
        .map(|name| Ok((name.clone(), components::restarts(&pods, &name)?)))
        .collect()
}

/// Does this with the definitions of Istio's own chart.
async fn kubectl(verb: &[&str]) -> anyhow::Result<()> {
    let path = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let (kubectl, kinds) = (path("E2E_KUBECTL")?, path("E2E_ISTIO_KINDS")?);
    let file = ["--filename", kinds.as_str()];
    let args: Vec<&str> = verb.iter().copied().chain(file).collect();
    command::run(kubectl, &args).await
}
