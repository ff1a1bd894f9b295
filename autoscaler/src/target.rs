//! Objects whose `/scale` Lull writes: Deployments, StatefulSets and whatever else the configuration
//! names. Of each only what Lull reads is kept.

mod template;

use std::{collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::{
    api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lull_contract::{
    annotations::{self, PREFIX},
    names::workload_id,
    scaled_workload,
    target_resource::TargetResource,
};
use serde_json::Value;

pub use template::PodTemplate;

/// The API group of Deployments and StatefulSets.
const APPS: &str = "apps";

/// Why a kind can't be looked after.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The API server doesn't know it (yet).
    #[error("the API server has no {0}")]
    Unknown(TargetResource),
    /// It can't be scaled.
    #[error("{0} has no /scale subresource; Lull can't scale it")]
    NoScale(TargetResource),
    /// The API server can't say.
    #[error("asking the API server about {what}: {source}")]
    Api {
        /// What was asked for.
        what: TargetResource,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
}

/// One object, as much of it as Lull reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its kind.
    pub resource: Arc<ApiResource>,
    /// Namespace.
    pub namespace: String,
    /// Its own name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Version that a write is conditional on.
    pub resource_version: Option<String>,
    /// It is being deleted.
    pub is_deleted: bool,
    /// `lull.dev/` annotations.
    pub annotations: BTreeMap<String, String>,
    /// `spec.replicas`; Kubernetes takes 1 where there is none.
    pub replicas: u32,
    /// Its pods; `None` where there is no pod template at `spec.template`.
    pub template: Option<PodTemplate>,
    /// Old and new pods stand side by side, or the controller hasn't seen the template yet.
    pub is_rolling: bool,
}

/// Resolves kind and `/scale` with the API server.
///
/// # Errors
/// [`DiscoveryError`]; a kind that is not known may come later, with its CRD.
pub async fn discover(
    wanted: &TargetResource,
    client: &Client,
) -> Result<ApiResource, DiscoveryError> {
    let list = if wanted.group.is_empty() {
        client.list_core_api_resources(&wanted.version).await
    } else {
        let group_version = format!("{}/{}", wanted.group, wanted.version);
        client.list_api_group_resources(&group_version).await
    };
    let list = match list {
        Ok(list) => list,
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Err(DiscoveryError::Unknown(wanted.clone()));
        }
        Err(error) => {
            return Err(DiscoveryError::Api {
                what: wanted.clone(),
                source: Box::new(error),
            });
        }
    };
    let named = |name: &str| list.resources.iter().find(|r| r.name == name);
    let found = named(&wanted.plural).ok_or_else(|| DiscoveryError::Unknown(wanted.clone()))?;
    if named(&format!("{}/scale", wanted.plural)).is_none() {
        return Err(DiscoveryError::NoScale(wanted.clone()));
    }
    let kind = GroupVersionKind::gvk(&wanted.group, &wanted.version, &found.kind);
    Ok(ApiResource::from_gvk_with_plural(&kind, &wanted.plural))
}

// === impl Target ===

impl Target {
    /// What matters of `object`, which is of kind `resource`.
    #[must_use]
    pub fn new(resource: &Arc<ApiResource>, object: DynamicObject) -> Self {
        let DynamicObject {
            metadata, mut data, ..
        } = object;
        let is_rolling = is_rolling(resource, metadata.generation, data.get("status"));
        let replicas = data.pointer("/spec/replicas").and_then(Value::as_u64);
        let is_stateful = resource.group == APPS && resource.kind == "StatefulSet";
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| key.starts_with(PREFIX));
        let rollout = template::rollout(data.get("spec"));
        let template = data
            .pointer_mut("/spec/template")
            .map(Value::take)
            .and_then(|template| serde_json::from_value(template).ok())
            .map(|template| {
                let named = annotations::named_ports(&annotations);
                PodTemplate::new(&template, named, (is_stateful, rollout))
            });
        Self {
            resource: Arc::clone(resource),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version,
            is_deleted: metadata.deletion_timestamp.is_some(),
            annotations,
            replicas: replicas.map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
            template,
            is_rolling,
        }
    }

    /// Name of its ScaledWorkload.
    #[must_use]
    pub fn id(&self) -> String {
        workload_id(&self.resource.kind, &self.name)
    }

    /// Whether plans, its own and those of its neighbours, are made from the same of `other`: its
    /// count, its version and how far a rollout is are another with every wake.
    #[must_use]
    pub fn is_planned_alike(&self, other: &Self) -> bool {
        (&self.uid, &self.annotations, &self.template)
            == (&other.uid, &other.annotations, &other.template)
    }

    /// Whether its pods carry the sidecar.
    #[must_use]
    pub fn is_injected(&self) -> bool {
        let template = self.template.as_ref();
        template.is_some_and(|template| template.injected.is_some())
    }

    /// How a ScaledWorkload names it.
    #[must_use]
    pub fn as_scaled(&self) -> scaled_workload::Target {
        scaled_workload::Target {
            api_version: self.resource.api_version.clone(),
            kind: self.resource.kind.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }

    /// How Events name it.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.resource.api_version.clone()),
            kind: Some(self.resource.kind.clone()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// How what is owned by it names it.
    #[must_use]
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.resource.api_version.clone(),
            kind: self.resource.kind.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource.kind, self.name)
    }
}

/// Whether `named` is of the kind `resource`, in whatever version.
#[must_use]
pub fn is_of_kind(named: &scaled_workload::Target, resource: &ApiResource) -> bool {
    let group = named
        .api_version
        .split_once('/')
        .map_or("", |(group, _)| group);
    group == resource.group && named.kind == resource.kind
}

/// From a controller's own account of a rollout.
///
/// Kubernetes' own kinds leave a count of 0 out; other controllers may not tell at all, and Argo
/// Rollouts writes the generation as text.
fn is_rolling(resource: &ApiResource, generation: Option<i64>, status: Option<&Value>) -> bool {
    let tells = resource.group == APPS;
    let field = |name: &str| status.and_then(|status| status.get(name));
    let number = |name: &str| {
        let value = field(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    };
    let default = tells.then_some(0);
    let seen = number("observedGeneration").or(default);
    let is_seen = seen.is_none_or(|seen| seen >= generation.unwrap_or(0));
    let all = number("replicas").unwrap_or(0);
    let updated = number("updatedReplicas").or(default).unwrap_or(all);
    // A StatefulSet counts pods that end among all, and not among the updated.
    let is_one_revision =
        field("updateRevision").is_some_and(|revision| field("currentRevision") == Some(revision));
    (tells && status.is_none()) || !is_seen || (updated < all && !is_one_revision)
}

#[cfg(test)]
pub(crate) mod tests {
    use lull_contract::{AppPort, AppProtocol, names::QUEUE_PROXY_CONTAINER};
    use serde_json::json;

    use super::*;

    pub(crate) fn resource(group: &str, kind: &str) -> Arc<ApiResource> {
        let gvk = GroupVersionKind::gvk(group, "v1", kind);
        Arc::new(ApiResource::from_gvk(&gvk))
    }

    pub(crate) fn target(resource: &Arc<ApiResource>, object: &Value) -> Target {
        Target::new(resource, serde_json::from_value(object.clone()).unwrap())
    }

    #[test]
    fn what_the_sidecar_serves_is_read_from_the_template() {
        let object = json!({
            "metadata": {
                "name": "shop", "namespace": "ns",
                "annotations": { "lull.dev/scale": "true", "note": "long" },
            },
            "spec": { "template": { "spec": { "containers": [
                { "name": "app", "ports": [{ "name": "web", "containerPort": 8080 }] },
                { "name": QUEUE_PROXY_CONTAINER, "ports": [{ "name": "lull-8080", "containerPort": 8012 }],
                  "env": [{ "name": "QP_PORTS", "value": "8012=8080/http,8013=5432/tcp,odd" }] },
            ] } } },
        });
        let target = target(&resource("apps", "StatefulSet"), &object);
        assert_eq!(
            (target.id().as_str(), target.replicas),
            ("shop.statefulset", 1)
        );
        assert_eq!(target.annotations.len(), 1);
        let template = target.template.unwrap();
        let tcp = AppPort {
            number: 5432,
            protocol: AppProtocol::Tcp,
        };
        assert_eq!((template.served.len(), template.served[1]), (2, tcp));
        assert_eq!(template.plan.named_ports, [("web".to_owned(), 8080)]);
        assert_eq!(template.plan.app_ports, template.served);
        assert_eq!(template.plan.traffic_ports, [8012, 8013]);
        assert!(template.plan.headless_sibling);
    }

    #[test]
    fn a_wake_changes_nothing_that_a_plan_is_made_from() {
        let object = json!({
            "metadata": {
                "name": "shop", "uid": "u", "resourceVersion": "1",
                "annotations": { "lull.dev/scale": "true" },
            },
            "spec": { "replicas": 0, "template": { "metadata": { "labels": { "app": "shop" } } } },
        });
        let resource = resource("example.org", "Thing");
        let before = target(&resource, &object);
        for (pointer, value, expected) in [
            ("/metadata/resourceVersion", json!("2"), true),
            ("/spec/replicas", json!(1), true),
            ("/metadata/uid", json!("v"), false),
            (
                "/metadata/annotations/lull.dev~1scale",
                json!("false"),
                false,
            ),
            ("/spec/template/metadata/labels/app", json!("bank"), false),
        ] {
            let mut object = object.clone();
            *object.pointer_mut(pointer).unwrap() = value;
            let after = target(&resource, &object);
            assert_eq!(before.is_planned_alike(&after), expected, "{pointer}");
        }
    }

    #[test]
    fn an_odd_object_is_read_as_far_as_it_goes() {
        for spec in [
            json!(null),
            json!(3),
            json!({ "template": "x", "replicas": "many" }),
        ] {
            let object = json!({ "metadata": { "name": "odd" }, "spec": spec, "status": [] });
            let target = target(&resource("example.org", "Thing"), &object);
            assert_eq!(
                (target.id().as_str(), target.replicas),
                ("odd.thing", 1),
                "{spec}"
            );
            assert!(target.template.is_none() && !target.is_rolling, "{spec}");
        }
    }

    #[test]
    fn a_rollout_is_known_from_what_its_controller_tells() {
        let rows = [
            ("apps", json!(null), true),
            (
                "apps",
                json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2 }),
                true,
            ),
            (
                "apps",
                json!({ "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2 }),
                false,
            ),
            (
                "apps",
                json!({ "observedGeneration": 2, "replicas": 2 }),
                true,
            ),
            ("apps", json!({ "observedGeneration": 2 }), false),
            (
                "apps",
                json!({ "observedGeneration": 2, "replicas": 3, "updatedReplicas": 1,
                        "currentRevision": "a", "updateRevision": "a" }),
                false,
            ),
            (
                "apps",
                json!({ "observedGeneration": 2, "replicas": 3, "updatedReplicas": 1,
                        "currentRevision": "a", "updateRevision": "b" }),
                true,
            ),
            ("example.org", json!(null), false),
            ("example.org", json!({ "replicas": 2 }), false),
            (
                "example.org",
                json!({ "replicas": 2, "updatedReplicas": 1 }),
                true,
            ),
            (
                "argoproj.io",
                json!({ "observedGeneration": "1", "replicas": 1 }),
                true,
            ),
            (
                "argoproj.io",
                json!({ "observedGeneration": "2", "replicas": 1 }),
                false,
            ),
        ];
        for (group, status, expected) in rows {
            let mut object = json!({ "metadata": { "name": "x", "generation": 2 } });
            if !status.is_null() {
                object["status"] = status.clone();
            }
            let target = target(&resource(group, "Thing"), &object);
            assert_eq!(target.is_rolling, expected, "{group} {status}");
        }
    }

    #[test]
    fn kinds_are_told_apart_by_group_and_kind_in_any_version() {
        let named = target(&resource("apps", "Deployment"), &json!({ "metadata": {} })).as_scaled();
        let other_version = scaled_workload::Target {
            api_version: "apps/v2".into(),
            ..named.clone()
        };
        assert!(is_of_kind(&named, &resource("apps", "Deployment")));
        assert!(is_of_kind(&other_version, &resource("apps", "Deployment")));
        assert!(!is_of_kind(&named, &resource("apps", "StatefulSet")));
        assert!(!is_of_kind(&named, &resource("extensions", "Deployment")));
    }
}
