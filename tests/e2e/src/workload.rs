//! A deployed app, and waiting for the steps of its life.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use lull_contract::{names, report::QueueProxyReport, scaled_workload::ScaledWorkload};
use serde_json::{Value, json};

use crate::{
    App, Cluster, Kind, Namespace,
    app::{APP_LABEL, CONTAINER},
    cluster::{call, is_ready},
    eventually,
};

/// Longest wait for a rollout: image at hand, small containers, and a dozen tests that begin theirs at once
/// on a small machine.
const ROLLOUT: Duration = Duration::from_secs(120);
/// Longest wait for sleep: a window of 6 s in which every pod is heard each second, propagation, and a busy
/// machine.
const SLEEP: Duration = Duration::from_secs(120);
/// DNS domain of the cluster unless `E2E_CLUSTER_DOMAIN` names another.
const DOMAIN: &str = "cluster.local";

/// A workload with its Service, both of one name.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The cluster.
    pub cluster: Cluster,
    /// What it is.
    pub kind: Kind,
    /// Namespace of both.
    pub namespace: String,
    /// Name of both.
    pub name: String,
}

/// Name of the headless Service of the StatefulSet `name`.
pub(crate) fn peers(name: &str) -> String {
    format!("{name}-peers")
}

// === impl Workload ===

impl Workload {
    /// The Deployment called `name`.
    #[must_use]
    pub fn new(namespace: &Namespace, name: &str) -> Self {
        Self::of(Kind::Deployment, namespace, name)
    }

    /// The workload called `name`.
    #[must_use]
    pub fn of(kind: Kind, namespace: &Namespace, name: &str) -> Self {
        let (cluster, namespace) = (namespace.cluster.clone(), namespace.name.clone());
        Self {
            cluster,
            kind,
            namespace,
            name: name.to_owned(),
        }
    }

    /// The Service's address for callers in the cluster, without a scheme.
    ///
    /// The whole name: a client with `ndots: 1`, as the agent is, asks the DNS once.
    #[must_use]
    pub fn host(&self) -> String {
        self.within_cluster(&self.name)
    }

    /// The address of a StatefulSet's pod by way of its headless Service, without a scheme.
    #[must_use]
    pub fn pod_host(&self, ordinal: u32) -> String {
        let Self { name, .. } = self;
        self.within_cluster(&format!("{name}-{ordinal}.{}", peers(name)))
    }

    /// The address of the Service `name` of its namespace, without a scheme.
    pub(crate) fn within_cluster(&self, name: &str) -> String {
        let named = std::env::var("E2E_CLUSTER_DOMAIN")
            .ok()
            .filter(|name: &String| !name.is_empty());
        let domain = named.unwrap_or_else(|| DOMAIN.to_owned());
        format!("{name}.{}.svc.{domain}", self.namespace)
    }

    /// URL of the Service's port 80 with `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    /// Path of the workload on the API server.
    fn path(&self) -> String {
        format!("{}/{}", self.kind.path(&self.namespace), self.name)
    }

    /// The workload as the API server sends it.
    ///
    /// # Errors
    /// Where it can't be had.
    pub async fn object_json(&self) -> anyhow::Result<Value> {
        self.cluster.get(&self.path()).await
    }

    /// The Service as the API server sends it.
    ///
    /// # Errors
    /// Where it can't be had.
    pub async fn service_json(&self) -> anyhow::Result<Value> {
        self.service(&self.name).await
    }

    /// Names of its Services.
    #[must_use]
    pub fn service_names(&self) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        if self.kind == Kind::StatefulSet {
            names.push(peers(&self.name));
        }
        names
    }

    /// The Service `name` as the API server sends it.
    ///
    /// # Errors
    /// Where it can't be had.
    pub async fn service(&self, name: &str) -> anyhow::Result<Value> {
        let path = format!("/api/v1/namespaces/{}/services/{name}", self.namespace);
        self.cluster.get(&path).await
    }

    /// The workload's pods, those that are going included.
    ///
    /// # Errors
    /// Where they can't be listed.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let params = ListParams::default().labels(&format!("{APP_LABEL}={}", self.name));
        Ok(
            call(&format!("list pods of {}", self.name), api.list(&params))
                .await?
                .items,
        )
    }

    /// The workload's ScaledWorkload, where there is one.
    ///
    /// # Errors
    /// Where they can't be listed.
    pub async fn scaled(&self) -> anyhow::Result<Option<ScaledWorkload>> {
        let api: Api<ScaledWorkload> =
            Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let all = call("list ScaledWorkloads", api.list(&ListParams::default())).await?;
        Ok(all
            .items
            .into_iter()
            .find(|scaled| scaled.spec.target.name == self.name))
    }

    /// `spec.replicas`.
    ///
    /// # Errors
    /// Where it can't be had.
    pub async fn replicas(&self) -> anyhow::Result<i64> {
        let replicas = self.object_json().await?["spec"]["replicas"].as_i64();
        replicas.with_context(|| format!("{} {} has no replicas", self.kind.name(), self.name))
    }

    /// Changes the workload by a patch of its kind ([`Kind::patch_type`]).
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn patch(&self, patch: &Value) -> anyhow::Result<()> {
        let kind = self.kind.patch_type();
        self.cluster.patch(&self.path(), kind, patch).await
    }

    /// Writes `app` over the workload, as `kubectl replace` does.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn replace_by(&self, app: &App) -> anyhow::Result<()> {
        let manifests = app.manifests(&self.namespace);
        let (_, object) = manifests.last().context("nothing is deployed")?;
        let body = serde_json::to_vec(object)?;
        self.cluster.text("PUT", &self.path(), body).await.map(drop)
    }

    /// Sets its replicas, as `kubectl scale` does.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn scale(&self, replicas: usize) -> anyhow::Result<()> {
        let patch = json!({ "spec": { "replicas": replicas } });
        let path = format!("{}/scale", self.path());
        let kind = "application/merge-patch+json";
        self.cluster.patch(&path, kind, &patch).await
    }

    /// Sets annotations on the workload; `None` removes one.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn annotate(&self, annotations: &[(&str, Option<&str>)]) -> anyhow::Result<()> {
        let map: serde_json::Map<String, Value> = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        self.patch(&json!({ "metadata": { "annotations": map } }))
            .await
    }

    /// Changes the app's container in the template, which starts a rollout.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn change_container(&self, mut container: Value) -> anyhow::Result<()> {
        container["name"] = json!(CONTAINER);
        let spec = json!({ "template": { "spec": { "containers": [container] } } });
        self.patch(&json!({ "spec": spec })).await
    }

    /// Waits until every wanted replica is of the newest template and ready; returns how many.
    ///
    /// # Errors
    /// Where that takes longer than two minutes.
    pub async fn rolled_out(&self) -> anyhow::Result<i64> {
        let what = format!("the rollout of {}", self.name);
        eventually(&what, ROLLOUT, async || self.is_rolled_out().await).await
    }

    /// Waits until Lull runs the workload: its Service is switched.
    ///
    /// # Errors
    /// Where that takes longer than two minutes.
    pub async fn enrolled(&self) -> anyhow::Result<()> {
        let what = format!("{} to be enrolled", self.name);
        eventually(&what, ROLLOUT, async || self.is_enrolled().await).await
    }

    /// Waits until the workload sleeps: no replicas, and Lull says so; returns how long it took.
    ///
    /// # Errors
    /// Where that takes longer than two minutes.
    pub async fn asleep(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let what = format!("{} to fall asleep", self.name);
        eventually(&what, SLEEP, async || self.is_asleep().await).await?;
        Ok(started.elapsed())
    }

    /// Waits until `spec.replicas` is 0; returns how long it took.
    ///
    /// # Errors
    /// After `cap`.
    pub async fn scaled_to_zero(&self, cap: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        eventually(
            &format!("{} to have no replicas", self.name),
            cap,
            async || {
                let replicas = self.replicas().await?;
                ensure!(
                    replicas == 0,
                    "{replicas} replicas, {}",
                    self.status_line().await
                );
                Ok(())
            },
        )
        .await?;
        Ok(started.elapsed())
    }

    /// Waits until no pod is left, not even one that is going.
    ///
    /// # Errors
    /// Where that takes longer than two minutes.
    pub async fn pods_gone(&self) -> anyhow::Result<()> {
        eventually(
            &format!("the pods of {} to go", self.name),
            SLEEP,
            async || {
                let left = self.pods().await?.len();
                ensure!(left == 0, "{left} pods");
                Ok(())
            },
        )
        .await
    }

    /// Names of the pods that are ready and stay.
    ///
    /// # Errors
    /// Where they can't be listed.
    pub async fn ready_pods(&self) -> anyhow::Result<Vec<String>> {
        let pods = self.pods().await?;
        Ok(pods
            .into_iter()
            .filter(is_ready)
            .filter_map(|pod| pod.metadata.name)
            .collect())
    }

    /// Asks `pod` for `path` on `port`, by way of the API server.
    ///
    /// # Errors
    /// Where the answer is not 2xx.
    pub async fn ask_pod(
        &self,
        pod: &str,
        port: u16,
        method: &str,
        path: &str,
    ) -> anyhow::Result<String> {
        let pod = (self.namespace.as_str(), pod);
        self.cluster.ask_pod(pod, port, method, path).await
    }

    /// What the queue-proxy of `pod` tells the autoscaler.
    ///
    /// # Errors
    /// Where it doesn't answer or not with a report.
    pub async fn queue_proxy(&self, pod: &str) -> anyhow::Result<QueueProxyReport> {
        let text = self
            .ask_pod(pod, lull_contract::ports::REPORT, "GET", "report")
            .await?;
        Ok(QueueProxyReport::parse(text.as_bytes())?)
    }
}

/// Evicts `pod` as a drain of its node does.
///
/// # Errors
/// Where the API server refuses, as it does while a PodDisruptionBudget wants it to stay.
pub async fn evict(workload: &Workload, pod: &str) -> anyhow::Result<()> {
    let namespace = &workload.namespace;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "name": pod, "namespace": namespace },
    });
    workload.cluster.create(&path, &eviction).await
}

/// Whether a pod carries the queue-proxy.
#[must_use]
pub fn has_sidecar(pod: &Pod) -> bool {
    let sidecar = names::QUEUE_PROXY_CONTAINER;
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.containers.iter().any(|c| c.name == sidecar))
}
