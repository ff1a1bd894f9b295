//! When each step of a cold start was seen, by watching the Deployment and its pods.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    Workload,
    app::{APP_LABEL, CONTAINER},
    eventually,
};

/// Longest wait for a watch's first list.
const START: Duration = Duration::from_secs(15);
/// Istio's container.
const PROXY: &str = "istio-proxy";

/// When each step was seen first, microseconds since 1970 on this machine's clock.
///
/// "Seen" is when the watch event arrived, a few milliseconds after it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeline {
    /// `spec.replicas` became more than 0.
    pub patched_us: Option<u64>,
    /// A new pod was there.
    pub created_us: Option<u64>,
    /// It had a node.
    pub scheduled_us: Option<u64>,
    /// Istio's proxy had started, where the pod has one that starts before the app.
    pub proxied_us: Option<u64>,
    /// Its address was there.
    pub addressed_us: Option<u64>,
    /// The app's container ran.
    pub running_us: Option<u64>,
    /// Kubelet called the pod ready.
    pub ready_us: Option<u64>,
}

/// Watches one workload from the moment it sleeps.
#[derive(Debug)]
pub struct Observer {
    seen: Arc<Mutex<Timeline>>,
    /// Stops watching when dropped.
    _tasks: JoinSet<()>,
}

// === impl Observer ===

impl Observer {
    /// Starts watching; pods that are there already don't count.
    ///
    /// # Errors
    /// Where the watches don't begin.
    pub async fn start(workload: &Workload) -> anyhow::Result<Self> {
        let known: BTreeSet<String> = workload
            .pods()
            .await?
            .into_iter()
            .filter_map(|pod| pod.metadata.uid)
            .collect();
        let seen = Arc::new(Mutex::new(Timeline::default()));
        let mut tasks = JoinSet::new();
        let client = &workload.cluster.client;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &workload.namespace);
        let one = watcher::Config::default().fields(&format!("metadata.name={}", workload.name));
        let timeline = Arc::clone(&seen);
        let first = follow(
            &mut tasks,
            deployments,
            one,
            move |deployment: &Deployment, now| {
                let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                if replicas.is_some_and(|replicas| replicas > 0) {
                    timeline.lock().patched_us.get_or_insert(now);
                }
            },
        );
        let pods: Api<Pod> = Api::namespaced(client.clone(), &workload.namespace);
        let its = watcher::Config::default().labels(&format!("{APP_LABEL}={}", workload.name));
        let timeline = Arc::clone(&seen);
        let second = follow(&mut tasks, pods, its, move |pod: &Pod, now| {
            if !pod
                .metadata
                .uid
                .as_ref()
                .is_some_and(|uid| known.contains(uid))
            {
                timeline.lock().note(pod, now);
            }
        });
        let both = async { first.await.and(second.await) };
        begins(both).await?;
        Ok(Self {
            seen,
            _tasks: tasks,
        })
    }

    /// What has been seen so far.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        *self.seen.lock()
    }

    /// What was seen of a start that is over, once the watches have caught up with it.
    ///
    /// # Errors
    /// Where the app's container is not seen to run, at an address, within `longest`.
    pub async fn caught_up(&self, longest: Duration) -> anyhow::Result<Timeline> {
        eventually("the watches to catch up", longest, async || {
            let timeline = self.timeline();
            let seen = timeline.running_us.and(timeline.addressed_us);
            seen.with_context(|| format!("{timeline:?}"))?;
            Ok(timeline)
        })
        .await
    }
}

// === impl Timeline ===

impl Timeline {
    fn note(&mut self, pod: &Pod, now: u64) {
        self.created_us.get_or_insert(now);
        let Some(status) = &pod.status else { return };
        let is = |kind: &str| {
            let mut all = status.conditions.iter().flatten();
            all.any(|condition| condition.type_ == kind && condition.status == "True")
        };
        if is("PodScheduled") {
            self.scheduled_us.get_or_insert(now);
        }
        if is("Ready") {
            self.ready_us.get_or_insert(now);
        }
        if status.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
            self.addressed_us.get_or_insert(now);
        }
        let mut before = status.init_container_statuses.iter().flatten();
        let proxy = before.find(|container| container.name == PROXY);
        if proxy.is_some_and(|proxy| proxy.started == Some(true)) {
            self.proxied_us.get_or_insert(now);
        }
        let mut containers = status.container_statuses.iter().flatten();
        let app = containers.find(|container| container.name == CONTAINER);
        if app
            .and_then(|app| app.state.as_ref())
            .is_some_and(|state| state.running.is_some())
        {
            self.running_us.get_or_insert(now);
        }
    }
}

/// Waits for what [`follow`] returns, but not for ever.
///
/// # Errors
/// Where the watch doesn't begin.
pub(crate) async fn begins(
    begun: impl Future<Output = Result<(), oneshot::error::RecvError>>,
) -> anyhow::Result<()> {
    let begun = tokio::time::timeout(START, begun).await;
    begun.context("the watch didn't begin")??;
    Ok(())
}

/// Watches and notes; the receiver hears when the first list is through.
pub(crate) fn follow<K>(
    tasks: &mut JoinSet<()>,
    api: Api<K>,
    config: watcher::Config,
    mut note: impl FnMut(&K, u64) + Send + 'static,
) -> oneshot::Receiver<()>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let (begun_tx, begun_rx) = oneshot::channel();
    tasks.spawn(async move {
        let mut begun_tx = Some(begun_tx);
        let mut events = pin!(watcher(api, config));
        while let Some(event) = events.next().await {
            let now = sample_app::unix_us();
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => note(&object, now),
                Ok(Event::InitDone) => {
                    // Nobody listens any more once a start has failed.
                    begun_tx.take().map(|begun| begun.send(()));
                }
                Ok(Event::Init | Event::Delete(_)) => {}
                Err(error) => eprintln!("watch: {error}"),
            }
        }
    });
    begun_rx
}
