//! Lull's own pods: who calls the workload's, and where callers go while it sleeps.

use std::{collections::BTreeSet, sync::Arc};

use super::Labels;
use crate::{mesh::locality, pod::Pod};

/// Where Lull's own pods are, as NetworkPolicies see them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Components {
    /// Their namespace.
    pub namespace: String,
    /// Its labels.
    pub namespace_labels: Labels,
    /// Labels of every activator.
    pub activators: Labels,
    /// Labels of each of the autoscaler's replicas.
    pub autoscalers: Labels,
    /// Localities of the activators, as far as there are any; empty text: not known.
    pub localities: BTreeSet<String>,
}

// === impl Components ===

impl Components {
    /// The same with what there is: the `namespace`'s labels, where they are known, and those that
    /// all of Lull's pods have, which are more than the pods are found by.
    #[must_use]
    pub fn as_seen(
        &self,
        namespace: Option<&Labels>,
        activators: &[Arc<Pod>],
        autoscalers: &[Arc<Pod>],
    ) -> Self {
        let known =
            |seen: Option<Labels>, configured: &Labels| seen.unwrap_or_else(|| configured.clone());
        Self {
            namespace: self.namespace.clone(),
            namespace_labels: namespace.unwrap_or(&self.namespace_labels).clone(),
            activators: known(common_labels(activators), &self.activators),
            autoscalers: known(common_labels(autoscalers), &self.autoscalers),
            localities: activators
                .iter()
                .map(|pod| locality(&pod.labels).unwrap_or_default())
                .collect(),
        }
    }
}

/// The labels that every one of `pods` has; `None` where there are no pods.
fn common_labels(pods: &[Arc<Pod>]) -> Option<Labels> {
    let (first, others) = pods.split_first()?;
    let mut common = first.labels.clone();
    common.retain(|key, value| {
        others
            .iter()
            .all(|pod| pod.labels.get(key) == Some(&*value))
    });
    Some(common)
}
