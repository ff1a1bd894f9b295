//! The mesh around a workload as the autoscaler would see it, read with the user's own rights.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use autoscaler::{
    mesh::{
        Around, DestinationRule, ISTIOD, Istiod, MESH_CONFIG, MeshConfig, MeshMode, PodIdentity,
        RuleKind, Signs, WorkloadEntry, is_meshed,
    },
    pod::Pod,
    target::Target,
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{self as core, ConfigMap, Namespace},
};
use kube::{
    Api,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};
use lull_contract::names::{POD_LABEL, WORKLOAD_LABEL, label_value};

use crate::{
    cluster::{CallError, Cluster, call},
    gather::listed_by,
    rights::{Reading, Right, of_rules},
    told::Told,
};

/// Istio's label for whether pods of a namespace get its container.
const INJECTION_LABEL: &str = "istio-injection";
/// Istio's label for the revision whose container pods get.
const REVISION_LABEL: &str = "istio.io/rev";

/// What is known of the mesh around a workload.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What may be about it.
    pub(crate) rules: Around,
    /// DestinationRules of its namespace that Lull hasn't written, by name.
    pub(crate) others_rules: Vec<String>,
    /// Its pods have Istio's container, or will have it.
    pub(crate) is_member: bool,
}

/// Whether the cluster has a mesh for Lull: it knows WorkloadEntries.
///
/// # Errors
/// Where the API server can't say.
pub(crate) async fn is_known(cluster: &Cluster) -> Result<bool, CallError> {
    let group = cluster
        .client
        .list_api_group_resources("networking.istio.io/v1");
    match call("look for Istio", group).await {
        Ok(list) => {
            let mut kinds = list.resources.iter();
            Ok(kinds.any(|kind| kind.name == "workloadentries"))
        }
        Err(error) if error.is(404) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Istio's kinds that the cluster doesn't know, of those that a plan reads, each with its group and
/// version.
///
/// # Errors
/// Where the API server can't say.
pub(crate) async fn missing_kinds(cluster: &Cluster) -> Result<Vec<String>, CallError> {
    let wanted = RuleKind::ALL.map(RuleKind::resource);
    let versions: BTreeSet<&str> = wanted
        .iter()
        .map(|kind| kind.api_version.as_str())
        .collect();
    let mut served = BTreeSet::new();
    for version in versions {
        let listed = cluster.client.list_api_group_resources(version);
        match call("look for Istio", listed).await {
            Ok(list) => {
                let kinds = list.resources.into_iter();
                served.extend(kinds.map(|kind| (version, kind.name)));
            }
            Err(error) if error.is(404) => {}
            Err(error) => return Err(error),
        }
    }
    let missing = wanted.iter().filter(|kind| {
        let kind = (kind.api_version.as_str(), kind.plural.clone());
        !served.contains(&kind)
    });
    Ok(missing
        .map(|kind| format!("{} of {}", kind.plural, kind.api_version))
        .collect())
}

/// The mesh around `target` for an autoscaler that is `told` so; `None` where there is none for it.
/// What may not be read is named in `missing`.
///
/// # Errors
/// Where the API server can't be asked.
pub(crate) async fn around(
    cluster: &Cluster,
    (target, is_enrolled): (&Target, bool),
    told: &Told,
    missing: &mut Vec<String>,
) -> anyhow::Result<Option<Seen>> {
    let Some(template) = &target.template else {
        return Ok(None);
    };
    if told.mesh_mode == MeshMode::None || !is_known(cluster).await? {
        return Ok(None);
    }
    let root = told.mesh_root.as_str();
    let listed = rules(cluster, root, missing).await?;
    let istiods = istiods(cluster, root, missing).await?;
    let config = mesh_config(cluster, root, missing).await?;
    let inject = is_injected(cluster, &template.identity, missing).await?;
    let is_member = if is_enrolled {
        is_member(cluster, target, inject, missing).await?
    } else {
        // Pods of today have no say: enrolment makes others.
        is_meshed(&signs(&[], inject, false))
    };
    Ok(Some(Seen {
        rules: Around {
            istiods: istiods
                .into_iter()
                .map(Istiod::from)
                .map(Arc::new)
                .collect(),
            configs: config
                .into_iter()
                .map(MeshConfig::from)
                .map(Arc::new)
                .collect(),
            ..Around::among(&listed, &cluster.namespace, root)
        },
        others_rules: DestinationRule::of_others(&listed, &cluster.namespace),
        is_member,
    }))
}

/// The users' objects of every kind that a plan is made from.
async fn rules(
    cluster: &Cluster,
    root: &str,
    missing: &mut Vec<String>,
) -> anyhow::Result<Vec<(RuleKind, DynamicObject)>> {
    let own = cluster.namespace.as_str();
    let mut all = Vec::new();
    for kind in RuleKind::ALL {
        let resource = kind.resource();
        let mut places = places(&of_rules(kind), cluster, root);
        while let Some(place) = places.pop() {
            if let Some(objects) = objects(cluster, &resource, place).await? {
                all.extend(objects.into_iter().map(|object| (kind, object)));
                continue;
            }
            missing.push(not_listed(&resource.plural, place, own));
            if place.is_none() {
                places.push(Some(own));
            }
        }
    }
    Ok(all)
}

/// The namespaces for which there are to be `rights`, each once; `None`: all of them.
fn places<'a>(rights: &[Right], cluster: &'a Cluster, root: &'a str) -> Vec<Option<&'a str>> {
    let places = rights.iter().map(|right| right.namespace(cluster, root));
    let mut places: Vec<Option<&str>> = places.collect();
    // The workload's namespace may be the root.
    places.dedup();
    places
}

/// What is said of objects that may not be listed; those of no `place` are of all namespaces.
fn not_listed(plural: &str, place: Option<&str>, own: &str) -> String {
    match place {
        None => format!(
            "you may not list {plural} of all namespaces: at most those of {own} are looked at"
        ),
        Some(place) => {
            format!("you may not list {plural} in {place}: what they say is left out")
        }
    }
}

/// The objects of a kind; none where the cluster doesn't know it, `None` where the user may not list
/// them.
async fn objects(
    cluster: &Cluster,
    resource: &ApiResource,
    namespace: Option<&str>,
) -> anyhow::Result<Option<Vec<DynamicObject>>> {
    let client = cluster.client.clone();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    };
    let what = format!("list {}", resource.plural);
    match call(&what, api.list(&ListParams::default())).await {
        Ok(list) => Ok(Some(list.items)),
        Err(error) if error.is(404) => Ok(Some(Vec::new())),
        Err(error) if error.is(403) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Istiod's Deployments.
async fn istiods(
    cluster: &Cluster,
    root: &str,
    missing: &mut Vec<String>,
) -> anyhow::Result<Vec<Deployment>> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), root);
    let (reading, params) = (Reading::Istiods, ListParams::default().labels(ISTIOD));
    match call(&reading.right().text(), api.list(&params)).await {
        Ok(list) => Ok(list.items),
        Err(error) => of_istiod(cluster, (reading, error), missing),
    }
}

/// The mesh's configuration.
async fn mesh_config(
    cluster: &Cluster,
    root: &str,
    missing: &mut Vec<String>,
) -> anyhow::Result<Option<ConfigMap>> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), root);
    let reading = Reading::MeshConfig;
    match call(&reading.right().text(), api.get_opt(MESH_CONFIG)).await {
        Ok(config) => Ok(config),
        Err(error) => of_istiod(cluster, (reading, error), missing),
    }
}

/// What is known of istiod where that can't be read: nothing, where it is for want of a right.
fn of_istiod<T: Default>(
    cluster: &Cluster,
    (reading, error): (Reading, CallError),
    missing: &mut Vec<String>,
) -> anyhow::Result<T> {
    if !error.is(403) {
        return Err(error.into());
    }
    missing.push(reading.lacked(cluster, "what istiod is told is left out"));
    Ok(T::default())
}

/// Whether Istio would give the pods its container; `None` where that can't be seen.
async fn is_injected(
    cluster: &Cluster,
    identity: &PodIdentity,
    missing: &mut Vec<String>,
) -> anyhow::Result<Option<bool>> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let name = &cluster.namespace;
    match call("look at the namespace", api.get_opt(name)).await {
        Ok(namespace) => {
            let labels = namespace.and_then(|namespace| namespace.metadata.labels);
            Ok(Some(injects(&labels.unwrap_or_default(), identity)))
        }
        Err(error) if error.is(403) => {
            if identity.inject.is_none() {
                let effect = "the workload is taken for one of the mesh";
                missing.push(Reading::Namespace.lacked(cluster, effect));
            }
            Ok(identity.inject)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether Istio's webhooks, as they are installed by default, give pods of `identity` its container
/// in a namespace with these labels.
fn injects(namespace: &BTreeMap<String, String>, identity: &PodIdentity) -> bool {
    let injection = namespace.get(INJECTION_LABEL).map(String::as_str);
    match (injection, identity.inject) {
        (_, Some(false)) => false,
        (Some(injection), _) => injection == "enabled",
        (None, Some(true)) => true,
        (None, None) => {
            namespace.contains_key(REVISION_LABEL) || identity.labels.contains_key(REVISION_LABEL)
        }
    }
}

/// Whether an enrolled workload is in the mesh: its pods tell, or what was written when there were
/// some.
async fn is_member(
    cluster: &Cluster,
    target: &Target,
    inject: Option<bool>,
    missing: &mut Vec<String>,
) -> anyhow::Result<bool> {
    let label = label_value(&target.id());
    let own = |key: &str| ListParams::default().labels(&format!("{key}={label}"));
    let (pods, entries) = (
        (Reading::Pods, own(POD_LABEL)),
        (Reading::Entries, own(WORKLOAD_LABEL)),
    );
    let pods: Vec<core::Pod> = listed_by(cluster, pods, missing).await?;
    let pods: Vec<Arc<Pod>> = pods.into_iter().map(Pod::from).map(Arc::new).collect();
    let entries: Vec<WorkloadEntry> = listed_by(cluster, entries, missing).await?;
    Ok(is_meshed(&signs(&pods, inject, !entries.is_empty())))
}

/// No slice is looked at: `inject` says the same, but where the namespace can't be seen.
fn signs(pods: &[Arc<Pod>], inject: Option<bool>, has_entries: bool) -> Signs<'_> {
    Signs {
        pods,
        inject,
        has_entries,
        has_open_slice: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_namespaces_labels_and_the_template_tell_whether_pods_get_istios_container() {
        let enabled = labels(&[(INJECTION_LABEL, "enabled")]);
        let disabled = labels(&[(INJECTION_LABEL, "disabled")]);
        let revised = labels(&[(REVISION_LABEL, "stable")]);
        let none = labels(&[]);
        let rows = [
            (&enabled, None, &none, true),
            (&enabled, Some(false), &none, false),
            (&disabled, None, &none, false),
            (&disabled, Some(true), &none, false),
            (&revised, None, &none, true),
            (&revised, Some(false), &none, false),
            (&none, None, &none, false),
            (&none, Some(true), &none, true),
            (&none, None, &revised, true),
            (&none, Some(false), &revised, false),
        ];
        for (namespace, inject, pod, expected) in rows {
            let identity = PodIdentity {
                labels: pod.clone(),
                inject,
                ..PodIdentity::default()
            };
            let injected = injects(namespace, &identity);
            assert_eq!(injected, expected, "{namespace:?} {identity:?}");
        }
    }

    #[test]
    fn a_workload_whose_namespace_is_not_seen_is_taken_for_one_of_the_mesh() {
        assert!(is_meshed(&signs(&[], None, false)));
        assert!(!is_meshed(&signs(&[], Some(false), false)));
        assert!(is_meshed(&signs(&[], Some(false), true)));
    }

    #[test]
    fn what_may_not_be_listed_is_named_with_where() {
        let everywhere = not_listed("destinationrules", None, "web");
        assert!(everywhere.contains("of all namespaces"), "{everywhere}");
        let root = not_listed("sidecars", Some("istio-system"), "web");
        assert!(root.contains("sidecars in istio-system"), "{root}");
    }
}
