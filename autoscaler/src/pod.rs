//! Pods of workloads and activators, as much of them as Lull reads.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as api;
use kube::ResourceExt;
use lull_contract::{
    names::{ISTIO_PROXY_CONTAINER, POD_LABEL, ZONE_LABEL},
    ports,
};
use lull_injection::Renumbered;

use crate::plan::Family;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// The workload that it says it belongs to: its [`POD_LABEL`].
    pub workload: Option<String>,
    /// Node that it runs on.
    pub node: Option<String>,
    /// Its address, by which it is reached.
    pub ip: Option<String>,
    /// Its addresses of other families.
    pub more_ips: Vec<String>,
    /// It takes traffic: ready, and not on its way out.
    pub is_ready: bool,
    /// Where its queue-proxy tells its load.
    pub report_port: u16,
    /// App ports that its queue-proxy serves, also those that it calls by an earlier number.
    pub app_ports: Vec<u16>,
    /// It is on its way out.
    pub is_leaving: bool,
    /// It has Istio's container.
    pub is_meshed: bool,
    /// Its labels, where it is one of Lull's own: nobody asks for those of the many others.
    pub labels: BTreeMap<String, String>,
}

impl From<api::Pod> for Pod {
    fn from(pod: api::Pod) -> Self {
        // One that has ended keeps its address in the API while others may have got it.
        let status = pod.status.as_ref().filter(|status| !has_ended(status));
        let ip = status.and_then(|status| status.pod_ip.clone());
        let ips = status.into_iter().flat_map(|s| s.pod_ips.iter().flatten());
        let more_ips = ips
            .map(|other| other.ip.clone())
            .filter(|other| ip.as_ref() != Some(other));
        Self {
            is_ready: is_ready(&pod),
            report_port: port_of(&pod, "lull-report", ports::REPORT),
            app_ports: app_ports(&pod),
            is_leaving: pod.metadata.deletion_timestamp.is_some(),
            is_meshed: has_container(&pod, ISTIO_PROXY_CONTAINER),
            workload: pod.labels().get(POD_LABEL).cloned(),
            labels: BTreeMap::new(),
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            more_ips: more_ips.collect(),
            node: pod.spec.and_then(|spec| spec.node_name),
            ip,
        }
    }
}

// === impl Pod ===

impl Pod {
    /// One of Lull's own, which keeps its labels.
    #[must_use]
    pub fn own(pod: api::Pod) -> Self {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        Self {
            labels,
            ..Self::from(pod)
        }
    }

    /// Zone of its node, where it is one of Lull's own and Kubernetes has written that on it.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE_LABEL).map(String::as_str)
    }

    /// Whether it takes traffic, or may in a moment, and does not serve one of `ports` by its new number:
    /// it is of an earlier template.
    #[must_use]
    pub fn is_behind(&self, ports: &[Renumbered]) -> bool {
        let is_known = |port: &Renumbered| self.app_ports.contains(&port.is);
        self.ip.is_some() && !self.is_leaving && !ports.iter().all(is_known)
    }

    /// Its address of this family, where it has one.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<&str> {
        let mut addresses = self.ip.iter().chain(&self.more_ips);
        let address = addresses.find(|address| family.has(address));
        address.map(String::as_str)
    }

    /// Whether `address` is one of the pod's.
    #[must_use]
    pub fn has_address(&self, address: &str) -> bool {
        self.ip.as_deref() == Some(address) || self.more_ips.iter().any(|ip| ip == address)
    }
}

/// Whether it runs no more, and its address may be another's.
pub(crate) fn has_ended(status: &api::PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
}

fn is_ready(pod: &api::Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
    pod.metadata.deletion_timestamp.is_none() && ready.next().is_some()
}

/// Whether there is such a container; a native sidecar is among the init containers.
fn has_container(pod: &api::Pod, name: &str) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    containers.any(|container| container.name == name)
}

fn container_ports(pod: &api::Pod) -> impl Iterator<Item = &api::ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.flat_map(|container| container.ports.iter().flatten())
}

/// The number behind the container port called `name`, else `default`.
fn port_of(pod: &api::Pod, name: &str, default: u16) -> u16 {
    container_ports(pod)
        .find(|port| port.name.as_deref() == Some(name))
        .and_then(|port| u16::try_from(port.container_port).ok())
        .unwrap_or(default)
}

fn app_ports(pod: &api::Pod) -> Vec<u16> {
    let names = container_ports(pod).filter_map(|port| port.name.as_deref());
    names.filter_map(ports::app_port_of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(object: Value) -> Pod {
        Pod::from(serde_json::from_value::<api::Pod>(object).unwrap())
    }

    #[test]
    fn a_pod_on_its_way_out_takes_no_traffic() {
        let status = json!({
            "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        });
        let there = pod(json!({ "metadata": { "name": "p" }, "status": status }));
        assert!(there.is_ready && there.ip.as_deref() == Some("10.0.0.1"));
        assert!(there.has_address("10.0.0.1") && there.has_address("fd00::1"));
        assert!(!there.has_address("10.0.0.2"));
        let addresses = Family::ALL.map(|family| there.address(family));
        assert_eq!(addresses, [Some("10.0.0.1"), Some("fd00::1")]);
        let metadata = json!({ "name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert!(!pod(json!({ "metadata": metadata, "status": status })).is_ready);
        assert!(!pod(json!({ "metadata": { "name": "p" } })).is_ready);
    }

    #[test]
    fn a_pod_that_has_ended_has_no_address_any_more() {
        let status =
            json!({ "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }], "phase": "Failed" });
        let evicted = pod(json!({ "metadata": { "name": "p" }, "status": status }));
        assert_eq!((evicted.ip, evicted.more_ips.len()), (None, 0));
    }

    #[test]
    fn a_pod_that_lacks_the_new_number_is_behind_while_it_may_take_traffic() {
        let (was, is) = (8080, 8081);
        let renumbered = [Renumbered { was, is }];
        let served = |first: &str, second: &str| {
            let port = |name: &str| json!({ "name": name, "containerPort": 8012 });
            let ports = [port(first), port(second)];
            pod(json!({
                "metadata": { "name": "p" },
                "spec": { "containers": [{ "name": "lull-queue-proxy", "ports": ports }] },
                "status": { "podIP": "10.0.0.1" },
            }))
        };
        let mut older = served("lull-8080", "lull-admin");
        assert_eq!(older.app_ports, [8080]);
        assert!(older.is_behind(&renumbered) && !older.is_behind(&[]));
        assert!(!served("lull-8081", "lull-8080").is_behind(&renumbered));
        older.is_leaving = true;
        assert!(!older.is_behind(&renumbered));
        (older.is_leaving, older.ip) = (false, None);
        assert!(!older.is_behind(&renumbered));
    }

    #[test]
    fn the_reports_port_is_found_by_its_name() {
        let ports = json!([{ "name": "lull-report", "containerPort": 9190 }]);
        let spec = json!({ "containers": [{ "name": "c", "ports": ports }] });
        let named = pod(json!({ "metadata": { "name": "p" }, "spec": spec }));
        assert_eq!(named.report_port, 9190);
        assert_eq!(
            pod(json!({ "metadata": { "name": "p" } })).report_port,
            ports::REPORT
        );
    }
}
