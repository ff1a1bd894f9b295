//! Autoscalers that end right after a write that the suite names (their `--crash-on-request`).
//!
//! A task arms every replica with the next write, sees from the pods' status which one was a
//! replica's last, and goes on to the one after. It replaces pods that the kubelet would only start
//! again after a while: it waits longer after each crash.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::{Api, ResourceExt as _, api::DeleteParams};
use lull_contract::ports;
use parking_lot::Mutex;
use sample_app::wire::{RunResult, RunSpec};
use tokio::task::JoinSet;

use crate::{Agent, Cluster, Workload, agent::Run, all_answered, cluster::call, eventually};

/// As [`COMPONENTS`](crate::cluster::COMPONENTS) has it.
const COMPONENT: &str = "autoscaler";
/// Between two looks at the replicas.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for replicas to be armed: one that has just begun takes a moment.
const ARMED: Duration = Duration::from_secs(30);
/// Longest time of one load; it is stopped before.
const LOAD: Duration = Duration::from_secs(600);
/// Longest wait for the replicas to be ready at the end.
const BACK: Duration = Duration::from_secs(120);
/// What a replica says last.
const LAST_WORDS: &str = "as a test has asked";

/// Crashes of one workload's autoscalers, until it is dropped.
#[derive(Debug)]
pub struct Crashes {
    state: Arc<Mutex<State>>,
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Writes that are to be the last of a replica, in order.
    wanted: VecDeque<&'static str>,
    /// Those that have been.
    done: Vec<&'static str>,
    /// Ends of replicas that nobody has asked for.
    odd: Vec<String>,
    /// Containers by id, and what each was armed with last.
    armed: BTreeMap<String, Option<&'static str>>,
    /// Containers whose end is known.
    ended: BTreeSet<String>,
}

// === impl Crashes ===

impl Crashes {
    /// Begins to look after the replicas; nothing is wanted yet.
    ///
    /// # Errors
    /// Where they don't take requests.
    pub async fn start(workload: &Workload) -> anyhow::Result<Self> {
        let cluster = workload.cluster.clone();
        for pod in cluster.ready_names(COMPONENT).await? {
            let taken = cluster.page(&pod, ports::ADMIN, "crash").await;
            taken.context(
                "Lull must be installed with autoscaler.extraEnv.AUTOSCALER_CRASH_ON_REQUEST=true",
            )?;
        }
        let mut known = State::default();
        // What has crashed before is no news.
        for (status, _) in containers(&cluster.component_pods(COMPONENT).await?) {
            known.ended.extend(end(&status).map(|(id, _)| id));
        }
        let state = Arc::new(Mutex::new(known));
        let (shared, key) = (
            Arc::clone(&state),
            format!("{}/{}", workload.namespace, workload.name),
        );
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                if let Err(error) = look(&cluster, &key, &shared).await {
                    eprintln!("looking after the autoscalers: {error:#}");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self { state, _task: task })
    }

    /// Asks for a crash after each of `writes`, in this order, and waits until the first is armed.
    ///
    /// A write is named as in the autoscaler's code: what it is for, or the state that a new status
    /// tells of.
    ///
    /// # Errors
    /// Where no replica can be armed.
    pub async fn after(&self, writes: &[&'static str]) -> anyhow::Result<()> {
        self.state.lock().wanted.extend(writes);
        eventually("the autoscalers to be armed", ARMED, async || {
            let state = self.state.lock();
            let next = state.wanted.front().copied();
            let is_armed = state.armed.values().all(|armed| *armed == next);
            ensure!(is_armed && !state.armed.is_empty(), "{:?}", state.armed);
            Ok(())
        })
        .await
    }

    /// Waits until a replica has ended after each write that was asked for; returns all of them.
    ///
    /// # Errors
    /// After `cap`, and where a replica has ended otherwise.
    pub async fn done(&self, cap: Duration) -> anyhow::Result<Vec<&'static str>> {
        eventually("the crashes", cap, async || {
            let state = self.state.lock();
            let (wanted, done) = (&state.wanted, &state.done);
            ensure!(
                wanted.is_empty(),
                "to come: {wanted:?}, there were {done:?}"
            );
            Ok(())
        })
        .await?;
        let state = self.state.lock();
        ensure!(state.odd.is_empty(), "nobody asked for {:?}", state.odd);
        Ok(state.done.clone())
    }
}

/// New connections all the time; who calls a sleeper while no autoscaler is there waits for one.
///
/// # Errors
/// Where the agent refuses it.
pub async fn load<'a>(agent: &'a Agent, workload: &Workload) -> anyhow::Result<Run<'a>> {
    let spec = RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 20,
        rate: Some(50.0),
        seconds: Some(LOAD.as_secs_f64()),
        keep_alive: false,
        timeout_ms: 120_000,
        ..RunSpec::default()
    };
    agent.start(&spec).await
}

/// Ends such a load.
///
/// # Errors
/// Where a request has failed.
pub async fn ended(load: Run<'_>) -> anyhow::Result<RunResult> {
    let result = load.stop().await?;
    all_answered(&result)?;
    Ok(result)
}

/// Waits until every replica is ready, for whoever comes next.
///
/// # Errors
/// Where they don't come.
pub async fn all_back(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("the autoscalers to be ready", BACK, async || {
        let all = cluster.component_pods(COMPONENT).await?.len();
        let ready = cluster.ready_names(COMPONENT).await?.len();
        ensure!(ready > 1 && ready == all, "{ready} of {all} are ready");
        Ok(())
    })
    .await
}

/// One round over all replicas.
async fn look(cluster: &Cluster, key: &str, shared: &Mutex<State>) -> anyhow::Result<()> {
    let pods = cluster.component_pods(COMPONENT).await?;
    let all: Vec<(ContainerStatus, String)> = containers(&pods).collect();
    for (status, pod) in &all {
        shared.lock().note(status);
        if is_kept_waiting(status) {
            replace(cluster, pod).await?;
        }
    }
    let running = |(status, pod): &(ContainerStatus, String)| {
        let is_running = status.state.as_ref().is_some_and(|s| s.running.is_some());
        let id = status.container_id.clone().filter(|_| is_running)?;
        Some((id, pod.clone()))
    };
    let running: Vec<(String, String)> = all.iter().filter_map(running).collect();
    shared
        .lock()
        .armed
        .retain(|id, _| running.iter().any(|(running, _)| running == id));
    for (id, pod) in running {
        let (next, armed) = {
            let state = shared.lock();
            let next = state.wanted.front().copied();
            (next, state.armed.get(&id).copied())
        };
        if armed == Some(next) {
            continue;
        }
        let query = next.map_or_else(String::new, |write| {
            format!("?workload={key}&after={write}")
        });
        let page = format!("crash{query}");
        // One that has just begun doesn't listen yet, one that ends not any more.
        if cluster.page(&pod, ports::ADMIN, &page).await.is_ok() {
            shared.lock().armed.insert(id, next);
        }
    }
    Ok(())
}

/// The first container of each pod that stays, and the pod's name.
fn containers(pods: &[Pod]) -> impl Iterator<Item = (ContainerStatus, String)> {
    let stay = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    stay.filter_map(|pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        Some((statuses.first()?.clone(), pod.name_any()))
    })
}

/// The container that has ended last, and how.
fn end(status: &ContainerStatus) -> Option<(String, ContainerStateTerminated)> {
    let mut states = [&status.state, &status.last_state].into_iter().flatten();
    let ended = states.find_map(|state| state.terminated.clone())?;
    Some((ended.container_id.clone()?, ended))
}

fn is_kept_waiting(status: &ContainerStatus) -> bool {
    let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

async fn replace(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
    let params = DeleteParams::default().grace_period(0);
    call("replace an autoscaler", pods.delete(pod, &params))
        .await
        .map(drop)
}

/// The write after which a replica has ended, where its last lines say so.
fn last_write(lines: &str) -> Option<&str> {
    let line = lines.lines().rfind(|line| line.contains(LAST_WORDS))?;
    let (_, rest) = line.rsplit_once("after")?;
    let rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
    let word = rest.split(|c: char| !c.is_alphanumeric()).next()?;
    (!word.is_empty()).then_some(word)
}

// === impl State ===

impl State {
    fn note(&mut self, status: &ContainerStatus) {
        let Some((id, ended)) = end(status) else {
            return;
        };
        if !self.ended.insert(id) {
            return;
        }
        let message = ended.message.as_deref().unwrap_or_default();
        let write = last_write(message);
        match self.wanted.front().copied() {
            Some(next) if write == Some(next) => {
                self.wanted.pop_front();
                self.done.push(next);
                eprintln!("crashed after {next}");
            }
            // The other replica, which was armed with the same, has written it, too.
            _ if write.is_some_and(|write| self.done.contains(&write)) => {}
            _ => self.odd.push(format!("{}: {message}", ended.exit_code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(id: &str, message: &str) -> ContainerStatus {
        serde_json::from_value(json!({
            "name": "autoscaler", "image": "x", "imageID": "x", "ready": false, "restartCount": 1,
            "state": { "waiting": { "reason": "CrashLoopBackOff" } },
            "lastState": { "terminated": {
                "containerID": id, "exitCode": 134, "message": message,
            } },
        }))
        .unwrap()
    }

    #[test]
    fn the_last_write_is_read_from_json_and_from_text() {
        let json = r#"{"level":"INFO","message":"after all"}
            {"message":"ends here, as a test has asked","workload":"ns/x","after":"WriteScale"}"#;
        assert_eq!(last_write(json), Some("WriteScale"));
        let text = "ERROR ends here, as a test has asked workload=ns/x after=Asleep\n";
        assert_eq!(last_write(text), Some("Asleep"));
        assert_eq!(last_write("panicked after=WriteScale"), None);
    }

    #[test]
    fn each_end_counts_once_and_in_order() {
        let words = |write: &str| format!("ends here, {LAST_WORDS} after={write}");
        let mut state = State::default();
        state.wanted.extend(["WriteScale", "Asleep"]);
        let first = ended("a", &words("WriteScale"));
        state.note(&first);
        state.note(&first);
        state.note(&ended("b", &words("WriteScale")));
        assert_eq!((state.wanted.len(), state.done.len()), (1, 1));
        assert!(is_kept_waiting(&first) && state.odd.is_empty());
        state.note(&ended("c", "panicked"));
        assert_eq!(state.odd, ["134: panicked"]);
    }
}
