//! Workloads that are no plain Deployments of class kpa.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lull_contract::{Class, annotations::SCALE, scaled_workload::State};
use lull_e2e::{
    Agent, App, Cluster, Kind, MetricsApi, Namespace, Original, Workload, all_answered, eventually,
    history::History, in_namespace, leftovers, metrics_api, rollouts, slices,
};
use sample_app::wire::RunSpec;
use serde_json::json;

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(120);
/// More than two of the shortest windows and what else comes before sleep.
const LONGER_THAN_SLEEP_TAKES: Duration = Duration::from_secs(25);
/// Half of what leaving waits for pods that don't come.
const SOON: Duration = Duration::from_secs(60);
/// The promise of issue 6: a kind that comes later is found within this.
const FOUND: Duration = Duration::from_secs(30);
/// For what the test itself needs to see it: a busy machine.
const SIGHT: Duration = Duration::from_secs(2);
/// Lull with the shortest window, and without.
const ON: [(&str, Option<&str>); 2] = [(SCALE, Some("true")), ("lull.dev/window", Some("6s"))];
const OFF: [(&str, Option<&str>); 2] = [(SCALE, None), ("lull.dev/window", None)];

/// Falls asleep and is woken by many callers at once, who are all answered.
async fn sleeps_and_wakes(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    workload.asleep().await?;
    // A pod that ends still answers what comes in the first moment after sleep.
    workload.pods_gone().await?;
    let result = agent
        .run(&RunSpec {
            url: workload.url("/?sleep_ms=50"),
            connections: 50,
            requests: Some(50),
            ..RunSpec::default()
        })
        .await?;
    all_answered(&result)?;
    ensure!(
        (result.sent, result.via_activator) == (50, 50),
        "no pod was there: {result:?}"
    );
    eprintln!("50 first requests: {:?} ms", result.latency_ms);
    Ok(())
}

/// Without the annotation everything is what it was.
async fn leaves(workload: &Workload, original: &Original) -> anyhow::Result<()> {
    ensure!(original.is_changed(workload).await?, "nothing to give back");
    workload.annotate(&OFF).await?;
    eventually("everything to be given back", FOLLOW, async || {
        original.given_back(workload).await
    })
    .await
}

/// What Lull says of the workload.
async fn reason(workload: &Workload) -> anyhow::Result<String> {
    let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
    Ok(scaled.status.context("no status")?.reason)
}

#[tokio::test]
async fn a_stateful_set_sleeps_wakes_and_gets_everything_back() -> anyhow::Result<()> {
    in_namespace("stateful", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = App::plain("store").kind(Kind::StatefulSet);
        let workload = app.deploy(namespace).await?;
        workload.rolled_out().await?;
        let original = Original::of(&workload).await?;
        workload.annotate(&ON).await?;
        workload.enrolled().await?;
        sleeps_and_wakes(&agent, &workload).await?;
        stays_awake_for_its_peers(&agent, &workload).await?;
        workload.asleep().await?;
        leaves(&workload, &original).await
    })
    .await
}

/// One connection by the headless Service, which no activator and no queue-proxy sees.
async fn stays_awake_for_its_peers(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    let url = format!("http://{}:8080/", workload.pod_host(0));
    // It has its name once it is ready and the DNS knows that, and must not fall asleep before.
    eventually("the pod to have its name", FOLLOW, async || {
        agent.get(&workload.url("/")).await?;
        agent.get(&url).await
    })
    .await?;
    let kept = agent
        .start(&RunSpec {
            url,
            connections: 1,
            rate: Some(0.1),
            seconds: Some(LONGER_THAN_SLEEP_TAKES.as_secs_f64()),
            ..RunSpec::default()
        })
        .await?;
    eventually("the connection to be seen", FOLLOW, async || {
        let reason = reason(workload).await?;
        ensure!(reason.contains("round the queue-proxy"), "{reason}");
        Ok(())
    })
    .await?;
    let kept = kept.finished().await?;
    let replicas = workload.replicas().await?;
    all_answered(&kept)?;
    ensure!(
        kept.connections_opened == 1 && replicas == 1,
        "{replicas} replicas, {kept:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_kind_that_comes_after_lull_sleeps_wakes_and_rolls_out() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    rollouts::install(&cluster).await?;
    let installed = Instant::now();
    let lived = in_namespace("rollouts", async |namespace| {
        a_rollout_lives(namespace, installed).await
    });
    let lived = lived.await;
    lived.and(rollouts::remove(&cluster).await)
}

async fn a_rollout_lives(namespace: &Namespace, installed: Instant) -> anyhow::Result<()> {
    let _controller = rollouts::Controller::start(namespace);
    let app = App::plain("canary").kind(Kind::Rollout);
    let (agent, workload) = tokio::try_join!(Agent::deploy(namespace), app.deploy(namespace))?;
    set_version(&workload, "1").await?;
    workload.rolled_out().await?;
    let original = Original::of(&workload).await?;
    workload.annotate(&ON).await?;
    let left = FOUND.saturating_sub(installed.elapsed()) + SIGHT;
    eventually("the new kind to be found", left, async || {
        workload.scaled().await?.context("no ScaledWorkload")
    })
    .await?;
    eprintln!("the kind was found after {:.1?}", installed.elapsed());
    workload.enrolled().await?;
    sleeps_and_wakes(&agent, &workload).await?;
    rolls_out_under_load(&agent, &workload).await?;
    workload.asleep().await?;
    set_version(&workload, "1").await?;
    leaves(&workload, &original).await
}

/// Changes the template, which starts a rollout.
async fn set_version(workload: &Workload, version: &str) -> anyhow::Result<()> {
    let template = json!({ "metadata": { "annotations": { "version": version } } });
    let patch = json!({ "spec": { "template": template } });
    workload.patch(&patch).await
}

async fn rolls_out_under_load(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    agent.is_answered(&workload.url("/"), FOLLOW).await?;
    let load = agent
        .start(&RunSpec {
            url: workload.url("/?sleep_ms=10"),
            connections: 10,
            rate: Some(100.0),
            seconds: Some(400.0),
            keep_alive: false,
            ..RunSpec::default()
        })
        .await?;
    workload.rolled_out().await?;
    let old = workload.ready_pods().await?;
    set_version(workload, "2").await?;
    eventually("new pods alone", FOLLOW, async || {
        let now = workload.ready_pods().await?;
        ensure!(
            !now.is_empty() && now.iter().all(|pod| !old.contains(pod)),
            "{old:?} before, now {now:?}"
        );
        Ok(())
    })
    .await?;
    workload.rolled_out().await?;
    let load = load.stop().await?;
    all_answered(&load)?;
    eprintln!("{} answered during a rollout", load.ok);
    Ok(())
}

#[tokio::test]
async fn above_one_pod_the_cluster_s_own_autoscaler_decides() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let scaled = in_namespace("hpa", async |namespace| scaled_by_two(namespace).await);
    let scaled = scaled.await;
    // Before the namespace has gone: an API without a server would keep every namespace from going.
    scaled.and(metrics_api::remove(&cluster).await)
}

/// Lull wakes and puts to sleep, Kubernetes' own controller does the rest.
async fn scaled_by_two(namespace: &Namespace) -> anyhow::Result<()> {
    let app = App::new("shop").annotate("lull.dev/class", "hpa");
    let (agent, metric, workload) = tokio::try_join!(
        Agent::deploy(namespace),
        MetricsApi::deploy(namespace),
        app.deploy(namespace)
    )?;
    metric.asks_for(1).await?;
    metric.scales(&workload, 3).await?;
    workload.enrolled().await?;
    workload.asleep().await?;
    workload.pods_gone().await?;
    eventually("the HPA to rest", FOLLOW, async || {
        metrics_api::rests(&workload).await
    })
    .await?;
    let (history, before) = (
        History::start(&workload).await?,
        scales_told(&workload).await?,
    );
    let load = agent
        .start(&RunSpec {
            url: workload.url("/?sleep_ms=10"),
            connections: 10,
            rate: Some(50.0),
            seconds: Some(400.0),
            keep_alive: false,
            ..RunSpec::default()
        })
        .await?;
    eventually("a pod", FOLLOW, async || {
        slices::pods_only(&workload, 1).await
    })
    .await?;
    metric.asks_for(3).await?;
    eventually("three pods", FOLLOW, async || {
        slices::pods_only(&workload, 3).await
    })
    .await?;
    // More than two windows at three pods: one would do, and Lull leaves it to the HPA.
    let enough = load.so_far().await?.ok + 750;
    eventually("more of the load", FOLLOW, async || {
        let ok = load.so_far().await?.ok;
        ensure!(ok >= enough, "{ok} of {enough} answers");
        Ok(())
    })
    .await?;
    let (changes, ours) = (history.changes(), scales_told(&workload).await?);
    ensure!(changes == [1, 3], "{changes:?}");
    ensure!(ours == before, "Lull scaled above one: {ours:?}");
    let reason = reason(&workload).await?;
    ensure!(
        reason.contains("HPA") || reason.contains("HorizontalPodAutoscaler"),
        "{reason}"
    );
    all_answered(&load.stop().await?)?;
    workload.asleep().await?;
    eventually("the watch to have seen that", FOLLOW, async || {
        let changes = history.changes();
        ensure!(changes == [1, 3, 0], "{changes:?}");
        Ok(())
    })
    .await?;
    let ours = scales_told(&workload).await?;
    ensure!(ours == before, "Lull scaled above one: {ours:?}");
    Ok(())
}

/// Lull's Events about counts above one: it tells of each that it writes. (The API server does not
/// say who wrote `/scale`: the field has no manager afterwards.)
async fn scales_told(workload: &Workload) -> anyhow::Result<Vec<String>> {
    let path = format!(
        "/apis/events.k8s.io/v1/namespaces/{}/events",
        workload.namespace
    );
    let events = workload.cluster.get(&path).await?;
    let items = events["items"].as_array().context("no list of Events")?;
    let scales = items.iter().filter(|event| {
        event["reason"] == "Scaled" && event["regarding"]["name"] == workload.name.as_str()
    });
    Ok(scales.map(|event| event["note"].to_string()).collect())
}

#[tokio::test]
async fn a_workload_of_class_none_is_measured_and_never_scaled() -> anyhow::Result<()> {
    in_namespace("none", async |namespace| {
        let app = App::new("metered").annotate("lull.dev/class", "none");
        let workload = app.replicas(2).deploy(namespace).await?;
        workload.enrolled().await?;
        workload.rolled_out().await?;
        let history = History::start(&workload).await?;
        // Nothing is to happen: the length is what the test is about.
        tokio::time::sleep(LONGER_THAN_SLEEP_TAKES).await;
        ensure!(history.changes().is_empty(), "{:?}", history.changes());
        let ready = workload.ready_pods().await?;
        ensure!(ready.len() == 2, "ready are {ready:?}");
        for pod in &ready {
            workload.queue_proxy(pod).await?;
        }
        let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
        let status = scaled.status.context("no status")?;
        ensure!(
            scaled.spec.settings.class == Class::None
                && status.state == State::Awake
                && status.reason.contains("none"),
            "state {}, reason {:?}",
            status.state,
            status.reason
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_workload_of_class_none_without_pods_leaves_at_once() -> anyhow::Result<()> {
    const CLASS: &str = "lull.dev/class";
    in_namespace("none-leaves", async |namespace| {
        let workload = App::plain("metered").deploy(namespace).await?;
        workload.rolled_out().await?;
        let original = Original::of(&workload).await?;
        workload
            .annotate(&[ON[0], ON[1], (CLASS, Some("none"))])
            .await?;
        workload.enrolled().await?;
        workload.rolled_out().await?;
        workload.scale(0).await?;
        workload.asleep().await?;
        workload.pods_gone().await?;
        workload.annotate(&[OFF[0], OFF[1], (CLASS, None)]).await?;
        eventually("the Service to be given back", SOON, async || {
            ensure!(!original.is_changed(&workload).await?, "it is not");
            Ok(())
        })
        .await?;
        eventually("nothing of Lull to be left", FOLLOW, async || {
            let left = leftovers::leftovers(&workload.cluster, &workload.namespace).await?;
            ensure!(left.is_empty(), "left behind: {}", left.join(", "));
            Ok(())
        })
        .await?;
        let replicas = workload.replicas().await?;
        ensure!(replicas == 0, "it was scaled to {replicas}");
        Ok(())
    })
    .await
}
