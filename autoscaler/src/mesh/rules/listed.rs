//! The same from lists, for who looks once and has no watch.

use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject};

use super::{
    Around, AuthorizationPolicy, DestinationRule, EVERYWHERE, Kind, PeerAuthentication, Sidecar,
    VirtualService,
};

/// A kind of the users' Istio objects that a plan is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// [`DestinationRule`].
    DestinationRule,
    /// [`VirtualService`].
    VirtualService,
    /// [`PeerAuthentication`].
    PeerAuthentication,
    /// [`AuthorizationPolicy`].
    AuthorizationPolicy,
    /// [`Sidecar`].
    Sidecar,
}

// === impl RuleKind ===

impl RuleKind {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::DestinationRule,
        Self::VirtualService,
        Self::PeerAuthentication,
        Self::AuthorizationPolicy,
        Self::Sidecar,
    ];

    /// What the API server is asked for.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        match self {
            Self::DestinationRule => DestinationRule::KIND.resource(),
            Self::VirtualService => VirtualService::KIND.resource(),
            Self::PeerAuthentication => PeerAuthentication::KIND.resource(),
            Self::AuthorizationPolicy => AuthorizationPolicy::KIND.resource(),
            Self::Sidecar => Sidecar::KIND.resource(),
        }
    }

    /// Whether objects of any namespace may be about a workload; else only those of its own and of
    /// the root namespace are.
    #[must_use]
    pub fn is_of_any_namespace(self) -> bool {
        matches!(self, Self::DestinationRule | Self::VirtualService)
    }
}

// === impl Around ===

impl Around {
    /// Those of the objects `listed` that may be about workloads of `namespace` and its Services;
    /// policies of the namespace `root` hold in all others.
    #[must_use]
    pub fn among(listed: &[(RuleKind, DynamicObject)], namespace: &str, root: &str) -> Self {
        let mut around = Self {
            root_namespace: root.to_owned(),
            ..Self::default()
        };
        let place = (namespace, root);
        for (kind, object) in listed {
            match kind {
                RuleKind::DestinationRule => {
                    let rule = DestinationRule::KIND.near(object, place);
                    around.destination_rules.extend(rule);
                }
                RuleKind::VirtualService => {
                    let service = VirtualService::KIND.near(object, place);
                    around.virtual_services.extend(service);
                }
                RuleKind::PeerAuthentication => {
                    let policy = PeerAuthentication::KIND.near(object, place);
                    around.peer_authentications.extend(policy);
                }
                RuleKind::AuthorizationPolicy => {
                    let policy = AuthorizationPolicy::KIND.near(object, place);
                    around.authorization_policies.extend(policy);
                }
                RuleKind::Sidecar => around.sidecars.extend(Sidecar::KIND.near(object, place)),
            }
        }
        around
    }
}

// === impl DestinationRule ===

impl DestinationRule {
    /// Names of those among `listed` that are in `namespace` and that Lull hasn't written, whatever they
    /// are about.
    #[must_use]
    pub fn of_others(listed: &[(RuleKind, DynamicObject)], namespace: &str) -> Vec<String> {
        let rules = listed
            .iter()
            .filter(|(kind, _)| *kind == RuleKind::DestinationRule)
            .map(|(_, object)| Self::from_object(object));
        rules
            .filter(|rule| rule.namespace == namespace && rule.ours.is_none())
            .map(|rule| rule.name)
            .collect()
    }
}

// === impl Kind ===

impl<K> Kind<K> {
    /// What is kept of `object`, where a watch would have found it for `namespace`.
    fn near(&self, object: &DynamicObject, (namespace, root): (&str, &str)) -> Option<Arc<K>> {
        let kept = (self.kept)(object);
        let (own, _) = (self.keys.place)(&kept);
        let is_near = if own.is_empty() {
            // It is found by what it is about, wherever it is itself.
            let about = (self.keys.group)(&kept);
            about.is_some_and(|about| about == namespace || about == EVERYWHERE)
        } else {
            own == namespace || own == root
        };
        is_near.then(|| Arc::new(kept))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mesh::rules::tests::object;

    fn named(namespace: &str, spec: &Value) -> DynamicObject {
        let metadata = json!({ "name": namespace, "namespace": namespace });
        object(&json!({ "metadata": metadata, "spec": spec }))
    }

    #[test]
    fn what_is_about_the_namespace_is_taken_from_lists_as_a_watch_takes_it() {
        let to = |host: &str| {
            let route = json!([{ "destination": { "host": host } }]);
            json!({ "http": [{ "route": route, "timeout": "2s" }] })
        };
        let shop = "shop.team.svc.cluster.local";
        let bank = "bank.other.svc.cluster.local";
        let mut listed = vec![
            (
                RuleKind::DestinationRule,
                named("edge", &json!({ "host": shop })),
            ),
            (
                RuleKind::DestinationRule,
                named("root", &json!({ "host": "*" })),
            ),
            (
                RuleKind::DestinationRule,
                named("team", &json!({ "host": bank })),
            ),
            (RuleKind::VirtualService, named("edge", &to(shop))),
            (RuleKind::VirtualService, named("team", &to(bank))),
        ];
        let policies = [
            RuleKind::PeerAuthentication,
            RuleKind::AuthorizationPolicy,
            RuleKind::Sidecar,
        ];
        for kind in policies {
            for namespace in ["team", "root", "edge"] {
                listed.push((kind, named(namespace, &json!({}))));
            }
        }
        let around = Around::among(&listed, "team", "root");
        let rules = around.destination_rules.iter();
        let rules: Vec<&str> = rules.map(|rule| rule.name.as_str()).collect();
        assert_eq!(rules, ["edge", "root"]);
        assert_eq!(around.virtual_services.len(), 1);
        assert_eq!(around.virtual_services[0].namespace, "edge");
        let counts = (
            around.peer_authentications.len(),
            around.authorization_policies.len(),
            around.sidecars.len(),
        );
        assert_eq!(counts, (2, 2, 2));
        assert_eq!(around.sidecars[1].namespace, "root");
        assert_eq!(around.root_namespace, "root");
    }

    #[test]
    fn a_name_is_taken_by_a_rule_of_its_namespace_that_is_not_lull_s() {
        let rule = |name: &str, namespace: &str, labels: &Value| {
            let metadata = json!({ "name": name, "namespace": namespace, "labels": labels });
            let rule = json!({ "metadata": metadata, "spec": { "host": "elsewhere.example.org" } });
            (RuleKind::DestinationRule, object(&rule))
        };
        let listed = [
            rule("shop-lull", "team", &json!({})),
            rule("bank-lull", "team", &json!({ "lull.dev/workload": "bank" })),
            rule("cart-lull", "edge", &json!({})),
            (RuleKind::Sidecar, named("team", &json!({}))),
        ];
        assert_eq!(DestinationRule::of_others(&listed, "team"), ["shop-lull"]);
    }

    #[test]
    fn every_kind_is_asked_for_by_the_name_that_the_watch_uses() {
        let plurals = RuleKind::ALL.map(|kind| kind.resource().plural);
        let expected = [
            "destinationrules",
            "virtualservices",
            "peerauthentications",
            "authorizationpolicies",
            "sidecars",
        ];
        assert_eq!(plurals, expected);
    }
}
