//! Cold starts, measured by an agent in the cluster: woken by a request, or by a patch of a workload that
//! Lull doesn't run.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_contract::names::QUEUE_PROXY_CONTAINER;
use sample_app::wire::{ProbeAnswer, ProbeSpec};
use serde_json::json;

use crate::{
    Agent, Workload, eventually,
    knative::KnativeService,
    spread::Spread,
    timeline::{Observer, Timeline},
};

/// Longest wait for one cold start, milliseconds.
const PATIENCE_MS: u64 = 60_000;
/// Longest wait for the watches to have seen what has happened.
const WATCHES: Duration = Duration::from_secs(10);

/// Milliseconds from a start's beginning (request sent, or patch sent) to each step.
#[derive(Debug, Clone, Copy)]
pub struct Phases {
    /// `/scale` was changed.
    pub patched: f64,
    /// A pod was there.
    pub created: f64,
    /// It had a node.
    pub scheduled: f64,
    /// Istio's proxy had started, so that the app's container may; NaN where there is none.
    pub proxied: f64,
    /// The app's container ran.
    pub running: f64,
    /// The queue-proxy listened; NaN where there is none.
    pub listening: f64,
    /// The answer was there.
    pub answered: f64,
}

/// Picks one figure, milliseconds.
pub type Pick = fn(&Phases) -> f64;

/// Wakes a workload of Lull's by a request of `agent`, whose clock is `ahead_us` ahead of ours.
///
/// # Errors
/// Where it isn't answered within a minute, or a step wasn't seen.
pub async fn wake_by_request(
    agent: &Agent,
    workload: &Workload,
    ahead_us: i64,
) -> anyhow::Result<Phases> {
    let called = call(agent, workload, workload.url("/"), ahead_us).await?;
    let pod = &called.answer.pod;
    let pod = pod.as_deref();
    let pod = pod.with_context(|| format!("no pod in {:?}", called.answer))?;
    let listening = listening_us(workload, pod).await?;
    Ok(Phases {
        listening: ms_since(called.begun_us, listening),
        ..called.phases(ahead_us).await?
    })
}

/// Wakes a revision of Knative's, otherwise as [`wake_by_request`].
///
/// # Errors
/// As for [`wake_by_request`].
pub async fn wake_by_knative(
    agent: &Agent,
    service: &KnativeService,
    ahead_us: i64,
) -> anyhow::Result<Phases> {
    let called = call(agent, &service.workload, service.url(), ahead_us).await?;
    called.phases(ahead_us).await
}

/// A request that has woken somebody, and who watched.
struct Called {
    observer: Observer,
    answer: ProbeAnswer,
    begun_us: i64,
}

impl Called {
    async fn phases(&self, ahead_us: i64) -> anyhow::Result<Phases> {
        phases(&self.observer, &self.answer, self.begun_us, ahead_us).await
    }
}

async fn call(
    agent: &Agent,
    workload: &Workload,
    url: String,
    ahead_us: i64,
) -> anyhow::Result<Called> {
    let observer = Observer::start(workload).await?;
    let request = ProbeSpec {
        url,
        timeout_ms: PATIENCE_MS,
        ..ProbeSpec::default()
    };
    let answer = agent.probe(&request).await?;
    let begun_us = answer.started_at_unix_us.cast_signed() - ahead_us;
    Ok(Called {
        observer,
        answer,
        begun_us,
    })
}

fn ms_since(begun_us: i64, us: i64) -> f64 {
    sample_app::ms(Duration::from_micros((us - begun_us).max(0).unsigned_abs()))
}

/// Starts a workload at zero, which Lull doesn't run, by a patch while `agent` polls it.
///
/// # Errors
/// Where it isn't answered within a minute, or a step wasn't seen.
pub async fn wake_by_patch(
    agent: &Agent,
    workload: &Workload,
    ahead_us: i64,
) -> anyhow::Result<Phases> {
    let observer = Observer::start(workload).await?;
    let poll = ProbeSpec {
        url: workload.url("/"),
        // A SYN that nobody answers is sent again only after 1 s: a short limit keeps the poll honest.
        timeout_ms: 50,
        until_ok_ms: Some(PATIENCE_MS),
        ..ProbeSpec::default()
    };
    let patch = async {
        // The agent polls before the patch, so that no way there counts.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = sample_app::unix_us();
        workload
            .patch(&json!({ "spec": { "replicas": 1 } }))
            .await?;
        Ok(begun)
    };
    let (answer, begun) = tokio::try_join!(agent.probe(&poll), patch)?;
    ensure!(answer.attempts > 1, "it was not at zero: {answer:?}");
    phases(&observer, &answer, begun.cast_signed(), ahead_us).await
}

async fn phases(
    observer: &Observer,
    answer: &ProbeAnswer,
    begun_us: i64,
    ahead_us: i64,
) -> anyhow::Result<Phases> {
    ensure!(answer.ok, "not answered: {answer:?}");
    let timeline = observer.caught_up(WATCHES).await?;
    let since = |us: i64| ms_since(begun_us, us);
    let seen = |us: Option<u64>| us.map_or(f64::NAN, |us| since(us.cast_signed()));
    let Timeline {
        patched_us,
        created_us,
        scheduled_us,
        proxied_us,
        running_us,
        ..
    } = timeline;
    Ok(Phases {
        patched: seen(patched_us),
        created: seen(created_us),
        scheduled: seen(scheduled_us),
        proxied: seen(proxied_us),
        running: seen(running_us),
        listening: f64::NAN,
        answered: since(answer.answered_at_unix_us.cast_signed() - ahead_us),
    })
}

/// When the queue-proxy of `pod` began to listen, microseconds since 1970, by its log.
async fn listening_us(workload: &Workload, pod: &str) -> anyhow::Result<i64> {
    const LINE: &str = "queue-proxy starts";
    let namespace = &workload.namespace;
    let path =
        format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={QUEUE_PROXY_CONTAINER}");
    // Until kubelet's status has reached the API server there is no log there: the answer can be sooner.
    let log = eventually("the queue-proxy's log", WATCHES, async || {
        workload.cluster.text("GET", &path, Vec::new()).await
    })
    .await?;
    let line = log.lines().find(|line| line.contains(LINE));
    let line = line.with_context(|| format!("no {LINE:?} in {log}"))?;
    let mut words = line.split([' ', '"']);
    let at: Option<jiff::Timestamp> = words.find_map(|word| word.parse().ok());
    Ok(at
        .with_context(|| format!("no time in {line}"))?
        .as_microsecond())
}

/// How one figure is spread over `all`.
#[must_use]
pub fn spread(all: &[Phases], of: impl Fn(&Phases) -> f64) -> Spread {
    Spread::of(all.iter().map(of))
}
