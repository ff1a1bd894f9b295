//! What users tell Istio by themselves: gateways, routes and subsets, as a test writes them.
//!
//! The gateway is the one that `scripts/cluster.sh mesh` installs: one Envoy with two doors. Calls through
//! it come from outside of the mesh, in plain text; the pods see the gateway's identity.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use sample_app::wire::ProbeSpec;
use serde_json::{Value, json};

use crate::{Cluster, Namespace, Workload, mesh};

/// Namespace of the gateway.
const NAMESPACE: &str = "istio-system";
/// Name of its Deployment, Service and service account.
const NAME: &str = "istio-ingressgateway";
/// Label by which Gateways choose it, with its value.
const SELECTOR: (&str, &str) = ("istio", "ingressgateway");
/// Response header that tells which route an answer took.
pub const ROUTE_HEADER: &str = "x-route";

/// A way through the gateway: a port of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// For hosts that the world knows.
    World,
    /// For the names of Services, as a cluster-local gateway has it.
    Cluster,
}

// === impl Door ===

impl Door {
    /// The gateway's port.
    fn port(self) -> u16 {
        match self {
            Self::World => 8080,
            Self::Cluster => 8081,
        }
    }

    /// Name of the Gateway that opens it.
    fn gateway(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Cluster => "cluster-local",
        }
    }

    /// URL of `path` at the gateway.
    #[must_use]
    pub fn url(self, path: &str) -> String {
        format!(
            "http://{NAME}.{NAMESPACE}.svc.cluster.local:{}{path}",
            self.port()
        )
    }

    /// The same by the gateway's address, for who is on a node and not in a pod.
    ///
    /// # Errors
    /// Where the cluster has no such gateway.
    pub async fn url_by_address(self, cluster: &Cluster, path: &str) -> anyhow::Result<String> {
        let service = format!("/api/v1/namespaces/{NAMESPACE}/services/{NAME}");
        let service = cluster.get(&service).await?;
        let address = service["spec"]["clusterIP"].as_str();
        let address = address.context("the gateway has no address")?;
        Ok(format!("http://{address}:{}{path}", self.port()))
    }

    /// A request for `path` of `host`.
    #[must_use]
    pub fn request(self, host: &str, path: &str) -> ProbeSpec {
        ProbeSpec {
            url: self.url(path),
            headers: host_header(host),
            ..ProbeSpec::default()
        }
    }

    /// Lets `host` in by this door, and routes it by `http`, the routes of a VirtualService.
    ///
    /// # Errors
    /// Where the cluster has no such gateway, or the API server refuses.
    pub async fn open(self, namespace: &Namespace, host: &str, http: &Value) -> anyhow::Result<()> {
        ensure_gateway(&namespace.cluster).await?;
        let (label, value) = SELECTOR;
        let gateway = json!({
            "selector": { label: value },
            "servers": [{
                "port": { "number": self.port(), "name": "http", "protocol": "HTTP" },
                "hosts": [host],
            }],
        });
        create(namespace, ("Gateway", self.gateway()), &gateway).await?;
        let routes = json!({ "hosts": [host], "gateways": [self.gateway()], "http": http });
        create(namespace, ("VirtualService", self.gateway()), &routes).await
    }
}

/// The header that names `host`, in the place of the one that the URL has.
#[must_use]
pub fn host_header(host: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("host".to_owned(), host.to_owned())])
}

/// Who the gateway is for the mesh, without a scheme.
#[must_use]
pub fn gateway_principal() -> String {
    format!("cluster.local/ns/{NAMESPACE}/sa/{NAME}")
}

/// A way to `workload` that says in its answers that it is the one called `name`.
#[must_use]
pub fn route(name: &str, workload: &Workload) -> Value {
    json!({
        "name": name,
        "headers": { "response": { "set": { ROUTE_HEADER: name } } },
        "route": [{ "destination": { "host": workload.host() } }],
    })
}

/// `route` for paths that begin with `prefix` alone.
#[must_use]
pub fn below(prefix: &str, mut route: Value) -> Value {
    route["match"] = json!([{ "uri": { "prefix": prefix } }]);
    route
}

/// Routes calls from within the mesh to `workload`'s Service by `http`.
///
/// # Errors
/// Where the API server refuses.
pub async fn within_mesh(
    namespace: &Namespace,
    workload: &Workload,
    http: &Value,
) -> anyhow::Result<()> {
    let routes = json!({ "hosts": [workload.host()], "http": http });
    create(namespace, ("VirtualService", &workload.name), &routes).await
}

/// Names parts of `workload`'s endpoints by the label `version` that they have.
///
/// # Errors
/// Where the API server refuses.
pub async fn subsets(
    namespace: &Namespace,
    workload: &Workload,
    versions: &[&str],
) -> anyhow::Result<()> {
    let subset = |version: &&str| json!({ "name": version, "labels": { "version": version } });
    let subsets: Vec<Value> = versions.iter().map(subset).collect();
    let rule = json!({ "host": workload.host(), "subsets": subsets });
    create(namespace, ("DestinationRule", &workload.name), &rule).await
}

/// Gives callers' connections to `workload` so long to be made, those that it holds in its sleep too.
///
/// # Errors
/// Where the API server refuses.
pub async fn connect_timeout(
    namespace: &Namespace,
    workload: &Workload,
    limit: Duration,
) -> anyhow::Result<()> {
    let limit = format!("{}s", limit.as_secs());
    let pool = json!({ "tcp": { "connectTimeout": limit } });
    let rule = json!({ "host": workload.host(), "trafficPolicy": { "connectionPool": pool } });
    create(namespace, ("DestinationRule", &workload.name), &rule).await
}

async fn create(
    namespace: &Namespace,
    (kind, name): (&str, &str),
    spec: &Value,
) -> anyhow::Result<()> {
    let (cluster, object) = (&namespace.cluster, (namespace.name.as_str(), kind, name));
    mesh::create(cluster, "networking.istio.io", object, spec).await
}

async fn ensure_gateway(cluster: &Cluster) -> anyhow::Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}");
    let there = cluster.get_if_there(&path).await?;
    there.map(drop).with_context(|| {
        format!(
            "the cluster has no gateway {NAME} in {NAMESPACE}: scripts/cluster.sh mesh installs one"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_through_a_door_names_the_host_that_is_meant() {
        let spec = Door::Cluster.request("shop.example.org", "/one");
        assert_eq!(spec.headers["host"], "shop.example.org");
        assert!(spec.url.ends_with(":8081/one"), "{}", spec.url);
    }

    #[test]
    fn a_route_below_a_path_keeps_the_rest() {
        let route = below("/one", json!({ "route": [] }));
        assert_eq!(route["match"][0]["uri"]["prefix"], "/one");
        assert_eq!(route["route"], json!([]));
    }
}
