//! The autoscaler's real decisions; only what it would read and write over the network is modelled.

use std::time::Duration;

use autoscaler::{
    demand::{Demand, Hearing, Reporter},
    machine::{self, Action, Delays, Facts},
    policy::{Policy, Seen},
};
use lull_contract::{Settings, scaled_workload::State};

use crate::cluster::{ACTIVATOR, Cluster, STEP};

/// One workload's controller.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    delays: Delays,
    demand: Demand,
    policy: Policy,
    state: State,
    state_since: f64,
    arrivals_at_state: u64,
    /// Since when callers find pods without the activator.
    native_since: Option<f64>,
    hearing: Option<Hearing>,
    begun: f64,
    /// When a pod was heard last.
    pod_heard_at: f64,
    /// Pods that the last verdict wanted.
    pub desired: u32,
    /// Why.
    pub reason: String,
}

// === impl Controller ===

impl Controller {
    /// A controller that begins at `now` with the state that the one before it left.
    #[must_use]
    pub fn new(settings: Settings, state: State, now: f64) -> Self {
        Self {
            demand: Demand::new(&settings),
            policy: Policy::new(true, at(now)),
            settings,
            delays: Delays::default(),
            state,
            state_since: now,
            arrivals_at_state: 0,
            native_since: None,
            hearing: None,
            begun: now,
            pod_heard_at: now,
            desired: 0,
            reason: String::new(),
        }
    }

    /// Step of the workload's life.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes the reports of the pods that `is_heard` lets through.
    pub fn pull(&mut self, cluster: &Cluster, mut is_heard: impl FnMut(&str) -> bool) {
        for report in cluster.reports().filter(|report| is_heard(&report.pod)) {
            self.pod_heard_at = cluster.now();
            self.demand
                .pod_reported(&report.pod, &report, at(cluster.now()));
        }
    }

    /// Whether it has watched for less than a window, or has had no report of any pod for so many
    /// seconds: what load there is, it can't know then.
    #[must_use]
    pub fn is_blind(&self, now: f64, seconds: f64) -> bool {
        // Sums of steps are not exact.
        let watched = now - self.begun + STEP / 2.0;
        watched < self.settings.window.0.as_secs_f64() || now - self.pod_heard_at > seconds
    }

    /// Takes the activator's report.
    pub fn hear(&mut self, cluster: &Cluster) {
        let (now_us, held) = cluster.holding();
        let hearing = Hearing {
            boot: 1,
            complete: 1,
            now_us,
            at: at(cluster.now()),
        };
        let reports = (self.hearing.replace(hearing), hearing);
        self.demand.activator_reported(ACTIVATOR, reports, &held);
    }

    /// Decides, and does it to the cluster; the actions that were taken.
    pub fn evaluate(&mut self, cluster: &mut Cluster) -> Vec<Action> {
        let now = cluster.now();
        let seen = Seen {
            replicas: cluster.replicas,
            ready: cluster.ready(),
        };
        let activator = Reporter {
            name: ACTIVATOR,
            ready: true,
        };
        let measured = self.demand.measure(
            &self.settings,
            cluster.reporters(),
            [(activator, self.hearing)].into_iter(),
            at(now),
        );
        let verdict = self
            .policy
            .verdict(&self.settings, &measured, seen, at(now));
        let native_ready = self.note_native(cluster);
        let facts = Facts {
            arrived: measured.totals.arrivals != self.arrivals_at_state,
            services_switched: true,
            selector_held: cluster.selector_held,
            native_ready,
            native_for: at(self.native_since.map_or(0.0, |since| now - since)),
            // What listens says so in its report.
            activators: if self.hearing.is_some() { 2 } else { 0 },
            since: at(now - self.state_since),
            ..verdict.facts(&self.settings, &measured, seen)
        };
        let step = machine::step(self.state, &facts, &self.delays);
        for action in &step.actions {
            match *action {
                Action::AddActivators => cluster.activators_in = true,
                Action::RemoveActivators | Action::RemoveSlices => cluster.activators_in = false,
                Action::HoldSelector => cluster.selector_held = true,
                Action::RestoreSelector => cluster.selector_held = false,
                Action::Scale { to, .. } => {
                    cluster.scale(to);
                    self.policy.wrote(to);
                }
                // There is no mesh, and each pod that is asked for is made here.
                Action::StandBy | Action::AskAgain { .. } => {}
            }
        }
        if step.state != self.state {
            (self.state, self.state_since) = (step.state, now);
            self.arrivals_at_state = measured.totals.arrivals;
        }
        // Slices follow a selector at once here.
        self.note_native(cluster);
        self.desired = verdict.want;
        self.reason = step.reason.unwrap_or_else(|| verdict.to_string());
        step.actions
    }

    /// Whether callers find pods without the activator, and takes note of since when.
    fn note_native(&mut self, cluster: &Cluster) -> bool {
        let is_served = cluster.ready() > 0 && !cluster.selector_held;
        let since = self.native_since.unwrap_or_else(|| cluster.now());
        self.native_since = is_served.then_some(since);
        is_served
    }
}

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}
