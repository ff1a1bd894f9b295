//! The status page: every replica shows every workload live, and who woke it.

use std::{io, pin::pin, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures::{AsyncBufReadExt as _, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use lull_contract::{
    ports,
    view::{Change, WorkloadDetail, WorkloadList, WorkloadView},
};
use lull_e2e::{Agent, App, Cluster, Workload, autoscalers, eventually, in_namespace};

/// Longest wait for what must be shown: a status is written at most 2 s late.
const FOLLOW: Duration = Duration::from_secs(30);

async fn list(cluster: &Cluster, replica: &str, path: &str) -> anyhow::Result<WorkloadList> {
    let text = cluster.page(replica, ports::STATUS_PAGE, path).await?;
    Ok(serde_json::from_str(&text)?)
}

fn is_of(view: &WorkloadView, workload: &Workload) -> bool {
    view.namespace == workload.namespace && view.target_name == workload.name
}

async fn view(workload: &Workload, replica: &str) -> anyhow::Result<WorkloadView> {
    let list = list(&workload.cluster, replica, "workloads").await?;
    ensure!(list.replica == replica, "{} answers", list.replica);
    let mut views = list.workloads.into_iter();
    let view = views.find(|view| is_of(view, workload));
    view.with_context(|| format!("{replica} does not show {}", workload.name))
}

async fn detail(workload: &Workload, replica: &str) -> anyhow::Result<WorkloadDetail> {
    let path = format!("workloads/{}/{}", workload.namespace, workload.name);
    let cluster = &workload.cluster;
    let text = cluster.page(replica, ports::STATUS_PAGE, &path).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Reads events until one says of `workload` what `is_so`.
async fn told(
    lines: &mut (impl Stream<Item = io::Result<String>> + Unpin),
    workload: &Workload,
    is_so: impl Fn(&WorkloadView) -> bool,
) -> anyhow::Result<()> {
    while let Some(line) = lines.next().await {
        let line = line?;
        let Some(json) = line.strip_prefix("data: ") else {
            continue;
        };
        let change: Change = serde_json::from_str(json)?;
        let mut changed = change.changed.iter();
        if changed.any(|view| is_of(view, workload) && is_so(view)) {
            return Ok(());
        }
    }
    bail!("the events have ended")
}

/// `replica` shows the sleeping workload live; of its own it has it where it is the leader.
async fn sleeps_live(workload: &Workload, replica: &str, leader: &str) -> anyhow::Result<()> {
    // One that did not answer lately is asked anew after a few seconds.
    eventually("the workload, live", FOLLOW, async || {
        let view = view(workload, replica).await?;
        ensure!(view.state == "Asleep" && view.saving_pods > 0, "{view:?}");
        ensure!(view.is_live, "{replica}: {view:?}");
        Ok(())
    })
    .await?;
    let led = list(&workload.cluster, replica, "workloads?led").await?;
    let is_there = led.workloads.iter().any(|view| is_of(view, workload));
    ensure!(is_there == (replica == leader), "{replica}: {led:?}");
    Ok(())
}

/// `replica` shows of the workload what only the leader knows.
async fn tells_for_the_leader(
    workload: &Workload,
    replica: &str,
    leader: &str,
) -> anyhow::Result<()> {
    eventually("what only the leader knows", FOLLOW, async || {
        let detail = detail(workload, replica).await?;
        ensure!(detail.replica == leader, "{} tells", detail.replica);
        ensure!(!detail.line.is_empty(), "no line");
        let mut changes = detail.history.iter();
        let has_slept = changes.any(|change| change.from > 0 && change.to == 0);
        ensure!(has_slept, "{:?}", detail.history);
        Ok(())
    })
    .await
}

/// `replica` names the agent, whose pod is none of Lull's, as one who keeps the workload awake.
async fn names_who_keeps_it_awake(
    workload: &Workload,
    replica: &str,
    agent: &Agent,
) -> anyhow::Result<()> {
    let pod = format!("{}/{}", workload.namespace, agent.pod());
    eventually("who keeps it awake", FOLLOW, async || {
        agent.get(&workload.url("/api/7?token=secret")).await?;
        let kept = detail(workload, replica).await?.kept_awake;
        let mut by = kept.by.iter();
        let share = by.find(|share| share.caller.pod.as_deref() == Some(pod.as_str()));
        let share = share.with_context(|| format!("{pod} is not among {kept:?}"))?;
        ensure!(share.caller.asked.contains("GET /api/*"), "{share:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_replica_shows_a_wake_and_who_began_it() -> anyhow::Result<()> {
    in_namespace("page", async |namespace| {
        let cluster = &namespace.cluster;
        // A shard that is handed over meanwhile would take the history with it.
        autoscalers::spread(cluster).await?;
        let app = App::new("shop");
        let (agent, workload) =
            tokio::try_join!(Agent::deploy(namespace), app.deploy_asleep(namespace))?;
        workload.pods_gone().await?;
        let replicas = cluster.ready_names("autoscaler").await?;
        let leader = autoscalers::lease(&workload).await?.holder_identity;
        let leader = leader.context("nobody leads")?;
        for replica in &replicas {
            sleeps_live(&workload, replica, &leader).await?;
        }

        // What the leader tells comes by another replica, too.
        let other = replicas.iter().find(|replica| **replica != leader);
        let other = other.unwrap_or(&leader);
        let events = cluster.stream(other, ports::STATUS_PAGE, "events").await?;
        let events = pin!(events);
        let mut lines = events.lines();
        let asleep = told(&mut lines, &workload, |view| view.state == "Asleep");
        tokio::time::timeout(FOLLOW, asleep)
            .await
            .context("first event")??;
        let answer = agent.get(&workload.url("/cart?token=secret")).await?;
        ensure!(answer.status == Some(200), "{answer:?}");
        let awake = told(&mut lines, &workload, |view| view.ready > 0);
        tokio::time::timeout(FOLLOW, awake)
            .await
            .context("wake")??;

        let pods: Api<Pod> = namespace.api();
        let address = pods
            .get("agent")
            .await?
            .status
            .and_then(|status| status.pod_ip);
        let address = address.context("the agent has no address")?;
        for replica in &replicas {
            eventually("the wake", FOLLOW, async || {
                let detail = detail(&workload, replica).await?;
                let wake = detail.wakes.first().context("no wake")?;
                ensure!(
                    wake.total_ms.is_some() && !wake.phases.is_empty(),
                    "{wake:?}"
                );
                let by = wake.by.first().context("nobody")?;
                ensure!(by.address == address, "{by:?}, not {address}");
                let asked = format!("GET {}/cart", workload.host());
                ensure!(by.asked == asked, "{by:?}, not {asked}");
                ensure!(
                    detail
                        .callers
                        .iter()
                        .any(|share| share.caller.address == address)
                );
                Ok(())
            })
            .await?;
        }
        for replica in &replicas {
            tells_for_the_leader(&workload, replica, &leader).await?;
            names_who_keeps_it_awake(&workload, replica, &agent).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_page_is_there_and_changes_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let replicas = cluster.ready_names("autoscaler").await?;
    let replica = replicas.first().context("no autoscaler")?;
    for (path, part) in [
        ("", "<title>Lull</title>"),
        ("app.js", "EventSource"),
        ("style.css", "prefers-color-scheme"),
    ] {
        let text = cluster.page(replica, ports::STATUS_PAGE, path).await?;
        ensure!(text.contains(part), "{path} lacks {part}");
    }
    let place = (cluster.lull_namespace.as_str(), replica.as_str());
    for (method, path) in [
        ("POST", "workloads"),
        ("GET", "workloads/no/such"),
        ("GET", "x"),
    ] {
        let refused = cluster
            .ask_pod(place, ports::STATUS_PAGE, method, path)
            .await;
        ensure!(refused.is_err(), "{method} {path} is answered");
    }
    Ok(())
}
