//! What all workload tasks share.

mod mailbox;

use std::{
    collections::HashMap,
    future::Future,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, core::Status};
use lull_cluster_settings::Settings as ClusterSettings;
use parking_lot::{Mutex, RwLock};

pub use self::mailbox::{Mailbox, Mailboxes};
use crate::{
    allocate::Ports,
    callers::Lookups,
    config::API_TIMEOUT,
    crash::Crash,
    demand::Hearing,
    events::{News, Recorder},
    lease::Leadership,
    machine::Delays,
    metrics::Metrics,
    plan::Components,
    pressure::Pressure,
    pull::Puller,
    purpose::Purpose,
    refusal,
    stores::Stores,
    turns::Turns,
    unwritten::Unwritten,
};

/// API calls at one time that nobody waits for. When an activator goes, every workload's slice is
/// written anew; a wake must not queue behind thousands of them, here or in the API server.
const TURNS: usize = 8;

/// API calls at one time that somebody waits for. Hundreds at once take as long one by one as they do
/// together, but the API server's own watches come to a stand among them: of 850 changes of `/scale`
/// in eight seconds, 21 were told (`make wakes`, 300 calls under way), so everybody decided on what
/// had been, and tried again.
const URGENT: usize = 8;

/// How long an Event, or a status that only informs, leaves an API server to wakes that has no time for both.
pub(crate) const WAKES_FIRST: Duration = Duration::from_secs(60);

/// Events at one time: what an API server that had no time for them is told afterwards must not stand before
/// what callers depend on in the queue for [`TURNS`].
const TELLING: usize = 2;

/// Namespace and name of a workload (and of its ScaledWorkload).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Shared by all tasks.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Watch caches.
    pub stores: Stores,
    /// For which workloads this replica writes.
    pub leadership: Leadership,
    /// Cluster-wide defaults.
    pub settings: ClusterSettings,
    /// Prometheus.
    pub metrics: Metrics,
    /// Fetches reports.
    pub puller: Puller,
    /// Waits.
    pub delays: Delays,
    /// The activators' ports.
    pub ports: Ports,
    /// Calls that are not urgent.
    pub turns: Turns,
    /// The same of those that somebody waits for.
    pub urgent: Turns,
    /// Events, before they take one of `turns`.
    telling: Turns,
    /// What would be lost with this process.
    pub unwritten: Unwritten,
    /// Where Lull's own pods are.
    pub lull: Components,
    /// Who is behind callers' addresses.
    pub lookups: Lookups,
    /// Where a test wants the process to end.
    pub crash: Crash,
    recorder: Recorder,
    start: Instant,
    /// Whether the API server has time for what can wait.
    pub(crate) pressure: Pressure,
    mailboxes: Mailboxes,
    hearings: RwLock<HashMap<String, Hearing>>,
    no_activator: AtomicBool,
    /// Names of pods, sorted.
    silent_activators: RwLock<Vec<String>>,
    istiod_missed: Mutex<Missed>,
}

/// When writes that Istio's admission judges failed last for want of an answer, by namespace; `None`: for all
/// of them.
#[derive(Debug, Default)]
struct Missed(HashMap<Option<String>, Instant>);

/// Longest time that a mesh's proxies take to come back to an istiod that was away: Envoy tries again after up to
/// 30 s (`RetryMaxDelayMilliseconds` of its `GrpcStream`, which Istio leaves as it is).
pub(crate) const PROXIES_RETURN: Duration = Duration::from_secs(30);

/// A write that didn't work.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused it, or was not reached.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: Purpose,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{what}: the API server did not answer within {API_TIMEOUT:?}")]
    Timeout {
        /// What was tried.
        what: Purpose,
    },
    /// Another replica leads by now; a write that was under way may be done.
    #[error("{what}: given up, this replica does not lead the workload's shard any more")]
    NotLeader {
        /// What was to be done.
        what: Purpose,
    },
    /// istiod was away a moment ago: it answers, and proxies may not hear it yet.
    #[error(
        "{what}: istiod was away until {ago:?} ago, proxies take up to {PROXIES_RETURN:?} to come back to it"
    )]
    Unheard {
        /// What was asked.
        what: Purpose,
        /// How long ago it gave no answer last.
        ago: Duration,
    },
    /// The count is another one than was decided on.
    #[error("{what}: the count is not what it was when it was decided on")]
    Moved {
        /// What was done.
        what: Purpose,
    },
    /// No activator port of the workload's shard is free, or has rested for long enough.
    #[error(
        "every activator port of {0:?} for the workload's shard is taken, or was until a moment ago; widen autoscaler.activatorPorts"
    )]
    PortsExhausted(RangeInclusive<u16>),
}

// === impl Missed ===

impl Missed {
    /// How long before `now` that was for workloads of `namespace`.
    fn ago(&self, namespace: &str, now: Instant) -> Option<Duration> {
        let everywhere = self.0.get(&None);
        let here = self.0.get(&Some(namespace.to_owned()));
        let last = everywhere.into_iter().chain(here).max();
        last.map(|at| now.duration_since(*at))
    }
}

// === impl WriteError ===

impl WriteError {
    /// Whether the object had changed since it was read; the next look decides anew.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Moved { .. }) || self.status().is_some_and(refusal::is_conflict)
    }

    /// What was tried and what the API server says, where it would refuse the same again.
    #[must_use]
    pub fn refused(&self) -> Option<(Purpose, &str)> {
        let Self::Api { what, .. } = self else {
            return None;
        };
        let status = self.status().filter(|status| refusal::is_lasting(status))?;
        Some((*what, status.message.as_str()))
    }

    /// What the API server answered.
    fn status(&self) -> Option<&Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether another replica leads by now and decides.
    #[must_use]
    pub fn is_not_leader(&self) -> bool {
        matches!(self, Self::NotLeader { .. })
    }

    /// Whether the namespace is being deleted, and the workload with it.
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(refusal::is_namespace_terminating)
    }

    /// Whether it was the count that could not be written: where it was anything else, a wake may
    /// still work.
    #[must_use]
    pub fn is_of_count(&self) -> bool {
        match self {
            Self::Api { what, .. }
            | Self::Timeout { what }
            | Self::NotLeader { what }
            | Self::Unheard { what, .. }
            | Self::Moved { what } => matches!(what, Purpose::ReadScale | Purpose::WriteScale),
            Self::PortsExhausted(_) => false,
        }
    }

    /// Whether there was no answer, of the API server or of whom it asks.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Api { .. } => self.status().is_none_or(|status| status.code >= 500),
            _ => false,
        }
    }

    /// Whether it was somebody else's admission than Istio's that gave the API server no answer, which may be
    /// asked in some namespaces alone.
    #[must_use]
    pub fn is_of_other_admission(&self) -> bool {
        let message = self.status().map(|status| status.message.as_str());
        let called = message.and_then(|message| message.split_once("failed calling webhook \""));
        let name = called.and_then(|(_, rest)| rest.split_once('"'));
        name.is_some_and(|(name, _)| !name.ends_with("istio.io"))
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }
}

/// Parts of a [`Context`] that differ between main and tests.
#[expect(missing_debug_implementations, reason = "kube's Client has none")]
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// Watch caches.
    pub stores: Stores,
    /// For which workloads this replica writes.
    pub leadership: Leadership,
    /// Cluster-wide defaults.
    pub settings: ClusterSettings,
    /// Prometheus.
    pub metrics: Metrics,
    /// Waits.
    pub delays: Delays,
    /// Numbers for activator ports.
    pub activator_ports: RangeInclusive<u16>,
    /// Name under which Events are reported.
    pub reporter: String,
    /// Where Lull's own pods are.
    pub lull: Components,
    /// Whether it is asked who is behind callers' addresses.
    pub name_callers: bool,
    /// Where a test wants the process to end.
    pub crash: Crash,
}

// === impl Context ===

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("leadership", &self.leadership)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Nothing known yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let urgent = Turns::new(URGENT);
        Self {
            recorder: Recorder::new(parts.client.clone(), parts.reporter),
            client: parts.client,
            stores: parts.stores,
            leadership: parts.leadership,
            settings: parts.settings,
            metrics: parts.metrics,
            puller: Puller::new(),
            delays: parts.delays,
            ports: Ports::new(parts.activator_ports),
            turns: Turns::new(TURNS),
            telling: Turns::new(TELLING),
            pressure: Pressure::new(urgent.clone()),
            urgent,
            unwritten: Unwritten::default(),
            lull: parts.lull,
            lookups: Lookups::new(parts.name_callers),
            crash: parts.crash,
            start: Instant::now(),
            mailboxes: Mailboxes::default(),
            hearings: RwLock::default(),
            no_activator: AtomicBool::new(false),
            silent_activators: RwLock::default(),
            istiod_missed: Mutex::default(),
        }
    }

    /// Takes note that a write in `namespace` which Istio's admission judges got no answer, which was `error`.
    /// It counts for all namespaces unless it was somebody else's admission that gave none.
    pub fn miss_istiod(&self, namespace: &str, error: &WriteError) {
        let only = error.is_of_other_admission().then(|| namespace.to_owned());
        self.istiod_missed.lock().0.insert(only, Instant::now());
    }

    /// How long ago istiod gave no answer last that counts for workloads of `namespace`.
    #[must_use]
    pub fn istiod_missed(&self, namespace: &str) -> Option<Duration> {
        self.istiod_missed.lock().ago(namespace, Instant::now())
    }

    /// What was heard last of the activator of this name.
    #[must_use]
    pub fn hearing(&self, activator: &str) -> Option<Hearing> {
        self.hearings.read().get(activator).copied()
    }

    /// Takes note of an activator's report.
    pub fn heard(&self, activator: &str, hearing: Hearing) {
        let mut hearings = self.hearings.write();
        hearings.insert(activator.to_owned(), hearing);
    }

    /// Forgets an activator.
    pub fn forget(&self, activator: &str) {
        self.hearings.write().remove(activator);
    }

    /// Whether there is no activator at all ([`crate::absence`]).
    #[must_use]
    pub fn no_activator(&self) -> bool {
        self.no_activator.load(Ordering::Relaxed)
    }

    /// Takes note of that; what was so before.
    pub(crate) fn set_no_activator(&self, is_so: bool) -> bool {
        self.no_activator.swap(is_so, Ordering::Relaxed)
    }

    /// Names of the activators that are ready and have not been heard for a while, sorted
    /// (`autoscaler/src/silence.rs`).
    #[must_use]
    pub fn silent_activators(&self) -> Vec<String> {
        self.silent_activators.read().clone()
    }

    /// Takes note of them.
    pub(crate) fn set_silent_activators(&self, names: Vec<String>) {
        let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
        self.metrics.silent_activators.set(count);
        *self.silent_activators.write() = names;
    }

    /// Time since the process started: the clock of all windows.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// How tasks are reached.
    #[must_use]
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// Awaits one API call with our own limit and says what it was for.
    ///
    /// # Errors
    /// [`WriteError`] naming `what`.
    pub async fn call<T>(
        &self,
        what: Purpose,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let begun = Instant::now();
        let result = match tokio::time::timeout(API_TIMEOUT, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(WriteError::Api {
                what,
                source: Box::new(source),
            }),
            Err(_) => Err(WriteError::Timeout { what }),
        };
        self.metrics.called(what, result.is_ok());
        // All others may be slow for what somebody's admission takes, or for what they look at.
        if matches!(what, Purpose::WriteScale | Purpose::WriteStatus) {
            self.pressure.answered(begun.elapsed());
        }
        result
    }

    /// Puts an Event on `object`, beside the task: an Event is worth no delay.
    pub fn event(&self, object: ObjectReference, warning: bool, reason: &str, note: String) {
        self.event_about((object, None), warning, reason, note);
    }

    /// The same for an Event in which another object plays a part. What is told again is counted.
    pub fn event_about(
        &self,
        (regarding, related): (ObjectReference, Option<ObjectReference>),
        warning: bool,
        reason: &str,
        note: String,
    ) {
        self.tell(News {
            regarding,
            related,
            is_warning: warning,
            reason: reason.to_owned(),
            note,
            identity: None,
        });
    }

    /// An Event that another replica may put on `object`, too, where it has heard of the same: it
    /// knows it by its `identity`, and there is one.
    pub fn event_once(
        &self,
        object: ObjectReference,
        reason: &str,
        (note, identity): (String, u64),
    ) {
        self.tell(News {
            regarding: object,
            related: None,
            is_warning: false,
            reason: reason.to_owned(),
            note,
            identity: Some(identity),
        });
    }

    fn tell(&self, news: News) {
        let recorder = self.recorder.clone();
        let (turns, telling) = (self.turns.clone(), self.telling.clone());
        let pressure = self.pressure.clone();
        let told = recorder.take(&news);
        tokio::spawn(async move {
            // After everything that callers depend on.
            pressure.calm(WAKES_FIRST).await;
            let _one = telling.take(Duration::ZERO).await;
            let _turn = turns.take(Duration::MAX).await;
            let write = recorder.write(&news, &told);
            match tokio::time::timeout(API_TIMEOUT, write).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "Event was not written"),
                Err(_) => tracing::debug!("Event was not written in time"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(what: Purpose, status: &serde_json::Value) -> WriteError {
        let status: Status = serde_json::from_value(status.clone()).unwrap();
        WriteError::Api {
            what,
            source: Box::new(kube::Error::Api(status.into())),
        }
    }

    #[test]
    fn a_wake_is_tried_after_every_failure_but_its_own() {
        let moved = |what| WriteError::Moved { what };
        assert!(moved(Purpose::ReadScale).is_of_count());
        assert!(moved(Purpose::WriteScale).is_of_count());
        let slice = refused(Purpose::WriteSlice, &json!({ "code": 403 }));
        assert!(!slice.is_of_count());
        let what = Purpose::WritePrivateService;
        assert!(!WriteError::Timeout { what }.is_of_count());
        assert!(!WriteError::PortsExhausted(10_000..=10_001).is_of_count());
    }

    #[test]
    fn what_gives_no_answer_is_told_from_what_says_no() {
        let what = Purpose::AskIstio;
        let failed = |name: &str| {
            let message = format!("Internal error: failed calling webhook \"{name}\": Post: EOF");
            refused(what, &json!({ "code": 500, "message": message }))
        };
        let no = json!({ "code": 400, "message": "admission webhook \"a.org\" denied it" });
        let rows = [
            ("Istio's", failed("rev.validation.istio.io"), true, false),
            ("another one's", failed("validate.policies.org"), true, true),
            ("no answer", WriteError::Timeout { what }, true, false),
            ("a no", refused(what, &no), false, false),
            (
                "another leads",
                WriteError::NotLeader { what },
                false,
                false,
            ),
        ];
        for (whose, error, unanswered, of_other) in rows {
            assert_eq!(error.is_unanswered(), unanswered, "{whose}");
            assert_eq!(error.is_of_other_admission(), of_other, "{whose}");
        }
    }

    #[test]
    fn a_miss_counts_everywhere_or_where_it_was() {
        let (begin, mut missed) = (Instant::now(), Missed::default());
        let after = |seconds: u64| begin + Duration::from_secs(seconds);
        let secs = |seconds: u64| Some(Duration::from_secs(seconds));
        assert_eq!(missed.ago("a", begin), None);
        missed.0.insert(Some("a".to_owned()), after(1));
        assert_eq!(missed.ago("a", after(3)), secs(2));
        assert_eq!(missed.ago("b", after(3)), None);
        missed.0.insert(None, after(2));
        assert_eq!(missed.ago("a", after(3)), secs(1));
        assert_eq!(missed.ago("b", after(3)), secs(1));
        missed.0.insert(Some("a".to_owned()), after(3));
        assert_eq!(missed.ago("a", after(3)), secs(0));
    }

    #[test]
    fn what_is_refused_for_good_is_told_with_what_was_tried() {
        let what = Purpose::SwitchService;
        let policy =
            json!({ "code": 422, "message": "denied request", "details": { "name": "a" } });
        let error = refused(what, &policy);
        assert_eq!(error.refused(), Some((what, "denied request")));
        assert!(!error.is_conflict());
        assert_eq!(refused(what, &json!({ "code": 500 })).refused(), None);
        assert!(refused(what, &json!({ "code": 409 })).is_conflict());
        assert_eq!(WriteError::Moved { what }.refused(), None);
        assert!(refused(what, &json!({ "code": 404 })).is_not_found());
    }
}
