//! A scenario from its begin to its end.

use autoscaler::machine::Action;
use lull_contract::scaled_workload::State;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{Cluster, Controller, Scenario};

/// Steps between two pulls: a second.
const PULL_EVERY: u32 = 10;
/// A request that has been at a pod for so long was there when the reports were made on which a
/// decision to sleep rests (the age up to which a report is used, and a pull).
const KNOWN_AFTER: f64 = 4.6;

/// What goes wrong during a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Share of the pulls, of pods and of the activator, that fail.
    pub failed_pulls: f64,
    /// Seconds between two restarts of the autoscaler; 0 = none.
    pub restart_every: u32,
}

/// One second of a run.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Requests at pods and at the activator.
    pub load: f64,
    /// Requests at the activator.
    pub held: f64,
    /// Pods that take traffic.
    pub ready: u32,
    /// Pods wanted.
    pub desired: u32,
    /// Step of the workload's life.
    pub state: State,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Second by second.
    pub points: Vec<Point>,
    /// Requests in all.
    pub requests: u64,
    /// Requests that nobody took.
    pub lost: u64,
    /// Times that the workload was put to sleep.
    pub sleeps: u32,
    /// Writes of `/scale`.
    pub writes: u32,
    /// The cost: seconds of pods, those that start or end included.
    pub pod_seconds: f64,
    /// The pain: seconds that requests were held, all together.
    pub held_seconds: f64,
    /// The longest that one was held, seconds.
    pub longest_hold: f64,
    /// Rules that were broken, each with its second.
    pub broken: Vec<String>,
}

/// Runs a scenario that begins asleep.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64, faults: Faults) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let settings = &scenario.settings;
    let mut cluster = Cluster::new(
        StdRng::seed_from_u64(rng.random()),
        scenario.start,
        settings.container_concurrency,
        0,
    );
    let mut controller = Controller::new(settings.clone(), State::Asleep, 0.0);
    let mut outcome = Outcome {
        points: Vec::new(),
        requests: 0,
        lost: 0,
        sleeps: 0,
        writes: 0,
        pod_seconds: 0.0,
        held_seconds: 0.0,
        longest_hold: 0.0,
        broken: Vec::new(),
    };
    for step in 1..=scenario.seconds * PULL_EVERY {
        let is_edge = cluster.step((scenario.rate)(cluster.now()), scenario.service);
        let is_pull = step % PULL_EVERY == 0;
        if faults.restart_every > 0 && step % (faults.restart_every * PULL_EVERY) == 0 {
            controller = Controller::new(settings.clone(), controller.state(), cluster.now());
        }
        if is_pull {
            controller.pull(&cluster, |_| rng.random::<f64>() >= faults.failed_pulls);
        }
        if !is_pull && !is_edge {
            continue;
        }
        if rng.random::<f64>() >= faults.failed_pulls {
            controller.hear(&cluster);
        }
        let (oldest, held) = (cluster.oldest_in_flight(), cluster.held());
        let before = controller.state();
        let actions = controller.evaluate(&mut cluster);
        outcome.judge(&actions, (oldest, held), &cluster);
        let is_blind = controller.is_blind(cluster.now(), KNOWN_AFTER);
        // Where no burst capacity is asked for, it takes no data to say that there is enough.
        if is_blind && settings.target_burst_capacity != 0 {
            outcome.judge_blind((before, controller.state()), &actions, &cluster);
        }
        if is_pull {
            outcome.points.push(Point {
                load: (cluster.in_flight() + cluster.held()) as f64,
                held: cluster.held() as f64,
                ready: cluster.ready(),
                desired: controller.desired,
                state: controller.state(),
            });
        }
    }
    outcome.requests = cluster.requests;
    outcome.lost = cluster.lost;
    outcome.pod_seconds = cluster.pod_seconds;
    outcome.held_seconds = cluster.waits.iter().sum();
    outcome.longest_hold = cluster.waits.iter().copied().fold(0.0, f64::max);
    outcome
}

// === impl Outcome ===

impl Outcome {
    fn judge(&mut self, actions: &[Action], (oldest, held): (f64, usize), cluster: &Cluster) {
        for action in actions {
            let Action::Scale { from, to } = *action else {
                continue;
            };
            self.writes += 1;
            if to > 0 {
                continue;
            }
            self.sleeps += 1;
            let when = cluster.now();
            if from > 0 && oldest > KNOWN_AFTER {
                let broken =
                    format!("{when:.1} s: asleep with a request of {oldest:.1} s in a pod");
                self.broken.push(broken);
            }
            if held > 0 {
                self.broken
                    .push(format!("{when:.1} s: asleep with {held} held"));
            }
        }
        let callers_find = cluster.activators_in || (cluster.ready() > 0 && !cluster.selector_held);
        if !callers_find {
            let when = cluster.now();
            self.broken.push(format!("{when:.1} s: no ready endpoint"));
        }
    }

    /// A controller that doesn't know the load keeps its mode.
    fn judge_blind(
        &mut self,
        (before, after): (State, State),
        actions: &[Action],
        cluster: &Cluster,
    ) {
        let ends_burst = (before, after) == (State::Bursting, State::Settling);
        if ends_burst || actions.contains(&Action::RemoveActivators) {
            let when = cluster.now();
            let broken = format!("{when:.1} s: Proxy given up on an unknown load");
            self.broken.push(broken);
        }
    }
}
