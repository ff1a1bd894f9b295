//! A workload as it is named on the command line, and as the cluster has it.

use std::{str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use autoscaler::target::{Target, discover};
use kube::{
    Api, Resource,
    core::{ApiResource, DynamicObject},
};
use lull_contract::{scaled_workload::ScaledWorkload, target_resource::TargetResource};

use crate::{
    cluster::{CallError, Cluster, call},
    progress,
};

/// Longest time in which a kind is found out.
const DISCOVERY: Duration = Duration::from_secs(15);

/// What is said where the cluster has no Lull.
pub(crate) const NOT_INSTALLED: &str =
    "Lull is not installed on this cluster: it has no ScaledWorkloads";

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
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong());
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
    /// Where Lull doesn't run it, or the API server can't say.
    pub(crate) async fn run_by_lull(&self, cluster: &Cluster) -> anyhow::Result<ScaledWorkload> {
        let scaled = self.scaled(cluster).await?;
        scaled.with_context(|| {
            format!(
                "{} is not run by Lull: `kubectl lull on` lets Lull run it",
                self.target
            )
        })
    }
}

#[cfg(test)]
mod tests {
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
}
