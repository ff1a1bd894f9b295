//! What this activator knows: workloads, their pods, and which local port means which app port.
//!
//! Changed by plain calls from the watches (or from tests), read by every connection.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use lull_contract::AppProtocol;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    edge::Edge,
    metrics::Metrics,
    probe,
    workload::{PodView, View, Workload},
};

/// Labels of a pod.
type Labels = Vec<(String, String)>;

/// What all workloads share.
#[derive(Debug)]
pub struct Shared {
    start: Instant,
    /// Makes long polls return.
    pub edge: Edge,
    /// Prometheus.
    pub metrics: Metrics,
    /// Bound per workload.
    pub max_held_per_workload: usize,
    max_held_total: usize,
    held_total: AtomicUsize,
}

/// An app port of a workload, as a local port means it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The workload.
    pub workload: Arc<Workload>,
    /// The app's own port.
    pub app_port: u16,
    /// How its bytes are treated.
    pub protocol: AppProtocol,
}

/// A workload as its ScaledWorkload describes it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Settings, mode, pods' labels.
    pub view: View,
    /// Activator port, app port, protocol.
    pub ports: Vec<(u16, u16, AppProtocol)>,
}

/// Everything known.
#[derive(Debug)]
pub struct Directory {
    shared: Arc<Shared>,
    index: RwLock<Index>,
    /// Told when the wanted ports change.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Index {
    workloads: HashMap<(String, String), (Arc<Workload>, Vec<u16>)>,
    targets: HashMap<u16, Target>,
    /// Pods by namespace and name, kept so that a workload that appears later finds them.
    pods: HashMap<(String, String), (Labels, PodView)>,
}

// === impl Shared ===

impl Shared {
    /// Nothing held yet.
    #[must_use]
    pub fn new(metrics: Metrics, (per_workload, total): (usize, usize)) -> Self {
        Self {
            start: Instant::now(),
            edge: Edge::new(),
            metrics,
            max_held_per_workload: per_workload,
            max_held_total: total,
            held_total: AtomicUsize::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(per_workload: usize) -> Self {
        Self::new(Metrics::default(), (per_workload, 1000))
    }

    /// Microseconds since the process started.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// One more is held, unless that is too many over all workloads.
    pub fn hold(&self) -> bool {
        let held = self.held_total.fetch_add(1, Ordering::AcqRel);
        if held >= self.max_held_total {
            self.held_total.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        self.metrics
            .held_now
            .set(i64::try_from(held + 1).unwrap_or(i64::MAX));
        true
    }

    /// One less is held.
    pub fn release(&self) {
        let held = self
            .held_total
            .fetch_sub(1, Ordering::AcqRel)
            .saturating_sub(1);
        self.metrics
            .held_now
            .set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}

// === impl Directory ===

impl Directory {
    /// Nothing known yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            index: RwLock::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// What all workloads share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Wakes when the wanted ports change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Ports that should be listened on.
    #[must_use]
    pub fn wanted_ports(&self) -> Vec<u16> {
        self.index.read().targets.keys().copied().collect()
    }

    /// What a connection to `port` is for.
    #[must_use]
    pub fn target(&self, port: u16) -> Option<Target> {
        self.index.read().targets.get(&port).cloned()
    }

    /// Every workload with its wanted ports, by namespace and name.
    #[must_use]
    pub fn workloads(&self) -> Vec<(Arc<Workload>, Vec<u16>)> {
        let mut all: Vec<_> = self.index.read().workloads.values().cloned().collect();
        all.sort_by(|(a, _), (b, _)| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        all
    }

    /// Takes a new or changed ScaledWorkload over.
    pub fn apply_workload(&self, described: Described) {
        let mut index = self.index.write();
        let key = (described.namespace.clone(), described.name.clone());
        let workload = match index.workloads.get(&key) {
            Some((workload, _)) if workload.uid == described.uid => {
                workload.set_view(described.view);
                Arc::clone(workload)
            }
            _ => {
                let id = (&*described.namespace, &*described.name, &*described.uid);
                let workload =
                    Arc::new(Workload::new(id, described.view, Arc::clone(&self.shared)));
                for ((namespace, _), (labels, pod)) in &index.pods {
                    if *namespace == described.namespace && selects(&workload, labels) {
                        self.adopt(&workload, pod.clone());
                    }
                }
                workload
            }
        };
        index.targets.retain(|_, target| {
            (&target.workload.namespace, &target.workload.name) != (&key.0, &key.1)
        });
        let mut ports = Vec::new();
        for (port, app_port, protocol) in described.ports {
            // A port that two claim stays with the one that had it: the autoscaler repairs it.
            if index.targets.contains_key(&port) {
                tracing::warn!(
                    port,
                    workload = described.name,
                    "port belongs to another workload"
                );
                continue;
            }
            let workload = Arc::clone(&workload);
            index.targets.insert(
                port,
                Target {
                    workload,
                    app_port,
                    protocol,
                },
            );
            ports.push(port);
        }
        index.workloads.insert(key, (workload, ports));
        drop(index);
        self.changed.send_replace(());
    }

    /// Forgets a ScaledWorkload that was deleted.
    pub fn remove_workload(&self, namespace: &str, name: &str) {
        let mut index = self.index.write();
        index
            .workloads
            .remove(&(namespace.to_owned(), name.to_owned()));
        index.targets.retain(|_, target| {
            (
                target.workload.namespace.as_str(),
                target.workload.name.as_str(),
            ) != (namespace, name)
        });
        drop(index);
        self.changed.send_replace(());
    }

    /// Forgets every workload and pod that is not in these lists: after a watch began anew.
    pub fn retain(
        &self,
        workloads: Option<&[(String, String)]>,
        pods: Option<&[(String, String)]>,
    ) {
        if let Some(keep) = workloads {
            let gone: Vec<_> = {
                let index = self.index.read();
                index
                    .workloads
                    .keys()
                    .filter(|key| !keep.contains(key))
                    .cloned()
                    .collect()
            };
            for (namespace, name) in gone {
                self.remove_workload(&namespace, &name);
            }
        }
        if let Some(keep) = pods {
            let gone: Vec<_> = {
                let index = self.index.read();
                index
                    .pods
                    .keys()
                    .filter(|key| !keep.contains(key))
                    .cloned()
                    .collect()
            };
            for (namespace, name) in gone {
                self.remove_pod(&namespace, &name);
            }
        }
    }

    /// Takes a pod over that can be sent to.
    pub fn apply_pod(&self, namespace: &str, labels: Vec<(String, String)>, pod: PodView) {
        let mut index = self.index.write();
        for ((ns, _), (workload, _)) in &index.workloads {
            if ns == namespace && selects(workload, &labels) {
                self.adopt(workload, pod.clone());
            }
        }
        index
            .pods
            .insert((namespace.to_owned(), pod.name.clone()), (labels, pod));
    }

    /// Forgets a pod that is gone or going.
    pub fn remove_pod(&self, namespace: &str, name: &str) {
        let mut index = self.index.write();
        index.pods.remove(&(namespace.to_owned(), name.to_owned()));
        for ((ns, _), (workload, _)) in &index.workloads {
            if ns == namespace {
                workload.remove_pod(name);
            }
        }
    }

    fn adopt(&self, workload: &Arc<Workload>, pod: PodView) {
        let name = pod.name.clone();
        if workload.set_pod(pod) {
            probe::ask(workload, &name, false);
        }
    }
}

fn selects(workload: &Workload, labels: &[(String, String)]) -> bool {
    let view = workload.view();
    !view.selector.is_empty() && view.selector.iter().all(|label| labels.contains(label))
}
