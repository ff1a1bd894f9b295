//! A namespace for one test, gone at its end whatever happens.

use std::{panic::AssertUnwindSafe, time::Duration};

use anyhow::{Context as _, anyhow};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::{cluster::call, diagnostics, eventually};

/// Label on every namespace that the suite makes.
pub const SUITE_LABEL: &str = "lull-e2e";
/// Longest time of a test unless it says so: two minutes and more where many stand side by side, and twice that on
/// a machine half as fast.
const TEST: Duration = Duration::from_secs(480);
/// The same in a mesh, where each pod takes some seconds more to start.
const MESH_TEST: Duration = Duration::from_secs(600);

/// A namespace on the cluster under test.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// The cluster.
    pub cluster: crate::Cluster,
    /// The namespace's name.
    pub name: String,
}

/// Runs `test` in a namespace of its own, for 8 minutes at most.
///
/// When the test fails, what is known about the namespace and Lull's components goes to standard
/// error. The namespace is deleted in the end, unless `E2E_KEEP` is set.
///
/// # Errors
/// Those of the test, its panic, or that it took too long.
pub async fn in_namespace(
    purpose: &str,
    test: impl AsyncFnOnce(&Namespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    in_namespace_for(TEST, purpose, test).await
}

/// As [`in_namespace`], for `limit` at most.
///
/// # Errors
/// Those of the test, its panic, or that it took too long.
pub async fn in_namespace_for(
    limit: Duration,
    purpose: &str,
    test: impl AsyncFnOnce(&Namespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let labels = json!({ SUITE_LABEL: "true" });
    run((purpose, &labels, limit), test).await
}

/// Runs `test` in a namespace of its own whose pods get Istio's container; else as [`in_namespace`].
///
/// # Errors
/// Those of the test, its panic, or that it took longer than 10 minutes.
pub async fn in_mesh(
    purpose: &str,
    test: impl AsyncFnOnce(&Namespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    in_mesh_for(MESH_TEST, purpose, test).await
}

/// As [`in_mesh`], for `limit` at most.
///
/// # Errors
/// Those of the test, its panic, or that it took too long.
pub async fn in_mesh_for(
    limit: Duration,
    purpose: &str,
    test: impl AsyncFnOnce(&Namespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let labels = json!({ SUITE_LABEL: "true", "istio-injection": "enabled" });
    run((purpose, &labels, limit), test).await
}

/// As [`in_mesh`], where the namespace names the revision of Istio that puts its container into the pods.
///
/// # Errors
/// Those of the test, its panic, or that it took longer than 10 minutes.
pub async fn in_revision(
    purpose: &str,
    revision: &str,
    test: impl AsyncFnOnce(&Namespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let labels = json!({ SUITE_LABEL: "true", "istio.io/rev": revision });
    run((purpose, &labels, MESH_TEST), test).await
}

async fn run(
    (purpose, labels, limit): (&str, &Value, Duration),
    test: impl AsyncFnOnce(&Namespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cluster = crate::Cluster::connect().await?;
    let namespace = Namespace::create(cluster, purpose, labels).await?;
    let guarded = AssertUnwindSafe(test(&namespace)).catch_unwind();
    let outcome = match Box::pin(tokio::time::timeout(limit, guarded)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(anyhow!("the test panicked: {}", panic_text(&*panic))),
        Err(_) => Err(anyhow!("the test took longer than {limit:?}")),
    };
    if let Err(error) = &outcome {
        eprintln!(
            "=== {purpose} failed in namespace {}: {error:#}",
            namespace.name
        );
        diagnostics::dump(&namespace).await;
    }
    if std::env::var_os("E2E_KEEP").is_some() {
        eprintln!("E2E_KEEP is set: namespace {} stays", namespace.name);
        return outcome;
    }
    outcome.and(namespace.delete().await)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    literal
        .or_else(|| panic.downcast_ref().cloned())
        .unwrap_or_else(|| "no text".to_owned())
}

/// Waits until every namespace of the suite is gone.
///
/// # Errors
/// After `cap`, with the names of those that are left.
pub async fn all_gone(cluster: &crate::Cluster, cap: Duration) -> anyhow::Result<()> {
    let namespaces: Api<KubeNamespace> = Api::all(cluster.client.clone());
    let ours = ListParams::default().labels(SUITE_LABEL);
    eventually("the suite's namespaces to go", cap, async || {
        let left = namespaces.list(&ours).await?.items;
        let names: Vec<_> = left
            .into_iter()
            .filter_map(|item| item.metadata.name)
            .collect();
        anyhow::ensure!(names.is_empty(), "there still are {}", names.join(", "));
        Ok(())
    })
    .await
}

// === impl Namespace ===

impl Namespace {
    async fn create(
        cluster: crate::Cluster,
        purpose: &str,
        labels: &Value,
    ) -> anyhow::Result<Self> {
        let namespaces: Api<KubeNamespace> = Api::all(cluster.client.clone());
        let wanted = serde_json::from_value(json!({
            "metadata": {
                "generateName": format!("e2e-{purpose}-"),
                "labels": labels,
            }
        }))?;
        let params = PostParams::default();
        let created = call("create a namespace", namespaces.create(&params, &wanted)).await?;
        let name = created.metadata.name.context("the namespace has no name")?;
        Ok(Self { cluster, name })
    }

    /// The namespace called `name`, made where it isn't there.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn named(cluster: crate::Cluster, name: &str) -> anyhow::Result<Self> {
        let namespaces: Api<KubeNamespace> = Api::all(cluster.client.clone());
        if call("look for the namespace", namespaces.get_opt(name))
            .await?
            .is_none()
        {
            let wanted = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
            let params = PostParams::default();
            call("create the namespace", namespaces.create(&params, &wanted)).await?;
        }
        Ok(Self {
            cluster,
            name: name.to_owned(),
        })
    }

    /// Deletes the namespace; doesn't wait for it to be gone.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let namespaces: Api<KubeNamespace> = Api::all(self.cluster.client.clone());
        let params = DeleteParams::background();
        let deleted = namespaces.delete(&self.name, &params);
        call(&format!("delete namespace {}", self.name), deleted).await?;
        Ok(())
    }

    /// An `Api` for objects in this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }
}
