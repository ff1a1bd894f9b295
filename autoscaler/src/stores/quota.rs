//! ResourceQuotas: how much a namespace's pods may have together.

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use kube::ResourceExt;
use lull_contract::Quantity;
use lull_injection::resources::{Amounts, Resources};

use crate::{amounts::amount, cache::Keys};

/// Scopes that every pod with the sidecar is in: it has no deadline, and asks for something.
const SCOPES: [&str; 2] = ["NotTerminating", "NotBestEffort"];

/// A ResourceQuota, as much of its bounds as Lull reads. What is used of it at the moment is not kept:
/// it changes with every pod, and plans would with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Most of all pods together; nothing where it isn't certain that it is for a workload's pods.
    pub hard: Resources<Quantity>,
    /// Most pods.
    pub pods: Option<u64>,
}

// === impl Quota ===

impl Quota {
    pub(super) const KEYS: Keys<Self> = Keys {
        place: |quota| (quota.namespace.clone(), quota.name.clone()),
        group: |_| None,
        part: |quota| &quota.namespace,
        alike: |a, b| a == b,
    };
}

impl From<ResourceQuota> for Quota {
    fn from(quota: ResourceQuota) -> Self {
        let (namespace, name) = (quota.namespace().unwrap_or_default(), quota.name_any());
        let spec = quota.spec.filter(is_for_all_pods).unwrap_or_default();
        let hard = |key: &str| amount(spec.hard.as_ref(), key);
        let least = |a: &str, b: &str| hard(a).into_iter().chain(hard(b)).min();
        let pods = least("pods", "count/pods");
        Self {
            namespace,
            name,
            hard: Resources {
                requests: Amounts {
                    cpu: least("cpu", "requests.cpu"),
                    memory: least("memory", "requests.memory"),
                },
                limits: Amounts {
                    cpu: hard("limits.cpu"),
                    memory: hard("limits.memory"),
                },
            },
            pods: pods.map(|pods| pods.milli() / 1_000),
        }
    }
}

/// Whether every pod with the sidecar counts: one of a priority class, say, may or may not be meant.
fn is_for_all_pods(spec: &ResourceQuotaSpec) -> bool {
    let scopes = spec.scopes.iter().flatten();
    let selector = spec.scope_selector.as_ref();
    let selected = selector.and_then(|selector| selector.match_expressions.as_ref());
    let mut selected = selected.into_iter().flatten();
    let is_of_all = |scope: &str| SCOPES.contains(&scope);
    scopes.map(String::as_str).all(is_of_all)
        && selected.all(|part| part.operator == "Exists" && is_of_all(&part.scope_name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn quota(spec: &Value) -> Quota {
        let object = json!({ "metadata": { "name": "q", "namespace": "shop" }, "spec": spec });
        Quota::from(serde_json::from_value::<ResourceQuota>(object).unwrap())
    }

    #[test]
    fn of_two_bounds_of_one_thing_the_narrower_counts() {
        let read = quota(&json!({ "hard": {
            "cpu": "2", "requests.cpu": "1", "requests.memory": "1Gi", "limits.memory": "2Gi",
            "pods": "5", "count/pods": "4", "services": "3",
        } }));
        let (requests, limits) = (read.hard.requests, read.hard.limits);
        assert_eq!(requests.cpu, Quantity::read("1"));
        assert_eq!(requests.memory, Quantity::read("1Gi"));
        assert_eq!((limits.cpu, limits.memory), (None, Quantity::read("2Gi")));
        assert_eq!(read.pods, Some(4));
    }

    #[test]
    fn a_quota_counts_only_where_it_is_certain_that_pods_with_the_sidecar_are_in_its_scopes() {
        let selecting = |scope: &str, operator: &str| {
            let part = json!({ "scopeName": scope, "operator": operator, "values": ["high"] });
            json!({ "scopeSelector": { "matchExpressions": [part] } })
        };
        let rows = [
            (json!({}), true),
            (
                json!({ "scopes": ["NotBestEffort", "NotTerminating"] }),
                true,
            ),
            (
                json!({ "scopes": ["NotTerminating", "Terminating"] }),
                false,
            ),
            (json!({ "scopes": ["BestEffort"] }), false),
            (json!({ "scopes": ["CrossNamespacePodAffinity"] }), false),
            (selecting("NotBestEffort", "Exists"), true),
            (selecting("PriorityClass", "In"), false),
            (selecting("PriorityClass", "Exists"), false),
        ];
        for (mut spec, expected) in rows {
            spec["hard"] = json!({ "pods": "1" });
            assert_eq!(quota(&spec).pods.is_some(), expected, "{spec}");
        }
    }
}
