//! When the containers of a workload's pods began and ended, as the kubelet says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, ResourceExt as _, runtime::watcher};
use lull_contract::names::{ISTIO_PROXY_CONTAINER, QUEUE_PROXY_CONTAINER};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    Workload,
    app::{APP_LABEL, CONTAINER},
    timeline::{begins, follow},
};

/// Keeps what was last seen of each of a workload's pods, also after it has gone.
#[derive(Debug)]
pub struct Lives {
    pods: Arc<Mutex<BTreeMap<String, Pod>>>,
    /// Stops watching when dropped.
    _tasks: JoinSet<()>,
}

/// The times of a pod's containers, all in seconds since 1970: the kubelet tells no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Istio's container.
    pub istio_proxy: Times,
    /// The app's.
    pub app: Times,
    /// Lull's.
    pub queue_proxy: Times,
    /// When the pod was asked to go, if it was.
    pub asked_to_go: Option<i64>,
}

/// The times of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// Its start.
    pub began: i64,
    /// Its end, where it has ended.
    pub ended: Option<i64>,
}

// === impl Lives ===

impl Lives {
    /// Starts watching.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(workload: &Workload) -> anyhow::Result<Self> {
        let client = workload.cluster.client.clone();
        let api: Api<Pod> = Api::namespaced(client, &workload.namespace);
        let its = watcher::Config::default().labels(&format!("{APP_LABEL}={}", workload.name));
        let pods: Arc<Mutex<BTreeMap<String, Pod>>> = Arc::default();
        let (kept, mut tasks) = (Arc::clone(&pods), JoinSet::new());
        let begun = follow(&mut tasks, api, its, move |pod: &Pod, _| {
            kept.lock().insert(pod.name_any(), pod.clone());
        });
        begins(begun).await?;
        Ok(Self {
            pods,
            _tasks: tasks,
        })
    }

    /// What is known of `pod`.
    ///
    /// # Errors
    /// Where a container of it has not begun, or has begun twice.
    pub fn of(&self, pod: &str) -> anyhow::Result<Life> {
        let known = self.pods.lock().get(pod).cloned();
        let known = known.with_context(|| format!("{pod} was never seen"))?;
        Life::try_from_pod(&known).with_context(|| pod.to_owned())
    }
}

// === impl Life ===

impl Life {
    fn try_from_pod(pod: &Pod) -> anyhow::Result<Self> {
        let times = |container| Times::try_from_pod(pod, container);
        let grace = pod.metadata.deletion_grace_period_seconds;
        let end = pod.metadata.deletion_timestamp.as_ref().map(second);
        Ok(Self {
            istio_proxy: times(ISTIO_PROXY_CONTAINER)?,
            app: times(CONTAINER)?,
            queue_proxy: times(QUEUE_PROXY_CONTAINER)?,
            asked_to_go: end.map(|end| end - grace.unwrap_or_default()),
        })
    }

    /// Fails unless Istio's container was the first and Lull's the last to begin.
    ///
    /// # Errors
    /// With when they began.
    pub fn began_in_order(&self) -> anyhow::Result<()> {
        let began = [&self.istio_proxy, &self.app, &self.queue_proxy].map(|times| times.began);
        ensure!(began.is_sorted(), "{self:?}");
        Ok(())
    }

    /// Fails unless Lull's container began after the app's, and Istio's was the last.
    ///
    /// # Errors
    /// With when they began.
    pub fn began_with_istio_last(&self) -> anyhow::Result<()> {
        let began = [&self.app, &self.queue_proxy, &self.istio_proxy].map(|times| times.began);
        ensure!(began.is_sorted(), "{self:?}");
        Ok(())
    }

    /// Fails unless the app's and Lull's stayed for `drain` after the pod was asked to go, and Istio's was
    /// the last to end.
    ///
    /// Which of the two ends first is open: both are told to when the drain is done, and nobody calls
    /// any more.
    ///
    /// # Errors
    /// With when they ended, also where one has not.
    pub fn ended_in_order(&self, drain: Duration) -> anyhow::Result<()> {
        let ends = [&self.istio_proxy, &self.app, &self.queue_proxy].map(|times| times.ended);
        let ([Some(istio_proxy), Some(app), Some(queue_proxy)], Some(asked)) =
            (ends, self.asked_to_go)
        else {
            bail!("not at its end: {self:?}");
        };
        let stayed = app.min(queue_proxy).saturating_sub(asked);
        let has_drained = u64::try_from(stayed).is_ok_and(|stayed| stayed >= drain.as_secs());
        ensure!(has_drained, "ended before {drain:?} were over: {self:?}");
        let is_last = istio_proxy >= app.max(queue_proxy);
        ensure!(is_last, "Istio's was not the last: {self:?}");
        Ok(())
    }
}

// === impl Times ===

impl Times {
    fn try_from_pod(pod: &Pod, container: &str) -> anyhow::Result<Self> {
        let status = pod.status.as_ref().context("it has no status")?;
        // One that begins before the others is among the first.
        let first = status.init_container_statuses.iter().flatten();
        let mut all = first.chain(status.container_statuses.iter().flatten());
        let found = all.find(|status| status.name == container);
        let found = found.with_context(|| format!("it has no {container}"))?;
        Self::try_from_status(found).with_context(|| container.to_owned())
    }

    fn try_from_status(status: &ContainerStatus) -> anyhow::Result<Self> {
        let again = status.restart_count;
        ensure!(again == 0, "it has begun {again} more times");
        let state = status.state.as_ref().context("it has no state")?;
        let (began, ended) = match (&state.running, &state.terminated) {
            (_, Some(over)) => (&over.started_at, over.finished_at.as_ref()),
            (Some(running), None) => (&running.started_at, None),
            (None, None) => bail!("it has not begun"),
        };
        Ok(Self {
            began: began.as_ref().map(second).context("it has no start")?,
            ended: ended.map(second),
        })
    }
}

fn second(time: &Time) -> i64 {
    time.0.as_second()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: u32) -> String {
        format!("2026-11-26T15:00:{second:02}Z")
    }

    fn status(name: &str, restarts: u32, state: &Value) -> Value {
        json!({
            "name": name, "image": "x", "imageID": "x", "ready": false,
            "restartCount": restarts, "state": state,
        })
    }

    fn over(name: &str, [began, ended]: [u32; 2]) -> Value {
        let times = json!({ "exitCode": 0, "startedAt": at(began), "finishedAt": at(ended) });
        status(name, 0, &json!({ "terminated": times }))
    }

    fn pod(istio_proxy: &Value, app: &Value, queue_proxy: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "deletionTimestamp": at(50), "deletionGracePeriodSeconds": 30 },
            "status": {
                "initContainerStatuses": [istio_proxy],
                "containerStatuses": [app, queue_proxy],
            },
        }))
        .unwrap()
    }

    fn life(istio_proxy: [u32; 2], app: [u32; 2], queue_proxy: [u32; 2]) -> Life {
        let istio_proxy = over(ISTIO_PROXY_CONTAINER, istio_proxy);
        let (app, queue_proxy) = (
            over(CONTAINER, app),
            over(QUEUE_PROXY_CONTAINER, queue_proxy),
        );
        Life::try_from_pod(&pod(&istio_proxy, &app, &queue_proxy)).unwrap()
    }

    #[test]
    fn the_order_of_containers_is_judged_by_their_times() {
        let drain = Duration::from_secs(10);
        // Asked to go at 20.
        let rows = [
            (life([1, 35], [3, 30], [3, 31]), true, true),
            (life([1, 31], [3, 31], [4, 30]), true, true),
            (life([3, 35], [1, 30], [3, 30]), false, true),
            (life([1, 35], [4, 30], [3, 30]), false, true),
            (life([1, 30], [3, 31], [3, 30]), true, false),
            (life([1, 35], [3, 29], [3, 31]), true, false),
            (life([1, 35], [3, 31], [3, 19]), true, false),
        ];
        for (life, begins, ends) in rows {
            assert_eq!(life.began_in_order().is_ok(), begins, "{life:?}");
            assert_eq!(life.ended_in_order(drain).is_ok(), ends, "{life:?}");
        }
        let classic =
            |istio_proxy| life([istio_proxy, 35], [1, 30], [2, 30]).began_with_istio_last();
        assert!(classic(3).is_ok() && classic(1).is_err());
    }

    #[test]
    fn a_container_that_runs_has_no_end_and_one_that_begins_again_has_no_life() {
        let running = json!({ "running": { "startedAt": at(3) } });
        let proxy = over(ISTIO_PROXY_CONTAINER, [1, 35]);
        let ours = over(QUEUE_PROXY_CONTAINER, [4, 31]);
        let runs = Life::try_from_pod(&pod(&proxy, &status(CONTAINER, 0, &running), &ours));
        let runs = runs.unwrap();
        assert_eq!(runs.app.ended, None);
        assert!(runs.began_in_order().is_ok() && runs.ended_in_order(Duration::ZERO).is_err());
        let again = pod(&proxy, &status(CONTAINER, 1, &running), &ours);
        assert!(Life::try_from_pod(&again).is_err());
        let waits = status(CONTAINER, 0, &json!({ "waiting": {} }));
        assert!(Life::try_from_pod(&pod(&proxy, &waits, &ours)).is_err());
    }
}
