//! A Service of Knative's, where Lull is measured beside it (`make knative`).
//!
//! There is no networking layer: callers use the Kubernetes Service that Knative keeps for each revision.
//! In every mode it leads where a route would lead: to the activator, or to the pods.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::{App, Namespace, Workload, app::APP_LABEL, eventually};

/// Longest wait for its first pod, and for sleep: a window of 6 s, a grace period of 30 s, a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Shortest window that Knative takes, the one of [`App::new`] too.
const WINDOW: &str = "6s";

/// A Service of Knative's with its first revision.
#[derive(Debug)]
pub struct KnativeService {
    /// The revision's Deployment.
    pub workload: Workload,
    /// Name of the revision, and of the Service that leads to it.
    revision: String,
}

// === impl KnativeService ===

impl KnativeService {
    /// Creates it with the app's container as [`App::plain`] has it.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub async fn deploy(namespace: &Namespace, name: &str) -> anyhow::Result<Self> {
        let revision = format!("{name}-00001");
        let deployment = format!("{revision}-deployment");
        let path = format!(
            "/apis/serving.knative.dev/v1/namespaces/{}/services",
            namespace.name
        );
        let service = service(name, &deployment);
        namespace.cluster.create(&path, &service).await?;
        Ok(Self {
            workload: Workload::new(namespace, &deployment),
            revision,
        })
    }

    /// URL of the revision's Service.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.workload.within_cluster(&self.revision))
    }

    /// Waits until the activator answers for the revision and no pod is left.
    ///
    /// # Errors
    /// Where that takes longer than two minutes.
    pub async fn asleep(&self) -> anyhow::Result<()> {
        let namespace = &self.workload.namespace;
        let path = format!(
            "/apis/networking.internal.knative.dev/v1alpha1/namespaces/{namespace}/serverlessservices/{}",
            self.revision
        );
        eventually("the revision asleep", PATIENCE, async || {
            let found = self.workload.cluster.get(&path).await?;
            let mode = &found["spec"]["mode"];
            ensure!(mode == "Proxy", "mode {mode}");
            let replicas = self.workload.replicas().await?;
            ensure!(replicas == 0, "{replicas} replicas");
            Ok(())
        })
        .await?;
        self.workload.pods_gone().await
    }
}

/// Knative names containers' ports by protocol and adds what else a pod needs.
fn service(name: &str, deployment: &str) -> Value {
    let mut container = App::plain(name).container();
    container["ports"] = json!([{ "containerPort": 8080 }]);
    // Without a period Knative's own sidecar asks, many times a second: its fastest way.
    container["readinessProbe"] = json!({ "httpGet": container["readinessProbe"]["httpGet"] });
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "template": {
            "metadata": {
                "labels": { APP_LABEL: deployment },
                "annotations": { "autoscaling.knative.dev/window": WINDOW },
            },
            "spec": { "containers": [container] },
        } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::CONTAINER;

    #[test]
    fn its_pods_are_found_by_the_name_of_the_deployment() {
        let service = service("hello", "hello-00001-deployment");
        let template = &service["spec"]["template"];
        assert_eq!(
            template["metadata"]["labels"][APP_LABEL],
            "hello-00001-deployment"
        );
        assert_eq!(template["spec"]["containers"][0]["name"], CONTAINER);
    }
}
