//! PodDisruptionBudgets: how many pods may be evicted.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::policy::v1::PodDisruptionBudget, apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use crate::cache::Keys;

/// A PodDisruptionBudget, as much of it as Lull reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The pods that it is for; `None`: for none.
    pods: Option<Selector>,
    allows: Allows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allows {
    AtLeastReady(Amount),
    AtMostAway(Amount),
    Everything,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    Pods(u32),
    Percent(u32),
}

// === impl Budget ===

impl Budget {
    pub(super) const KEYS: Keys<Self> = Keys {
        place: |budget| (budget.namespace.clone(), budget.name.clone()),
        group: |_| None,
        part: |budget| &budget.namespace,
        alike: |a, b| a == b,
    };

    /// Whether it is for pods with these labels.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.pods.as_ref().is_some_and(|pods| pods.matches(labels))
    }

    /// How many of so many ready pods may be evicted.
    #[must_use]
    pub fn evictable_of(&self, pods: u32) -> u32 {
        match self.allows {
            Allows::AtLeastReady(least) => pods.saturating_sub(least.of(pods)),
            Allows::AtMostAway(most) => most.of(pods).min(pods),
            Allows::Everything => pods,
        }
    }
}

impl From<PodDisruptionBudget> for Budget {
    fn from(budget: PodDisruptionBudget) -> Self {
        let (namespace, name) = (budget.namespace().unwrap_or_default(), budget.name_any());
        let spec = budget.spec.unwrap_or_default();
        let least = spec.min_available.as_ref().and_then(Amount::read);
        let most = spec.max_unavailable.as_ref().and_then(Amount::read);
        let allows = match (least, most) {
            (Some(least), _) => Allows::AtLeastReady(least),
            (None, Some(most)) => Allows::AtMostAway(most),
            (None, None) => Allows::Everything,
        };
        let pods = spec.selector.and_then(|selector| selector.try_into().ok());
        Self {
            namespace,
            name,
            pods,
            allows,
        }
    }
}

// === impl Amount ===

impl Amount {
    fn read(value: &IntOrString) -> Option<Self> {
        match value {
            IntOrString::Int(pods) => u32::try_from(*pods).ok().map(Self::Pods),
            IntOrString::String(text) => {
                let percent = text.strip_suffix('%')?.parse().ok()?;
                Some(Self::Percent(percent))
            }
        }
    }

    /// Rounded up, as Kubernetes does for both bounds.
    fn of(self, pods: u32) -> u32 {
        match self {
            Self::Pods(count) => count,
            Self::Percent(percent) => pods.saturating_mul(percent).div_ceil(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn budget(mut spec: Value) -> Budget {
        spec["selector"] = json!({});
        let object = json!({ "metadata": { "name": "b", "namespace": "shop" }, "spec": spec });
        Budget::from(serde_json::from_value::<PodDisruptionBudget>(object).unwrap())
    }

    #[test]
    fn what_may_be_evicted_is_counted_as_kubernetes_counts() {
        let rows = [
            (json!({ "minAvailable": 1 }), 1, 0),
            (json!({ "minAvailable": 1 }), 3, 2),
            (json!({ "minAvailable": "50%" }), 1, 0),
            (json!({ "minAvailable": "50%" }), 4, 2),
            (json!({ "minAvailable": "100%" }), 4, 0),
            (json!({ "minAvailable": 0 }), 1, 1),
            (json!({ "maxUnavailable": 0 }), 4, 0),
            (json!({ "maxUnavailable": 1 }), 1, 1),
            (json!({ "maxUnavailable": "1%" }), 4, 1),
            (json!({ "maxUnavailable": "0%" }), 4, 0),
            (json!({}), 2, 2),
        ];
        for (spec, pods, expected) in rows {
            assert_eq!(
                budget(spec.clone()).evictable_of(pods),
                expected,
                "{spec} of {pods}"
            );
        }
        assert!(budget(json!({})).selects(&BTreeMap::new()));
    }
}
