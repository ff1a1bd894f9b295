//! What the autoscaler of the cluster is told, as far as a plan depends on it.

use autoscaler::namespaces::Namespaces;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use lull_contract::target_resource::{TargetResource, TargetResources};

use crate::{
    cluster::{Cluster, call},
    rights::Reading,
};

/// The autoscaler's Deployment, as the chart calls it.
pub(crate) const AUTOSCALER: &str = "lull-autoscaler";
/// Variable with the kinds that may be scaled.
const TARGETS: &str = "AUTOSCALER_TARGETS";
/// Variable with the namespaces whose workloads it runs.
const NAMESPACES: &str = "AUTOSCALER_NAMESPACES";
/// Variable that says whether there is a mesh for it.
const MESH: &str = "AUTOSCALER_MESH";
/// Variable that names the mesh's root namespace.
const MESH_ROOT: &str = "AUTOSCALER_MESH_ROOT_NAMESPACE";
/// The root namespace where nothing else is said: Istio's own default.
const DEFAULT_MESH_ROOT: &str = "istio-system";

/// What the autoscaler is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Kinds that it looks after; `None` where it was not seen.
    pub(crate) targets: Option<TargetResources>,
    /// Namespaces that it looks after; all where it was not seen.
    pub(crate) namespaces: Namespaces,
    /// It has nothing to do with a mesh, whatever the cluster has.
    pub(crate) is_without_mesh: bool,
    /// Namespace whose policies hold in all others of a mesh.
    pub(crate) mesh_root: String,
}

/// Why it doesn't look after a workload at all, and so tells nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// Its kind is none of the targets.
    Kind,
    /// Its namespace is none of those that Lull writes in.
    Namespace,
}

/// What the autoscaler is told; the chart's defaults where there is none. Where the user may not look,
/// `missing` says so.
///
/// # Errors
/// Where the API server can't be asked.
pub(crate) async fn told(cluster: &Cluster, missing: &mut Vec<String>) -> anyhow::Result<Told> {
    let (client, namespace) = (cluster.client.clone(), &cluster.lull_namespace);
    let api: Api<Deployment> = Api::namespaced(client, namespace);
    match call("look at the autoscaler", api.get_opt(AUTOSCALER)).await {
        Ok(deployment) => Ok(Told::by(deployment.as_ref()).beside(namespace)),
        Err(error) if error.is(403) => {
            let effect = format!(
                "Lull's kinds and mesh are taken to be the chart's defaults (root namespace \
                 {DEFAULT_MESH_ROOT})"
            );
            missing.push(Reading::Autoscaler.lacked(cluster, &effect));
            Ok(Told::by(None).beside(namespace))
        }
        Err(error) => Err(error.into()),
    }
}

// === impl Told ===

impl Told {
    /// By the variables of `autoscaler`.
    fn by(autoscaler: Option<&Deployment>) -> Self {
        let spec = autoscaler.and_then(|deployment| deployment.spec.as_ref());
        let pod = spec.and_then(|spec| spec.template.spec.as_ref());
        let value = |name: &str| {
            let containers = pod.into_iter().flat_map(|pod| &pod.containers);
            let mut variables = containers.flat_map(|container| container.env.iter().flatten());
            let variable = variables.find(|variable| variable.name == name)?;
            variable.value.clone().filter(|value| !value.is_empty())
        };
        let targets =
            || value(TARGETS).map_or_else(|| Ok(TargetResources::default()), |t| t.parse());
        Self {
            targets: pod.and_then(|_| targets().ok()),
            namespaces: value(NAMESPACES)
                .and_then(|names| names.parse().ok())
                .unwrap_or_default(),
            is_without_mesh: value(MESH).as_deref() == Some("none"),
            mesh_root: value(MESH_ROOT).unwrap_or_else(|| DEFAULT_MESH_ROOT.to_owned()),
        }
    }

    /// The same of an autoscaler in the namespace `own`, where it looks after nothing.
    fn beside(self, own: &str) -> Self {
        Self {
            namespaces: self.namespaces.beside(own),
            ..self
        }
    }

    /// Whether it is known not to look after workloads of this kind in `namespace`.
    pub(crate) fn leaves_out(&self, kind: &TargetResource, namespace: &str) -> Option<LeftOut> {
        let targets = self.targets.as_ref();
        if targets.is_some_and(|targets| !targets.0.contains(kind)) {
            return Some(LeftOut::Kind);
        }
        (!self.namespaces.has(namespace)).then_some(LeftOut::Namespace)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn by(env: &Value) -> Told {
        let container = json!({ "name": "autoscaler", "env": env });
        let template = json!({ "spec": { "containers": [container] } });
        let deployment = json!({
            "metadata": { "name": AUTOSCALER }, "spec": { "selector": {}, "template": template },
        });
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        Told::by(Some(&deployment))
    }

    #[test]
    fn the_autoscaler_s_own_variables_say_which_mesh_counts() {
        let named = by(&json!([
            { "name": MESH, "value": "istio" }, { "name": MESH_ROOT, "value": "mesh" },
        ]));
        assert_eq!(
            (named.is_without_mesh, named.mesh_root.as_str()),
            (false, "mesh")
        );
        let off = by(&json!([{ "name": MESH, "value": "none" }]));
        assert_eq!(
            (off.is_without_mesh, off.mesh_root.as_str()),
            (true, DEFAULT_MESH_ROOT)
        );
        assert!(!Told::by(None).is_without_mesh);
    }

    #[test]
    fn a_kind_is_left_out_only_where_the_autoscaler_was_seen_without_it() {
        let kind = |text: &str| text.parse::<TargetResource>().unwrap();
        let (deployments, rollouts) = (
            kind("apps/v1/deployments"),
            kind("argoproj.io/v1alpha1/rollouts"),
        );
        let plain = by(&json!([]));
        assert_eq!(plain.leaves_out(&deployments, "web"), None);
        assert_eq!(plain.leaves_out(&rollouts, "web"), Some(LeftOut::Kind));
        let more = "apps/v1/deployments,argoproj.io/v1alpha1/rollouts";
        let more = by(&json!([{ "name": TARGETS, "value": more }]));
        assert_eq!(more.leaves_out(&rollouts, "web"), None);
        assert_eq!(Told::by(None).leaves_out(&rollouts, "web"), None);
    }

    #[test]
    fn a_namespace_is_left_out_where_the_autoscaler_has_others() {
        let deployments: TargetResource = "apps/v1/deployments".parse().unwrap();
        let some = by(&json!([{ "name": NAMESPACES, "value": "web,shop" }]));
        assert_eq!(some.leaves_out(&deployments, "shop"), None);
        let elsewhere = some.leaves_out(&deployments, "default");
        assert_eq!(elsewhere, Some(LeftOut::Namespace));
        let all = by(&json!([])).beside("lull-system");
        assert_eq!(all.leaves_out(&deployments, "default"), None);
        let own = all.leaves_out(&deployments, "lull-system");
        assert_eq!(own, Some(LeftOut::Namespace));
    }
}
