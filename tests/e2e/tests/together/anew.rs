//! A Deployment or a Service is deleted and made anew under its name: for the same app, or for another one.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Cluster, Namespace, Workload, all_answered, eventually, in_namespace, leftovers,
    slices::{self, Backends},
};
use sample_app::wire::RunSpec;
use serde_json::{Value, json};

use crate::tools::{answered_by, targets};

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(120);
/// The named port that Lull points the Service of [`App::new`] at.
const SWITCHED: &str = "lull-8080";

/// An app that does not fall asleep before [`Workload::put_to_sleep`], with its manifest.
fn awake_app() -> App {
    App::new("shop").annotate("lull.dev/min-scale", "1")
}

/// The manifest of kind `kind` among those of `app`, with the path of its kind's objects.
fn manifest(app: &App, kind: &str, namespace: &Namespace) -> anyhow::Result<(String, Value)> {
    let mut all = app.manifests(&namespace.name).into_iter();
    all.find(|(_, object)| object["kind"] == kind)
        .with_context(|| format!("{app:?} has no {kind}"))
}

async fn delete(cluster: &Cluster, objects: &str, name: &str) -> anyhow::Result<()> {
    let path = format!("{objects}/{name}");
    cluster.text("DELETE", &path, Vec::new()).await.map(drop)
}

/// Waits until activators alone are behind the Service.
async fn held(service: &Workload) -> anyhow::Result<()> {
    eventually("activators alone behind the Service", FOLLOW, async || {
        let backends = slices::backends(service).await?;
        ensure!(
            !backends.activators.is_empty()
                && backends.pods.is_empty()
                && backends.unknown.is_empty(),
            "behind the Service are {backends:?}"
        );
        Ok(())
    })
    .await
}

/// Waits until no slice has an endpoint for a Service of that name.
async fn forgotten(service: &Workload) -> anyhow::Result<()> {
    eventually("the Service's endpoints to go", FOLLOW, async || {
        let backends = slices::backends(service).await?;
        ensure!(backends == Backends::default(), "there are {backends:?}");
        Ok(())
    })
    .await
}

/// Waits until pods alone are behind the Service, which Lull has switched.
async fn served(workload: &Workload) -> anyhow::Result<()> {
    targets(workload, SWITCHED).await?;
    eventually("pods alone behind the Service", FOLLOW, async || {
        slices::pods_only(workload, 1).await.map(drop)
    })
    .await
}

/// Waits until Lull runs the Deployment that is there now, not the one before it.
async fn enrolled_anew(workload: &Workload) -> anyhow::Result<()> {
    eventually("the new Deployment to be enrolled", FOLLOW, async || {
        let uid = workload.object_json().await?["metadata"]["uid"].clone();
        let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
        let known = scaled.spec.target.uid;
        ensure!(uid == known.as_str(), "it is {uid}, Lull knows {known}");
        workload.is_enrolled().await
    })
    .await?;
    workload.rolled_out().await.map(drop)
}

/// Sleeps with activators in the endpoints, and is woken by a caller.
async fn wakes_again(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    held(workload).await?;
    answered_by(agent, workload, workload).await
}

#[tokio::test]
async fn a_deployment_that_is_replaced_while_awake_is_enrolled_again() -> anyhow::Result<()> {
    in_namespace("deployment-anew", async |namespace| {
        let (cluster, app) = (&namespace.cluster, awake_app());
        let (agent, workload) = tokio::try_join!(Agent::deploy(namespace), app.deploy(namespace))?;
        enrolled_anew(&workload).await?;
        served(&workload).await?;

        let (deployments, deployment) = manifest(&app, "Deployment", namespace)?;
        // As `kubectl replace --force` does it: Lull may not even see that it was gone.
        delete(cluster, &deployments, &workload.name).await?;
        cluster.create(&deployments, &deployment).await?;
        enrolled_anew(&workload).await?;
        served(&workload).await?;
        answered_by(&agent, &workload, &workload).await?;
        workload.put_to_sleep().await?;
        wakes_again(&agent, &workload).await
    })
    .await
}

#[tokio::test]
async fn a_deployment_that_is_deleted_while_asleep_is_enrolled_anew() -> anyhow::Result<()> {
    in_namespace("deployment-gone", async |namespace| {
        let (cluster, app) = (&namespace.cluster, App::new("shop"));
        let (agent, workload) =
            tokio::try_join!(Agent::deploy(namespace), app.deploy_asleep(namespace))?;

        let (deployments, deployment) = manifest(&app, "Deployment", namespace)?;
        delete(cluster, &deployments, &workload.name).await?;
        eventually("Lull to let it go", FOLLOW, async || {
            ensure!(workload.scaled().await?.is_none(), "a ScaledWorkload");
            let service = workload.service_json().await?;
            ensure!(!leftovers::has_traces(&service), "{service}");
            Ok(())
        })
        .await?;
        forgotten(&workload).await?;
        cluster.create(&deployments, &deployment).await?;
        enrolled_anew(&workload).await?;
        answered_by(&agent, &workload, &workload).await?;
        workload.asleep().await?;
        wakes_again(&agent, &workload).await
    })
    .await
}

#[tokio::test]
async fn a_service_that_is_made_anew_while_its_workload_is_awake_is_switched_again()
-> anyhow::Result<()> {
    in_namespace("service-anew", async |namespace| {
        let (cluster, app) = (&namespace.cluster, awake_app());
        let (agent, workload) = tokio::try_join!(Agent::deploy(namespace), app.deploy(namespace))?;
        workload.enrolled().await?;
        workload.rolled_out().await?;
        served(&workload).await?;

        let (services, service) = manifest(&app, "Service", namespace)?;
        delete(cluster, &services, &workload.name).await?;
        forgotten(&workload).await?;
        cluster.create(&services, &service).await?;
        served(&workload).await?;
        answered_by(&agent, &workload, &workload).await
    })
    .await
}

#[tokio::test]
async fn a_service_that_is_made_anew_while_its_workload_is_asleep_is_answered_again()
-> anyhow::Result<()> {
    in_namespace("service-gone", async |namespace| {
        let (cluster, app) = (&namespace.cluster, App::new("shop"));
        let (agent, workload) =
            tokio::try_join!(Agent::deploy(namespace), app.deploy_asleep(namespace))?;
        held(&workload).await?;

        let (services, service) = manifest(&app, "Service", namespace)?;
        delete(cluster, &services, &workload.name).await?;
        // Without any Service nobody could wake it, so it is woken; its pod is in no endpoints.
        forgotten(&workload).await?;
        cluster.create(&services, &service).await?;
        targets(&workload, SWITCHED).await?;
        answered_by(&agent, &workload, &workload).await?;
        workload.asleep().await?;
        wakes_again(&agent, &workload).await
    })
    .await
}

/// A second Service on port 80, of the pods of `app`.
fn second_service(app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "second" },
        "spec": {
            "selector": { "app": app },
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
        },
    })
}

#[tokio::test]
async fn the_second_of_two_services_that_becomes_another_apps_leads_to_that_one_alone()
-> anyhow::Result<()> {
    in_namespace("second-service", async |namespace| {
        let cluster = &namespace.cluster;
        let services = format!("/api/v1/namespaces/{}/services", namespace.name);
        cluster.create(&services, &second_service("shop")).await?;
        let (shop, bank) = (App::new("shop"), App::plain("bank"));
        let (agent, shop, bank) = tokio::try_join!(
            Agent::deploy(namespace),
            shop.deploy_asleep(namespace),
            bank.deploy(namespace)
        )?;
        // There is no workload of that name: it stands for the Service.
        let second = Workload::new(namespace, "second");
        held(&second).await?;

        delete(cluster, &services, &second.name).await?;
        forgotten(&second).await?;
        bank.rolled_out().await?;
        cluster.create(&services, &second_service("bank")).await?;
        answered_by(&agent, &second, &bank).await?;
        only_by(&agent, &second, &bank).await?;
        let service = second.service_json().await?;
        ensure!(!leftovers::has_traces(&service), "switched: {service}");
        shop.is_asleep().await.context("somebody has woken it")?;
        wakes_again(&agent, &shop).await
    })
    .await
}

/// Fails unless pods of `by`, and no activator, answer whoever calls the Service.
async fn only_by(agent: &Agent, service: &Workload, by: &Workload) -> anyhow::Result<()> {
    let result = agent
        .run(&RunSpec {
            url: service.url("/"),
            connections: 10,
            requests: Some(200),
            keep_alive: false,
            ..RunSpec::default()
        })
        .await?;
    all_answered(&result)?;
    let pods = by.ready_pods().await?;
    ensure!(
        result.via_activator == 0 && result.by_pod.keys().all(|pod| pods.contains(pod)),
        "ready are {pods:?}, {} came by an activator, answers came from {:?}",
        result.via_activator,
        result.by_pod
    );
    Ok(())
}
