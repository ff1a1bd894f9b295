//! Sidecars: which ports a pod's Envoy has listeners for, and which hosts callers' Envoys know.

use kube::core::DynamicObject;
use serde_json::Value;

use super::{Kind, Labels, items, labels, place_of, selects, texts};
use crate::{cache::Keys, mesh::Host, stores::Touched};

/// A Sidecar, as much of it as Lull reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Ports with a listener of its own; empty: as the Services say.
    pub ingress_ports: Vec<u16>,
    /// Hosts that are known, as `namespace/host`; `None`: all.
    egress_hosts: Option<Vec<String>>,
    selector: Option<Labels>,
}

// === impl Sidecar ===

impl Sidecar {
    pub(super) const KIND: Kind<Self> = Kind {
        group: "networking.istio.io",
        kind: "Sidecar",
        plural: "sidecars",
        keys: Keys {
            place: |sidecar| (sidecar.namespace.clone(), sidecar.name.clone()),
            group: |_| None,
            part: |sidecar| &sidecar.namespace,
            alike: |a, b| a == b,
        },
        touched: |sidecar| Touched::Namespace(sidecar.namespace.clone()),
        kept: Self::from_object,
    };

    /// What is kept of `object`.
    pub(crate) fn from_object(object: &DynamicObject) -> Self {
        let (namespace, name) = place_of(object);
        let spec = &object.data["spec"];
        let ingress = items(&spec["ingress"]).iter();
        let ports = ingress.filter_map(|listener| listener["port"]["number"].as_u64());
        let egress = items(&spec["egress"]);
        let hosts = egress.iter().flat_map(|listener| texts(&listener["hosts"]));
        Self {
            namespace,
            name,
            ingress_ports: ports.filter_map(|port| u16::try_from(port).ok()).collect(),
            egress_hosts: (!egress.is_empty()).then(|| hosts.collect()),
            selector: labels(&spec["workloadSelector"]["labels"]),
        }
    }

    /// Whether it is for every pod of its namespace that no other one is for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.selector.is_none()
    }

    /// Whether it is for pods with these labels.
    #[must_use]
    pub fn selects(&self, pods: &Labels) -> bool {
        selects(self.selector.as_ref(), pods)
    }

    /// Whether callers that it is for know the Service called `name` in `namespace`, where they are
    /// in that namespace too.
    #[must_use]
    pub fn knows(&self, namespace: &str, name: &str) -> bool {
        let is_known = |host: &String| {
            let (of, host) = host.split_once('/').unwrap_or(("*", host.as_str()));
            let is_there = matches!(of, "*" | ".") || of == namespace;
            is_there && Host::read(&Value::from(host), namespace).is_for(namespace, name)
        };
        self.egress_hosts
            .as_ref()
            .is_none_or(|hosts| hosts.iter().any(is_known))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mesh::rules::tests::object;

    fn sidecar(spec: &Value) -> Sidecar {
        let metadata = json!({ "name": "default", "namespace": "team" });
        Sidecar::from_object(&object(&json!({ "metadata": metadata, "spec": spec })))
    }

    #[test]
    fn hosts_are_known_by_namespace_and_name() {
        let rows = [
            (json!(["*/*"]), true),
            (json!(["./*"]), true),
            (json!(["team/shop.team.svc.cluster.local"]), true),
            (json!(["./bank.team.svc.cluster.local"]), false),
            (json!(["istio-system/*"]), false),
            (json!(["~/*"]), false),
        ];
        for (hosts, expected) in rows {
            let spec = json!({ "egress": [{ "hosts": hosts }] });
            assert_eq!(sidecar(&spec).knows("team", "shop"), expected, "{hosts}");
        }
        assert!(sidecar(&json!({})).knows("team", "shop"));
    }

    #[test]
    fn listeners_are_read_and_without_a_selector_it_is_the_default() {
        let spec = json!({
            "workloadSelector": { "labels": { "app": "shop" } },
            "ingress": [{ "port": { "number": 8080 }, "defaultEndpoint": "127.0.0.1:8080" }],
        });
        let own = sidecar(&spec);
        assert_eq!(own.ingress_ports, [8080]);
        assert!(!own.is_default() && sidecar(&json!({})).is_default());
    }
}
