//! What the autoscaler of the cluster is told, as far as a plan depends on it.

use autoscaler::{mesh::MeshMode, namespaces::Namespaces};
use clap::ValueEnum;
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
/// A namespace that every cluster has.
const DEFAULT_NAMESPACE: &str = "default";

/// What the autoscaler is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Kinds that it looks after; `None` where it was not seen.
    pub(crate) targets: Option<TargetResources>,
    /// Namespaces that it looks after; all where it was not seen.
    pub(crate) namespaces: Namespaces,
    /// Whether there is a mesh for it.
    pub(crate) mesh_mode: MeshMode,
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
    /// It is in Kubernetes' own namespace, or in Lull's.
    Never,
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
        Ok(deployment) => {
            if deployment.is_none() {
                missing.push(absent(namespace));
            }
            Ok(Told::by(deployment.as_ref(), namespace))
        }
        Err(error) if error.is(403) => {
            let effect = format!(
                "Lull's kinds and mesh are taken to be the chart's defaults (root namespace \
                 {DEFAULT_MESH_ROOT})"
            );
            missing.push(Reading::Autoscaler.lacked(cluster, &effect));
            Ok(Told::by(None, namespace))
        }
        Err(error) => Err(error.into()),
    }
}

/// What is said where there is no autoscaler in Lull's `namespace`.
fn absent(namespace: &str) -> String {
    format!(
        "there is no Deployment {AUTOSCALER} in namespace {namespace}: Lull's kinds, namespaces and mesh \
         are taken to be the chart's defaults; where Lull is elsewhere, name it by --lull-namespace"
    )
}

// === impl Told ===

impl Told {
    /// By the variables of `autoscaler`, in whose namespace `own` it looks after nothing.
    fn by(autoscaler: Option<&Deployment>, own: &str) -> Self {
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
                .and_then(|names| names.parse::<Namespaces>().ok())
                .unwrap_or_default()
                .beside(own),
            mesh_mode: value(MESH)
                .and_then(|mode| MeshMode::from_str(&mode, false).ok())
                .unwrap_or_default(),
            mesh_root: value(MESH_ROOT).unwrap_or_else(|| DEFAULT_MESH_ROOT.to_owned()),
        }
    }

    /// Whether it is known not to look after workloads of this kind in `namespace`.
    pub(crate) fn leaves_out(&self, kind: &TargetResource, namespace: &str) -> Option<LeftOut> {
        let targets = self.targets.as_ref();
        if targets.is_some_and(|targets| !targets.0.contains(kind)) {
            return Some(LeftOut::Kind);
        }
        if self.namespaces.never_has(namespace) {
            return Some(LeftOut::Never);
        }
        (!self.namespaces.has(namespace)).then_some(LeftOut::Namespace)
    }

    /// A namespace whose workloads it looks after: `wanted`, where that is one.
    pub(crate) fn namespace_like<'a>(&'a self, wanted: &'a str) -> &'a str {
        if self.namespaces.has(wanted) {
            return wanted;
        }
        self.namespaces.first().unwrap_or(DEFAULT_NAMESPACE)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Lull's namespace.
    const OWN: &str = "lull-system";

    fn by(env: &Value) -> Told {
        let container = json!({ "name": "autoscaler", "env": env });
        let template = json!({ "spec": { "containers": [container] } });
        let deployment = json!({
            "metadata": { "name": AUTOSCALER }, "spec": { "selector": {}, "template": template },
        });
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        Told::by(Some(&deployment), OWN)
    }

    #[test]
    fn the_autoscaler_s_own_variables_say_which_mesh_counts() {
        let named = by(&json!([
            { "name": MESH, "value": "istio" }, { "name": MESH_ROOT, "value": "mesh" },
        ]));
        assert_eq!(
            (named.mesh_mode, named.mesh_root.as_str()),
            (MeshMode::Istio, "mesh")
        );
        let off = by(&json!([{ "name": MESH, "value": "none" }]));
        assert_eq!(
            (off.mesh_mode, off.mesh_root.as_str()),
            (MeshMode::None, DEFAULT_MESH_ROOT)
        );
        assert_eq!(Told::by(None, OWN).mesh_mode, MeshMode::Auto);
    }

    fn leaves(told: &Told, kind: &str, namespace: &str) -> Option<LeftOut> {
        told.leaves_out(&kind.parse().unwrap(), namespace)
    }

    const DEPLOYMENTS: &str = "apps/v1/deployments";
    const ROLLOUTS: &str = "argoproj.io/v1alpha1/rollouts";

    #[test]
    fn a_kind_is_left_out_only_where_the_autoscaler_was_seen_without_it() {
        let plain = by(&json!([]));
        assert_eq!(leaves(&plain, DEPLOYMENTS, "web"), None);
        assert_eq!(leaves(&plain, ROLLOUTS, "web"), Some(LeftOut::Kind));
        let more = format!("{DEPLOYMENTS},{ROLLOUTS}");
        let more = by(&json!([{ "name": TARGETS, "value": more }]));
        assert_eq!(leaves(&more, ROLLOUTS, "web"), None);
        assert_eq!(leaves(&Told::by(None, OWN), ROLLOUTS, "web"), None);
    }

    #[test]
    fn a_namespace_is_left_out_where_the_autoscaler_has_others() {
        let some = by(&json!([{ "name": NAMESPACES, "value": "web,shop" }]));
        assert_eq!(leaves(&some, DEPLOYMENTS, "shop"), None);
        let elsewhere = leaves(&some, DEPLOYMENTS, "default");
        assert_eq!(elsewhere, Some(LeftOut::Namespace));
    }

    #[test]
    fn nothing_is_looked_after_in_kubernetes_own_namespace_and_in_lull_s() {
        for told in [by(&json!([])), Told::by(None, OWN)] {
            for namespace in ["kube-system", OWN] {
                let left_out = leaves(&told, DEPLOYMENTS, namespace);
                assert_eq!(left_out, Some(LeftOut::Never), "{namespace}");
            }
        }
    }

    #[test]
    fn what_is_tried_out_is_tried_where_lull_looks_after_workloads() {
        let all = by(&json!([]));
        let some = by(&json!([{ "name": NAMESPACES, "value": "web,shop" }]));
        let rows = [
            (&all, "web", "web"),
            (&all, "kube-system", DEFAULT_NAMESPACE),
            (&all, OWN, DEFAULT_NAMESPACE),
            (&some, "web", "web"),
            (&some, "default", "shop"),
        ];
        for (told, wanted, expected) in rows {
            let namespace = told.namespace_like(wanted);
            assert_eq!(namespace, expected, "{wanted}");
        }
    }
}
