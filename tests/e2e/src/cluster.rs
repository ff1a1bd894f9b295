//! The cluster under test, reached by the current kubeconfig.

use std::{collections::BTreeSet, fmt, time::Duration};

use anyhow::{Context as _, bail, ensure};
use futures::AsyncBufRead;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use lull_contract::scaled_workload::ScaledWorkload;
use serde_json::Value;

/// Label that tells Lull's own pods apart: `activator`, `autoscaler`, `webhook`.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Lull's components, as [`COMPONENT_LABEL`] names them.
pub const COMPONENTS: [&str; 3] = ["activator", "autoscaler", "webhook"];
/// Namespace of Lull unless `LULL_NAMESPACE` names another.
const LULL_NAMESPACE: &str = "lull-system";
/// Longest time of one call: the Kubernetes client itself has no limit.
const CALL: Duration = Duration::from_secs(30);

/// A cluster on which Lull is installed.
#[derive(Clone)]
pub struct Cluster {
    /// The client of the current kubeconfig.
    pub client: Client,
    /// Where Lull's components run.
    pub lull_namespace: String,
}

/// `future`, with a limit and a context for its error.
///
/// # Errors
/// Those of the call, or that there was no answer in 30 s.
pub async fn call<T>(
    what: &str,
    future: impl Future<Output = kube::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(CALL, future).await {
        Ok(outcome) => outcome.with_context(|| what.to_owned()),
        Err(_) => bail!("{what}: no answer in {CALL:?}"),
    }
}

// === impl Cluster ===

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("lull_namespace", &self.lull_namespace)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects, and makes sure that Lull is there.
    ///
    /// # Errors
    /// Where there is no cluster, or Lull isn't installed or not ready on it.
    pub async fn connect() -> anyhow::Result<Self> {
        // An error says that one is installed already, as in the second test of a process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::infer()
            .await
            .context("no cluster to test: KUBECONFIG (or ~/.kube/config) must name one")?;
        let server = config.cluster_url.clone();
        let client = Client::try_from(config).context("the kubeconfig can't be used")?;
        let version = call("ask for the version", client.apiserver_version()).await;
        version.with_context(|| format!("no cluster answers at {server}"))?;
        let named = std::env::var("LULL_NAMESPACE")
            .ok()
            .filter(|name: &String| !name.is_empty());
        let lull_namespace = named.unwrap_or_else(|| LULL_NAMESPACE.to_owned());
        let cluster = Self {
            client,
            lull_namespace,
        };
        cluster.ensure_installed().await?;
        Ok(cluster)
    }

    async fn ensure_installed(&self) -> anyhow::Result<()> {
        let workloads: Api<ScaledWorkload> = Api::all(self.client.clone());
        call(
            "list ScaledWorkloads",
            workloads.list(&ListParams::default().limit(1)),
        )
        .await
        .context("Lull isn't installed on this cluster: it doesn't know ScaledWorkloads")?;
        for component in COMPONENTS {
            let pods = self.component_pods(component).await?;
            ensure!(
                pods.iter().any(is_ready),
                "Lull isn't running on this cluster: no {component} pod is ready in {}",
                self.lull_namespace
            );
        }
        Ok(())
    }

    /// The pods of one of Lull's components.
    ///
    /// # Errors
    /// Where they can't be listed.
    pub async fn component_pods(&self, component: &str) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.lull_namespace);
        let params = ListParams::default().labels(&format!("{COMPONENT_LABEL}={component}"));
        Ok(call(&format!("list {component} pods"), pods.list(&params))
            .await?
            .items)
    }

    /// Names of one of Lull's components' pods that are ready and stay.
    ///
    /// # Errors
    /// Where they can't be listed.
    pub async fn ready_names(&self, component: &str) -> anyhow::Result<BTreeSet<String>> {
        let pods = self.component_pods(component).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod));
        Ok(ready.map(Pod::name_any).collect())
    }

    /// What the API server has at `path`, as it sends it: no field is lost in a typed round trip.
    ///
    /// # Errors
    /// Where there is nothing or it can't be had.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let there = self.get_if_there(path).await?;
        there.with_context(|| format!("GET {path}: not found"))
    }

    /// As [`Self::get`], none where there is nothing.
    ///
    /// # Errors
    /// Where the API server can't say.
    pub async fn get_if_there(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let text = self.text("GET", path, Vec::new()).await;
        match text {
            Ok(text) => Ok(Some(
                serde_json::from_str(&text).with_context(|| format!("GET {path}"))?,
            )),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks a pod for `path` on `port`, by way of the API server.
    ///
    /// # Errors
    /// Where the answer is not 2xx.
    pub async fn ask_pod(
        &self,
        (namespace, pod): (&str, &str),
        port: u16,
        method: &str,
        path: &str,
    ) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}");
        self.text(method, &path, Vec::new()).await
    }

    /// A page of one of Lull's own pods.
    ///
    /// # Errors
    /// Where the answer is not 2xx.
    pub async fn page(&self, pod: &str, port: u16, path: &str) -> anyhow::Result<String> {
        let pod = (self.lull_namespace.as_str(), pod);
        self.ask_pod(pod, port, "GET", path).await
    }

    /// A page of one of Lull's own pods that does not end, as it comes.
    ///
    /// # Errors
    /// Where the answer does not begin, or is not 2xx.
    pub async fn stream(
        &self,
        pod: &str,
        port: u16,
        path: &str,
    ) -> anyhow::Result<impl AsyncBufRead + use<>> {
        let namespace = &self.lull_namespace;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}");
        let request = http::Request::get(&path).body(Vec::new())?;
        call(&path, self.client.request_stream(request)).await
    }

    /// Sends a request to the API server and reads the answer as text.
    ///
    /// # Errors
    /// Where the answer is not 2xx.
    pub async fn text(&self, method: &str, path: &str, body: Vec<u8>) -> anyhow::Result<String> {
        self.send((method, path), "application/json", body).await
    }

    /// Creates `object` among those at `path`.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn create(&self, path: &str, object: &Value) -> anyhow::Result<()> {
        let body = serde_json::to_vec(object)?;
        self.text("POST", path, body).await.map(drop)
    }

    /// Changes the object at `path` by a patch of the content type `kind`.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> anyhow::Result<()> {
        let body = serde_json::to_vec(patch)?;
        self.send(("PATCH", path), kind, body).await.map(drop)
    }

    async fn send(
        &self,
        (method, path): (&str, &str),
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<String> {
        let what = format!("{method} {path}");
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body)
            .with_context(|| what.clone())?;
        call(&what, self.client.request_text(request)).await
    }
}

/// Whether an error is the API server's "there is no such thing".
#[must_use]
pub fn is_not_found(error: &anyhow::Error) -> bool {
    has_code(error, 404)
}

/// Whether an error is an answer of the API server with that status code.
#[must_use]
pub fn has_code(error: &anyhow::Error, code: u16) -> bool {
    matches!(
        error.downcast_ref::<kube::Error>(),
        Some(kube::Error::Api(status)) if status.code == code
    )
}

/// Whether a pod is ready and stays.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
