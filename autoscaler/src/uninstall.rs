//! Helm's pre-delete hook: every workload leaves, then what would bring Lull back goes.
//!
//! The running autoscaler does the leaving; this only asks, waits, shows progress and cleans up. It
//! can be cut anywhere and run again.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject},
};
use lull_contract::{
    annotations::{self, LEAVE},
    scaled_workload::ScaledWorkload,
    target_resource::TargetResource,
};
use serde_json::{Value, json};

use crate::target::{DiscoveryError, discover};

/// Between two looks at what is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Makes every workload leave and deletes the webhook's configuration.
///
/// # Errors
/// Where workloads are left after `timeout`, named in the error, or the API server fails.
pub async fn run(
    targets: &[TargetResource],
    webhook_configuration: &str,
    timeout: Duration,
) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no access to a Kubernetes API server")?;
    let started = Instant::now();
    loop {
        ask_to_leave(&client, targets).await?;
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
    for (resource, object) in objects(&client, targets).await? {
        if object.annotations().contains_key(LEAVE) {
            annotate(&client, (&resource, &object), Value::Null).await?;
        }
    }
    tracing::info!("every workload is plain again");
    Ok(())
}

/// Every object of the kinds that are there.
async fn objects(
    client: &Client,
    targets: &[TargetResource],
) -> anyhow::Result<Vec<(ApiResource, DynamicObject)>> {
    let mut found = Vec::new();
    for target in targets {
        let resource = match discover(target, client).await {
            Ok(resource) => resource,
            Err(error @ DiscoveryError::Api { .. }) => return Err(error.into()),
            // What the API server doesn't have, or Lull can't scale, has nothing to leave.
            Err(_) => continue,
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let list = api.list(&ListParams::default()).await;
        let list = list.with_context(|| format!("listing {target}"))?;
        found.extend(list.items.into_iter().map(|o| (resource.clone(), o)));
    }
    Ok(found)
}

async fn ask_to_leave(client: &Client, targets: &[TargetResource]) -> anyhow::Result<()> {
    for (resource, object) in objects(client, targets).await? {
        if annotations::opted_in(object.annotations()) {
            annotate(client, (&resource, &object), json!("requested")).await?;
        }
    }
    Ok(())
}

async fn annotate(
    client: &Client,
    (resource, object): (&ApiResource, &DynamicObject),
    value: Value,
) -> anyhow::Result<()> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, resource);
    let patch = json!({ "metadata": { "annotations": { LEAVE: value } } });
    let result = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    ignore_not_found(result.map(drop))
        .with_context(|| format!("annotating {} {namespace}/{name}", resource.kind))
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

/// A deletion that finds nothing has nothing to do.
pub(crate) fn ignore_not_found(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
