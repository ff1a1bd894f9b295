//! The end of a pod: not ready, but late arrivals are served until nobody sends any more.

use std::{sync::Arc, time::Duration};

use lull_contract::settings::DRAIN_APP_STOP;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    config::Config,
    traffic::{Activity, Traffic},
};

/// How often a drain looks at the traffic.
const TICK: Duration = Duration::from_millis(50);
/// How long an announced end may take to begin: kubelet has a signal sent right after it, which on a
/// node that is short of CPU takes seconds.
const ANNOUNCED: Duration = Duration::from_secs(15);

/// When a drain ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    min: Duration,
    quiet: Duration,
    /// Ends the drain whatever is in flight.
    max: Duration,
}

/// Where the pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes traffic.
    Serving,
    /// Leaves; late arrivals are served.
    Draining(Instant),
    /// Nothing is in flight, or time is up.
    Drained,
}

/// Begins and follows the drain. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    phase: Arc<watch::Sender<Phase>>,
    announced_at: Arc<Mutex<Option<Instant>>>,
}

// === impl Plan ===

impl Plan {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            min: config.drain_min.0,
            quiet: config.drain_quiet.0,
            max: config.grace.0.saturating_sub(DRAIN_APP_STOP),
        }
    }

    /// Whether a drain that began at `began` has ended at `now`.
    fn is_over(&self, began: Instant, now: Instant, activity: Activity) -> bool {
        let lasted = now.saturating_duration_since(began);
        let quiet = activity
            .last_arrival
            .is_none_or(|last| now.saturating_duration_since(last) >= self.quiet);
        lasted >= self.max || (lasted >= self.min && quiet && activity.active == 0)
    }
}

// === impl Drain ===

impl Drain {
    pub(crate) fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Serving)),
            announced_at: Arc::default(),
        }
    }

    /// Takes note that a drain is about to begin; it changes nothing else, so anybody may say it.
    pub(crate) fn announce(&self) {
        *self.announced_at.lock() = Some(Instant::now());
    }

    /// Waits for a drain to begin: `unclaimed`, or longer where it has been announced by then;
    /// whether one has.
    pub(crate) async fn begins(&self, unclaimed: Duration) -> bool {
        let began = timeout(unclaimed, self.begun()).await.is_ok();
        let announced_at = *self.announced_at.lock();
        match announced_at.filter(|_| !began) {
            Some(at) => timeout_at(at + ANNOUNCED, self.begun()).await.is_ok(),
            None => began,
        }
    }

    /// Begins the drain, if it has not begun.
    pub(crate) fn begin(&self) {
        self.phase.send_if_modified(|phase| {
            let begins = *phase == Phase::Serving;
            if begins {
                *phase = Phase::Draining(Instant::now());
                tracing::info!("drain begins: not ready, late arrivals are served");
            }
            begins
        });
    }

    /// Whether a drain has begun (it may be over).
    pub(crate) fn has_begun(&self) -> bool {
        *self.phase.borrow() != Phase::Serving
    }

    /// Whether a drain is over.
    pub(crate) fn is_done(&self) -> bool {
        *self.phase.borrow() == Phase::Drained
    }

    /// Returns when a drain has begun.
    pub(crate) async fn begun(&self) {
        self.reached(|phase| *phase != Phase::Serving).await;
    }

    /// Returns when a drain is over.
    pub(crate) async fn done(&self) {
        self.reached(|phase| *phase == Phase::Drained).await;
    }

    /// Watches the traffic of a drain and ends it by `plan`; one task per process runs this.
    pub(crate) async fn run(self, plan: Plan, traffic: Traffic) {
        self.begun().await;
        let Phase::Draining(began) = *self.phase.borrow() else {
            return;
        };
        while !plan.is_over(began, Instant::now(), traffic.activity()) {
            tokio::time::sleep(TICK).await;
        }
        let cut = traffic.activity().active;
        let lasted = began.elapsed();
        if cut > 0 {
            tracing::warn!(in_flight = cut, ?lasted, "drain ends by the grace period");
        } else {
            tracing::info!(?lasted, "drain is done");
        }
        self.phase.send_replace(Phase::Drained);
    }

    async fn reached(&self, wanted: impl FnMut(&Phase) -> bool) {
        let mut phase = self.phase.subscribe();
        // An error would mean that the sender is gone, but we hold it.
        let _ = phase.wait_for(wanted).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const PLAN: Plan = Plan {
        min: secs(10),
        quiet: secs(5),
        max: secs(27),
    };

    /// Whole seconds after the beginning at which a drain ends.
    fn ends_at(plan: Plan, activity_at: impl Fn(u64, Instant) -> Activity) -> u64 {
        let began = Instant::now() + secs(1000);
        (0..100)
            .find(|at| plan.is_over(began, began + secs(*at), activity_at(*at, began)))
            .expect("a drain ends")
    }

    fn idle_since(last_arrival: Option<Instant>) -> Activity {
        Activity {
            active: 0,
            last_arrival,
        }
    }

    #[test]
    fn an_idle_pod_leaves_after_the_minimum() {
        assert_eq!(ends_at(PLAN, |_, _| idle_since(None)), 10);
    }

    #[test]
    fn quiet_time_within_the_minimum_counts() {
        assert_eq!(
            ends_at(PLAN, |_, began| idle_since(Some(began + secs(3)))),
            10
        );
    }

    #[test]
    fn a_late_request_prolongs_by_the_quiet_time() {
        let late = |at, began| idle_since(Some(began + secs(if at < 9 { 0 } else { 9 })));
        assert_eq!(ends_at(PLAN, late), 14);
    }

    #[test]
    fn what_is_in_flight_is_waited_for() {
        let busy = |at, _| Activity {
            active: u64::from(at < 20),
            last_arrival: None,
        };
        assert_eq!(ends_at(PLAN, busy), 20);
    }

    #[test]
    fn the_grace_period_ends_it_whatever_comes() {
        let busy = |at, began| Activity {
            active: 1,
            last_arrival: Some(began + secs(at)),
        };
        assert_eq!(ends_at(PLAN, busy), 27);
        let short = Plan {
            max: secs(2),
            ..PLAN
        };
        assert_eq!(ends_at(short, |_, _| idle_since(None)), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_drain_is_waited_for_longer_but_not_for_ever() {
        let drain = Drain::new();
        assert!(!drain.begins(secs(2)).await);
        drain.announce();
        let later = drain.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(secs(9)).await;
            later.begin();
        });
        assert!(drain.begins(secs(2)).await, "a signal that comes late");
        task.await.unwrap();
        let drain = Drain::new();
        drain.announce();
        tokio::time::sleep(ANNOUNCED).await;
        let asked = Instant::now();
        assert!(!drain.begins(secs(2)).await);
        assert_eq!(asked.elapsed(), secs(2), "what was announced long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn phases_follow_each_other_and_a_second_begin_changes_nothing() {
        let (drain, traffic) = (Drain::new(), Traffic::new());
        let task = tokio::spawn(drain.clone().run(PLAN, traffic));
        tokio::time::sleep(secs(60)).await;
        assert!(!drain.has_begun(), "a drain begins only when told");
        drain.begin();
        tokio::time::sleep(secs(9)).await;
        drain.begin();
        assert!(drain.has_begun() && !drain.is_done());
        tokio::time::timeout(secs(2), drain.done()).await.unwrap();
        task.await.unwrap();
        drain.begin();
        assert!(drain.is_done());
    }
}
