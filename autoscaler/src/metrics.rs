//! Prometheus metrics, all named `lull_autoscaler_*`.

mod labels;
mod series;

use std::time::Duration;

use lull_contract::report::ReportError;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use self::{
    labels::{
        AskedLabels, CallLabels, DecisionLabels, Direction, Done, Refusal, RefusalLabels,
        ScaleLabels,
    },
    series::Workloads,
};
use crate::{context::Key, pull::PullError, purpose::Purpose, why::Why};

pub use self::{
    labels::Asked,
    series::{Numbers, Series},
};

/// Half a millisecond in steps of a quarter up to 28 s: what a wake waits for us is a few
/// milliseconds, and a wake that waits for an election takes seconds.
const WAKE_BUCKETS: (f64, f64, u16) = (0.000_5, 1.25, 50);
/// A quarter of a millisecond doubled up to 1 s: a pod is given 0.9 s to answer.
const PULL_BUCKETS: (f64, f64, u16) = (0.000_25, 2.0, 13);
/// Pulls come each second, and what is older than 3.5 s counts as not heard.
const AGE_BUCKETS: [f64; 10] = [0.125, 0.25, 0.5, 1.0, 1.5, 2.5, 3.5, 7.0, 15.0, 60.0];

/// All metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    scales: Family<ScaleLabels, Counter>,
    decisions: Family<DecisionLabels, Counter>,
    api_calls: Family<CallLabels, Counter>,
    /// Wait of the patch of `/scale` of a wake for its turn, seconds.
    wake_turn: Histogram,
    /// From the first one held to the patch of `/scale`, seconds: sent, and answered.
    wake_sent: Histogram,
    wake_written: Histogram,
    pull: Histogram,
    pull_age: Histogram,
    pulls_failed: Family<AskedLabels, Counter>,
    reports_refused: Family<RefusalLabels, Counter>,
    series: Workloads,
    /// Workloads with a task of their own.
    pub workloads: Gauge,
    /// ScaledWorkloads that can't be read.
    pub unread: Gauge,
    /// Shards that there are.
    pub shards: Gauge,
    /// Shards of the workloads that this replica leads.
    pub shards_held: Gauge,
    /// Failed evaluations of a workload, mostly API errors.
    pub errors: Counter,
    /// Tasks of ours that have panicked and begin anew.
    pub panics: Counter,
    /// Activators that are ready and have not been heard for a while.
    pub silent_activators: Gauge,
    /// 1 while the newest edit of the cluster-wide settings is not taken.
    pub settings_rejected: Gauge,
}

// === impl Metrics ===

impl Metrics {
    /// Registers everything in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new();
        metrics.start_at_zero();
        let own = registry.sub_registry_with_prefix("lull_autoscaler");
        metrics.name_decisions(own);
        metrics.name_pulls(own);
        metrics.name_process(own);
        own.register_collector(Box::new(metrics.series.clone()));
        metrics
    }

    fn new() -> Self {
        let exponential = |(start, factor, length)| {
            let buckets = exponential_buckets(start, factor, length);
            Histogram::new(buckets)
        };
        Self {
            scales: Family::default(),
            decisions: Family::default(),
            api_calls: Family::default(),
            wake_turn: exponential(WAKE_BUCKETS),
            wake_sent: exponential(WAKE_BUCKETS),
            wake_written: exponential(WAKE_BUCKETS),
            pull: exponential(PULL_BUCKETS),
            pull_age: Histogram::new(AGE_BUCKETS),
            pulls_failed: Family::default(),
            reports_refused: Family::default(),
            series: Workloads::default(),
            workloads: Gauge::default(),
            unread: Gauge::default(),
            shards: Gauge::default(),
            shards_held: Gauge::default(),
            errors: Counter::default(),
            panics: Counter::default(),
            silent_activators: Gauge::default(),
            settings_rejected: Gauge::default(),
        }
    }

    /// Makes every series that is not a workload's: a rate needs its zero.
    fn start_at_zero(&self) {
        for direction in Direction::ALL {
            let _ = self.scales.get_or_create(&ScaleLabels { direction });
        }
        for reason in Why::ALL.map(Why::label) {
            let _ = self.decisions.get_or_create(&DecisionLabels { reason });
        }
        for purpose in Purpose::ALL {
            for done in [Done::Yes, Done::No] {
                let labels = CallLabels::new(purpose, done);
                let _ = self.api_calls.get_or_create(&labels);
            }
        }
        for asked in Asked::ALL {
            let _ = self.pulls_failed.get_or_create(&AskedLabels::new(asked));
            for refusal in Refusal::ALL {
                let labels = RefusalLabels::new(asked, refusal);
                let _ = self.reports_refused.get_or_create(&labels);
            }
        }
    }

    fn name_decisions(&self, own: &mut Registry) {
        own.register(
            "decisions",
            "Decisions about workloads, by why the count is what it is",
            self.decisions.clone(),
        );
        own.register(
            "scales",
            "Replica counts written, by direction",
            self.scales.clone(),
        );
        own.register(
            "wake_turn_seconds",
            "Time that the patch of /scale of a wake waits for its turn",
            self.wake_turn.clone(),
        );
        own.register(
            "wake_sent_seconds",
            "Time from the first one held at an activator until the patch of /scale is sent",
            self.wake_sent.clone(),
        );
        own.register(
            "wake_written_seconds",
            "Time from the first one held at an activator until the patch of /scale is answered",
            self.wake_written.clone(),
        );
    }

    fn name_pulls(&self, own: &mut Registry) {
        own.register(
            "pull_seconds",
            "Time until a pod has answered with its report",
            self.pull.clone(),
        );
        own.register(
            "pull_age_seconds",
            "Age of the oldest report that a decision was made on",
            self.pull_age.clone(),
        );
        own.register(
            "pulls_failed",
            "Reports that could not be fetched",
            self.pulls_failed.clone(),
        );
        own.register(
            "reports_refused",
            "Reports that could not be used",
            self.reports_refused.clone(),
        );
        own.register(
            "silent_activators",
            "Activators that are ready and have not been heard for 10 s: no workload falls asleep",
            self.silent_activators.clone(),
        );
    }

    fn name_process(&self, own: &mut Registry) {
        own.register(
            "api_calls",
            "Calls of the API server for workloads, but for Events, the lease and watches",
            self.api_calls.clone(),
        );
        own.register(
            "workloads",
            "Workloads that are looked after",
            self.workloads.clone(),
        );
        own.register(
            "unread_workloads",
            "ScaledWorkloads that can't be read: what was known of them holds",
            self.unread.clone(),
        );
        own.register(
            "shards",
            "Shards that the workloads are divided into",
            self.shards.clone(),
        );
        own.register(
            "shards_held",
            "Shards of the workloads that this replica leads",
            self.shards_held.clone(),
        );
        own.register(
            "errors",
            "Evaluations of a workload that failed and are repeated",
            self.errors.clone(),
        );
        own.register(
            "panics",
            "Tasks for a workload or an activator that panicked and are begun anew",
            self.panics.clone(),
        );
        own.register(
            "settings_rejected",
            "Whether the newest edit of the cluster-wide settings is wrong or deletes them and is not taken",
            self.settings_rejected.clone(),
        );
    }

    /// The series of the workload `key`, for its task to keep.
    #[must_use]
    pub fn workload(&self, key: &Key) -> Series {
        self.series.open(key)
    }

    /// Counts a decision, made on reports of which the oldest is so old; `None`: somebody has not
    /// reported at all.
    pub fn decided(&self, why: Why, oldest: Option<Duration>) {
        let reason = why.label();
        self.decisions
            .get_or_create(&DecisionLabels { reason })
            .inc();
        if let Some(age) = oldest {
            self.pull_age.observe(age.as_secs_f64());
        }
    }

    /// Counts a wake whose patch waited for its `turn`, and was sent and answered so long after the first
    /// one was held.
    pub fn woken(&self, turn: Duration, (sent, written): (Duration, Duration)) {
        self.wake_turn.observe(turn.as_secs_f64());
        self.wake_sent.observe(sent.as_secs_f64());
        self.wake_written.observe(written.as_secs_f64());
    }

    /// Counts an API call.
    pub fn called(&self, purpose: Purpose, done: bool) {
        let done = if done { Done::Yes } else { Done::No };
        let labels = CallLabels::new(purpose, done);
        self.api_calls.get_or_create(&labels).inc();
    }

    /// Counts a written scale.
    pub fn scaled(&self, from: u32, to: u32) {
        let direction = Direction::of(from, to);
        self.scales.get_or_create(&ScaleLabels { direction }).inc();
    }

    /// Counts the answer of a pod that took so long.
    pub fn pulled(&self, took: Duration) {
        self.pull.observe(took.as_secs_f64());
    }

    /// Counts a report that was not had. One that is too long to be read to its end is refused.
    pub fn pull_failed(&self, asked: Asked, error: &PullError) {
        match error {
            PullError::TooLong(_) => self.refuse(asked, Refusal::TooLong),
            _ => {
                let labels = AskedLabels::new(asked);
                self.pulls_failed.get_or_create(&labels).inc();
            }
        }
    }

    /// Counts a report that can't be used, or of which something was left out.
    pub fn refused(&self, asked: Asked, error: &ReportError) {
        self.refuse(asked, error.into());
    }

    fn refuse(&self, asked: Asked, refusal: Refusal) {
        let labels = RefusalLabels::new(asked, refusal);
        self.reports_refused.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests;
