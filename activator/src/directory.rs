//! The index of workloads and pods: changed by plain calls, asks nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lull_contract::{
    assignment::{self, Activator},
    report::HeldWorkload,
    scaled_workload::{Mode, ScaledWorkload, ScaledWorkloadStatus, WorkloadPort},
    settings::Settings,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    hub::Hub,
    pod::Pod,
    share::Share,
    workload::{Page, Spec, Workload},
};

mod index;

use index::{Activators, Index, Place};

/// Namespace and name.
type Key = (String, String);

/// What a ScaledWorkload tells an activator.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadEntry {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid: a deleted and recreated one is another.
    pub uid: String,
    /// Labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// App ports and where we listen for them; activator port 0 = any free one (tests).
    pub ports: Vec<WorkloadPort>,
    /// Settings.
    pub settings: Settings,
    /// Names of its public Services.
    pub services: Vec<String>,
    /// Its Services point at the pods, be it by way of Lull or not.
    pub serve: bool,
    /// Addresses of ready pods without a queue-proxy, where its template has lost it.
    pub plain: Vec<IpAddr>,
}

/// All workloads and pods. Clones share them.
#[derive(Debug, Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hub: Arc<Hub>,
    index: Mutex<Index>,
    /// Grows when the set of ports may have changed.
    changes: watch::Sender<u64>,
    reported: Mutex<Reported>,
}

/// How far reports have got.
#[derive(Debug, Default)]
struct Reported {
    sequence: u64,
    /// [`Inner::changes`] at the last report.
    changes: u64,
    /// The first report after a workload came or went.
    complete: u64,
}

/// What a report tells.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) sequence: u64,
    pub(crate) partial: bool,
    pub(crate) workloads: Vec<HeldWorkload>,
}

/// A port that should be open.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) workload: Arc<Workload>,
    pub(crate) port: WorkloadPort,
}

// === impl WorkloadEntry ===

impl WorkloadEntry {
    /// Takes what we need; `None` where an object has no name, namespace or uid.
    #[must_use]
    pub fn from_kubernetes(object: &ScaledWorkload) -> Option<Self> {
        let meta = &object.metadata;
        let status = object.status.as_ref();
        Some(Self {
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            selector: object.spec.pod_selector.clone(),
            ports: object.spec.ports.clone(),
            settings: object.spec.settings.clone(),
            services: status.map_or_else(Vec::new, |status| status.services.clone()),
            serve: status.is_some_and(|status| status.mode != Mode::Proxy),
            plain: status.map_or_else(Vec::new, plain_addresses),
        })
    }

    fn plain_pods(&self) -> Vec<Arc<Pod>> {
        let app_ports = || self.ports.iter().map(|port| port.app_port);
        let pod = |ip: &IpAddr| Arc::new(Pod::plain(&self.namespace, *ip, app_ports()));
        self.plain.iter().map(pod).collect()
    }
}

// === impl Directory ===

impl Directory {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            inner: Arc::new(Inner {
                hub,
                index: Mutex::default(),
                changes: watch::channel(0).0,
                reported: Mutex::default(),
            }),
        }
    }

    /// Takes note of a workload as it is now.
    pub fn apply_workload(&self, entry: WorkloadEntry) {
        let plain = entry.plain_pods();
        let spec = Spec {
            uid: entry.uid,
            selector: entry.selector,
            ports: entry.ports,
            settings: entry.settings,
            services: entry.services,
            serve: entry.serve,
        };
        let selector = spec.selector.clone();
        let mut index = self.inner.index.lock();
        let share = self.share(&spec.uid, &index.activators);
        // A recreated object is still whom our callers mean.
        let known = index.workload(&entry.namespace, &entry.name);
        let before = known.as_ref().map(|workload| workload.spec());
        let workload = if let (Some(workload), Some(before)) = (known, &before) {
            let is_as_before = before.uid == spec.uid
                && before.ports == spec.ports
                && before.selector == spec.selector
                && !workload.has_left();
            workload.set_spec(spec);
            if is_as_before {
                workload.keep_plain(&plain);
                return;
            }
            workload
        } else {
            let id = (entry.namespace.clone(), entry.name);
            Workload::new(id, spec, Arc::clone(&self.inner.hub))
        };
        workload.set_share(share);
        let before = before.as_ref().map(|before| &before.selector);
        index.put_workload(&workload, before, &selector);
        for pod in index.pods(&entry.namespace) {
            offer(&workload, pod);
        }
        workload.keep_plain(&plain);
        drop(index);
        self.changed();
    }

    /// The workload is gone; who has a connection or still comes is served for a while.
    pub fn remove_workload(&self, namespace: &str, name: &str) {
        if let Some(workload) = self.workload(namespace, name) {
            workload.leave();
            self.changed();
        }
    }

    /// Takes note of a pod as it is now.
    pub fn apply_pod(&self, pod: Pod) {
        let pod = Arc::new(pod);
        let mut index = self.inner.index.lock();
        for workload in index.put_pod(&pod) {
            offer(&workload, &pod);
        }
    }

    /// The pod is gone.
    pub fn remove_pod(&self, namespace: &str, name: &str) {
        let mut index = self.inner.index.lock();
        for workload in index.remove_pod(namespace, name) {
            workload.drop_pod(name);
        }
    }

    /// Takes note of an activator as it is now: a ready one is sent callers.
    pub fn apply_activator(&self, pod: &Pod) {
        self.change_activators(|ready| {
            match pod.ready && !pod.leaving {
                true => ready.insert(pod.name.clone(), Place::of(pod)),
                false => ready.remove(&pod.name),
            };
        });
    }

    /// The activator is gone.
    pub fn remove_activator(&self, name: &str) {
        self.change_activators(|ready| {
            ready.remove(name);
        });
    }

    /// Removes the activators that a complete list did not name.
    pub fn keep_activators(&self, keep: &BTreeSet<(String, String)>) {
        self.change_activators(|ready| {
            ready.retain(|name, _| keep.iter().any(|(_, kept)| kept == name));
        });
    }

    /// Divides the pods' slots anew among those that are ready after `change`.
    fn change_activators(&self, change: impl FnOnce(&mut Activators)) {
        let activators = {
            let mut index = self.inner.index.lock();
            let before = index.activators.clone();
            change(&mut index.activators);
            if index.activators == before {
                return;
            }
            index.activators.clone()
        };
        tracing::info!(?activators, "the pods' slots are divided anew");
        for workload in self.all() {
            workload.set_share(self.share(&workload.spec().uid, &activators));
        }
    }

    /// Our part of the slots of the workload with this `uid`: it has only a few of all activators.
    fn share(&self, uid: &str, activators: &Activators) -> Share {
        let activators = activators.iter();
        let activators = activators.map(|(name, place)| Activator {
            name,
            node: &place.node,
            zone: &place.zone,
        });
        let assigned = assignment::assigned(uid, activators);
        Share::among(&self.inner.hub.config.pod_name, assigned)
    }

    /// Removes the workloads that a complete list did not name.
    pub fn keep_workloads(&self, keep: &BTreeSet<(String, String)>) {
        for workload in self.all() {
            if !keep.contains(&(workload.namespace.clone(), workload.name.clone())) {
                self.remove_workload(&workload.namespace, &workload.name);
            }
        }
    }

    /// Removes the pods that a complete list did not name.
    pub fn keep_pods(&self, keep: &BTreeSet<(String, String)>) {
        let gone = self.inner.index.lock().pods_beside(keep);
        for (namespace, name) in gone {
            self.remove_pod(&namespace, &name);
        }
    }

    /// Where we listen for an app port of a workload, once it is open.
    #[must_use]
    pub fn listening(&self, namespace: &str, name: &str, app_port: u16) -> Option<SocketAddr> {
        self.workload(namespace, name)?.listening(app_port)
    }

    /// Forgets a workload that has left and whose ports are closed.
    pub(crate) fn forget(&self, workload: &Arc<Workload>) {
        let mut index = self.inner.index.lock();
        // It may have come back since the caller looked.
        if !workload.has_left() {
            return;
        }
        index.remove_workload(workload);
        drop(index);
        self.changed();
    }

    /// Every port that should be open; workloads that have left are not among them.
    pub(crate) fn wanted(&self) -> Vec<Wanted> {
        let mut all = Vec::new();
        for workload in self.all() {
            if workload.has_left() {
                continue;
            }
            for port in &workload.spec().ports {
                all.push(Wanted {
                    workload: Arc::clone(&workload),
                    port: port.clone(),
                });
            }
        }
        all
    }

    /// Workloads that have left but are not forgotten.
    pub(crate) fn left(&self) -> Vec<Arc<Workload>> {
        let mut all = self.all();
        all.retain(|workload| workload.has_left());
        all
    }

    /// Whether `service` is known to be another workload's and not `workload`'s. One that is new
    /// and not known yet may be anybody's.
    pub(crate) fn is_of_another(&self, service: &str, workload: &Workload) -> bool {
        let has = |workload: &Workload| workload.spec().services.iter().any(|own| own == service);
        if has(workload) {
            return false;
        }
        let index = self.inner.index.lock();
        index.of(&workload.namespace).any(|other| has(other))
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// What is to be told to a reader who has had the report number `since`.
    pub(crate) fn report(&self, since: Option<u64>) -> Gathered {
        // Held until all has been gathered: what changes later belongs to a later number.
        let mut reported = self.inner.reported.lock();
        reported.sequence += 1;
        let sequence = reported.sequence;
        let changes = *self.inner.changes.borrow();
        if std::mem::replace(&mut reported.changes, changes) != changes {
            reported.complete = sequence;
        }
        let since = since.filter(|since| *since >= reported.complete && *since < sequence);
        let all = self.all();
        let told = all
            .iter()
            .filter_map(|workload| workload.report(sequence, since));
        Gathered {
            sequence,
            partial: since.is_some(),
            workloads: told.collect(),
        }
    }

    pub(crate) fn pages(&self) -> Vec<Page> {
        self.all().iter().map(|workload| workload.page()).collect()
    }

    fn all(&self) -> Vec<Arc<Workload>> {
        self.inner.index.lock().all()
    }

    fn workload(&self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        self.inner.index.lock().workload(namespace, name)
    }

    fn changed(&self) {
        self.inner.changes.send_modify(|change| *change += 1);
    }
}

/// What can't be read is nobody's address.
fn plain_addresses(status: &ScaledWorkloadStatus) -> Vec<IpAddr> {
    let addresses = status.plain_pods.iter();
    addresses
        .filter_map(|address| address.parse().ok())
        .collect()
}

/// Gives `pod` to `workload` if it is one of its own, else makes sure that it is not.
fn offer(workload: &Arc<Workload>, pod: &Arc<Pod>) {
    if pod.is_selected_by(&workload.spec().selector) {
        workload.put_pod(pod);
    } else {
        workload.drop_pod(&pod.name);
    }
}

#[cfg(test)]
mod tests;
