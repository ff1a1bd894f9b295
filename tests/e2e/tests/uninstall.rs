//! `helm uninstall`: every workload is awake and plain afterwards. Nothing may run beside it: Lull is
//! gone then.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Cluster, all_answered, command, eventually, families, in_namespace, leftovers,
    namespace, slices,
};
use sample_app::wire::RunSpec;

/// Longest wait for what goes on after helm has returned: pods without a sidecar replace others.
const SETTLE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn helm_uninstall_wakes_sleepers_and_leaves_nothing() -> anyhow::Result<()> {
    let helm = std::env::var_os("E2E_HELM").map(PathBuf::from);
    let helm = helm.context("E2E_HELM must be the path of helm")?;
    let cluster = Cluster::connect().await?;
    // Shows too that nothing of Lull blocks a namespace's deletion.
    namespace::all_gone(&cluster, Duration::from_secs(120)).await?;
    in_namespace("uninstall", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let scout = Agent::deploy_as("scout", namespace).await?;
        // Where the cluster has two address families, the Services have both.
        let app = |name| App::plain(name).families("PreferDualStack", &[]);
        let (sleeper, busy) = (app("sleeper").replicas(2), app("busy"));
        let (sleeper, busy) = tokio::try_join!(sleeper.deploy(namespace), busy.deploy(namespace))?;
        let (sleepers, busys) = tokio::try_join!(sleeper.service_json(), busy.service_json())?;
        let on = [
            (lull_contract::annotations::SCALE, Some("true")),
            ("lull.dev/window", Some("6s")),
        ];
        tokio::try_join!(sleeper.annotate(&on), busy.annotate(&on))?;
        tokio::try_join!(sleeper.enrolled(), busy.enrolled())?;
        scout.reaches_alone(&busy).await?;
        let load = RunSpec {
            url: busy.url("/?sleep_ms=10"),
            connections: 10,
            seconds: Some(240.0),
            rate: Some(50.0),
            keep_alive: false,
            ..RunSpec::default()
        };
        let load = agent.start(&load).await?;
        sleeper.asleep().await?;

        let release = ["-n", namespace.cluster.lull_namespace.as_str()];
        let wait = ["--wait", "--timeout", "3m"];
        let args = [&["uninstall", "lull"][..], &release[..], &wait[..]].concat();
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
