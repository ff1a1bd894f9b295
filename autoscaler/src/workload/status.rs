//! The status that people and activators see.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
};
use lull_contract::{
    scaled_workload::{ScaledWorkload, ScaledWorkloadStatus, State},
    view::MAX_AWAKE_WRITTEN,
};
use serde_json::json;

use super::{
    Task,
    haste::{self, Haste},
    look::Look,
    planning::KEPT_AWAKE,
};
use crate::{
    context::WriteError,
    kept_awake,
    plan::{Finding, Plan},
    purpose::Purpose,
    unwritten::Owed,
};

/// The condition that says what was found and doesn't stop enrolment.
pub(super) const WARNINGS: &str = "Warnings";

/// A status without numbers, for states that have their own driver.
#[derive(Debug)]
pub(super) struct Say {
    state: State,
    reason: &'static str,
    /// Addresses of pods without a sidecar that activators may reach.
    plain_pods: Vec<String>,
}

/// A status that is put off.
#[derive(Debug)]
pub(super) struct PutOff {
    since: Instant,
    /// Where it tells of wakes.
    history: Option<Owed>,
}

// === impl PutOff ===

impl PutOff {
    fn begin() -> Self {
        Self {
            since: Instant::now(),
            history: None,
        }
    }

    /// Whether it is to be written, with so much `patience` and before the process ends or not.
    fn is_due(&self, patience: Duration, is_last_call: bool) -> bool {
        self.since.elapsed() >= patience || (is_last_call && self.history.is_some())
    }
}

// === impl Say ===

impl Say {
    fn new(state: State, reason: &'static str) -> Self {
        Self {
            state,
            reason,
            plain_pods: Vec::new(),
        }
    }

    pub(super) fn leaving(reason: &'static str) -> Self {
        Self::new(State::Leaving, reason)
    }

    /// It is not enrolled, and has been.
    pub(super) fn unenrolled(reason: &'static str, plain_pods: Vec<String>) -> Self {
        Self {
            plain_pods,
            ..Self::new(State::Enrolling, reason)
        }
    }
}

// === impl Task ===

impl Task {
    pub(super) async fn write_status(
        &mut self,
        workload: &ScaledWorkload,
        look: &Look,
        (state, plan, reason): (State, &Plan, String),
    ) -> Result<(), WriteError> {
        let mut before = self.status_before(workload);
        let told = match state {
            State::Enrolling => Enrolled::NotYet(&reason),
            _ => Enrolled::Yes,
        };
        let began = self.state_began();
        let status = ScaledWorkloadStatus {
            mode: state.mode(),
            state,
            ready: match state {
                // Those that are there still are on their way out, which would be a write to tell.
                State::Asleep => 0,
                _ => look.facts.ready,
            },
            desired: look.facts.want,
            in_flight: look.facts.in_flight,
            held: look.facts.held,
            conditions: conditions(&before, plan, told),
            services: self.listed(&before, plan),
            plain_pods: Vec::new(),
            state_since: since(&before, state, began),
            saved_pod_seconds: saved(&before, state, (began, workload)),
            wakes: self.wakes(&mut before),
            kept_awake: std::mem::take(&mut before.kept_awake),
            reason,
        };
        self.patch_status(workload, status).await
    }

    /// The status of a dry run.
    pub(super) async fn write_plan(
        &mut self,
        workload: &ScaledWorkload,
        plan: &Plan,
        steps: &[String],
    ) -> Result<(), WriteError> {
        let before = self.status_before(workload);
        let steps = steps.join("; ");
        let state = State::Planned;
        let status = ScaledWorkloadStatus {
            mode: state.mode(),
            state,
            conditions: conditions(&before, plan, Enrolled::DryRun(&steps)),
            reason: plan.summary(),
            state_since: since(&before, state, self.state_began()),
            kept_awake: before.kept_awake.clone(),
            ..ScaledWorkloadStatus::default()
        };
        self.patch_status(workload, status).await
    }

    /// Services that are switched, and those that have been and can't be planned now: they are to
    /// be given back. One that its user has pointed elsewhere has been.
    fn listed(&self, before: &ScaledWorkloadStatus, plan: &Plan) -> Vec<String> {
        let planned = self.services_of(plan);
        let mut names: Vec<String> = planned.iter().map(|service| service.name.clone()).collect();
        for name in &before.services {
            let is_kept = match self.service(name) {
                Some(service) => !self.is_let_go(&service),
                // While the only Service is away, it stays on the list too.
                None => planned.is_empty(),
            };
            if is_kept && !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Tells that nobody looks after it: its kind is not among those that are.
    pub(super) async fn say_unknown(
        &mut self,
        workload: &ScaledWorkload,
    ) -> Result<(), WriteError> {
        let state = self.status_before(workload).state;
        let reason =
            "nobody looks after it: its kind is not in the chart's targets, or not there yet";
        self.say(workload, Say::new(state, reason)).await
    }

    pub(super) async fn say(
        &mut self,
        workload: &ScaledWorkload,
        say: Say,
    ) -> Result<(), WriteError> {
        let (before, began) = (self.status_before(workload), self.state_began());
        let conditions = match say.state {
            State::Enrolling => {
                let waits = Enrolled::NotYet(say.reason);
                conditions(&before, &Plan::default(), waits)
            }
            _ => before.conditions.clone(),
        };
        let status = ScaledWorkloadStatus {
            mode: say.state.mode(),
            state: say.state,
            reason: say.reason.to_owned(),
            conditions,
            plain_pods: say.plain_pods,
            state_since: since(&before, say.state, began),
            saved_pod_seconds: saved(&before, say.state, (began, workload)),
            ..before
        };
        self.patch_status(workload, status).await
    }

    fn status_before(&self, workload: &ScaledWorkload) -> ScaledWorkloadStatus {
        match &self.status_written {
            Some((status, _)) => status.clone(),
            None => workload.status.clone().unwrap_or_default(),
        }
    }

    /// When the state began that the task is in.
    fn state_began(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_sub(self.state_since.elapsed()).unwrap_or(now)
    }

    /// Whether a status that was put off is to be written by now.
    pub(super) fn owes_status(&self) -> bool {
        self.status_owed.as_ref().is_some_and(|owed| {
            let state = self.state.unwrap_or_default();
            let patience = haste::patience(state, self.ctx.pressure.is_high());
            owed.is_due(patience, self.ctx.unwritten.is_last_call())
        })
    }

    /// Whether `status` is to be written now; that it is put off is taken note of.
    fn is_to_be_written(
        &mut self,
        workload: &ScaledWorkload,
        status: &ScaledWorkloadStatus,
    ) -> bool {
        let there = match &self.status_written {
            // Another object by now, or one that the cache shows late.
            Some((_, at)) if workload.status.is_none() && at.elapsed() >= haste::JOINED => None,
            Some((written, _)) => Some(written),
            // The last leader may have written it just so.
            None => workload.status.as_ref(),
        };
        let tells_wakes = there.is_some_and(|there| haste::tells_wakes(there, status));
        match there.map_or(Haste::Now, |there| haste::haste(there, status)) {
            Haste::Now => true,
            Haste::Soon => {
                let owed = self.status_owed.get_or_insert_with(PutOff::begin);
                if tells_wakes && owed.history.is_none() {
                    owed.history = Some(self.ctx.unwritten.owe());
                }
                self.owes_status()
            }
            Haste::Done => {
                self.status_owed = None;
                false
            }
        }
    }

    /// Writes `status`, at once where another replica goes on from it, else when it is due.
    async fn patch_status(
        &mut self,
        workload: &ScaledWorkload,
        mut status: ScaledWorkloadStatus,
    ) -> Result<(), WriteError> {
        if !self.is_to_be_written(workload, &status) {
            return Ok(());
        }
        // Only now: it changes all the time, and goes with what is written anyway.
        if let Some(kept) = kept_awake::of(&self.ctx, &self.mailbox.demand) {
            status.kept_awake = kept.at_most(MAX_AWAKE_WRITTEN);
        }
        if status.state == State::FallingAsleep {
            // The next status, in some seconds, tells their names.
            let (ctx, mailbox) = (Arc::clone(&self.ctx), Arc::clone(&self.mailbox));
            tokio::spawn(async move { kept_awake::learn(&ctx, &mailbox).await });
        }
        // What is written here may be all that could be read of it.
        let api: Api<DeserializeGuard<ScaledWorkload>> = self.api();
        let patch = json!({ "status": status });
        let name = workload.name_any();
        self.call(
            Purpose::WriteStatus,
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)),
        )
        .await?;
        if workload.status.as_ref().map(|there| there.state) != Some(status.state) {
            self.ctx.crash.wrote(&self.key, &status.state);
        }
        self.status_written = Some((status, Instant::now()));
        self.status_owed = None;
        Ok(())
    }
}

/// Since when the workload is in `state`, which `began` then where it was not in it before.
fn since(before: &ScaledWorkloadStatus, state: State, began: Timestamp) -> Option<Time> {
    match &before.state_since {
        Some(time) if before.state == state => Some(time.clone()),
        _ => Some(Time(began)),
    }
}

/// Pod-seconds that it has been asleep for, where `state` `began` then: what is added is added when a
/// sleep ends, so that nothing is written while it sleeps.
fn saved(
    before: &ScaledWorkloadStatus,
    state: State,
    (began, workload): (Timestamp, &ScaledWorkload),
) -> u64 {
    let slept = match &before.state_since {
        Some(since) if before.state == State::Asleep && state != State::Asleep => {
            began.duration_since(since.0).as_secs()
        }
        _ => 0,
    };
    let slept = u64::try_from(slept).unwrap_or(0);
    let added = slept.saturating_mul(workload.spec.saved_pods().into());
    before.saved_pod_seconds.saturating_add(added)
}

/// How far enrolment is.
#[derive(Debug, Clone, Copy)]
enum Enrolled<'a> {
    Yes,
    /// What is waited for.
    NotYet(&'a str),
    /// What it would do.
    DryRun(&'a str),
}

/// Whether whoever wrote `status` was certain that there was no activator at all.
#[must_use]
pub fn tells_no_activator(status: &ScaledWorkloadStatus) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|found| found.type_ == WARNINGS && found.message.contains(KEPT_AWAKE))
}

/// `Enrolled`, with everything that stands in the way, and `Warnings`, with everything else that
/// was found; the reason is the first finding's.
fn conditions(
    before: &ScaledWorkloadStatus,
    plan: &Plan,
    enrolled: Enrolled<'_>,
) -> Vec<Condition> {
    let refusals: Vec<&Finding> = plan.refusals().collect();
    let (reason, message) = match enrolled {
        _ if !refusals.is_empty() => (reason_of(&refusals), text_of(&refusals)),
        Enrolled::Yes => ("Enrolled".to_owned(), String::new()),
        Enrolled::NotYet(what) => ("Waiting".to_owned(), what.to_owned()),
        Enrolled::DryRun(steps) => ("DryRun".to_owned(), format!("would {steps}")),
    };
    let is_enrolled = matches!(enrolled, Enrolled::Yes);
    let warnings: Vec<&Finding> = plan.warnings().collect();
    vec![
        condition(before, ("Enrolled", is_enrolled), reason, message),
        condition(
            before,
            (WARNINGS, !warnings.is_empty()),
            reason_of(&warnings),
            text_of(&warnings),
        ),
    ]
}

fn reason_of(findings: &[&Finding]) -> String {
    let first = findings.first();
    first.map_or_else(|| "None".to_owned(), |finding| finding.reason.to_string())
}

fn text_of(findings: &[&Finding]) -> String {
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

fn condition(
    before: &ScaledWorkloadStatus,
    (kind, is_true): (&str, bool),
    reason: String,
    message: String,
) -> Condition {
    let status = if is_true { "True" } else { "False" };
    let mut same = before.conditions.iter();
    let last = same.find(|c| c.type_ == kind && c.status == status);
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason,
        message,
        observed_generation: None,
        last_transition_time: last.map_or_else(
            || Time(Timestamp::now()),
            |c| c.last_transition_time.clone(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Reason, unwritten::Unwritten};

    fn plan(reasons: &[Reason]) -> Plan {
        let about = |reason: &Reason| Finding::new(*reason, "Service shop", "is odd");
        Plan {
            findings: reasons.iter().map(about).collect(),
            ..Plan::default()
        }
    }

    fn shown(plan: &Plan, enrolled: Enrolled<'_>) -> Vec<[String; 4]> {
        let all = conditions(&ScaledWorkloadStatus::default(), plan, enrolled);
        all.into_iter()
            .map(|c| [c.type_, c.status, c.reason, c.message])
            .collect()
    }

    #[test]
    fn conditions_tell_what_stands_in_the_way_and_what_is_only_said() {
        let odd = plan(&[Reason::Headless, Reason::NotHeld, Reason::LocalTraffic]);
        let both = "Service shop is odd; Service shop is odd";
        assert_eq!(
            shown(&odd, Enrolled::NotYet("pods")),
            [
                ["Enrolled", "False", "Headless", both],
                ["Warnings", "True", "NotHeld", "Service shop is odd"],
            ]
        );
        assert_eq!(
            shown(&plan(&[]), Enrolled::DryRun("do it")),
            [
                ["Enrolled", "False", "DryRun", "would do it"],
                ["Warnings", "False", "None", ""],
            ]
        );
        let waiting = shown(&plan(&[]), Enrolled::NotYet("pods"));
        assert_eq!(waiting[0], ["Enrolled", "False", "Waiting", "pods"]);
        let enrolled = shown(&odd, Enrolled::Yes);
        assert_eq!(enrolled[0], ["Enrolled", "True", "Headless", both]);
    }

    #[test]
    fn before_the_process_ends_what_tells_of_wakes_is_put_off_no_more() {
        let (now, long) = (Duration::ZERO, Duration::from_secs(3_600));
        let numbers = PutOff::begin();
        let wakes = PutOff {
            history: Some(Unwritten::default().owe()),
            ..PutOff::begin()
        };
        for (owed, expected) in [(&numbers, false), (&wakes, true)] {
            assert!(owed.is_due(now, false), "it has waited for long enough");
            assert!(!owed.is_due(long, false));
            assert_eq!(owed.is_due(long, true), expected);
        }
    }

    #[test]
    fn the_next_process_reads_in_a_status_that_there_was_no_activator() {
        let status = |plan: &Plan| ScaledWorkloadStatus {
            conditions: conditions(&ScaledWorkloadStatus::default(), plan, Enrolled::Yes),
            ..ScaledWorkloadStatus::default()
        };
        let mut found = plan(&[Reason::NotHeld]);
        assert!(!tells_no_activator(&status(&found)));
        let none = Finding::new(Reason::NoActivator, "Deployment shop", KEPT_AWAKE);
        found.findings.push(none);
        assert!(tells_no_activator(&status(&found)), "among others");
        assert!(!tells_no_activator(&status(&plan(&[]))), "taken back");
    }

    #[test]
    fn a_sleep_is_counted_when_it_ends() {
        let spec = json!({
            "apiVersion": "lull.dev/v1alpha1",
            "kind": "ScaledWorkload",
            "metadata": { "name": "shop" },
            "spec": {
                "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u" },
                "podSelector": {},
                "ports": [],
                "settings": lull_contract::Settings::default(),
                "originalReplicas": 3,
            },
        });
        let workload: ScaledWorkload = serde_json::from_value(spec).unwrap();
        let woke = Timestamp::now();
        let an_hour_ago = woke - Duration::from_secs(3_600);
        let before = ScaledWorkloadStatus {
            state: State::Asleep,
            state_since: Some(Time(an_hour_ago)),
            saved_pod_seconds: 100,
            ..ScaledWorkloadStatus::default()
        };
        let at = (woke, &workload);
        assert_eq!(saved(&before, State::Asleep, at), 100);
        assert_eq!(saved(&before, State::Waking, at), 10_900);
        assert_eq!(since(&before, State::Waking, woke), Some(Time(woke)));
        assert_eq!(since(&before, State::Asleep, woke), before.state_since);
        let awake = ScaledWorkloadStatus {
            state: State::Awake,
            ..before
        };
        assert_eq!(saved(&awake, State::Bursting, at), 100);
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let first = conditions(&ScaledWorkloadStatus::default(), &plan(&[]), Enrolled::Yes);
        let before = ScaledWorkloadStatus {
            conditions: first.clone(),
            ..ScaledWorkloadStatus::default()
        };
        assert_eq!(conditions(&before, &plan(&[]), Enrolled::Yes), first);
    }
}
