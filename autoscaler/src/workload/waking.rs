//! What is told and kept of a workload's wakes and other changes of its count.

use std::time::Duration;

use jiff::Timestamp;
use lull_contract::{
    report::{SeenCaller, Woken},
    scaled_workload::ScaledWorkloadStatus,
    view::{Caller, CountChange, WakeView},
};

use super::Task;
use crate::{journal, stores::Stores, target::Target};

/// When the first held request was answered, and what happened until then.
fn woken_note(woken: &Woken) -> String {
    let millis = |us: u64| us as f64 / 1_000.0;
    let Some(((_, total), before)) = woken.phases_us.split_last() else {
        return "The first request was answered".to_owned();
    };
    let phases = before
        .iter()
        .map(|(name, us)| format!("{name} {:.0}", millis(*us)));
    let phases: Vec<String> = phases.collect();
    format!(
        "First request answered {:.0} ms after it came; pod ({} ms)",
        millis(*total),
        phases.join(", ")
    )
}

/// The same with who sent that request.
fn note(woken: &Woken, caller: Option<&Caller>) -> String {
    let note = woken_note(woken);
    match caller {
        Some(caller) => format!("{note}; by {}", caller.text()),
        None => note,
    }
}

/// `seen` with its pod, where that is one that is watched: pods of workloads that are Lull's. Any
/// other address stays an address.
pub(crate) fn resolve(stores: &Stores, seen: &SeenCaller) -> Caller {
    let pod = stores.pods.find(|pod| pod.has_address(&seen.address));
    let named = |name: &str| pod.as_ref().map(|pod| format!("{}/{name}", pod.namespace));
    Caller {
        address: seen.address.clone(),
        asked: seen.asked.clone(),
        pod: pod.as_ref().and_then(|pod| named(&pod.name)),
        workload: pod.as_ref().and_then(|pod| named(pod.workload.as_deref()?)),
    }
}

// === impl Task ===

impl Task {
    /// Keeps, and tells with an Event, the phases of a wake that has ended; of several activators
    /// that held for it, one tells.
    pub(super) fn tell_woken(&mut self, target: &Target, pods: u32) {
        let Some(woken) = self.mailbox.demand.lock().take_woken() else {
            return;
        };
        let caller = woken.by.as_ref().map(|by| resolve(&self.ctx.stores, by));
        let is_first = !std::mem::replace(&mut self.woken_told, true);
        let note = note(&woken, caller.as_ref());
        let is_news = {
            let mut journal = self.mailbox.journal.lock();
            journal.woken((&woken, caller), is_first, (Timestamp::now(), pods))
        };
        if is_news {
            self.ctx.event(target.reference(), false, "Woken", note);
        }
    }

    /// Keeps a count that was written, where somebody has been held since `held_since`.
    pub(super) fn keep_scaled(
        &self,
        (from, to): (u32, u32),
        held_since: Option<Duration>,
        reason: &str,
    ) {
        let now = Timestamp::now();
        let since = held_since.map(|since| {
            let ago = self.ctx.now().saturating_sub(since);
            journal::text_of(now.checked_sub(ago).unwrap_or(now))
        });
        let change = CountChange {
            at: journal::text_of(now),
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
        let told = "First request answered 612 ms after it came; pod (created 25, running 596 ms)";
        assert_eq!(note(&woken, None), told);
        let caller = Caller {
            address: "10.0.0.7".to_owned(),
            ..Caller::default()
        };
        assert_eq!(note(&woken, Some(&caller)), format!("{told}; by 10.0.0.7"));
    }
}
