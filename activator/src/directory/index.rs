//! Which workloads and pods there are, and which of them belong together, without asking all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use lull_contract::names::ZONE_LABEL;

use super::Key;
use crate::{pod::Pod, workload::Workload};

#[derive(Debug, Default)]
pub(super) struct Index {
    /// By name. Each workload has one owner here: where it has others, somebody means it.
    namespaces: HashMap<String, Namespace>,
    /// Activators that are ready, and where they are.
    pub(super) activators: Activators,
}

/// Activators by name, and where they are.
pub(super) type Activators = BTreeMap<String, Place>;

/// Where a pod runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The node; empty: not known.
    pub(super) node: String,
    /// The node's zone; empty: not known.
    pub(super) zone: String,
}

/// What there is in a namespace, by name.
#[derive(Debug, Default)]
struct Namespace {
    workloads: BTreeMap<String, Arc<Workload>>,
    pods: HashMap<String, Arc<Pod>>,
    /// The first label of a selector to the names of the workloads that have such.
    selecting: HashMap<(String, String), BTreeSet<String>>,
}

/// Labels that a pod must have.
type Selector = BTreeMap<String, String>;

// === impl Place ===

impl Place {
    pub(super) fn of(pod: &Pod) -> Self {
        Self {
            node: pod.node.clone().unwrap_or_default(),
            zone: pod.labels.get(ZONE_LABEL).cloned().unwrap_or_default(),
        }
    }
}

// === impl Index ===

impl Index {
    pub(super) fn workload(&self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        let there = self.namespaces.get(namespace)?;
        there.workloads.get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Workload>> {
        let there = self.namespaces.values();
        there
            .flat_map(|there| there.workloads.values())
            .cloned()
            .collect()
    }

    /// The workloads of a namespace.
    pub(super) fn of(&self, namespace: &str) -> impl Iterator<Item = &Arc<Workload>> {
        let there = self.namespaces.get(namespace);
        there.into_iter().flat_map(|there| there.workloads.values())
    }

    /// Takes a workload in, or note of its `selector`, where it had another one `before`.
    pub(super) fn put_workload(
        &mut self,
        workload: &Arc<Workload>,
        before: Option<&Selector>,
        selector: &Selector,
    ) {
        let there = self
            .namespaces
            .entry(workload.namespace.clone())
            .or_default();
        there
            .workloads
            .insert(workload.name.clone(), Arc::clone(workload));
        if before == Some(selector) {
            return;
        }
        if let Some(before) = before {
            there.selects_no_more(&workload.name, before);
        }
        if let Some(label) = first_label(selector) {
            let selecting = there.selecting.entry(label).or_default();
            selecting.insert(workload.name.clone());
        }
    }

    pub(super) fn remove_workload(&mut self, workload: &Workload) {
        let Some(there) = self.namespaces.get_mut(&workload.namespace) else {
            return;
        };
        there.workloads.remove(&workload.name);
        there.selects_no_more(&workload.name, &workload.spec().selector);
        self.tidy(&workload.namespace);
    }

    pub(super) fn pods(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let there = self.namespaces.get(namespace);
        there.into_iter().flat_map(|there| there.pods.values())
    }

    /// The pods that a complete list does not name.
    pub(super) fn pods_beside(&self, keep: &BTreeSet<Key>) -> Vec<Key> {
        let pods = self.namespaces.values().flat_map(|it| it.pods.values());
        let keys = pods.map(|pod| (pod.namespace.clone(), pod.name.clone()));
        keys.filter(|key| !keep.contains(key)).collect()
    }

    /// Takes a pod in; the workloads to which it may belong now, or did before.
    pub(super) fn put_pod(&mut self, pod: &Arc<Pod>) -> Vec<Arc<Workload>> {
        let there = self.namespaces.entry(pod.namespace.clone()).or_default();
        let before = there.pods.insert(pod.name.clone(), Arc::clone(pod));
        let mut concerned = there.may_select(pod);
        if let Some(before) = before.filter(|before| before.labels != pod.labels) {
            concerned.extend(there.may_select(&before));
        }
        concerned
    }

    /// Forgets a pod; the workloads to which it may have belonged.
    pub(super) fn remove_pod(&mut self, namespace: &str, name: &str) -> Vec<Arc<Workload>> {
        let Some(there) = self.namespaces.get_mut(namespace) else {
            return Vec::new();
        };
        let gone = there.pods.remove(name);
        let concerned = gone.map_or_else(Vec::new, |pod| there.may_select(&pod));
        self.tidy(namespace);
        concerned
    }

    fn tidy(&mut self, namespace: &str) {
        let is_empty = |there: &Namespace| there.workloads.is_empty() && there.pods.is_empty();
        if self.namespaces.get(namespace).is_some_and(is_empty) {
            self.namespaces.remove(namespace);
        }
    }
}

// === impl Namespace ===

impl Namespace {
    /// The workloads of whose selectors the pod has the first label.
    fn may_select(&self, pod: &Pod) -> Vec<Arc<Workload>> {
        let labels = pod.labels.iter();
        let selecting = labels.filter_map(|(key, value)| {
            let label = (key.clone(), value.clone());
            self.selecting.get(&label)
        });
        let workloads = selecting
            .flatten()
            .filter_map(|name| self.workloads.get(name));
        workloads.cloned().collect()
    }

    fn selects_no_more(&mut self, name: &str, selector: &Selector) {
        let Some(label) = first_label(selector) else {
            return;
        };
        let Some(selecting) = self.selecting.get_mut(&label) else {
            return;
        };
        selecting.remove(name);
        if selecting.is_empty() {
            self.selecting.remove(&label);
        }
    }
}

/// `None` where a selector selects nothing.
fn first_label(selector: &Selector) -> Option<(String, String)> {
    let (key, value) = selector.first_key_value()?;
    Some((key.clone(), value.clone()))
}
