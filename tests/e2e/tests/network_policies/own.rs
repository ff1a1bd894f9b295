//! Lull behind policies of its own.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use lull_contract::{ports, view::WorkloadList};
use lull_e2e::{
    Agent, App, Namespace, Workload,
    background::{PlainClient, Program, Scratch},
    cluster::{COMPONENTS, is_ready},
    command, eventually, in_namespace_for,
};

use crate::{
    FOLLOW, TEST,
    policies::{label, policies_of},
    requests::{gets_nothing, sleeps_and_wakes, while_served},
};

/// Label on namespaces that may scrape Lull's metrics.
const SCRAPER_LABEL: &str = "e2e-scraper";

/// Addresses of Lull's pods of one component, each with the page at `port`.
async fn pages_of(
    namespace: &Namespace,
    component: &str,
    port: u16,
) -> anyhow::Result<Vec<String>> {
    let pods = namespace.cluster.component_pods(component).await?;
    let ready = pods.iter().filter(|pod| is_ready(pod));
    let address = |pod: &Pod| pod.status.as_ref()?.pod_ip.clone();
    let pages: Vec<String> = ready
        .filter_map(address)
        .map(|address| format!("http://{address}:{port}/metrics"))
        .collect();
    ensure!(!pages.is_empty(), "no {component} is ready");
    Ok(pages)
}

/// Lull's own pods are closed but for their purposes; metrics are for whom `metricsFrom` lets in.
async fn own_pods_are_closed(namespace: &Namespace) -> anyhow::Result<()> {
    let policies = policies_of(&namespace.cluster.lull_namespace);
    for component in COMPONENTS {
        let path = format!("{policies}/lull-{component}");
        namespace.cluster.get(&path).await?;
    }
    let agent = Agent::deploy(namespace).await?;
    let mut metrics = Vec::new();
    for component in COMPONENTS {
        metrics.extend(pages_of(namespace, component, ports::METRICS).await?);
    }
    let mut closed = metrics.clone();
    for (component, port) in [
        ("activator", ports::ADMIN),
        ("activator", ports::REPORT),
        ("autoscaler", ports::STATUS_PAGE),
    ] {
        closed.extend(pages_of(namespace, component, port).await?);
    }
    try_join_all(closed.iter().map(|url| gets_nothing(&agent, url))).await?;

    label(namespace, SCRAPER_LABEL, Some("yes")).await?;
    for url in &metrics {
        agent.is_answered(url, FOLLOW).await?;
        let answer = agent.get(url).await?;
        ensure!(answer.body.contains("# TYPE"), "no metrics: {answer:?}");
    }
    Ok(())
}

/// Every replica shows what only the leader of a workload knows: they ask each other.
async fn shown_by_every_replica(workload: &Workload) -> anyhow::Result<()> {
    let cluster = &workload.cluster;
    let replicas = cluster.ready_names("autoscaler").await?;
    ensure!(replicas.len() > 1, "a single autoscaler asks nobody");
    for replica in &replicas {
        eventually("the workload, live", FOLLOW, async || {
            let page = cluster.page(replica, ports::STATUS_PAGE, "workloads");
            let list: WorkloadList = serde_json::from_str(&page.await?)?;
            let is_live = list.workloads.iter().any(|view| {
                view.namespace == workload.namespace
                    && view.target_name == workload.name
                    && view.is_live
            });
            ensure!(is_live, "{replica} shows {list:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn lull_works_as_ever_behind_policies_of_its_own() -> anyhow::Result<()> {
    let binary = std::env::var_os("E2E_KUBECTL_LULL").map(PathBuf::from);
    let binary = binary.context("E2E_KUBECTL_LULL must be the path of kubectl-lull")?;
    in_namespace_for(TEST, "own", async |namespace| {
        own_pods_are_closed(namespace).await?;
        let agent = Agent::deploy_as("web", namespace).await?;
        // Enrolled by a webhook that is called, asleep by reports that are pulled.
        let workload = App::new("shop").deploy(namespace).await?;
        workload.enrolled().await?;
        for _ in 0..2 {
            sleeps_and_wakes(&agent, &workload).await?;
        }
        while_served(&agent, &workload, async || {
            shown_by_every_replica(&workload).await
        })
        .await?;

        let within = namespace.cluster.lull_namespace.as_str();
        let doctor = ["doctor", "--lull-namespace", within];
        // Other tests' workloads come and go.
        eventually("a doctor without findings", FOLLOW * 2, async || {
            command::run(&binary, &doctor).await
        })
        .await?;
        let scratch = Scratch::try_new("ui")?;
        let mut ui = tokio::process::Command::new(&binary);
        ui.args(["ui", "--lull-namespace", within]);
        let mut ui = Program::start("kubectl-lull-ui", ui, &scratch)?;
        let address = ui.address(&["http://"]).await?;
        let page = PlainClient::try_new(address)?.get("/workloads").await?;
        ensure!(page.contains("\"workloads\""), "{page}");
        ui.stop().await
    })
    .await
}
