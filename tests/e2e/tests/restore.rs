//! Lull goes without leaving: `autoscaler restore` gives everything back from the objects alone.
//! Nothing else may run beside it: Lull is gone then.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use lull_contract::{
    annotations::SCALE,
    scaled_workload::{Mode, ScaledWorkload},
};
use lull_e2e::{
    Agent, App, Cluster, Namespace, Original, Workload, all_answered,
    cluster::{COMPONENTS, call, is_not_found},
    command, eventually, in_namespace_for, leftovers,
    races::is_switched,
};
use sample_app::wire::RunSpec;
use serde_json::json;

/// Longest wait for what must come: pods that end, a Job, a rollout.
const FOLLOW: Duration = Duration::from_secs(120);
/// Longest time of this test: activators take their time to end.
const TEST: Duration = Duration::from_secs(600);
/// Where the API server has the kind that goes with Lull.
const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/scaledworkloads.lull.dev";
/// What every workload here is given to Lull by.
const ON: [Setting; 2] = [(SCALE, Some("true")), ("lull.dev/window", Some("6s"))];
/// What more the busy one has.
const TWO: [Setting; 1] = [(MIN_SCALE, Some("2"))];
/// What more one has whose Service has the sentinel for a selector all the time.
const HELD: [Setting; 2] = [(MIN_SCALE, Some("1")), (BURST_CAPACITY, Some("-1"))];
/// What of that is taken away in the end.
const OFF: [Setting; 4] = [
    (SCALE, None),
    ("lull.dev/window", None),
    (MIN_SCALE, None),
    (BURST_CAPACITY, None),
];
const MIN_SCALE: &str = "lull.dev/min-scale";
const BURST_CAPACITY: &str = "lull.dev/target-burst-capacity";
/// Applies the Job, or deletes it again.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/cluster.sh");

/// An annotation; without a value it is taken away.
type Setting = (&'static str, Option<&'static str>);

/// What there is when Lull goes, each with what it was before.
struct Workloads {
    sleeper: (Workload, Original),
    /// Pods alone answer for it.
    busy: (Workload, Original),
    /// Activators alone do.
    held: (Workload, Original),
}

#[tokio::test]
async fn what_sleeps_and_what_is_held_without_lull_is_given_back() -> anyhow::Result<()> {
    let helm = std::env::var_os("E2E_HELM").map(PathBuf::from);
    let helm = helm.context("E2E_HELM must be the path of helm")?;
    in_namespace_for(TEST, "restore", async |namespace| {
        let cluster = &namespace.cluster;
        let agent = Agent::deploy(namespace).await?;
        let scout = Agent::deploy_as("scout", namespace).await?;
        let workloads = Workloads::deploy(namespace).await?;
        let (sleeper, busy) = (&workloads.sleeper.0, &workloads.busy.0);
        scout.reaches_alone(busy).await?;
        let load = agent.start(&load(busy)).await?;
        workloads.as_lull_leaves_them().await?;

        let release = ["-n", cluster.lull_namespace.as_str(), "--no-hooks"];
        command::run(&helm, &[&["uninstall", "lull"][..], &release[..]].concat()).await?;
        nothing_of_lull_runs(cluster).await?;
        definition_gone(cluster).await?;
        let left = leftovers::leftovers(cluster, &namespace.name).await?;
        let replicas = sleeper.replicas().await?;
        ensure!(
            !left.is_empty() && replicas == 0,
            "nothing to restore: {left:?}, {replicas} replicas"
        );

        command::run(SCRIPT, &["restore", "apply"]).await?;
        job_done(cluster).await?;
        workloads.given_back(&agent).await?;
        let load = load_ended(load).await?;
        eprintln!("{load} answered while Lull went and was cleaned up after");
        command::run(SCRIPT, &["restore", "delete"]).await
    })
    .await
}

fn load(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 10,
        seconds: Some(TEST.as_secs_f64()),
        rate: Some(50.0),
        keep_alive: false,
        ..RunSpec::default()
    }
}

async fn load_ended(load: lull_e2e::agent::Run<'_>) -> anyhow::Result<u64> {
    let load = load.stop().await?;
    all_answered(&load)?;
    Ok(load.ok)
}

async fn nothing_of_lull_runs(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("Lull's pods to go", FOLLOW, async || {
        for component in COMPONENTS {
            let left = cluster.component_pods(component).await?.len();
            ensure!(left == 0, "{left} of {component}");
        }
        Ok(())
    })
    .await
}

/// The kind goes only when no object of it has a finalizer that nobody looks after any more.
async fn definition_gone(cluster: &Cluster) -> anyhow::Result<()> {
    let workloads: Api<ScaledWorkload> = Api::all(cluster.client.clone());
    let all = ListParams::default();
    let listed = workloads.list(&all);
    let left = match call("list ScaledWorkloads", listed).await {
        Ok(list) => list.items,
        Err(error) if is_not_found(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    for workload in left {
        let namespace = workload.namespace().unwrap_or_default();
        let api: Api<ScaledWorkload> = Api::namespaced(cluster.client.clone(), &namespace);
        let (name, params) = (workload.name_any(), PatchParams::default());
        let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        match call("take the finalizer away", api.patch(&name, &params, &free)).await {
            Err(error) if !is_not_found(&error) => return Err(error),
            _ => {}
        }
    }
    eventually("the CRD to go", FOLLOW, async || {
        let there = cluster.get_if_there(DEFINITION).await?;
        ensure!(there.is_none(), "it is still there");
        Ok(())
    })
    .await
}

async fn job_done(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = &cluster.lull_namespace;
    let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs/lull-restore");
    eventually("the restore to end", FOLLOW, async || {
        let status = cluster.get(&path).await?["status"].clone();
        ensure!(status["succeeded"] == 1, "the Job's status is {status}");
        Ok(())
    })
    .await
}

// === impl Workloads ===

impl Workloads {
    /// Deploys them, and gives them to Lull.
    async fn deploy(namespace: &Namespace) -> anyhow::Result<Self> {
        let (sleeper, busy, held) = (
            App::plain("sleeper"),
            App::plain("busy").replicas(2),
            App::plain("held"),
        );
        let (sleeper, busy, held) = tokio::try_join!(
            enrolled(&sleeper, namespace, &[]),
            enrolled(&busy, namespace, &TWO),
            enrolled(&held, namespace, &HELD)
        )?;
        Ok(Self {
            sleeper,
            busy,
            held,
        })
    }

    /// Waits until each is what its name says.
    async fn as_lull_leaves_them(&self) -> anyhow::Result<()> {
        let (sleeper, held) = (&self.sleeper.0, &self.held.0);
        sleeper.asleep().await?;
        sleeper.pods_gone().await?;
        eventually("the sentinel selector", FOLLOW, async || {
            is_switched(held, Mode::Proxy).await
        })
        .await
    }

    /// Waits until each is what it was, and those are answered whom nobody reached without Lull.
    async fn given_back(&self, agent: &Agent) -> anyhow::Result<()> {
        let Self {
            sleeper,
            busy,
            held,
        } = self;
        for (workload, original) in [sleeper, busy, held] {
            // The settings are the user's: they stay, and mean nothing.
            workload.annotate(&OFF).await?;
            let what = format!("everything of {} to be given back", workload.name);
            eventually(&what, FOLLOW, async || original.given_back(workload).await).await?;
        }
        for (workload, _) in [sleeper, held] {
            agent.is_answered(&workload.url("/"), FOLLOW).await?;
        }
        Ok(())
    }
}

/// Deploys `app` without Lull, and gives it to Lull with `more` than the others have.
async fn enrolled(
    app: &App,
    namespace: &Namespace,
    more: &[Setting],
) -> anyhow::Result<(Workload, Original)> {
    let workload = app.deploy(namespace).await?;
    workload.rolled_out().await?;
    let original = Original::of(&workload).await?;
    workload.annotate(&[&ON[..], more].concat()).await?;
    workload.enrolled().await?;
    Ok((workload, original))
}
