//! Helm's pre-delete hook: every workload leaves, then what would bring Lull back goes.
//!
//! The running autoscaler does the leaving; this only asks, waits, shows progress and cleans up. It
//! can be cut anywhere and run again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::{ApiResource, DeserializeGuard, DynamicObject},
};
use lull_contract::{
    annotations::{self, LEAVE},
    names::workload_id,
    scaled_workload::ScaledWorkload,
    target_resource::TargetResource,
};
use serde_json::{Value, json};

use crate::{
    namespaces::Namespaces,
    target::{DiscoveryError, discover},
    words::some_of,
};

/// So many of those that are left are named: a line for each second is read by people.
const NAMED: usize = 10;
/// Between two looks at what is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// From the deletion of the webhook's configuration to the last API server that has heard of it by its
/// watch: one that has not would have the sidecar put back into a template that has lost its mark.
const HEARD_OF: Duration = Duration::from_secs(3);
/// Objects of a page when all are listed.
pub(crate) const PAGE: u32 = 500;
/// What the mark says until the autoscaler has dealt with it.
const REQUESTED: &str = "requested";

/// What may be Lull's.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Kinds that Lull scales.
    pub targets: &'a [TargetResource],
    /// Where it does.
    pub namespaces: &'a Namespaces,
}

/// Makes every workload leave and deletes the webhook's configuration.
///
/// # Errors
/// Where workloads are left after `timeout`, named in the error, or the API server fails.
pub async fn run(
    scope: Scope<'_>,
    webhook_configuration: &str,
    timeout: Duration,
) -> anyhow::Result<()> {
    let client = lull_kubernetes::connect()
        .await
        .context("no access to a Kubernetes API server")?;
    let started = Instant::now();
    loop {
        ask_to_leave(&client, scope).await?;
        let left: Vec<String> = left(&client, scope).await?.into_iter().collect();
        if left.is_empty() {
            break;
        }
        if started.elapsed() > timeout {
            bail!(
                "{} still there after {} s: {}",
                left.len(),
                timeout.as_secs(),
                some_of(&left, NAMED)
            );
        }
        tracing::info!(
            "waiting for {} to leave: {}",
            left.len(),
            some_of(&left, NAMED)
        );
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
    tokio::time::sleep(HEARD_OF).await;
    // Without the webhook nothing injects again, so the marks can go.
    for object in ours(&client, scope).await? {
        if object.leave.is_some() {
            annotate(&client, &object, Value::Null).await?;
        }
    }
    tracing::info!("every workload is plain again");
    Ok(())
}

/// An object that Lull may run.
struct Found {
    resource: ApiResource,
    namespace: String,
    name: String,
    is_opted_in: bool,
    leave: Option<String>,
}

/// Objects of the kinds that are there that are Lull's, or on their way out; of each only its
/// metadata is read, page by page: a cluster may have thousands that are none of our business.
async fn ours(client: &Client, scope: Scope<'_>) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for resource in kinds(client, scope.targets).await? {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list_metadata(&params).await;
            let page = page.with_context(|| format!("listing {}", resource.plural))?;
            let next = page.metadata.continue_.clone();
            found.extend(page.items.iter().map(|object| Found {
                resource: resource.clone(),
                namespace: object.namespace().unwrap_or_default(),
                name: object.name_any(),
                is_opted_in: annotations::opted_in(object.annotations()),
                leave: object.annotations().get(LEAVE).cloned(),
            }));
            found.retain(|object| {
                let is_ours = object.is_opted_in || object.leave.is_some();
                is_ours && scope.namespaces.has(&object.namespace)
            });
            match next.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
    }
    Ok(found)
}

/// Those of `targets` that the cluster has: what the API server doesn't know, or Lull can't scale, has
/// nothing to leave.
pub(crate) async fn kinds(
    client: &Client,
    targets: &[TargetResource],
) -> anyhow::Result<Vec<ApiResource>> {
    let mut kinds = Vec::new();
    for target in targets {
        match discover(target, client).await {
            Ok(kind) => kinds.push(kind),
            Err(error @ DiscoveryError::Api { .. }) => return Err(error.into()),
            Err(DiscoveryError::Unknown(_) | DiscoveryError::NoScale(_)) => {}
        }
    }
    Ok(kinds)
}

async fn ask_to_leave(client: &Client, scope: Scope<'_>) -> anyhow::Result<()> {
    for object in ours(client, scope).await? {
        if object.is_opted_in {
            // One that can't be asked keeps nobody from being asked: it counts as left.
            if let Err(error) = annotate(client, &object, json!(REQUESTED)).await {
                tracing::warn!(error = format!("{error:#}"), "not asked to leave; again");
            }
        }
    }
    Ok(())
}

async fn annotate(client: &Client, object: &Found, value: Value) -> anyhow::Result<()> {
    let Found {
        resource,
        namespace,
        name,
        ..
    } = object;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let patch = json!({ "metadata": { "annotations": { LEAVE: value } } });
    let result = api
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    ignore_not_found(result.map(drop))
        .with_context(|| format!("annotating {} {namespace}/{name}", resource.kind))
}

/// Workloads that have not left: those with a ScaledWorkload, none where the CRD is gone already, and
/// those that have been asked and nobody has dealt with.
async fn left(client: &Client, scope: Scope<'_>) -> anyhow::Result<BTreeSet<String>> {
    let api: Api<DeserializeGuard<ScaledWorkload>> = Api::all(client.clone());
    let scaled = match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error).context("listing ScaledWorkloads"),
    };
    // A plan holds nothing, and goes with the CRD. What can't be read may be anything.
    let is_plan = |w: &DeserializeGuard<ScaledWorkload>| {
        let workload = w.0.as_ref();
        workload.is_ok_and(|workload| workload.spec.is_dry_run())
    };
    let scaled = scaled
        .iter()
        .filter(|w| !is_plan(w))
        .map(|w| format!("{}/{}", w.namespace().unwrap_or_default(), w.name_any()));
    let asked = ours(client, scope).await?.into_iter();
    let asked = asked
        .filter(|object| object.leave.as_deref() == Some(REQUESTED))
        .map(|object| {
            let id = workload_id(&object.resource.kind, &object.name);
            format!("{}/{id}", object.namespace)
        });
    Ok(scaled.chain(asked).collect())
}

/// A deletion that finds nothing has nothing to do.
pub(crate) fn ignore_not_found(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
