//! Cold starts, measured by an agent in the cluster: woken by a request, or by a patch of a workload that
//! Lull doesn't run.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use lull_contract::{names::QUEUE_PROXY_CONTAINER, view::ANSWERING_PHASE};
use sample_app::wire::{ACTIVATOR_HEADER, ProbeAnswer, ProbeSpec};
use serde_json::json;

use crate::{
    Agent, Workload,
    app::CONTAINER,
    eventually,
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
    /// The app listened; NaN where nobody has looked.
    pub app_listening: f64,
    /// The queue-proxy listened; NaN where there is none.
    pub listening: f64,
    /// The API server had the pod's address, without which nobody can call it: the kubelet tells it.
    pub addressed: f64,
    /// An activator knew that the pod takes traffic, from the first one held on; NaN where it doesn't say so.
    pub answering: f64,
    /// The answer was there.
    pub answered: f64,
}

/// Picks one figure, milliseconds.
pub type Pick = fn(&Phases) -> f64;

// === impl Phases ===

impl Phases {
    /// The pod could be called and would answer, as far as anybody could know: what is later is ours.
    #[must_use]
    pub fn callable(&self) -> f64 {
        // The greater of a number and of none is the number.
        let listening = self.app_listening.max(self.listening);
        listening.max(self.addressed)
    }
}

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
    let (proxy, app) = ((pod, QUEUE_PROXY_CONTAINER), (pod, CONTAINER));
    let listening = logged_us(workload, proxy, "queue-proxy starts").await?;
    let app_listening = logged_us(workload, app, "listening").await?;
    Ok(Phases {
        listening: ms_since(called.begun_us, listening),
        app_listening: ms_since(called.begun_us, app_listening),
        answering: told_ms(&called.answer.headers, ANSWERING_PHASE),
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
        addressed_us,
        running_us,
        ..
    } = timeline;
    Ok(Phases {
        patched: seen(patched_us),
        created: seen(created_us),
        scheduled: seen(scheduled_us),
        proxied: seen(proxied_us),
        running: seen(running_us),
        app_listening: f64::NAN,
        listening: f64::NAN,
        addressed: seen(addressed_us),
        answering: f64::NAN,
        answered: since(answer.answered_at_unix_us.cast_signed() - ahead_us),
    })
}

/// When a container of a pod logged a line with these `words`, microseconds since 1970.
async fn logged_us(
    workload: &Workload,
    (pod, container): (&str, &str),
    words: &str,
) -> anyhow::Result<i64> {
    let namespace = &workload.namespace;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}");
    // Until kubelet's status has reached the API server there is no log there: the answer can be sooner.
    let what = format!("the log of {container}");
    let log = eventually(&what, WATCHES, async || {
        workload.cluster.text("GET", &path, Vec::new()).await
    })
    .await?;
    let line = log.lines().find(|line| line.contains(words));
    let line = line.with_context(|| format!("no {words:?} in {log}"))?;
    let mut words = line.split([' ', '"']);
    let at: Option<jiff::Timestamp> = words.find_map(|word| word.parse().ok());
    Ok(at
        .with_context(|| format!("no time in {line}"))?
        .as_microsecond())
}

/// What an activator tells of a phase in the headers of an answer, milliseconds from the first one held on; NaN
/// where it tells nothing.
fn told_ms(headers: &BTreeMap<String, String>, phase: &str) -> f64 {
    let timing = headers.get(ACTIVATOR_HEADER);
    let parts = timing.map_or("", String::as_str).split(',');
    let told = parts.filter_map(|part| part.trim().strip_prefix("lull-")?.split_once(";dur="));
    let mut found = told.filter(|(name, _)| *name == phase);
    let ms: Option<f64> = found.next().and_then(|(_, ms)| ms.parse().ok());
    ms.unwrap_or(f64::NAN)
}

/// How one figure is spread over `all`.
#[must_use]
pub fn spread(all: &[Phases], of: impl Fn(&Phases) -> f64) -> Spread {
    Spread::of(all.iter().map(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activator_tells_when_it_knew_that_a_pod_takes_traffic() {
        let timing = "lull;dur=607.1, lull-running;dur=590.0, lull-answering;dur=600.2";
        let headers = BTreeMap::from([(ACTIVATOR_HEADER.to_owned(), timing.to_owned())]);
        assert!((told_ms(&headers, ANSWERING_PHASE) - 600.2).abs() < 1e-9);
        assert!(told_ms(&headers, "created").is_nan());
        assert!(told_ms(&BTreeMap::new(), ANSWERING_PHASE).is_nan());
    }

    #[test]
    fn a_pod_can_be_called_once_all_listen_and_its_address_is_known() {
        let phases = |app_listening, listening, addressed| Phases {
            patched: 1.0,
            created: 2.0,
            scheduled: 3.0,
            proxied: f64::NAN,
            running: 500.0,
            app_listening,
            listening,
            addressed,
            answering: f64::NAN,
            answered: 700.0,
        };
        for (app, proxy, address, expected) in [
            (490.0, 560.0, 600.0, 600.0),
            (490.0, 660.0, 600.0, 660.0),
            (690.0, 660.0, 600.0, 690.0),
            (f64::NAN, f64::NAN, 600.0, 600.0),
        ] {
            let callable = phases(app, proxy, address).callable();
            assert!((callable - expected).abs() < 1e-9, "{callable}");
        }
    }
}
