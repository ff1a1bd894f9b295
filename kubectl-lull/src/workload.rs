//! A workload as it is named on the command line, and as the cluster has it.

use std::{str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use autoscaler::target::{Target, discover};
use kube::{
    Api, Resource,
    core::{ApiResource, DynamicObject},
};
use lull_contract::{
    annotations, scaled_workload::ScaledWorkload, target_resource::TargetResource,
};

use crate::{
    cluster::{CallError, Cluster, call},
    progress,
};

/// Longest time in which a kind is found out.
const DISCOVERY: Duration = Duration::from_secs(15);

/// What is said where the cluster has no Lull.
pub(crate) const NOT_INSTALLED: &str =
    "Lull is not installed on this cluster: it has no ScaledWorkloads";

/// Longest name of an object.
const MAX_NAME: usize = 253;

/// `deploy/shop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkloadName {
    /// Its kind.
    pub(crate) resource: TargetResource,
    /// Its own name.
    pub(crate) name: String,
}

/// A workload that is there.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Objects of its kind in its namespace.
    pub(crate) api: Api<DynamicObject>,
    /// How it was asked for.
    pub(crate) name: WorkloadName,
    /// What Lull reads of it.
    pub(crate) target: Target,
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

/// Whether an object may be called so: whatever else would be asked for under another path.
fn is_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    text.len() <= MAX_NAME
        && text.chars().all(is_allowed)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
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

// === impl WorkloadName ===

impl FromStr for WorkloadName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{text:?} is no workload: write deploy/NAME, sts/NAME or GROUP/VERSION/PLURAL/NAME"
            )
        };
        let (kind, name) = text.rsplit_once('/').unwrap_or(("deploy", text));
        let resource =
            match kind {
                "deploy" | "deployment" | "deployments" | "deployment.apps"
                | "deployments.apps" => "apps/v1/deployments",
                "sts" | "statefulset" | "statefulsets" | "statefulset.apps"
                | "statefulsets.apps" => "apps/v1/statefulsets",
                other if other.contains('/') => other,
                _ => return Err(wrong()),
            };
        if name.is_empty() {
            return Err(wrong());
        }
        if !is_name(name) {
            return Err(format!(
                "{name:?} is no name of a workload: names have lower-case letters, digits, - and ., \
                 at most {MAX_NAME} of them"
            ));
        }
        Ok(Self {
            resource: resource.parse()?,
            name: name.to_owned(),
        })
    }
}

// === impl Workload ===

impl Workload {
    /// The workload that is called so.
    ///
    /// # Errors
    /// Where there is none, or the API server can't say.
    pub(crate) async fn find(cluster: &Cluster, wanted: &WorkloadName) -> anyhow::Result<Self> {
        let resource = kind(cluster, &wanted.resource).await?;
        let (client, namespace) = (cluster.client.clone(), &cluster.namespace);
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &*resource);
        let what = format!("look for {} {}", resource.kind, wanted.name);
        let Some(object) = call(&what, api.get_opt(&wanted.name)).await? else {
            bail!(
                "there is no {} {} in namespace {namespace}",
                resource.kind,
                wanted.name
            );
        };
        let target = Target::new(&resource, object);
        let name = wanted.clone();
        Ok(Self { api, name, target })
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
    fn workloads_are_named_as_kubectl_names_them() {
        let rows = [
            ("shop", "apps/v1/deployments", "shop"),
            ("deploy/shop", "apps/v1/deployments", "shop"),
            ("deployments.apps/shop", "apps/v1/deployments", "shop"),
            ("sts/db", "apps/v1/statefulsets", "db"),
            (
                "argoproj.io/v1alpha1/rollouts/shop",
                "argoproj.io/v1alpha1/rollouts",
                "shop",
            ),
        ];
        for (text, resource, name) in rows {
            let read: WorkloadName = text.parse().unwrap();
            assert_eq!(
                (read.resource.to_string().as_str(), read.name.as_str()),
                (resource, name),
                "{text}"
            );
        }
        for wrong in ["", "deploy/", "pod/x", "a b"] {
            assert!(wrong.parse::<WorkloadName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_no_object_can_have_is_refused_with_what_is_allowed() {
        let long = "x".repeat(MAX_NAME + 1);
        for name in [
            "Shop",
            "shop,cart",
            "shop?x=1",
            "..",
            "-shop",
            "sh\u{1b}op",
            long.as_str(),
        ] {
            let wrong = format!("deploy/{name}").parse::<WorkloadName>();
            let wrong = wrong.unwrap_err();
            assert!(wrong.contains("lower-case letters"), "{wrong}");
            assert!(!wrong.contains(char::is_control), "{wrong:?}");
        }
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
