//! However Istio's container comes into a workload's pods, and however it runs there: beside the app as
//! a native sidecar or an ordinary container, which starts last or holds the others back. Pods come and
//! go in an order in which no request is lost.
//!
//! A revision of Istio is named, by the namespace or by the pods, in place of `istio-injection`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::util::intstr::IntOrString};
use kube::{Api, api::DeleteParams};
use lull_contract::{names::ISTIO_NATIVE_SIDECAR, settings::DRAIN_MIN};
use lull_e2e::{
    Agent, App, Namespace, Workload, all_answered,
    cluster::call,
    containers::{Life, Lives},
    eventually, in_namespace_for, in_revision, mesh, slices,
};
use sample_app::wire::RunSpec;

/// The one revision of a mesh that names none; Istio's label for it is the same on namespaces and pods.
const REVISION: &str = "default";
const REVISION_LABEL: &str = "istio.io/rev";
/// Longest wait for what Istio, Kubernetes or Lull is about to do; several pods start side by side.
const FOLLOW: Duration = Duration::from_secs(120);
/// Longest time of what is within a namespace of a revision, which has 10 minutes.
const TEST: Duration = Duration::from_secs(540);
/// By how much clocks of two nodes may differ.
const CLOCKS: Duration = Duration::from_secs(1);
/// Where Istio's agent answers probes in the app's stead.
const AGENT: i32 = 15_020;

/// One way in which Istio's container runs.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// Name of the workload.
    name: &'static str,
    /// What its pods are annotated with.
    annotations: &'static [(&'static str, &'static str)],
    /// Istio's container begins behind the others.
    is_last: bool,
}

const WAYS: [Way; 3] = [
    Way {
        name: "native",
        annotations: &[(ISTIO_NATIVE_SIDECAR, "true")],
        is_last: false,
    },
    Way {
        name: "classic",
        annotations: &[(ISTIO_NATIVE_SIDECAR, "false")],
        is_last: true,
    },
    Way {
        name: "held",
        annotations: &[
            (ISTIO_NATIVE_SIDECAR, "false"),
            (
                "proxy.istio.io/config",
                "holdApplicationUntilProxyStarts: true",
            ),
        ],
        is_last: false,
    },
];

#[tokio::test]
async fn whichever_way_istio_s_proxy_runs_pods_come_and_go_in_order_and_lose_nothing()
-> anyhow::Result<()> {
    in_revision("ways", REVISION, async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let lives = WAYS.map(|way| {
            let agent = &agent;
            async move {
                let lived = Box::pin(lives(agent, namespace, way)).await;
                lived.with_context(|| way.name)
            }
        });
        try_join_all(lives).await.map(drop)
    })
    .await
}

/// Wakes a workload under load, deletes the pod that was woken beside another one, and looks when its
/// containers began and ended.
async fn lives(agent: &Agent, namespace: &Namespace, way: Way) -> anyhow::Result<()> {
    let app = App::new(way.name);
    let annotations = way.annotations.iter();
    let app = annotations.fold(app, |app, (key, value)| app.annotate_pods(key, value));
    let workload = app.deploy_awake(namespace).await?;
    agent.is_answered(&workload.url("/"), FOLLOW).await?;
    workload.put_to_sleep().await?;

    let seen = Lives::start(&workload).await?;
    let without_end = RunSpec {
        seconds: Some(500.0),
        ..load(&workload)
    };
    // The first of its requests wakes.
    let run = agent.start(&without_end).await?;
    let woken = behind(&workload, 1).await?;
    let woken = woken.first().context("no pod")?;
    probes_are_rewritten(&workload, woken).await?;
    // An only pod that is deleted takes what is on its way to it along, in a mesh as without one.
    workload
        .annotate(&[("lull.dev/min-scale", Some("2"))])
        .await?;
    behind(&workload, 2).await?;
    let pods: Api<Pod> = namespace.api();
    let params = DeleteParams::default();
    let deleted = pods.delete(woken, &params);
    call("delete the pod", deleted).await.map(drop)?;
    let life = eventually("the pod's last words", FOLLOW, async || {
        let life = seen.of(woken)?;
        ensure!(life.istio_proxy.ended.is_some(), "{life:?}");
        Ok(life)
    })
    .await?;
    let result = run.stop().await?;
    all_answered(&result)?;
    let (name, ok) = (way.name, result.ok);
    eprintln!(
        "{name}: {ok} answered, {:?} ms; {life:?}",
        result.latency_ms
    );
    is_in_order(&life, way)
}

fn load(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 10,
        seconds: Some(5.0),
        rate: Some(50.0),
        ..RunSpec::default()
    }
}

/// Waits until so many pods, or more, are behind the Service, and nothing else; their names.
async fn behind(workload: &Workload, pods: usize) -> anyhow::Result<Vec<String>> {
    let what = format!("{pods} pods behind the Service");
    eventually(&what, FOLLOW, async || {
        let backends = slices::pods_only(workload, pods).await?;
        Ok(backends.pods.into_iter().collect())
    })
    .await
}

/// Fails unless kubelet asks Istio's agent for the app's and the sidecar's readiness.
async fn probes_are_rewritten(workload: &Workload, pod: &str) -> anyhow::Result<()> {
    let pods = workload.pods().await?;
    let mut named = pods
        .iter()
        .filter(|one| one.metadata.name.as_deref() == Some(pod));
    let spec = named.next().and_then(|pod| pod.spec.as_ref());
    for container in &spec.context("it is gone")?.containers {
        let probe = container.readiness_probe.as_ref();
        let asked = probe.and_then(|probe| probe.http_get.as_ref());
        // Istio's own has its probe at another port of its own.
        if container.name != "istio-proxy" {
            let port = asked.map(|asked| &asked.port);
            let name = &container.name;
            ensure!(port == Some(&IntOrString::Int(AGENT)), "{name}: {probe:?}");
        }
    }
    Ok(())
}

fn is_in_order(life: &Life, way: Way) -> anyhow::Result<()> {
    if way.is_last {
        life.began_with_istio_last()?;
    } else {
        life.began_in_order()?;
    }
    life.ended_in_order(DRAIN_MIN.0.saturating_sub(CLOCKS))
}

#[tokio::test]
async fn a_revision_that_the_pods_name_puts_a_workload_into_the_mesh() -> anyhow::Result<()> {
    in_revision("callers", REVISION, async |callers| {
        in_namespace_for(TEST, "named", async |apps| {
            let agent = Agent::deploy_with_account("caller", callers).await?;
            let app = App::new("shop").label_pods(REVISION_LABEL, REVISION);
            let workload = app.deploy_asleep(apps).await?;
            workload.pods_gone().await?;
            let entries = mesh::entries(&workload).await?;
            ensure!(!entries.is_empty(), "asleep, and Istio knows no activator");
            mesh::sees_caller(&workload, (&agent, callers, "caller")).await?;
            all_answered(&agent.run(&load(&workload)).await?)
        })
        .await
    })
    .await
}
