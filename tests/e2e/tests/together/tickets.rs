//! What users of other systems of this kind met at the switch between proxy and pods, one test for each
//! ticket that no other test shows; docs/tickets.md has all of them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Namespace, Workload, agent::Run, all_answered, eventually, in_namespace, slices,
};
use sample_app::wire::RunSpec;
use serde_json::{Value, json};

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);

async fn asleep(namespace: &Namespace) -> anyhow::Result<(Agent, Workload)> {
    let app = App::new("shop");
    tokio::try_join!(Agent::deploy(namespace), app.deploy_asleep(namespace))
}

/// Waits until pods alone are behind the Service.
async fn served(workload: &Workload) -> anyhow::Result<()> {
    eventually("pods alone behind the Service", FOLLOW, async || {
        slices::pods_only(workload, 1).await.map(drop)
    })
    .await
}

/// The same where nothing else calls: it must not fall asleep before.
async fn served_when_called(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    eventually("pods alone behind the Service", FOLLOW, async || {
        agent.get(&workload.url("/")).await?;
        slices::pods_only(workload, 1).await.map(drop)
    })
    .await
}

/// The same while `load` goes on.
async fn served_meanwhile(load: &Run<'_>, workload: &Workload) -> anyhow::Result<()> {
    served(workload).await?;
    let so_far = load.so_far().await?;
    ensure!(!so_far.done, "the load ended before: {so_far:?}");
    Ok(())
}

/// The first request was let through to a pod that didn't listen yet, or to one of the cycle before.
#[tokio::test]
async fn kubeelasti_350_first_requests_go_to_a_socket_that_listens() -> anyhow::Result<()> {
    in_namespace("tickets-350", async |namespace| {
        // Without a probe Kubernetes takes a pod for ready before anything listens.
        let app = App::new("shop").without_readiness_probe();
        let app = app.arg("--delay-listen=2s");
        let (agent, workload) =
            tokio::try_join!(Agent::deploy(namespace), app.deploy_asleep(namespace))?;
        let first = RunSpec {
            url: workload.url("/"),
            connections: 10,
            requests: Some(10),
            keep_alive: false,
            ..RunSpec::default()
        };
        // The second time the pods of the first are still going.
        for are_gone in [true, false, true] {
            if are_gone {
                workload.pods_gone().await?;
            }
            all_answered(&agent.run(&first).await?)?;
            workload.asleep().await?;
        }
        Ok(())
    })
    .await
}

/// A connection that began at an activator was answered once and got 403 or 408 from then on.
#[tokio::test]
async fn kubeelasti_268_a_connection_from_before_the_switch_is_answered_after_it()
-> anyhow::Result<()> {
    in_namespace("tickets-268", async |namespace| {
        let (agent, workload) = asleep(namespace).await?;
        let load = agent
            .start(&RunSpec {
                url: workload.url("/?sleep_ms=5"),
                connections: 10,
                rate: Some(50.0),
                seconds: Some(90.0),
                ..RunSpec::default()
            })
            .await?;
        served_meanwhile(&load, &workload).await?;
        let at_switch = load.so_far().await?;
        // Another second and more on the same connections.
        eventually("answers after the switch", FOLLOW, async || {
            let ok = load.so_far().await?.ok;
            ensure!(ok >= at_switch.ok + 100, "{ok} answers");
            Ok(())
        })
        .await?;
        let result = load.stop().await?;
        all_answered(&result)?;
        ensure!(result.via_activator > 0, "it began at zero: {result:?}");
        Ok(())
    })
    .await
}

/// Gateways leave out endpoints whose conditions are not said, or that name no pod.
#[tokio::test]
async fn kubeelasti_285_endpoints_of_a_sleeper_are_complete() -> anyhow::Result<()> {
    in_namespace("tickets-285", async |namespace| {
        let (_, workload) = asleep(namespace).await?;
        workload.pods_gone().await?;
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io/service-name%3D{}",
            workload.namespace, workload.name
        );
        // The pods' own endpoints go a moment after them.
        let endpoints = eventually("no endpoint that ends", FOLLOW, async || {
            let slices = workload.cluster.get(&path).await?;
            let slices = slices["items"].as_array().context("no list of slices")?;
            let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array());
            let endpoints: Vec<Value> = endpoints.flatten().cloned().collect();
            let mut conditions = endpoints.iter().map(|endpoint| &endpoint["conditions"]);
            let ends = conditions.any(|conditions| conditions["terminating"] == true);
            ensure!(!ends, "{slices:?}");
            Ok(endpoints)
        })
        .await?;
        ensure!(!endpoints.is_empty(), "no endpoint");
        let wanted = json!({ "ready": true, "serving": true, "terminating": false });
        for endpoint in endpoints {
            ensure!(endpoint["conditions"] == wanted, "{endpoint}");
            ensure!(endpoint["targetRef"]["kind"] == "Pod", "{endpoint}");
            ensure!(endpoint["nodeName"].is_string(), "{endpoint}");
        }
        Ok(())
    })
    .await
}

/// Cilium without kube-proxy answers callers of a Service without endpoints with an error of its own.
#[tokio::test]
async fn kubeelasti_353_a_service_is_never_without_a_ready_endpoint() -> anyhow::Result<()> {
    in_namespace("tickets-353", async |namespace| {
        let (agent, workload) = asleep(namespace).await?;
        let union = slices::Union::start(&workload).await?;
        served_when_called(&agent, &workload).await?;
        workload.asleep().await?;
        workload.pods_gone().await?;
        ensure!(union.fewest() > 0, "there was a moment without any");
        Ok(())
    })
    .await
}

/// Connections that callers keep open kept pods awake for ever.
#[tokio::test]
async fn knative_3987_a_kept_connection_without_requests_keeps_nobody_awake() -> anyhow::Result<()>
{
    in_namespace("tickets-3987", async |namespace| {
        let (agent, workload) = asleep(namespace).await?;
        served_when_called(&agent, &workload).await?;
        // To a pod; the second request comes after 50 s.
        let load = agent
            .start(&RunSpec {
                url: workload.url("/"),
                requests: Some(2),
                rate: Some(0.02),
                ..RunSpec::default()
            })
            .await?;
        workload.scaled_to_zero(Duration::from_secs(30)).await?;
        let meanwhile = load.so_far().await?;
        ensure!(
            meanwhile.ok == 1 && !meanwhile.done,
            "the connection was not kept: {meanwhile:?}"
        );
        let result = load.finished().await?;
        all_answered(&result)
    })
    .await
}

/// Streams went on to pods that were ending, and idle connections kept those from it.
#[tokio::test]
async fn knative_13575_streams_leave_pods_that_end() -> anyhow::Result<()> {
    in_namespace("tickets-13575", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = App::new("shop").replicas(2);
        let workload = app
            .annotate("lull.dev/min-scale", "2")
            .deploy(namespace)
            .await?;
        workload.enrolled().await?;
        workload.rolled_out().await?;
        let old = workload.ready_pods().await?;
        let busy = RunSpec {
            url: workload.url("/?sleep_ms=10"),
            connections: 10,
            rate: Some(100.0),
            seconds: Some(120.0),
            h2c: true,
            grpc: true,
            ..RunSpec::default()
        };
        // Each of these connections is used every 50 s.
        let idle = RunSpec {
            rate: Some(0.2),
            ..busy.clone()
        };
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let (busy, idle) = (agent.start(&busy).await?, agent.start(&idle).await?);
        eventually("the load to be under way", FOLLOW, async || {
            let ok = busy.so_far().await?.ok;
            ensure!(ok >= 100, "{ok} answers");
            Ok(())
        })
        .await?;
        workload
            .change_container(json!({ "env": [{ "name": "VERSION", "value": "2" }] }))
            .await?;
        workload.rolled_out().await?;
        eventually("the old pods to go", FOLLOW, async || {
            let pods = workload.pods().await?;
            let mut names = pods.iter().filter_map(|pod| pod.metadata.name.as_ref());
            ensure!(!names.any(|name| old.contains(name)), "of {old:?} some are");
            Ok(())
        })
        .await?;
        for run in [busy, idle] {
            all_answered(&run.stop().await?)?;
        }
        Ok(())
    })
    .await
}
