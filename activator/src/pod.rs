//! What we need to know of a pod.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1 as k8s;
use lull_contract::{names, ports};

/// Name of the container port of the queue-proxy's admin pages, where it isn't [`ports::ADMIN`].
const ADMIN_PORT_NAME: &str = "lull-admin";

/// A pod of an enrolled workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name, unique within the namespace.
    pub name: String,
    /// Uid: a StatefulSet's pod comes again under the same name.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Address, once it has one.
    pub ip: Option<IpAddr>,
    /// Being deleted, or ended.
    pub leaving: bool,
    /// Kubernetes says that it is ready.
    pub ready: bool,
    /// Where it runs, once that is decided.
    pub node: Option<String>,
    /// The queue-proxy's container runs.
    pub running: bool,
    /// Where the queue-proxy serves each app port: app port to container port.
    pub ports: BTreeMap<u16, u16>,
    /// Where the queue-proxy answers `/ready`; `None` = there is no queue-proxy, and it takes traffic.
    pub admin_port: Option<u16>,
}

// === impl Pod ===

impl Pod {
    /// Takes what we need; `None` where an object has no name, namespace or uid.
    #[must_use]
    pub fn from_kubernetes(pod: &k8s::Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let (ports, admin_port) = container_ports(pod);
        Some(Self {
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            labels: meta.labels.clone().unwrap_or_default(),
            ip: status
                .and_then(|status| status.pod_ip.as_deref())
                .and_then(|ip| ip.parse().ok()),
            leaving: meta.deletion_timestamp.is_some()
                || matches!(phase, Some("Failed" | "Succeeded")),
            ready: status
                .and_then(|status| status.conditions.as_ref())
                .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True")),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            running: status.is_some_and(runs_queue_proxy),
            ports,
            admin_port: Some(admin_port.unwrap_or(ports::ADMIN)),
        })
    }

    /// A ready pod without a queue-proxy, of which nothing but its address is known; it serves
    /// `app_ports` itself.
    #[must_use]
    pub(crate) fn plain(namespace: &str, ip: IpAddr, app_ports: impl Iterator<Item = u16>) -> Self {
        // No object has such a name.
        let name = format!("plain {ip}");
        Self {
            namespace: namespace.to_owned(),
            uid: name.clone(),
            name,
            labels: BTreeMap::new(),
            ip: Some(ip),
            leaving: false,
            ready: true,
            node: None,
            running: false,
            ports: app_ports.map(|port| (port, port)).collect(),
            admin_port: None,
        }
    }

    /// Whether it carries all labels of `selector`; an empty selector selects nothing, since one
    /// by mistake must not catch a whole namespace.
    #[must_use]
    pub fn is_selected_by(&self, selector: &BTreeMap<String, String>) -> bool {
        !selector.is_empty()
            && selector
                .iter()
                .all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

fn runs_queue_proxy(status: &k8s::PodStatus) -> bool {
    let mut containers = status.container_statuses.iter().flatten();
    containers.any(|container| {
        let state = container.state.as_ref();
        container.name == names::QUEUE_PROXY_CONTAINER
            && state.is_some_and(|state| state.running.is_some())
    })
}

fn container_ports(pod: &k8s::Pod) -> (BTreeMap<u16, u16>, Option<u16>) {
    let mut traffic = BTreeMap::new();
    let mut admin = None;
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    for port in containers.flat_map(|container| container.ports.iter().flatten()) {
        let (Some(name), Ok(number)) = (port.name.as_deref(), u16::try_from(port.container_port))
        else {
            continue;
        };
        if name == ADMIN_PORT_NAME {
            admin = Some(number);
        } else if let Some(app_port) = ports::app_port_of(name) {
            traffic.insert(app_port, number);
        }
    }
    (traffic, admin)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        let object = json!({
            "metadata": {"name": "shop-1", "namespace": "default", "uid": "u", "labels": {"app": "shop"}},
            "spec": {"containers": [
                {"name": "app", "ports": [{"name": "http", "containerPort": 8080}]},
                {"name": "lull-queue-proxy", "ports": [
                    {"name": "lull-8080", "containerPort": 8012},
                    {"name": "lull-admin", "containerPort": 8030},
                ]},
            ]},
            "status": status,
        });
        Pod::from_kubernetes(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn ports_are_found_by_name() {
        let pod = pod(&json!({"podIP": "10.0.0.3", "phase": "Running"}));
        assert_eq!(pod.ports, BTreeMap::from([(8080, 8012)]));
        assert_eq!(pod.admin_port, Some(8030));
        assert_eq!(pod.ip, Some([10, 0, 0, 3].into()));
        assert!(!pod.leaving && !pod.ready);
    }

    #[test]
    fn an_ended_pod_is_leaving_and_a_ready_one_is_ready() {
        assert!(pod(&json!({"phase": "Failed"})).leaving);
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert!(pod(&ready).ready);
    }

    #[test]
    fn the_steps_to_a_running_queue_proxy_are_seen() {
        let runs = |name: &str| {
            let state = json!({"running": {"startedAt": "2026-11-23T10:00:00Z"}});
            let status = json!({"name": name, "state": state, "image": "", "imageID": "",
                "ready": false, "restartCount": 0});
            pod(&json!({"containerStatuses": [status]})).running
        };
        assert!(runs("lull-queue-proxy") && !runs("app"));
        assert_eq!(pod(&json!({})).node, None);
    }

    #[test]
    fn selectors_ask_for_all_labels_and_empty_ones_for_nothing() {
        let pod = pod(&json!({}));
        let with = |key: &str| BTreeMap::from([(key.to_owned(), "shop".to_owned())]);
        assert!(pod.is_selected_by(&with("app")));
        assert!(!pod.is_selected_by(&with("tier")));
        assert!(!pod.is_selected_by(&BTreeMap::new()));
    }
}
