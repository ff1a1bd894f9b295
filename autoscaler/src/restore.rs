//! Gives every workload back from what stands on the objects alone, where the CRD, the webhook or the
//! autoscalers are gone already: `autoscaler restore`.
//!
//! ```text
//! lists -> steps (pure) -> those that may be done now -> again, until there are none
//! ```
//!
//! Each round looks anew, so it can be cut anywhere and run again.

mod steps;

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    coordination::v1::Lease,
    core::v1::{Pod as KubePod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::{ApiResource, DeserializeGuard, DynamicObject, ObjectList},
};
use lull_contract::{
    Shards,
    names::{FIELD_MANAGER, POD_LABEL, WORKLOAD_LABEL},
    scaled_workload::ScaledWorkload,
    target_resource::TargetResource,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::steps::{Object, Planned, Seen, Step, steps};
use crate::{
    mesh::{DestinationRule, WorkloadEntry},
    pod::Pod,
    refusal,
    uninstall::{PAGE, ignore_not_found, kinds},
};

/// Between two looks at what is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After this a workload whose pods don't get ready is given back as it is.
const PATIENCE: Duration = Duration::from_secs(120);
/// A Lease that was renewed within this is held by an autoscaler that runs.
const RENEWED: Duration = Duration::from_secs(15);

/// How to restore.
#[derive(Debug)]
pub struct Options<'a> {
    /// Kinds that may have been injected.
    pub targets: &'a [TargetResource],
    /// Namespace of Lull's Leases.
    pub namespace: &'a str,
    /// Is deleted first, where it is there: nothing may inject again.
    pub webhook_configuration: &'a str,
    /// Longest time for everything.
    pub timeout: Duration,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// Gives everything back.
///
/// # Errors
/// Where an autoscaler runs, something is left after the timeout, or the API server fails or refuses.
pub async fn run(options: &Options<'_>) -> anyhow::Result<()> {
    let client = lull_kubernetes::connect()
        .await
        .context("no access to a Kubernetes API server")?;
    if options.dry_run {
        for Planned { step, .. } in steps(&look(&client, options).await?, false) {
            tracing::info!("would {step}");
        }
        return Ok(());
    }
    nobody_leads(&client, options.namespace).await?;
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let name = options.webhook_configuration;
    let deleted = webhooks.delete(name, &DeleteParams::default()).await;
    ignore_not_found(deleted.map(drop)).context("deleting the webhook's configuration")?;
    let started = Instant::now();
    loop {
        let seen = look(&client, options).await?;
        let planned = steps(&seen, started.elapsed() >= PATIENCE);
        if planned.is_empty() {
            break;
        }
        let (now, later): (Vec<_>, Vec<_>) = planned.into_iter().partition(|p| p.now);
        let mut failed = None;
        for Planned { step, .. } in &now {
            tracing::info!("{step}");
            // What is refused keeps nothing else from being done.
            if let Err(error) = carry_out(&client, step).await {
                tracing::warn!(%error, "{step}: failed; again");
                failed = Some(format!("{step}: {error}"));
            }
        }
        let left: Vec<String> = later.iter().map(|p| p.step.to_string()).collect();
        if !left.is_empty() {
            tracing::info!("{} still to do: {}", left.len(), left.join("; "));
        }
        if started.elapsed() > options.timeout {
            let secs = options.timeout.as_secs();
            let why = failed.map_or_else(String::new, |failed| format!(" ({failed})"));
            bail!("not everything is given back after {secs} s; run it again{why}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tracing::info!("every workload is plain again");
    Ok(())
}

/// An autoscaler would switch again what is given back here.
async fn nobody_leads(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let leases = leases.list(&ListParams::default()).await;
    for lease in leases.context("listing Leases")?.items {
        let name = lease.name_any();
        let Some(spec) = lease.spec.filter(|_| Shards::of_lease(&name).is_some()) else {
            continue;
        };
        let age = spec
            .renew_time
            .map(|at| Timestamp::now().duration_since(at.0).unsigned_abs());
        let holder = spec.holder_identity.unwrap_or_default();
        ensure!(
            holder.is_empty() || age.is_none_or(|age| age > RENEWED),
            "the autoscaler {holder} runs and would undo it: use helm uninstall, or stop the \
             autoscalers (kubectl -n {namespace} scale deployment lull-autoscaler --replicas=0)"
        );
    }
    Ok(())
}

async fn look(client: &Client, options: &Options<'_>) -> anyhow::Result<Seen> {
    let pods = ListParams::default().labels(POD_LABEL);
    let pods: Vec<KubePod> = list(client, &pods).await?;
    let ours = ListParams::default().labels(WORKLOAD_LABEL);
    let all = ListParams::default();
    Ok(Seen {
        targets: objects(client, options.targets).await?,
        services: list::<Service>(client, &all).await?,
        slices: list::<EndpointSlice>(client, &all).await?,
        entries: list::<WorkloadEntry>(client, &ours).await?,
        rules: rules(client, &ours).await?,
        pods: pods.into_iter().map(Pod::from).collect(),
        workloads: list::<DeserializeGuard<ScaledWorkload>>(client, &all).await?,
    })
}

/// Every object of the kinds that are there, with its kind, read page by page.
async fn objects(
    client: &Client,
    targets: &[TargetResource],
) -> anyhow::Result<Vec<(ApiResource, DynamicObject)>> {
    let mut found = Vec::new();
    for resource in kinds(client, targets).await? {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await;
            let page = page.with_context(|| format!("listing {}", resource.plural))?;
            let items = page.items.into_iter();
            found.extend(items.map(|object| (resource.clone(), object)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
    }
    Ok(found)
}

/// Every object of a kind; none where the API server doesn't know it.
async fn list<K>(client: &Client, params: &ListParams) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    listed(api.list(params).await, &K::plural(&()))
}

/// The DestinationRules that `params` select; none where the API server doesn't know the kind.
async fn rules(client: &Client, params: &ListParams) -> anyhow::Result<Vec<DynamicObject>> {
    let resource = DestinationRule::resource();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    listed(api.list(params).await, &resource.plural)
}

/// What a list holds; nothing where the API server doesn't know the kind.
fn listed<K: Clone>(list: kube::Result<ObjectList<K>>, plural: &str) -> anyhow::Result<Vec<K>> {
    match list {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("listing {plural}")),
    }
}

/// What somebody else has changed or deleted meanwhile is seen in the next round.
async fn carry_out(client: &Client, step: &Step) -> kube::Result<()> {
    let result = match step {
        Step::Wake { target, to } => {
            let (api, params) = (dynamic(client, target), manager());
            let patch = Patch::Merge(json!({ "spec": { "replicas": to } }));
            api.patch_scale(&target.name, &params, &patch)
                .await
                .map(drop)
        }
        Step::Uninject { target, patch }
        | Step::Release { target, patch }
        | Step::RestoreService { target, patch } => patch_as_json(client, target, patch).await,
        Step::Delete { target } => {
            let params = DeleteParams::default();
            let deleted = dynamic(client, target).delete(&target.name, &params).await;
            deleted.map(drop)
        }
        Step::DeleteWorkload { target } => {
            let (api, params) = (dynamic(client, target), DeleteParams::default());
            // In this order: without the finalizer it goes at once, and takes what it owns along.
            let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            let freed = api.patch(&target.name, &manager(), &free).await;
            ignore_not_found(freed.map(drop))?;
            api.delete(&target.name, &params).await.map(drop)
        }
    };
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || refusal::is_conflict(&status) => {
            tracing::debug!(%step, status = status.message, "it has changed; again");
            Ok(())
        }
        other => other,
    }
}

async fn patch_as_json(client: &Client, target: &Object, patch: &Value) -> kube::Result<()> {
    let patch = serde_json::from_value(patch.clone()).map_err(kube::Error::SerdeError)?;
    let (api, patch) = (dynamic(client, target), Patch::Json::<()>(patch));
    api.patch(&target.name, &manager(), &patch).await.map(drop)
}

fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

fn dynamic(client: &Client, target: &Object) -> Api<DynamicObject> {
    let resource: &ApiResource = &target.resource;
    Api::namespaced_with(client.clone(), &target.namespace, resource)
}
