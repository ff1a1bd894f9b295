//! Helm's pre-delete hook: every workload leaves, then what would bring Lull back goes.
//!
//! The running autoscaler does the leaving; this only asks, waits, shows progress and cleans up. It
//! can be cut anywhere and run again.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use lull_contract::{
    annotations::{self, LEAVE},
    scaled_workload::ScaledWorkload,
};
use serde_json::{Value, json};

/// Between two looks at what is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Makes every workload leave and deletes the webhook's configuration.
///
/// # Errors
/// Where workloads are left after `timeout`, named in the error, or the API server fails.
pub async fn run(webhook_configuration: &str, timeout: Duration) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no access to a Kubernetes API server")?;
    let started = Instant::now();
    loop {
        ask_to_leave(&client).await?;
        let left = left(&client).await?;
        if left.is_empty() {
            break;
        }
        if started.elapsed() > timeout {
            bail!(
                "still there after {} s: {}",
                timeout.as_secs(),
                left.join(", ")
            );
        }
        tracing::info!("waiting for {} to leave: {}", left.len(), left.join(", "));
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    ignore_not_found(
        webhooks
            .delete(webhook_configuration, &DeleteParams::default())
            .await
            .map(drop),
    )
    .context("deleting the webhook's configuration")?;
    // Without the webhook nothing injects again, so the marks can go.
    for deployment in deployments(&client).await? {
        if deployment.annotations().contains_key(LEAVE) {
            annotate(&client, &deployment, Value::Null).await?;
        }
    }
    tracing::info!("every workload is plain again");
    Ok(())
}

async fn deployments(client: &Client) -> anyhow::Result<Vec<Deployment>> {
    let api: Api<Deployment> = Api::all(client.clone());
    Ok(api
        .list(&ListParams::default())
        .await
        .context("listing Deployments")?
        .items)
}

async fn ask_to_leave(client: &Client) -> anyhow::Result<()> {
    for deployment in deployments(client).await? {
        if annotations::opted_in(deployment.annotations()) {
            annotate(client, &deployment, json!("requested")).await?;
        }
    }
    Ok(())
}

async fn annotate(client: &Client, deployment: &Deployment, value: Value) -> anyhow::Result<()> {
    let (namespace, name) = (
        deployment.namespace().unwrap_or_default(),
        deployment.name_any(),
    );
    let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let patch = json!({ "metadata": { "annotations": { LEAVE: value } } });
    let result = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    ignore_not_found(result.map(drop))
        .with_context(|| format!("annotating Deployment {namespace}/{name}"))
}

/// Workloads that have not left; none where the CRD is gone already.
async fn left(client: &Client) -> anyhow::Result<Vec<String>> {
    let api: Api<ScaledWorkload> = Api::all(client.clone());
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list
            .items
            .iter()
            .map(|w| format!("{}/{}", w.namespace().unwrap_or_default(), w.name_any()))
            .collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).context("listing ScaledWorkloads"),
    }
}

fn ignore_not_found(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
