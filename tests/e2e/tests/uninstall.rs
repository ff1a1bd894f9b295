//! `helm uninstall`, which is cut in its middle and run again: every workload is awake and plain afterwards.
//! Nothing may run beside it: Lull is gone then.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use lull_contract::{annotations::SCALE, scaled_workload::Mode};
use lull_e2e::{
    Agent, App, Cluster, all_answered,
    background::{Program, Scratch},
    cluster::is_not_found,
    command, eventually, families, in_namespace, leftovers, namespace,
    races::is_switched,
    slices,
};
use sample_app::wire::RunSpec;
use tokio::process::Command;

/// Longest wait for what goes on after helm has returned: pods without a sidecar replace others.
const SETTLE: Duration = Duration::from_secs(120);
/// The chart's Job that makes every workload leave.
const JOB: &str = "lull-uninstall";
/// What its pods are among Lull's.
const COMPONENT: &str = "uninstall";
/// What it says while it waits for some.
const WAITS: &str = " to leave: ";

#[tokio::test]
async fn helm_uninstall_wakes_sleepers_and_leaves_nothing() -> anyhow::Result<()> {
    let helm = std::env::var_os("E2E_HELM").map(PathBuf::from);
    let helm = helm.context("E2E_HELM must be the path of helm")?;
    let cluster = Cluster::connect().await?;
    // Shows too that nothing of Lull blocks a namespace's deletion.
    namespace::all_gone(&cluster, Duration::from_secs(120)).await?;
    in_namespace("uninstall", async |namespace| {
        let (agent, scout) = tokio::try_join!(
            Agent::deploy(namespace),
            Agent::deploy_as("scout", namespace)
        )?;
        // Where the cluster has two address families, the Services have both.
        let app = |name| App::plain(name).families("PreferDualStack", &[]);
        let (sleeper, busy) = (app("sleeper").replicas(2), app("busy"));
        let (sleeper, busy) = tokio::try_join!(sleeper.deploy(namespace), busy.deploy(namespace))?;
        let (sleepers, busys) = tokio::try_join!(sleeper.service_json(), busy.service_json())?;
        let on = [(SCALE, Some("true")), ("lull.dev/window", Some("6s"))];
        // Activators alone are behind it: its selector is given back before its ports.
        let held = [on[0], on[1], ("lull.dev/target-burst-capacity", Some("-1"))];
        tokio::try_join!(sleeper.annotate(&on), busy.annotate(&held))?;
        tokio::try_join!(sleeper.enrolled(), busy.enrolled())?;
        scout.reaches_alone(&busy).await?;
        let load = RunSpec {
            url: busy.url("/?sleep_ms=10"),
            connections: 10,
            seconds: Some(300.0),
            rate: Some(50.0),
            keep_alive: false,
            ..RunSpec::default()
        };
        let load = agent.start(&load).await?;
        sleeper.asleep().await?;
        eventually("the sentinel selector", SETTLE, async || {
            is_switched(&busy, Mode::Proxy).await
        })
        .await?;

        let release = ["-n", namespace.cluster.lull_namespace.as_str()];
        let wait = ["--wait", "--timeout", "3m"];
        let args = [&["uninstall", "lull"][..], &release[..], &wait[..]].concat();
        cut(&namespace.cluster, (helm.as_path(), args.as_slice())).await?;
        // There still is a release, or this would fail.
        command::run(&helm, &args).await?;

        // Replicas of a sleeper are those it was enrolled with.
        ensure!(
            sleeper.replicas().await? >= 2,
            "{} replicas",
            sleeper.replicas().await?
        );
        eventually("both to be plain and ready", SETTLE, async || {
            for (workload, then, pods) in [(&sleeper, &sleepers, 2), (&busy, &busys, 1)] {
                let now = workload.service_json().await?;
                ensure!(
                    now["spec"] == then["spec"],
                    "the Service's spec is {}",
                    now["spec"]
                );
                slices::pods_only(workload, pods).await?;
            }
            let left = leftovers::leftovers(&namespace.cluster, "").await?;
            ensure!(left.is_empty(), "left behind: {}", left.join(", "));
            nothing_installed(&namespace.cluster).await
        })
        .await?;
        for address in families::addresses(&sleeper).await? {
            // kube-proxy leads callers to its plain pods a moment after they alone are in the slices.
            let url = families::url(address, "/");
            let answered = agent.is_answered(&url, SETTLE).await;
            answered.context("the sleeper doesn't answer")?;
        }
        let load = load.stop().await?;
        all_answered(&load)?;
        eprintln!("{} answered during the uninstall", load.ok);
        Ok(())
    })
    .await
}

/// Begins an uninstall, and ends it while workloads leave: helm first, and then its Job.
async fn cut(cluster: &Cluster, (helm, args): (&Path, &[&str])) -> anyhow::Result<()> {
    let scratch = Scratch::try_new("uninstall")?;
    let mut uninstall = Command::new(helm);
    uninstall.args(args);
    let uninstall = Program::start("helm-uninstall", uninstall, &scratch)?;
    eventually("workloads to be waited for", SETTLE, async || {
        let said = said(cluster).await?;
        ensure!(said.contains(WAITS), "the Job says {said:?}");
        Ok(())
    })
    .await?;
    uninstall.stop().await?;
    let namespace = &cluster.lull_namespace;
    let (job, pods) = (
        format!("/apis/batch/v1/namespaces/{namespace}/jobs/{JOB}?propagationPolicy=Background"),
        format!("/api/v1/namespaces/{namespace}/pods"),
    );
    // Before its pods: it would make others.
    cluster.text("DELETE", &job, Vec::new()).await?;
    eventually("the Job's pods to go", SETTLE, async || {
        let left = cluster.component_pods(COMPONENT).await?;
        for pod in &left {
            // Else it might go on for half a minute.
            let at_once = format!("{pods}/{}?gracePeriodSeconds=1", pod.name_any());
            match cluster.text("DELETE", &at_once, Vec::new()).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        ensure!(left.is_empty(), "{} are left", left.len());
        Ok(())
    })
    .await
}

/// What the Job has said so far.
async fn said(cluster: &Cluster) -> anyhow::Result<String> {
    let pods = cluster.component_pods(COMPONENT).await?;
    let name = pods.first().context("the Job has no pod")?.name_any();
    let namespace = &cluster.lull_namespace;
    let log = format!("/api/v1/namespaces/{namespace}/pods/{name}/log");
    cluster.text("GET", &log, Vec::new()).await
}

async fn nothing_installed(cluster: &Cluster) -> anyhow::Result<()> {
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/scaledworkloads.lull.dev";
    ensure!(
        cluster.get_if_there(crd).await?.is_none(),
        "the CRD is still there"
    );
    for kind in [
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
    ] {
        let list = cluster
            .get(&format!("/apis/admissionregistration.k8s.io/v1/{kind}"))
            .await?;
        ensure!(
            !list.to_string().contains("lull.dev"),
            "{kind} of Lull are still there"
        );
    }
    Ok(())
}
