//! What is told and kept of a workload's wakes and other changes of its count.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use lull_contract::{
    names::fnv1a,
    report::{SeenCaller, Woken},
    scaled_workload::{ScaledWorkload, ScaledWorkloadStatus, State},
    view::{Caller, CountChange, WakeView},
};
use serde_json::json;

use super::Task;
use crate::{callers, context::WAKES_FIRST, journal, machine::Facts, policy::HELD, target::Target};

/// A wake that nobody has been answered after by then is told of as it is: it may never be answered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Where nobody waits any more, the end of a wake has been told by then, if there was an answer:
/// activators are heard once a second.
const REPORTED_WITHIN: Duration = Duration::from_secs(3);
/// For so long a replica that doesn't lead keeps the end of a wake that no status shows: longer than a
/// leader puts its status off, and than it takes to replace one.
const KEPT_FOR: Duration = WAKES_FIRST.saturating_add(Duration::from_secs(30));
/// For so long it is waited for the name of who began a wake; until then its address stands for it.
const NAMED_WITHIN: Duration = Duration::from_secs(15);

/// A wake for somebody who was held, as long as no Event has told of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Untold {
    /// The count that was written.
    pods: u32,
    /// Since when it has been over, on the process's clock.
    over: Option<Duration>,
}

// === impl Untold ===

impl Untold {
    /// A wake to so many pods.
    pub(super) fn new(pods: u32) -> Self {
        Self { pods, over: None }
    }

    /// Whether it is to be told `now` as one after which nobody was answered, since it has been over
    /// for long enough.
    fn is_due(&mut self, is_over: bool, now: Duration) -> bool {
        if !is_over {
            self.over = None;
            return false;
        }
        let over = *self.over.get_or_insert(now);
        now.saturating_sub(over) >= REPORTED_WITHIN
    }
}

/// Whether another replica has woken a workload in `state`, of which the leader that sees it has told
/// nobody yet.
fn is_others_wake(state: State, facts: &Facts) -> bool {
    state == State::Asleep && facts.replicas > 0 && facts.held > 0
}

/// When the first held request was answered, and what happened until then.
fn woken_note(woken: &Woken) -> String {
    let millis = |us: u64| us as f64 / 1_000.0;
    let Some(((_, total), before)) = woken.phases_us.split_last() else {
        return "first request answered".to_owned();
    };
    let phases = before
        .iter()
        .map(|(name, us)| format!("{name} {:.0}", millis(*us)));
    let phases: Vec<String> = phases.collect();
    format!(
        "first request answered {:.0} ms after it came; pod ({} ms)",
        millis(*total),
        phases.join(", ")
    )
}

/// The same with the count that was written, and with who sent that request.
fn note(scaled_to: u32, woken: &Woken, caller: Option<&Caller>) -> String {
    let note = format!("Scaled from 0 to {scaled_to} pods: {}", woken_note(woken));
    match caller {
        Some(caller) => format!("{note}; by {}", caller.text()),
        None => note,
    }
}

/// By what every replica knows a wake of a workload: an activator tells it to all of them in the same
/// words. What one tells that has crashed since, the next leader tells, too, where no status shows it.
fn identity(woken: &Woken) -> u64 {
    fnv1a(json!(woken).to_string().as_bytes())
}

/// A wake of which there is no more to tell.
fn untold_note(pods: u32) -> String {
    format!("Scaled from 0 to {pods} pods: {HELD}; nobody was seen to be answered")
}

/// Why a workload has no pod that is ready, for which so many are held.
pub(crate) fn waking_reason(held: u64) -> String {
    format!("no pod is ready yet, {held} held")
}

// === impl Task ===

impl Task {
    /// Keeps the phases of a wake that has ended, and tells them with the one Event of that wake; of
    /// several activators that held for it, one tells.
    pub(super) fn tell_woken(&mut self, target: &Target, pods: u32) {
        let Some((woken, told)) = self.mailbox.demand.lock().take_woken() else {
            return;
        };
        self.untold = None;
        let told = self.time_of(told);
        let caller = woken.by.as_ref().map(|by| callers::resolve(&self.ctx, by));
        let is_first = !std::mem::replace(&mut self.woken_told, true);
        let scaled_to = {
            let mut journal = self.mailbox.journal.lock();
            let is_news = journal.woken((&woken, caller.clone()), is_first, (told, pods));
            let newest = journal.wakes().first().filter(|_| is_news);
            newest.map(|wake| wake.scaled_to)
        };
        if let Some(caller) = caller.as_ref().filter(|caller| caller.pod.is_none()) {
            self.name_later(caller.address.clone());
        }
        if let Some(scaled_to) = scaled_to {
            let note = note(scaled_to, &woken, caller.as_ref());
            let woken = (note, identity(&woken));
            self.ctx.event_once(target.reference(), "Woken", woken);
        }
    }

    /// Finds out beside everything else which pod has the `address` of who began the last wake.
    fn name_later(&self, address: String) {
        let (ctx, mailbox) = (Arc::clone(&self.ctx), Arc::clone(&self.mailbox));
        tokio::spawn(async move {
            let addresses = [address];
            callers::learn(&ctx, &addresses, NAMED_WITHIN).await;
            let [address] = addresses;
            let seen = SeenCaller {
                address,
                ..SeenCaller::default()
            };
            mailbox.journal.lock().name(&callers::resolve(&ctx, &seen));
        });
    }

    /// Takes note of a wake that another replica has written: where whoever was held leaves, nobody else
    /// tells of it.
    pub(super) fn note_others_wake(&mut self, state: State, facts: &Facts) {
        if self.untold.is_none() && is_others_wake(state, facts) {
            self.untold = Some(Untold::new(facts.replicas));
        }
    }

    /// Of a replica that doesn't lead: keeps the end of a wake until the status of `workload` shows it,
    /// so that the next leader, which may be this one, can tell of it.
    pub(super) fn keep_woken(&self, workload: Option<&ScaledWorkload>) {
        let status = workload.and_then(|workload| workload.status.as_ref());
        let newest = status.and_then(|status| status.wakes.first());
        self.mailbox.demand.lock().keep_woken(|woken, told| {
            let is_shown = || {
                let told = self.time_of(told);
                newest.is_some_and(|newest| journal::shows(newest, woken, told))
            };
            self.ctx.now().saturating_sub(told) < KEPT_FOR && !is_shown()
        });
    }

    /// What time it was at `at` on the process's clock.
    fn time_of(&self, at: Duration) -> Timestamp {
        let now = Timestamp::now();
        let ago = self.ctx.now().saturating_sub(at);
        now.checked_sub(ago).unwrap_or(now)
    }

    /// Tells of a wake for which somebody still waits, once.
    pub(super) fn tell_unanswered(&mut self, target: &Target, facts: &Facts) {
        let waits = self.state == Some(State::Waking) && facts.held > 0;
        let is_late = waits && self.state_since.elapsed() >= ANSWERED_WITHIN;
        if !is_late || std::mem::replace(&mut self.unanswered_told, true) {
            return;
        }
        let note = format!(
            "Scaled from 0 to {} pods: {HELD}; no pod is ready after {} s",
            facts.replicas,
            ANSWERED_WITHIN.as_secs()
        );
        self.untold = None;
        self.ctx.event(target.reference(), false, "Waking", note);
    }

    /// Tells of a wake for which nobody waits any more and of whose end no activator has told: whoever
    /// was held has left. `is_over`: no pod is waited for.
    pub(super) fn tell_untold(&mut self, target: &Target, is_over: bool) {
        let is_over = is_over && {
            let demand = self.mailbox.demand.lock();
            demand.held() + demand.forwarding() == 0
        };
        let now = self.ctx.now();
        if let Some(wake) = self.untold.take_if(|wake| wake.is_due(is_over, now)) {
            let note = untold_note(wake.pods);
            self.ctx.event(target.reference(), false, "Waking", note);
        }
    }

    /// Keeps that the pods are ready for which `state` waited.
    pub(super) fn keep_ready(&self, state: State, facts: &Facts) {
        if state == State::Waking && facts.ready > 0 {
            self.mailbox.journal.lock().ready(Timestamp::now());
        }
    }

    /// Keeps a count that was written, where somebody has been held since `held_since`.
    pub(super) fn keep_scaled(
        &self,
        (from, to): (u32, u32),
        held_since: Option<Duration>,
        reason: &str,
    ) {
        let since = held_since.map(|since| journal::text_of(self.time_of(since)));
        let change = CountChange {
            at: journal::text_of(Timestamp::now()),
            from,
            to,
            reason: reason.to_owned(),
        };
        self.mailbox.journal.lock().scaled(change, since);
    }

    /// The last wakes, for the status; `before` gives them up where they are the same.
    pub(super) fn wakes(&self, before: &mut ScaledWorkloadStatus) -> Vec<WakeView> {
        let journal = self.mailbox.journal.lock();
        if journal.wakes() == before.wakes {
            return std::mem::take(&mut before.wakes);
        }
        journal.wakes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_told_with_its_phases_and_its_caller() {
        let phases = [
            ("created", 25_100),
            ("running", 596_400),
            ("first-byte", 612_000),
        ];
        let phases_us = phases.map(|(name, us)| (name.to_owned(), us)).into();
        let woken = Woken {
            number: 1,
            phases_us,
            by: None,
        };
        let told = "Scaled from 0 to 2 pods: first request answered 612 ms after it came; \
                    pod (created 25, running 596 ms)";
        assert_eq!(note(2, &woken, None), told);
        let caller = Caller {
            address: "10.0.0.7".to_owned(),
            ..Caller::default()
        };
        let by = format!("{told}; by 10.0.0.7");
        assert_eq!(note(2, &woken, Some(&caller)), by);
    }

    #[test]
    fn two_replicas_know_a_wake_by_the_words_of_the_activator() {
        let woken = |number: u64, us: u64| Woken {
            number,
            phases_us: vec![("first-byte".to_owned(), us)],
            by: None,
        };
        assert_eq!(identity(&woken(1, 612_000)), identity(&woken(1, 612_000)));
        assert_ne!(identity(&woken(1, 612_000)), identity(&woken(2, 612_000)));
        assert_ne!(identity(&woken(1, 612_000)), identity(&woken(1, 612_001)));
    }

    #[test]
    fn the_leader_tells_of_a_wake_that_another_replica_has_written() {
        let rows = [
            (State::Asleep, 2, 1, true),
            // It is up to the leader itself.
            (State::Asleep, 0, 1, false),
            // Somebody has scaled it whom no caller has asked to.
            (State::Asleep, 2, 0, false),
            // A pod was lost.
            (State::Waking, 2, 1, false),
            (State::Awake, 2, 1, false),
        ];
        for (state, replicas, held, expected) in rows {
            let facts = Facts {
                replicas,
                held,
                ..Facts::default()
            };
            let is_one = is_others_wake(state, &facts);
            assert_eq!(is_one, expected, "{state} {replicas} {held}");
        }
    }

    #[test]
    fn a_wake_that_nobody_waits_for_any_more_is_told_when_no_report_came() {
        let second = Duration::from_secs(1);
        let mut wake = Untold::new(2);
        let mut is_due = |is_over: bool, now: u32| wake.is_due(is_over, second * now);
        assert!(!is_due(false, 1) && !is_due(false, 60), "no pod is ready");
        assert!(!is_due(true, 61) && !is_due(true, 63));
        assert!(!is_due(false, 64), "the pod is gone again");
        assert!(!is_due(true, 70) && !is_due(true, 72));
        assert!(is_due(true, 73));
    }
}
