//! A metric that a HorizontalPodAutoscaler scales by, and whose value a test sets.
//!
//! The sample app serves it; an APIService makes it the cluster's external metrics API, of which
//! there is one.

use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::{Value, json};

use crate::{
    Cluster, Namespace, Workload,
    app::{image, security_context},
    eventually,
    namespace::SUITE_LABEL,
};

/// Where the API server has it.
const SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io";
/// Name of pod and Service.
const NAME: &str = "metrics-api";
/// Longest wait for the pod to be ready, and for the API server to reach it.
const START: Duration = Duration::from_secs(60);
/// What one pod is there for.
const OF_A_POD: u64 = 10;

/// The metrics API of a cluster while a test has it.
#[derive(Debug)]
pub struct MetricsApi<'a> {
    namespace: &'a Namespace,
}

/// Takes the suite's metrics API away, where it is there.
///
/// # Errors
/// Where the API server refuses.
pub async fn remove(cluster: &Cluster) -> anyhow::Result<()> {
    let there = cluster.get_if_there(SERVICE).await?;
    if there.is_some_and(|there| is_ours(&there)) {
        cluster.text("DELETE", SERVICE, Vec::new()).await?;
    }
    Ok(())
}

fn is_ours(service: &Value) -> bool {
    !service["metadata"]["labels"][SUITE_LABEL].is_null()
}

// === impl MetricsApi ===

impl<'a> MetricsApi<'a> {
    /// Starts it in `namespace`; must be taken away by [`remove`].
    ///
    /// # Errors
    /// Where the cluster has another one, or it doesn't answer within a minute.
    pub async fn deploy(namespace: &'a Namespace) -> anyhow::Result<Self> {
        let cluster = &namespace.cluster;
        // One that a test which was killed has left.
        remove(cluster).await?;
        if let Some(other) = cluster.get_if_there(SERVICE).await? {
            bail!(
                "this cluster has an external metrics API, {}, which this test would replace: \
                 run it on another cluster, such as CLUSTER=builtin",
                other["spec"]["service"]
            );
        }
        let within = format!("/api/v1/namespaces/{}", namespace.name);
        cluster.create(&format!("{within}/pods"), &pod()).await?;
        let services = format!("{within}/services");
        cluster.create(&services, &service()).await?;
        let path = format!("{within}/pods/{NAME}");
        eventually("the metrics API to be ready", START, async || {
            condition(cluster, &path, "Ready").await
        })
        .await?;
        let (registry, _) = SERVICE.rsplit_once('/').unwrap_or_default();
        cluster
            .create(registry, &api_service(&namespace.name))
            .await?;
        eventually("the API server to reach it", START, async || {
            condition(cluster, SERVICE, "Available").await
        })
        .await?;
        Ok(Self { namespace })
    }

    /// Makes the metric worth `pods` pods.
    ///
    /// # Errors
    /// Where the metrics API doesn't answer.
    pub async fn asks_for(&self, pods: u64) -> anyhow::Result<()> {
        let Namespace { cluster, name } = self.namespace;
        let page = format!("set?value={}", pods * OF_A_POD);
        let asked = cluster.ask_pod((name.as_str(), NAME), 8080, "POST", &page);
        asked.await.map(drop)
    }

    /// Creates the HorizontalPodAutoscaler that keeps `workload` at what the metric asks for, from
    /// 1 to `most` pods.
    ///
    /// # Errors
    /// Where the API server refuses.
    pub async fn scales(&self, workload: &Workload, most: u64) -> anyhow::Result<()> {
        let metric = json!({
            "metric": { "name": "orders" },
            "target": { "type": "AverageValue", "averageValue": OF_A_POD.to_string() },
        });
        let scaler = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": { "name": workload.name },
            "spec": {
                "scaleTargetRef": {
                    "apiVersion": workload.kind.api_version(),
                    "kind": workload.kind.name(),
                    "name": workload.name,
                },
                "minReplicas": 1,
                "maxReplicas": most,
                "metrics": [{ "type": "External", "external": metric }],
            },
        });
        let path = scalers(workload);
        workload.cluster.create(&path, &scaler).await
    }
}

/// Fails unless the workload's HorizontalPodAutoscaler says that it rests, since there are no pods.
///
/// # Errors
/// With what it says.
pub async fn rests(workload: &Workload) -> anyhow::Result<()> {
    let path = format!("{}/{}", scalers(workload), workload.name);
    let scaler = workload.cluster.get(&path).await?;
    let conditions = &scaler["status"]["conditions"];
    let rests = conditions.as_array().is_some_and(|all| {
        all.iter()
            .any(|c| c["type"] == "ScalingActive" && c["reason"] == "ScalingDisabled")
    });
    ensure!(rests, "its conditions are {conditions}");
    Ok(())
}

fn scalers(workload: &Workload) -> String {
    let namespace = &workload.namespace;
    format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers")
}

async fn condition(cluster: &Cluster, path: &str, name: &str) -> anyhow::Result<()> {
    let object = cluster.get(path).await?;
    let conditions = &object["status"]["conditions"];
    let holds = conditions.as_array().is_some_and(|all| {
        all.iter()
            .any(|c| c["type"] == name && c["status"] == "True")
    });
    ensure!(holds, "its conditions are {conditions}");
    Ok(())
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": NAME, "labels": { "app": NAME } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": NAME,
                "image": image(),
                "imagePullPolicy": "IfNotPresent",
                "args": ["metrics-api"],
                "readinessProbe": {
                    "httpGet": { "path": "/healthz", "port": 8080 },
                    "periodSeconds": 1,
                },
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                "securityContext": security_context(),
            }],
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": NAME },
        "spec": {
            "selector": { "app": NAME },
            "ports": [{ "name": "https", "port": 443, "targetPort": 8443 }],
        },
    })
}

fn api_service(namespace: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": "v1beta1.external.metrics.k8s.io",
            "labels": { SUITE_LABEL: "true" },
        },
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            // Its certificate is made when it starts; nothing secret goes there.
            "insecureSkipTLSVerify": true,
            "service": { "name": NAME, "namespace": namespace, "port": 443 },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_is_where_it_is_looked_for_and_known_as_ours() {
        let service = api_service("shop");
        let name = service["metadata"]["name"].as_str().unwrap();
        assert!(SERVICE.ends_with(&format!("/{name}")));
        assert!(is_ours(&service) && !is_ours(&json!({ "metadata": {} })));
    }
}
