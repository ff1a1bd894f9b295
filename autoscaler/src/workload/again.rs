//! What comes after an evaluation that failed.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use lull_contract::scaled_workload::ScaledWorkload;
use lull_process::backoff::doubled;

use super::{TICK, Task};
use crate::{
    context::{Mailbox, WriteError},
    purpose::Purpose,
    target::Target,
};

/// Evaluations in a row that may end in an old view before that is told as a failure: by then the watch
/// has had more than a second.
const OLD_VIEWS: u32 = 10;
/// How long an Event that tells of a refused write holds. Shorter than what one Event counts
/// ([`crate::events`]), so that the same refusal stays one.
const REFUSAL_TOLD: Duration = Duration::from_secs(5 * 60);

/// Writes that the API server refuses, of which an Event has told lately: what was tried, and when it
/// was told.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: Vec<(Purpose, Instant)>,
}

// === impl Refusals ===

impl Refusals {
    /// Whether an Event is to tell at `now` that `what` is refused; takes note that it does.
    fn is_news(&mut self, what: Purpose, now: Instant) -> bool {
        self.told
            .retain(|(_, at)| now.duration_since(*at) < REFUSAL_TOLD);
        let is_news = self.told.iter().all(|(told, _)| *told != what);
        if is_news {
            self.told.push((what, now));
        }
        is_news
    }
}

/// Before an evaluation is repeated, where so many before it have failed, too: the watch shows what
/// was changed meanwhile within milliseconds.
fn pause_after(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(10);
    doubled(FIRST, failures, TICK)
}

/// Waits before an evaluation is repeated, where so many before it have failed, too; not when
/// somebody begins to be held: what failed may have nothing to do with a wake.
///
/// Whoever was held at the beginning waits: every report of it is a reason to try again, and an API
/// server that is slow would only get slower.
pub(super) async fn pause(mailbox: &Mailbox, failures: u32) {
    let is_held = || mailbox.demand.lock().held() > 0;
    let was_held = is_held();
    let mut end = pin!(tokio::time::sleep(pause_after(failures)));
    loop {
        tokio::select! {
            () = &mut end => return,
            () = mailbox.changed.notified() => {}
        }
        if !was_held && is_held() {
            return;
        }
    }
}

// === impl Task ===

impl Task {
    /// Leads; where that fails for anything but the count, whoever is held is let in all the same, as
    /// a replica that doesn't lead would do it: there may be no other one.
    pub(super) async fn lead_or_wake(
        &mut self,
        target: &Target,
        workload: Option<Arc<ScaledWorkload>>,
    ) -> Result<(), WriteError> {
        let there = workload.clone();
        let led = self.lead(target, workload).await;
        if let (Err(error), Some(there)) = (&led, there)
            && !error.is_of_count()
            && let Err(error) = self.wake_as_follower(target, &there.spec.settings).await
        {
            self.tell_failed(&error, 0);
        }
        led
    }

    /// Tells that an evaluation has failed, as so many in a row before it. An old view is nothing to
    /// tell, unless it doesn't end.
    pub(super) fn tell_failed(&mut self, error: &WriteError, failures: u32) {
        let workload = &self.key;
        if error.is_conflict() && failures < OLD_VIEWS {
            tracing::debug!(%workload, %error, "decided on an old view; again");
        } else if error.is_not_leader() {
            tracing::debug!(%workload, %error, "left to the leader");
        } else if matches!(error, WriteError::Unheard { .. }) {
            tracing::debug!(%workload, %error, "nothing has failed; it is waited for");
        } else if error.is_namespace_terminating() {
            tracing::debug!(%workload, %error, "the namespace is being deleted");
        } else {
            self.ctx.metrics.errors.inc();
            tracing::warn!(%workload, %error, "evaluation failed; it is repeated");
        }
        if let Some((what, why)) = error.refused() {
            self.tell_refused(what, why);
        }
    }

    /// An Event on the workload where a write is refused that would be refused again: whoever may mend
    /// that mostly has no access to Lull's log.
    fn tell_refused(&mut self, what: Purpose, why: &str) {
        let target = self
            .ctx
            .stores
            .targets
            .get(&self.key.namespace, &self.key.name);
        let Some(target) = target.filter(|_| self.refusals.is_news(what, Instant::now())) else {
            return;
        };
        let note = format!("{what} is refused, and tried again: {why}");
        self.ctx
            .event(target.reference(), true, "WriteRefused", note);
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::report::{HeldWorkload, Load, Ways};

    use super::*;
    use crate::demand::Hearing;

    /// An activator tells at `now` that it holds so many.
    fn report(mailbox: &Mailbox, now: Duration, in_flight: u64) {
        let hearing = Hearing {
            boot: 1,
            complete: 1,
            now_us: u64::try_from(now.as_micros()).unwrap(),
            at: now,
        };
        let held = HeldWorkload {
            namespace: "ns".to_owned(),
            name: "shop".to_owned(),
            uid: "u".to_owned(),
            ports: Vec::new(),
            held: Load {
                in_flight,
                ..Load::default()
            },
            forwarding: 0,
            held_for_us: 0,
            woken: None,
            callers: Vec::new(),
            ways: Ways::default(),
        };
        let mut demand = mailbox.demand.lock();
        demand.activator_reported("a", (None, hearing), &held);
        drop(demand);
        mailbox.changed.notify_one();
    }

    #[test]
    fn what_fails_again_and_again_is_repeated_once_a_tick() {
        let pauses: Vec<u128> = [0, 1, 4, 7, u32::MAX]
            .map(|failures| pause_after(failures).as_millis())
            .into();
        assert_eq!(pauses, [10, 20, 160, 1_000, 1_000]);
    }

    #[test]
    fn a_refusal_is_told_once_in_a_while_and_another_one_at_once() {
        let (mut refusals, begin) = (Refusals::default(), Instant::now());
        let mut told = |what, minutes: u64| {
            let now = begin + Duration::from_secs(60 * minutes);
            refusals.is_news(what, now)
        };
        assert!(told(Purpose::SwitchService, 0));
        assert!(!told(Purpose::SwitchService, 1));
        assert!(told(Purpose::WriteSlice, 1));
        assert!(!told(Purpose::SwitchService, 4));
        assert!(told(Purpose::SwitchService, 5), "and a while later");
        assert!(!told(Purpose::WriteSlice, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_for_the_first_one_held_and_not_for_the_next() {
        let (mailbox, second) = (Mailbox::default(), Duration::from_secs(1));
        // How long it lasts where so many are held a moment after it has begun.
        let pause_with = async |now: Duration, in_flight: u64| {
            let begin = tokio::time::Instant::now();
            let told = async { report(&mailbox, now, in_flight) };
            tokio::join!(biased; pause(&mailbox, u32::MAX), told);
            begin.elapsed()
        };
        assert!(pause_with(second, 0).await >= TICK);
        assert!(pause_with(second * 2, 1).await < TICK);
        assert!(pause_with(second * 3, 2).await >= TICK);
    }
}
