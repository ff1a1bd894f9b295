//! What many workloads do, each by one watch of the whole cluster.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use kube::{Api, Resource, core::DynamicObject, runtime::watcher};
use lull_contract::scaled_workload::{ScaledWorkload, State};
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    Cluster, Kind, Workload,
    timeline::{begins, follow},
};

/// Namespace and name.
type Key = (String, String);

/// Tells when workloads of one kind have got replicas.
#[derive(Debug)]
pub struct Wakes {
    waiting: Arc<Mutex<HashMap<Key, oneshot::Sender<Instant>>>>,
    _tasks: JoinSet<()>,
}

/// Knows which workloads are asleep, as Lull says.
#[derive(Debug)]
pub struct Sleepers {
    asleep: Arc<Mutex<HashSet<Key>>>,
    _tasks: JoinSet<()>,
}

fn key(workload: &Workload) -> Key {
    (workload.namespace.clone(), workload.name.clone())
}

fn key_of(object: &impl Resource) -> Key {
    let metadata = object.meta();
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    (part(&metadata.namespace), part(&metadata.name))
}

/// The workload that `scaled` is about: its own name has the kind in it.
fn key_of_target(scaled: &ScaledWorkload) -> Key {
    let (namespace, _) = key_of(scaled);
    (namespace, scaled.spec.target.name.clone())
}

// === impl Wakes ===

impl Wakes {
    /// Starts watching all workloads of `kind`.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(cluster: &Cluster, kind: Kind) -> anyhow::Result<Self> {
        let resource = kind.resource();
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let waiting: Arc<Mutex<HashMap<Key, oneshot::Sender<Instant>>>> = Arc::default();
        let noted = Arc::clone(&waiting);
        let mut tasks = JoinSet::new();
        let all = watcher::Config::default();
        let begun = follow(&mut tasks, api, all, move |object: &DynamicObject, _| {
            let replicas = object.data["spec"]["replicas"].as_i64();
            if replicas.is_some_and(|replicas| replicas > 0) {
                let waits = noted.lock().remove(&key_of(object));
                // Nobody listens where the wait was given up.
                waits.map(|waits| waits.send(Instant::now()));
            }
        });
        begins(begun).await?;
        Ok(Self {
            waiting,
            _tasks: tasks,
        })
    }

    /// Hears when the event comes that shows `workload` with replicas next.
    #[must_use]
    pub fn next(&self, workload: &Workload) -> oneshot::Receiver<Instant> {
        let (seen_tx, seen_rx) = oneshot::channel();
        self.waiting.lock().insert(key(workload), seen_tx);
        seen_rx
    }
}

// === impl Sleepers ===

impl Sleepers {
    /// Starts watching all ScaledWorkloads.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let api: Api<ScaledWorkload> = Api::all(cluster.client.clone());
        let asleep: Arc<Mutex<HashSet<Key>>> = Arc::default();
        let noted = Arc::clone(&asleep);
        let mut tasks = JoinSet::new();
        let all = watcher::Config::default();
        let begun = follow(&mut tasks, api, all, move |scaled: &ScaledWorkload, _| {
            let state = scaled.status.as_ref().map(|status| status.state);
            let mut asleep = noted.lock();
            if state == Some(State::Asleep) {
                asleep.insert(key_of_target(scaled));
            } else {
                asleep.remove(&key_of_target(scaled));
            }
        });
        begins(begun).await?;
        Ok(Self {
            asleep,
            _tasks: tasks,
        })
    }

    /// Whether `workload` is asleep.
    #[must_use]
    pub fn has(&self, workload: &Workload) -> bool {
        self.asleep.lock().contains(&key(workload))
    }
}
