//! Reading what the findings are made from. What can't be read is kept as the reason.

use std::{collections::BTreeSet, fmt::Debug, time::Duration};

use autoscaler::{
    mesh::{ISTIOD, MeshMode, WorkloadEntry},
    target::Target,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::Deployment,
        authorization::v1::{SelfSubjectAccessReview, SubjectAccessReview},
        coordination::v1::Lease,
        core::v1::{ConfigMap, PodSpec},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResourceExt, Resource,
    api::{ListParams, PostParams},
    core::DynamicObject,
};
use lull_contract::{
    annotations::{self, DefaultError, Defaults, SCALE},
    names::{MANAGED_BY, QUEUE_PROXY_CONTAINER, SLICE_MANAGED_BY_LABEL, WORKLOAD_LABEL},
    scaled_workload::{self, ScaledWorkload},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    OptedIn, OptedInKinds, Read, Seen, crd, install,
    rights::{of_the_autoscaler, of_the_user},
};
use crate::{
    cluster::{CallError, Cluster, call},
    gather::{LULL, SETTINGS, is_left_alone},
    mesh, pages,
    rights::Right,
    told::{Told, told},
    workload::{Scaled, Unread, kind},
};

/// Endpoints of the webhook's Service.
const OF_WEBHOOK: &str = "kubernetes.io/service-name=lull-webhook";
/// A Lease that is held is renewed each half second.
const RENEWED_WITHIN: Duration = Duration::from_secs(2);
/// The webhook's configuration.
const WEBHOOK: &str = "lull-webhook";

/// What the autoscaler is told, and whether the cluster has a mesh for it.
type Known = Read<(Told, bool)>;

/// Looks at everything.
pub(crate) async fn look(cluster: &Cluster) -> Seen {
    let own = &cluster.lull_namespace;
    let client = || cluster.client.clone();
    let lull = labels(LULL);
    let by_lull = format!("{SLICE_MANAGED_BY_LABEL}={MANAGED_BY}");
    let known = known(cluster).await;
    let (leases, renewed) = leases(cluster).await;
    let knows_istio = read(mesh::is_known(cluster).await);
    let (workloads, unread) = workloads(cluster).await;
    Seen {
        namespace: own.clone(),
        now: Timestamp::now(),
        unknown_fields: unknown_fields(cluster).await,
        workloads,
        unread,
        opted_in: opted_in(cluster, &known).await,
        deployments: listed(Api::namespaced(client(), own), &lull).await,
        pods: listed(Api::namespaced(client(), own), &lull).await,
        leases,
        renewed,
        lists: pages::lists(cluster)
            .await
            .map_err(|error| error.to_string()),
        settings: settings(cluster).await,
        webhook: {
            let api: Api<MutatingWebhookConfiguration> = Api::all(client());
            read(call("read the webhook's configuration", api.get_opt(WEBHOOK)).await)
        },
        webhook_slices: listed(Api::namespaced(client(), own), &labels(OF_WEBHOOK)).await,
        is_injected: is_injected(cluster, &known).await,
        lacking: lacking(cluster, &known).await,
        autoscaler_lacking: autoscaler_lacking(cluster, &known).await,
        istiods: listed(Api::all(client()), &labels(ISTIOD)).await,
        mesh_mode: known
            .as_ref()
            .map(|(told, _)| told.mesh_mode)
            .unwrap_or_default(),
        missing_kinds: missing_kinds(cluster, &knows_istio).await,
        entries: entries(cluster, &knows_istio).await,
        knows_istio,
        slices: listed(Api::all(client()), &labels(&by_lull)).await,
    }
}

fn labels(selector: &str) -> ListParams {
    ListParams::default().labels(selector)
}

/// Istio's kinds that are missing where some are there.
async fn missing_kinds(cluster: &Cluster, knows_istio: &Read<bool>) -> Read<Vec<String>> {
    match knows_istio {
        Ok(true) => read(mesh::missing_kinds(cluster).await),
        _ => Ok(Vec::new()),
    }
}

/// Lull's WorkloadEntries, where there can be some.
async fn entries(cluster: &Cluster, knows_istio: &Read<bool>) -> Read<Vec<WorkloadEntry>> {
    match knows_istio {
        Ok(true) => listed(Api::all(cluster.client.clone()), &labels(WORKLOAD_LABEL)).await,
        _ => Ok(Vec::new()),
    }
}

/// The Leases, and which of them are seen to be renewed. A clock that differs from the cluster's makes
/// all of them look old, so they are looked at twice then.
async fn leases(cluster: &Cluster) -> (Read<Vec<Lease>>, BTreeSet<String>) {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let leases = listed(api.clone(), &ListParams::default()).await;
    let now = Timestamp::now();
    let renewed = match &leases {
        Ok(before) if !before.iter().all(|lease| install::is_fresh(lease, now)) => {
            tokio::time::sleep(RENEWED_WITHIN).await;
            let after = listed(api, &ListParams::default()).await;
            after.map_or_else(
                |_| BTreeSet::new(),
                |after| install::renewed(before, &after),
            )
        }
        _ => BTreeSet::new(),
    };
    (leases, renewed)
}

/// What can't be seen of the autoscaler is among the rights.
async fn known(cluster: &Cluster) -> Known {
    let told = told(cluster, &mut Vec::new()).await;
    let told = told.map_err(|error| format!("{error:#}"))?;
    let has_mesh = told.mesh_mode != MeshMode::None && read(mesh::is_known(cluster).await)?;
    Ok((told, has_mesh))
}

/// What the cluster's definition of ScaledWorkloads lacks; `None` where there is none.
async fn unknown_fields(cluster: &Cluster) -> Read<Option<Vec<String>>> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let name = ScaledWorkload::crd_name();
    let found = read(call("read the definition", api.get_opt(name)).await)?;
    let there = found.map(serde_json::to_value).transpose();
    let there = there.map_err(|error| error.to_string())?;
    let wanted = scaled_workload::crd().map_err(|error| error.to_string())?;
    Ok(there.map(|there| crd::lacking(&there, &wanted)))
}

fn read<T>(answer: Result<T, CallError>) -> Read<T> {
    answer.map_err(|error| error.line())
}

async fn listed<K>(api: Api<K>, params: &ListParams) -> Read<Vec<K>>
where
    K: Clone + DeserializeOwned + Debug + Resource,
    K::DynamicType: Default,
{
    let what = format!("list {}", K::plural(&K::DynamicType::default()));
    read(call(&what, api.list(params)).await).map(|list| list.items)
}

/// The ScaledWorkloads, and why some of them can't be read.
async fn workloads(cluster: &Cluster) -> (Read<Option<Vec<ScaledWorkload>>>, Unread) {
    match Scaled::list(cluster, None).await {
        Ok(Some(scaled)) => (Ok(Some(scaled.read)), scaled.unread),
        Ok(None) => (Ok(None), Unread::new()),
        Err(error) => (Err(error.line()), Unread::new()),
    }
}

/// Objects of the kinds that Lull looks after that carry the annotation.
async fn opted_in(cluster: &Cluster, known: &Known) -> Read<OptedInKinds> {
    let (told, _) = known.as_ref().map_err(Clone::clone)?;
    let (mut found, mut left_alone) = (Vec::new(), Vec::new());
    for resource in told.targets.clone().unwrap_or_default().0 {
        let kind = match kind(cluster, &resource).await {
            Ok(kind) => kind,
            // Its CRD may come later.
            Err(error) if is_left_alone(&error) => {
                left_alone.push(error.to_string());
                continue;
            }
            Err(error) => return Err(format!("{error:#}")),
        };
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &*kind);
        let what = format!("list {}", kind.plural);
        let objects = read(call(&what, api.list(&ListParams::default())).await)?;
        let targets = objects
            .items
            .into_iter()
            .map(|object| Target::new(&kind, object));
        let asking = targets
            .filter(|target| !target.is_deleted && annotations::opted_in(&target.annotations));
        found.extend(asking.map(|target| OptedIn {
            text: format!("{target} in namespace {}", target.namespace),
            id: target.id(),
            left_out: told.leaves_out(&resource, &target.namespace),
            has_template: target.template.is_some(),
            namespace: target.namespace,
        }));
    }
    Ok(OptedInKinds { found, left_alone })
}

async fn settings(cluster: &Cluster) -> Read<Vec<DefaultError>> {
    let (client, namespace) = (cluster.client.clone(), &cluster.lull_namespace);
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let map = read(call("read the cluster-wide settings", api.get_opt(SETTINGS)).await)?;
    let data = map.and_then(|map| map.data).unwrap_or_default();
    Ok(Defaults::parse(&data).err().unwrap_or_default())
}

/// Whether a Deployment with the annotation gets the sidecar. It is never made: the API server only
/// says what it would be.
async fn is_injected(cluster: &Cluster, known: &Known) -> Read<bool> {
    let (told, _) = known.as_ref().map_err(Clone::clone)?;
    let namespace = told.namespace_like(&cluster.namespace);
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let wanted: Deployment =
        serde_json::from_value(probe()).map_err(|error| format!("the probe: {error}"))?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let what = format!("make a Deployment in namespace {namespace} (dry run)");
    let made = read(call(&what, api.create(&params, &wanted)).await)?;
    let pod = made.spec.and_then(|spec| spec.template.spec);
    Ok(pod.is_some_and(|pod| has_sidecar(&pod)))
}

/// Whether the queue-proxy is there, which is an init container that goes on.
fn has_sidecar(pod: &PodSpec) -> bool {
    let containers = pod.init_containers.iter().flatten();
    let mut names = containers.chain(&pod.containers).map(|one| &one.name);
    names.any(|name| name == QUEUE_PROXY_CONTAINER)
}

/// With a name of its own: the webhook leaves what has none alone.
fn probe() -> Value {
    let labels = json!({ "app": "lull-doctor" });
    let container = json!({
        "name": "app", "image": "lull-doctor", "ports": [{ "containerPort": 8080 }],
    });
    json!({
        "metadata": { "name": "lull-doctor", "annotations": { SCALE: "true" } },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    })
}

/// What the API server is asked about a right, where the mesh's root namespace is `root`. A namespace
/// is an object in itself.
fn attributes(cluster: &Cluster, right: &Right, root: &str) -> Value {
    let whole = (right.resource.as_str(), "");
    let (resource, subresource) = right.resource.split_once('/').unwrap_or(whole);
    let namespace = right.namespace(cluster, root).unwrap_or_default();
    let name = match resource {
        "namespaces" => namespace,
        _ => right.name.unwrap_or_default(),
    };
    json!({
        "namespace": namespace, "verb": right.verb, "group": right.group,
        "resource": resource, "subresource": subresource, "name": name,
    })
}

/// Rights that the user lacks.
async fn lacking(cluster: &Cluster, known: &Known) -> Read<Vec<Right>> {
    let (told, has_mesh) = known.as_ref().map_err(Clone::clone)?;
    let mut lacking = Vec::new();
    for right in of_the_user(told, *has_mesh) {
        let attributes = attributes(cluster, &right, &told.mesh_root);
        let spec = json!({ "resourceAttributes": attributes });
        let review: SelfSubjectAccessReview = review(cluster, &spec).await?;
        if review.status.is_none_or(|status| !status.allowed) {
            lacking.push(right);
        }
    }
    Ok(lacking)
}

/// Rights that the autoscaler lacks, where it looks after workloads: in other namespaces it has none.
async fn autoscaler_lacking(cluster: &Cluster, known: &Known) -> Read<Vec<Right>> {
    let (told, has_mesh) = known.as_ref().map_err(Clone::clone)?;
    let namespace = &cluster.lull_namespace;
    let user = format!("system:serviceaccount:{namespace}:lull-autoscaler");
    let there = Cluster {
        namespace: told.namespace_like(&cluster.namespace).to_owned(),
        ..cluster.clone()
    };
    let mut lacking = Vec::new();
    for right in of_the_autoscaler(*has_mesh) {
        let attributes = attributes(&there, &right, "");
        let spec = json!({ "user": user, "resourceAttributes": attributes });
        let review: SubjectAccessReview = review(cluster, &spec).await?;
        if review.status.is_none_or(|status| !status.allowed) {
            lacking.push(right);
        }
    }
    Ok(lacking)
}

async fn review<K>(cluster: &Cluster, spec: &Value) -> Read<K>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::all(cluster.client.clone());
    let wanted = serde_json::from_value(json!({ "metadata": {}, "spec": spec }));
    let wanted: K = wanted.map_err(|error| format!("the question: {error}"))?;
    let params = PostParams::default();
    read(call("ask about rights", api.create(&params, &wanted)).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_in_the_dry_run_is_a_deployment_with_a_name() {
        let asked: Deployment = serde_json::from_value(probe()).unwrap();
        assert_eq!(asked.metadata.name.as_deref(), Some("lull-doctor"));
        assert!(asked.metadata.generate_name.is_none());
    }

    #[test]
    fn the_sidecar_is_found_among_the_init_containers() {
        let of = |init: &str| -> PodSpec {
            let pod = json!({
                "initContainers": [{ "name": init }], "containers": [{ "name": "app" }],
            });
            serde_json::from_value(pod).unwrap()
        };
        assert!(has_sidecar(&of(QUEUE_PROXY_CONTAINER)));
        assert!(!has_sidecar(&of("migrate")));
    }
}
