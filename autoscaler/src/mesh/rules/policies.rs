//! PeerAuthentications and AuthorizationPolicies: what they say by port and by address, both of
//! which are others where Lull stands in the way.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DynamicObject;
use serde_json::Value;

use super::{Kind, Labels, items, labels, place_of, selects, texts};
use crate::{cache::Keys, stores::Touched};

/// Parts of a rule's source that are about addresses.
const ADDRESS_FIELDS: [&str; 4] = [
    "ipBlocks",
    "notIpBlocks",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
];
/// Conditions that are about addresses.
const ADDRESS_KEYS: [&str; 2] = ["source.ip", "remote.ip"];
/// The condition that is about the port.
const PORT_KEY: &str = "destination.port";

/// A PeerAuthentication, as far as it tells the mode of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// When it was made.
    pub created: Option<Time>,
    /// Mode of all ports; `None`: what is said more widely.
    pub mode: Option<String>,
    /// Mode by container port; one that says nothing is not among them.
    pub modes: BTreeMap<u16, String>,
    selector: Option<Labels>,
}

/// An AuthorizationPolicy, as much of it as is about ports and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Each list of ports that a rule names together.
    pub ports: Vec<Vec<String>>,
    /// A rule is about callers' addresses.
    pub is_by_address: bool,
    selector: Option<Labels>,
    /// It is for gateways, not for pods with a sidecar.
    is_for_gateways: bool,
}

// === impl PeerAuthentication ===

impl PeerAuthentication {
    pub(super) const KIND: Kind<Self> = Kind {
        group: "security.istio.io",
        kind: "PeerAuthentication",
        plural: "peerauthentications",
        keys: Keys {
            place: |policy| (policy.namespace.clone(), policy.name.clone()),
            group: |_| None,
            part: |policy| &policy.namespace,
            alike: |a, b| a == b,
        },
        touched: |policy| Touched::Namespace(policy.namespace.clone()),
        kept: Self::from_object,
    };

    /// What is kept of `object`.
    pub(crate) fn from_object(object: &DynamicObject) -> Self {
        let (namespace, name) = place_of(object);
        let spec = &object.data["spec"];
        let by_port = spec["portLevelMtls"].as_object();
        let modes = by_port
            .into_iter()
            .flatten()
            .filter_map(|(port, mtls)| Some((port.parse().ok()?, mode(mtls)?)));
        Self {
            namespace,
            name,
            created: object.metadata.creation_timestamp.clone(),
            mode: mode(&spec["mtls"]),
            modes: modes.collect(),
            selector: labels(&spec["selector"]["matchLabels"]),
        }
    }

    /// Whether it selects pods; else it is for all of its namespace, or of the mesh.
    #[must_use]
    pub fn is_for_some(&self) -> bool {
        self.selector.is_some()
    }

    /// Whether it is for pods with these labels.
    #[must_use]
    pub fn selects(&self, pods: &Labels) -> bool {
        selects(self.selector.as_ref(), pods)
    }
}

/// The mode that `mtls` says, if any.
fn mode(mtls: &Value) -> Option<String> {
    let mode = mtls["mode"].as_str().filter(|mode| *mode != "UNSET")?;
    Some(mode.to_owned())
}

// === impl AuthorizationPolicy ===

impl AuthorizationPolicy {
    pub(super) const KIND: Kind<Self> = Kind {
        group: "security.istio.io",
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
        keys: Keys {
            place: |policy| (policy.namespace.clone(), policy.name.clone()),
            group: |_| None,
            part: |policy| &policy.namespace,
            alike: |a, b| a == b,
        },
        touched: |policy| Touched::Namespace(policy.namespace.clone()),
        kept: Self::from_object,
    };

    /// What is kept of `object`.
    pub(crate) fn from_object(object: &DynamicObject) -> Self {
        let (namespace, name) = place_of(object);
        let spec = &object.data["spec"];
        let rules = items(&spec["rules"]);
        Self {
            namespace,
            name,
            ports: rules.iter().flat_map(ports_of).collect(),
            is_by_address: rules.iter().any(is_by_address),
            selector: labels(&spec["selector"]["matchLabels"]),
            is_for_gateways: spec["targetRef"].is_object()
                || !items(&spec["targetRefs"]).is_empty(),
        }
    }

    /// Whether it is for pods with these labels.
    #[must_use]
    pub fn selects(&self, pods: &Labels) -> bool {
        !self.is_for_gateways && selects(self.selector.as_ref(), pods)
    }
}

/// Every list of ports in `rule`.
fn ports_of(rule: &Value) -> Vec<Vec<String>> {
    let operations = items(&rule["to"]).iter().map(|to| &to["operation"]);
    let by_operation =
        operations.flat_map(|operation| [&operation["ports"], &operation["notPorts"]]);
    let conditions = items(&rule["when"]).iter();
    let by_condition = conditions
        .filter(|condition| condition["key"] == PORT_KEY)
        .flat_map(|condition| [&condition["values"], &condition["notValues"]]);
    let lists = by_operation.chain(by_condition).map(texts);
    lists.filter(|list| !list.is_empty()).collect()
}

fn is_by_address(rule: &Value) -> bool {
    let mut sources = items(&rule["from"]).iter().map(|from| &from["source"]);
    let names_addresses = |source: &Value| {
        let mut fields = ADDRESS_FIELDS.iter();
        fields.any(|field| !items(&source[*field]).is_empty())
    };
    let mut conditions = items(&rule["when"]).iter();
    sources.any(names_addresses)
        || conditions.any(|condition| ADDRESS_KEYS.iter().any(|key| condition["key"] == *key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mesh::rules::tests::object;

    fn policy(spec: &Value) -> AuthorizationPolicy {
        let metadata = json!({ "name": "p", "namespace": "team" });
        AuthorizationPolicy::from_object(&object(&json!({ "metadata": metadata, "spec": spec })))
    }

    #[test]
    fn ports_are_found_in_operations_and_conditions() {
        let rule = json!({
            "to": [
                { "operation": { "ports": ["8080", "9000"] } },
                { "operation": { "notPorts": ["1"], "paths": ["/x"] } },
            ],
            "when": [
                { "key": "destination.port", "values": ["2"] },
                { "key": "source.namespace", "values": ["3"] },
            ],
        });
        let found = policy(&json!({ "rules": [rule] }));
        assert_eq!(found.ports, [vec!["8080", "9000"], vec!["1"], vec!["2"]]);
        assert!(!found.is_by_address);
    }

    #[test]
    fn addresses_are_found_in_sources_and_conditions() {
        let source = |source: Value| json!({ "from": [{ "source": source }] });
        let rows = [
            (source(json!({ "ipBlocks": ["10.0.0.0/8"] })), true),
            (source(json!({ "notRemoteIpBlocks": ["10.0.0.0/8"] })), true),
            (source(json!({ "principals": ["x"] })), false),
            (
                json!({ "when": [{ "key": "remote.ip", "values": ["x"] }] }),
                true,
            ),
            (json!({}), false),
        ];
        for (rule, expected) in rows {
            let found = policy(&json!({ "rules": [rule] }));
            assert_eq!(found.is_by_address, expected, "{rule}");
        }
    }

    #[test]
    fn a_policy_of_gateways_is_for_no_pods() {
        let pods = labels(&json!({ "app": "shop" })).unwrap();
        assert!(policy(&json!({})).selects(&pods));
        let gateway = json!({ "targetRefs": [{ "kind": "Gateway", "name": "g" }] });
        assert!(!policy(&gateway).selects(&pods));
        let others = json!({ "selector": { "matchLabels": { "app": "bank" } } });
        assert!(!policy(&others).selects(&pods));
    }

    #[test]
    fn modes_are_read_by_port_and_one_that_says_nothing_is_none() {
        let found = PeerAuthentication::from_object(&object(&json!({
            "metadata": { "name": "p", "namespace": "team" },
            "spec": { "mtls": { "mode": "UNSET" }, "portLevelMtls": {
                "8080": { "mode": "DISABLE" }, "9000": { "mode": "UNSET" }, "x": { "mode": "STRICT" },
            } },
        })));
        assert_eq!(found.modes, BTreeMap::from([(8080, "DISABLE".to_owned())]));
        assert_eq!(found.mode, None);
        assert!(!found.is_for_some());
    }
}
