//! What the reports say at one moment: sums, averages, and whether everybody has been heard.

use std::time::Duration;

use lull_contract::Settings;

use super::{Demand, Hearing, Reporter};

/// A report older than this says nothing about now: three pulls were missed.
const MAX_REPORT_AGE: Duration = Duration::from_millis(3_500);

/// What the reports say at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// Sums of the last reports.
    pub totals: Totals,
    /// Average load over the stable window, whole workload.
    pub stable: f64,
    /// Average load over the panic window, whole workload.
    pub panic: f64,
    /// Every ready pod and activator has been heard lately.
    pub heard: bool,
    /// Ready pods that have not been heard lately.
    pub silent: u32,
    /// Ready activators of which the same holds.
    pub silent_activators: u32,
    /// Every ready activator and at least half of the ready pods have been heard lately: the silent
    /// ones may be sick, rather than this process cut off.
    pub mostly_heard: bool,
    /// Age of the oldest of their last reports; `None` where one has not been had at all.
    pub oldest: Option<Duration>,
    /// The windows were emptied, because other ones are asked for.
    pub restarted: bool,
}

/// Sums over all reporters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// In flight at pods plus held at activators.
    pub in_flight: u64,
    /// Held at activators.
    pub held: u64,
    /// Let through by activators and not ended.
    pub forwarding: u64,
    /// Connections went round a queue-proxy within the stable window.
    pub bypassed: bool,
    /// Requests that have arrived anywhere since this process knows the workload; only grows.
    pub arrivals: u64,
}

/// How lately reporters of one kind were heard.
#[derive(Debug, Clone, Copy)]
struct Ages {
    /// Reporters.
    count: u32,
    /// Those of [`MAX_REPORT_AGE`] and more, or never heard.
    late: u32,
    /// Age of the oldest last report; `None` where one has not been had at all.
    oldest: Option<Duration>,
}

// === impl Ages ===

impl Ages {
    fn of(reported_at: impl Iterator<Item = Option<Duration>>, now: Duration) -> Self {
        let none = Self {
            count: 0,
            late: 0,
            oldest: Some(Duration::ZERO),
        };
        reported_at.fold(none, |ages, at| {
            let age = at.map(|at| now.saturating_sub(at));
            let is_late = age.is_none_or(|age| age > MAX_REPORT_AGE);
            Self {
                count: ages.count + 1,
                late: ages.late + u32::from(is_late),
                oldest: ages.oldest.zip(age).map(|(a, b)| a.max(b)),
            }
        })
    }
}

// === impl Demand ===

impl Demand {
    /// What is known at `now`, with `settings`, of the pods and activators that there are, the
    /// latter each with what was heard of it as a whole; reports of others are forgotten.
    pub fn measure<'a>(
        &mut self,
        settings: &Settings,
        pods: impl Iterator<Item = Reporter<'a>> + Clone,
        activators: impl Iterator<Item = (Reporter<'a>, Option<Hearing>)> + Clone,
        now: Duration,
    ) -> Measured {
        let restarted = self.configure(settings);
        let named = activators.clone().map(|(activator, _)| activator);
        self.keep_only(&pods, &named);
        let pods = Ages::of(self.pods_reported_at(pods), now);
        let activators = Ages::of(self.activators_reported_at(activators), now);
        // The newest second is left out: its reports are still on their way.
        let ended = now.saturating_sub(Duration::from_secs(1));
        Measured {
            totals: self.totals(now),
            stable: self.stable.average(ended),
            panic: self.panic.average(ended),
            heard: pods.late + activators.late == 0,
            silent: pods.late,
            silent_activators: activators.late,
            mostly_heard: pods.late * 2 <= pods.count && activators.late == 0,
            oldest: pods.oldest.zip(activators.oldest).map(|(a, b)| a.max(b)),
            restarted,
        }
    }

    /// When each ready pod was heard last; `None` for one that has said nothing.
    fn pods_reported_at<'a>(
        &self,
        pods: impl Iterator<Item = Reporter<'a>>,
    ) -> impl Iterator<Item = Option<Duration>> {
        pods.filter(|pod| pod.ready)
            .map(|pod| self.pods.get(pod.name).map(|heard| heard.at))
    }

    /// When each ready activator was heard last; `None` for one that has said nothing.
    fn activators_reported_at<'a>(
        &self,
        activators: impl Iterator<Item = (Reporter<'a>, Option<Hearing>)>,
    ) -> impl Iterator<Item = Option<Duration>> {
        activators
            .filter(|(activator, _)| activator.ready)
            .map(|(activator, hearing)| {
                let hearing = hearing.filter(|hearing| self.is_told(activator.name, *hearing));
                hearing.map(|hearing| hearing.at)
            })
    }

    pub(super) fn totals(&self, now: Duration) -> Totals {
        let held = self.held();
        let at_pods: u64 = self.pods.values().map(|heard| heard.load.in_flight).sum();
        Totals {
            in_flight: at_pods + held,
            held,
            forwarding: self.forwarding(),
            bypassed: self
                .bypassed_at
                .is_some_and(|at| now <= at + self.lengths.0),
            arrivals: self.arrivals,
        }
    }
}
