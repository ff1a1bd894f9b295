//! NetworkPolicies: who may call the pods.

use std::{collections::BTreeMap, ops::RangeInclusive};

use k8s_openapi::{
    api::networking::v1::{
        self as api, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use crate::cache::Keys;

type Labels = BTreeMap<String, String>;

/// A NetworkPolicy, as much of it as is about what comes in by TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The pods into which it lets only some traffic; `None`: it is about outgoing traffic only.
    pub pods: Option<Selector>,
    /// What it lets in.
    pub rules: Vec<Rule>,
}

/// Some traffic that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// From whom; empty: from everybody.
    from: Vec<Peer>,
    /// On which ports; `None`: on all.
    ports: Option<Vec<Ports>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Peer {
    /// Of other networks, as they are written: what pods' addresses mean to such a rule differs from
    /// one enforcer to the next.
    Addresses(String),
    /// Of the policy's own namespace where none are named.
    Pods {
        namespaces: Option<Selector>,
        pods: Selector,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ports {
    Named(String),
    Numbers(RangeInclusive<u16>),
}

/// A pod that would come in.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Labels of that.
    pub namespace_labels: &'a Labels,
    /// Its own labels.
    pub labels: &'a Labels,
}

// === impl NetworkPolicy ===

impl NetworkPolicy {
    pub(super) const KEYS: Keys<Self> = Keys {
        place: |policy| (policy.namespace.clone(), policy.name.clone()),
        group: |_| None,
        part: |policy| &policy.namespace,
        alike: |a, b| a == b,
    };

    /// Whether pods with these labels get only what policies let in.
    #[must_use]
    pub fn isolates(&self, labels: &Labels) -> bool {
        self.pods.as_ref().is_some_and(|pods| pods.matches(labels))
    }
}

impl From<api::NetworkPolicy> for NetworkPolicy {
    fn from(policy: api::NetworkPolicy) -> Self {
        let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
        let spec = policy.spec.unwrap_or_default();
        // Without types it is about incoming traffic, whatever else it is about.
        let types = spec.policy_types.unwrap_or_default();
        let is_ingress = types.is_empty() || types.iter().any(|kind| kind == "Ingress");
        let pods = is_ingress.then(|| selector(spec.pod_selector));
        let rules = spec.ingress.unwrap_or_default();
        Self {
            namespace,
            name,
            pods: pods.flatten(),
            rules: rules.into_iter().map(Rule::from).collect(),
        }
    }
}

/// `None` for one that can't be read, which the API server doesn't take.
fn selector(selector: Option<LabelSelector>) -> Option<Selector> {
    selector.unwrap_or_default().try_into().ok()
}

// === impl Rule ===

impl Rule {
    /// Whether it is about the pods' port of this name and number.
    #[must_use]
    pub fn covers(&self, name: &str, number: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| {
            ports.iter().any(|port| match port {
                Ports::Named(named) => named == name,
                Ports::Numbers(numbers) => numbers.contains(&number),
            })
        })
    }

    /// Whether it lets everybody in.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.from.is_empty()
    }

    /// Whether everybody whom `other` lets in is let in here.
    #[must_use]
    pub fn admits_all_of(&self, other: &Self) -> bool {
        let is_named = |peer: &Peer| self.from.contains(peer);
        self.is_for_all() || (!other.is_for_all() && other.from.iter().all(is_named))
    }

    /// Whether it lets `source` in, where the policy is in `namespace`.
    #[must_use]
    pub fn admits(&self, namespace: &str, source: &Source<'_>) -> bool {
        let is_meant = |peer: &Peer| match peer {
            Peer::Addresses(_) => false,
            Peer::Pods { namespaces, pods } => {
                let is_there = match namespaces {
                    Some(namespaces) => namespaces.matches(source.namespace_labels),
                    None => namespace == source.namespace,
                };
                is_there && pods.matches(source.labels)
            }
        };
        self.is_for_all() || self.from.iter().any(is_meant)
    }
}

impl From<NetworkPolicyIngressRule> for Rule {
    fn from(rule: NetworkPolicyIngressRule) -> Self {
        let ports = rule.ports.filter(|ports| !ports.is_empty());
        Self {
            from: rule
                .from
                .unwrap_or_default()
                .into_iter()
                .map(Peer::from)
                .collect(),
            ports: ports.map(|ports| ports.into_iter().filter_map(tcp_ports).collect()),
        }
    }
}

/// `None` for another protocol.
fn tcp_ports(port: NetworkPolicyPort) -> Option<Ports> {
    if port.protocol.is_some_and(|protocol| protocol != "TCP") {
        return None;
    }
    let number = |number: i32| u16::try_from(number).ok();
    match port.port {
        None => Some(Ports::Numbers(0..=u16::MAX)),
        Some(IntOrString::String(name)) => Some(Ports::Named(name)),
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(first);
            Some(Ports::Numbers(number(first)?..=number(last)?))
        }
    }
}

// === impl Peer ===

impl From<NetworkPolicyPeer> for Peer {
    fn from(peer: NetworkPolicyPeer) -> Self {
        if let Some(block) = peer.ip_block {
            let except = block.except.unwrap_or_default();
            return Self::Addresses(format!("{} but {}", block.cidr, except.join(",")));
        }
        let namespaces = peer
            .namespace_selector
            .map(|namespaces| selector(Some(namespaces)));
        match (namespaces, selector(peer.pod_selector)) {
            // Nobody, by what can't be read.
            (Some(None), _) | (_, None) => Self::Addresses(String::new()),
            (namespaces, Some(pods)) => Self::Pods {
                namespaces: namespaces.flatten(),
                pods,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(spec: &Value) -> NetworkPolicy {
        let object = json!({ "metadata": { "name": "p", "namespace": "shop" }, "spec": spec });
        NetworkPolicy::from(serde_json::from_value::<api::NetworkPolicy>(object).unwrap())
    }

    fn labels(value: &str) -> Labels {
        [("app".to_owned(), value.to_owned())].into()
    }

    #[test]
    fn a_policy_without_types_is_about_what_comes_in() {
        let of_shop = json!({ "matchLabels": { "app": "shop" } });
        let rows = [
            (json!({ "podSelector": {} }), true),
            (json!({ "podSelector": of_shop }), true),
            (
                json!({ "podSelector": { "matchLabels": { "app": "other" } } }),
                false,
            ),
            (
                json!({ "podSelector": {}, "policyTypes": ["Egress"] }),
                false,
            ),
            (
                json!({ "podSelector": {}, "policyTypes": ["Egress", "Ingress"] }),
                true,
            ),
        ];
        for (spec, expected) in rows {
            assert_eq!(policy(&spec).isolates(&labels("shop")), expected, "{spec}");
        }
    }

    #[test]
    fn ports_are_known_by_number_range_and_name() {
        let covers = |ports: Value, name: &str, number: u16| {
            let rule = json!({ "ports": ports });
            let policy = policy(&json!({ "podSelector": {}, "ingress": [rule] }));
            policy.rules[0].covers(name, number)
        };
        assert!(covers(json!([]), "lull-8080", 8012));
        assert!(covers(json!([{ "port": 8012 }]), "lull-8080", 8012));
        assert!(covers(
            json!([{ "port": 8000, "endPort": 9000 }]),
            "lull-8080",
            8012
        ));
        assert!(covers(json!([{ "port": "lull-8080" }]), "lull-8080", 8012));
        assert!(covers(json!([{ "protocol": "TCP" }]), "lull-8080", 8012));
        assert!(!covers(json!([{ "protocol": "UDP" }]), "lull-8080", 8012));
        assert!(!covers(json!([{ "port": 8080 }]), "lull-8080", 8012));
    }

    #[test]
    fn callers_are_known_by_namespace_and_labels() {
        let (ns_labels, own) = (labels("system"), labels("activator"));
        let source = Source {
            namespace: "lull-system",
            namespace_labels: &ns_labels,
            labels: &own,
        };
        let of = |app: &str| json!({ "matchLabels": { "app": app } });
        let rows = [
            (json!({ "namespaceSelector": {} }), true),
            (json!({ "namespaceSelector": of("system") }), true),
            (
                json!({ "namespaceSelector": of("system"), "podSelector": of("activator") }),
                true,
            ),
            (
                json!({ "namespaceSelector": of("system"), "podSelector": of("x") }),
                false,
            ),
            (json!({ "podSelector": {} }), false),
            (json!({ "ipBlock": { "cidr": "0.0.0.0/0" } }), false),
        ];
        for (peer, expected) in rows {
            let rule = json!({ "from": [peer] });
            let policy = policy(&json!({ "podSelector": {}, "ingress": [rule] }));
            let rule = &policy.rules[0];
            assert_eq!(rule.admits("shop", &source), expected, "{peer}");
            assert!(!rule.is_for_all());
        }
    }
}
