//! A workload as the cluster has it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use autoscaler::target::{Target, discover};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    core::{ApiResource, DeserializeGuard, DynamicObject},
};
use lull_contract::{
    annotations,
    scaled_workload::{self, ScaledWorkload},
    target_resource::TargetResource,
};

use crate::{
    cluster::{CallError, Cluster, call},
    name::{Kind, ShownKind, WorkloadName},
    progress,
};

/// Longest time in which a kind is found out.
const DISCOVERY: Duration = Duration::from_secs(15);

/// What is said where the cluster has no Lull.
pub(crate) const NOT_INSTALLED: &str =
    "Lull is not installed on this cluster: it has no ScaledWorkloads";

/// A workload that is there.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Objects of its kind in its namespace.
    pub(crate) api: Api<DynamicObject>,
    /// Its kind, as the chart names it.
    pub(crate) resource: TargetResource,
    /// What Lull reads of it.
    pub(crate) target: Target,
}

/// Why ScaledWorkloads can't be read, by namespace and name.
pub(crate) type Unread = BTreeMap<(String, String), String>;

/// What a list of ScaledWorkloads holds. One that can't be read keeps no other from being shown.
#[derive(Debug, Default)]
pub(crate) struct Scaled {
    /// Those that can be read.
    pub(crate) read: Vec<ScaledWorkload>,
    /// Why the others can't.
    pub(crate) unread: Unread,
}

/// The kind that the API server has for `resource`.
///
/// # Errors
/// Where there is none, it can't be scaled, or the API server can't say.
pub(crate) async fn kind(
    cluster: &Cluster,
    resource: &TargetResource,
) -> anyhow::Result<Arc<ApiResource>> {
    let what = format!("look for {resource}");
    let asked = tokio::time::timeout(DISCOVERY, discover(resource, &cluster.client));
    let found = progress::during(&what, asked).await;
    let found = found.with_context(|| format!("{what}: no answer in {DISCOVERY:?}"))?;
    Ok(Arc::new(found?))
}

/// The kind of the workload that is `wanted`.
///
/// # Errors
/// Where only a ScaledWorkload could tell it and there is none, or the API server can't say.
async fn resource(cluster: &Cluster, wanted: &WorkloadName) -> anyhow::Result<TargetResource> {
    let kind = match &wanted.kind {
        Kind::Resource(resource) => return Ok(resource.clone()),
        Kind::Shown(kind) => kind,
    };
    let (client, namespace) = (cluster.client.clone(), &cluster.namespace);
    let api: Api<ScaledWorkload> = Api::namespaced(client, namespace);
    let what = format!(
        "look for the ScaledWorkload of {} {}",
        kind.text(),
        wanted.name
    );
    let scaled = call(&what, api.get_opt(&kind.id(&wanted.name))).await?;
    let target = scaled.map(|scaled| scaled.spec.target);
    match target.filter(|target| kind.is_of(target, &wanted.name)) {
        Some(target) => resource_of(cluster, &target).await,
        None => bail!(unknown_kind(kind, &wanted.name, namespace)),
    }
}

/// What is said of a workload whose kind nothing tells.
fn unknown_kind(kind: &ShownKind, name: &str, namespace: &str) -> String {
    format!(
        "Lull runs no {} {name} in namespace {namespace}, and any other is named by \
         GROUP/VERSION/PLURAL/NAME (or deploy/NAME, sts/NAME)",
        kind.text()
    )
}

/// The resource of which `target` is.
async fn resource_of(
    cluster: &Cluster,
    target: &scaled_workload::Target,
) -> anyhow::Result<TargetResource> {
    let (version, kind) = (target.api_version.as_str(), target.kind.as_str());
    let what = format!("look for {kind} of {version}");
    let list = if version.contains('/') {
        call(&what, cluster.client.list_api_group_resources(version)).await?
    } else {
        call(&what, cluster.client.list_core_api_resources(version)).await?
    };
    let mut kinds = list.resources.iter();
    // A subresource may be of the same kind.
    let found = kinds.find(|one| one.kind == kind && !one.name.contains('/'));
    let found = found.with_context(|| format!("{what}: the API server has none"))?;
    let resource = format!("{version}/{}", found.name);
    let resource = resource.parse::<TargetResource>();
    resource.map_err(anyhow::Error::msg)
}

/// Whether the cluster knows ScaledWorkloads.
///
/// # Errors
/// Where the API server can't say.
pub(crate) async fn is_installed(cluster: &Cluster) -> Result<bool, CallError> {
    let (group, plural) = (
        ScaledWorkload::api_version(&()),
        ScaledWorkload::plural(&()),
    );
    let asked = cluster.client.list_api_group_resources(&group);
    match call("look for Lull", asked).await {
        Ok(list) => Ok(list.resources.iter().any(|kind| kind.name == plural)),
        Err(error) if error.is(404) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is said of each ScaledWorkload that can't be read.
pub(crate) fn unreadable(unread: &Unread) -> impl Iterator<Item = String> {
    unread.iter().map(|((namespace, name), why)| {
        format!("the ScaledWorkload {namespace}/{name} can't be read: {why}")
    })
}

/// What is said of a workload that has no ScaledWorkload.
fn not_run(target: &Target) -> String {
    if annotations::opted_in(&target.annotations) {
        return format!(
            "{target} asks to be run by Lull, and no autoscaler has taken note of it yet: where that \
             lasts, see kubectl lull plan and kubectl lull doctor"
        );
    }
    format!("{target} is not run by Lull: `kubectl lull on` lets Lull run it")
}

// === impl Scaled ===

impl Scaled {
    /// Those of `namespace`, or of all of them; `None`: the cluster doesn't know the kind.
    ///
    /// # Errors
    /// Where the API server can't say.
    pub(crate) async fn list(
        cluster: &Cluster,
        namespace: Option<&str>,
    ) -> Result<Option<Self>, CallError> {
        let client = cluster.client.clone();
        let api: Api<DeserializeGuard<ScaledWorkload>> = match namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        match call("list ScaledWorkloads", api.list(&ListParams::default())).await {
            Ok(list) => Ok(Some(list.items.into_iter().collect())),
            Err(error) if error.is(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl FromIterator<DeserializeGuard<ScaledWorkload>> for Scaled {
    fn from_iter<I>(objects: I) -> Self
    where
        I: IntoIterator<Item = DeserializeGuard<ScaledWorkload>>,
    {
        let mut scaled = Self::default();
        for object in objects {
            let place = (object.namespace().unwrap_or_default(), object.name_any());
            match object.0 {
                Ok(object) => scaled.read.push(object),
                Err(invalid) => {
                    scaled.unread.insert(place, invalid.error);
                }
            }
        }
        scaled
    }
}

// === impl Workload ===

impl Workload {
    /// The workload that is called so.
    ///
    /// # Errors
    /// Where there is none, or the API server can't say.
    pub(crate) async fn find(cluster: &Cluster, wanted: &WorkloadName) -> anyhow::Result<Self> {
        let resource = resource(cluster, wanted).await?;
        let known = kind(cluster, &resource).await?;
        let (client, namespace) = (cluster.client.clone(), &cluster.namespace);
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &*known);
        let what = format!("look for {} {}", known.kind, wanted.name);
        let Some(object) = call(&what, api.get_opt(&wanted.name)).await? else {
            bail!(
                "there is no {} {} in namespace {namespace}",
                known.kind,
                wanted.name
            );
        };
        let target = Target::new(&known, object);
        Ok(Self {
            api,
            resource,
            target,
        })
    }

    /// The same as it is by now; `None` where it is gone.
    ///
    /// # Errors
    /// Where the API server can't say.
    pub(crate) async fn now(&self) -> anyhow::Result<Option<Target>> {
        let what = format!("look at {}", self.target);
        let object = call(&what, self.api.get_opt(&self.target.name)).await?;
        Ok(object.map(|object| Target::new(&self.target.resource, object)))
    }

    /// What Lull says of it; `None` where Lull doesn't run it.
    ///
    /// # Errors
    /// Where the API server can't say.
    pub(crate) async fn scaled(
        &self,
        cluster: &Cluster,
    ) -> Result<Option<ScaledWorkload>, CallError> {
        let (client, namespace) = (cluster.client.clone(), &self.target.namespace);
        let api: Api<ScaledWorkload> = Api::namespaced(client, namespace);
        let what = format!("look at the ScaledWorkload of {}", self.target);
        call(&what, api.get_opt(&self.target.id())).await
    }

    /// What Lull says of it.
    ///
    /// # Errors
    /// Where Lull doesn't run it or is not installed, or the API server can't say.
    pub(crate) async fn run_by_lull(&self, cluster: &Cluster) -> anyhow::Result<ScaledWorkload> {
        if let Some(scaled) = self.scaled(cluster).await? {
            return Ok(scaled);
        }
        // Of a kind that is not there the API server says the same as of an object.
        if !is_installed(cluster).await? {
            bail!(NOT_INSTALLED);
        }
        bail!(not_run(&self.target));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_that_cannot_be_read_keeps_no_other_of_the_list_from_being_shown() {
        let spec = json!({
            "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "1" },
            "podSelector": {}, "ports": [], "settings": {}, "originalReplicas": 1,
        });
        let object = |name: &str, spec: &serde_json::Value| {
            json!({
                "apiVersion": "lull.dev/v1alpha1", "kind": "ScaledWorkload",
                "metadata": { "name": name, "namespace": "web" }, "spec": spec,
            })
        };
        let list = json!([object("odd", &json!({})), object("shop", &spec)]);
        let list: Vec<DeserializeGuard<ScaledWorkload>> = serde_json::from_value(list).unwrap();
        let scaled: Scaled = list.into_iter().collect();
        let read: Vec<String> = scaled.read.iter().map(ResourceExt::name_any).collect();
        assert_eq!(read, ["shop"]);
        let unread: Vec<(String, String)> = scaled.unread.into_keys().collect();
        assert_eq!(unread, [("web".to_owned(), "odd".to_owned())]);
    }

    #[test]
    fn a_workload_that_asks_for_it_and_has_no_scaled_workload_is_not_told_to_ask() {
        let kind = Arc::new(ApiResource::erase::<Deployment>(&()));
        let target = |annotations: serde_json::Value| {
            let object = json!({ "metadata": { "name": "shop", "annotations": annotations } });
            Target::new(&kind, serde_json::from_value(object).unwrap())
        };
        let plain = not_run(&target(json!({})));
        assert!(plain.contains("lull on"), "{plain}");
        let asking = not_run(&target(json!({ "lull.dev/scale": "true" })));
        assert!(
            asking.contains("doctor") && !asking.contains("lull on"),
            "{asking}"
        );
    }
}
