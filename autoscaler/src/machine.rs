//! The life of an enrolled workload as a state machine: a pure function of the state and of what
//! is seen.
//!
//! Rules that every step keeps: add before take away (activators are in the Service's endpoints
//! before pods go, pods are ready before activators go out); unknown is busy (nothing shrinks on
//! missing data); each state can be resumed by another replica, because an action is repeated until
//! what it does is seen.

mod facts;

use std::time::Duration;

use lull_contract::scaled_workload::State;

pub use self::facts::Facts;

/// Why a workload is awake while there is no activator at all.
pub(crate) const NO_ACTIVATOR: &str =
    "no activator has been ready for a while: it is kept awake until one is back";

/// Why it is asleep though Lull has not put it to sleep.
const PUT_TO_ZERO: &str = "scaled to 0 by somebody else";
/// Why activators stay in the way though burst capacity looks like enough.
const BURST_UNKNOWN: &str =
    "burst capacity is not known to have been enough for a window: activators stay";

/// Waits that can't be observed.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// From a written endpoint to the last kube-proxy and Envoy that uses it.
    pub propagation: Duration,
    /// How long a state of burst capacity lasts at least, so that modes don't flap.
    pub burst_hold: Duration,
    /// How long a wake may take before the pods are given up.
    pub wake_deadline: Duration,
    /// How long a wake may bring no pod at all before pods are asked for anew.
    pub ask_again: Duration,
}

/// Something to write. Each is idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Activators into the public Services' endpoints.
    AddActivators,
    /// Activators out of the public Services' endpoints.
    RemoveActivators,
    /// Activators out of the public Services' endpoints but for Istio's, where they stand by behind pods.
    RemoveSlices,
    /// Those activators into Istio's endpoints of the public Services, behind pods, that there are.
    StandBy,
    /// Sentinel selector on those of the public Services whose pods Kubernetes lists.
    HoldSelector,
    /// The user's selector on the public Services.
    RestoreSelector,
    /// `/scale`, if it is at `from` now.
    Scale {
        /// Count that the decision was made on.
        from: u32,
        /// New count.
        to: u32,
    },
    /// `/scale` to zero for a moment, if it is at `from` now: the next step of a wake writes it anew.
    ///
    /// A controller whose pods are refused (the mesh's or a policy's admission is away) tries again after
    /// twice the time, up to a quarter of an hour; a count that changes makes it try at once.
    AskAgain {
        /// Count that has brought no pod.
        from: u32,
    },
}

/// What to do now: the actions in order and, if all succeed, the next state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// State after the actions.
    pub state: State,
    /// Writes, in order.
    pub actions: Vec<Action>,
    /// Why, where it isn't the decision's own reason.
    pub reason: Option<String>,
}

// === impl Delays ===

impl Default for Delays {
    fn default() -> Self {
        Self {
            // kube-proxy's nftables mode batches changes for up to 1 s, istiod for 100 ms.
            propagation: Duration::from_secs(3),
            burst_hold: Duration::from_secs(10),
            wake_deadline: Duration::from_secs(600),
            // Kubernetes' own controllers have tried a dozen times by then, the last time 10 s ago.
            ask_again: Duration::from_secs(20),
        }
    }
}

// === impl Step ===

impl Step {
    fn new(state: State, actions: impl Into<Vec<Action>>) -> Self {
        Self {
            state,
            actions: actions.into(),
            reason: None,
        }
    }

    fn why(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// The next step of an enrolled workload. `Leaving` and `Planned` have their own drivers; `Enrolling`
/// only waits for its Services here.
#[must_use]
pub fn step(state: State, facts: &Facts, delays: &Delays) -> Step {
    use State::{Asleep, Enrolling, Leaving, Planned};
    let step = step_of(state, facts, delays);
    let is_kept = !matches!(step.state, Enrolling | Asleep | Leaving | Planned);
    if facts.no_activator && is_kept && step.reason.is_none() {
        return step.why(NO_ACTIVATOR);
    }
    step
}

fn step_of(state: State, facts: &Facts, delays: &Delays) -> Step {
    match state {
        State::Enrolling => enrolling(facts),
        State::Awake => awake(facts, delays),
        State::Bursting => bursting(facts, delays),
        State::FallingAsleep => falling_asleep(facts, delays),
        State::Asleep => asleep(facts),
        State::Waking => waking(facts, delays),
        State::Settling => settling(facts, delays),
        State::Leaving | State::Planned => Step::new(state, []),
    }
}

fn enrolling(facts: &Facts) -> Step {
    match (facts.services_switched, facts.replicas) {
        (false, _) => Step::new(State::Enrolling, []),
        (true, 0) if facts.activators > 0 && !facts.no_activator => {
            Step::new(State::Asleep, [Action::AddActivators])
        }
        (true, 0) => Step::new(State::Enrolling, []).why("waiting for an activator"),
        // They go as after a wake.
        (true, _) if facts.listed => Step::new(State::Settling, []),
        (true, _) => Step::new(State::Awake, []),
    }
}

fn awake(facts: &Facts, delays: &Delays) -> Step {
    use Action::{AddActivators, RestoreSelector, StandBy};
    if facts.selector_held {
        // Left over from a burst that somebody cut short.
        return Step::new(State::Settling, [AddActivators, RestoreSelector]);
    }
    // By a step that was cut short: they go as after a wake, and dead ones leave until then. Not at once: the
    // caches may still show what has just been taken out.
    let is_left_listed = facts.listed && facts.ready > 0 && facts.since >= delays.propagation;
    let settle = || Step::new(State::Settling, Vec::from_iter(facts.scale()));
    let stay = || {
        let mut actions = Vec::from_iter(facts.scale());
        // Again and again: activators come and go.
        actions.extend(facts.may_stand_by(delays).then_some(StandBy));
        Step::new(State::Awake, actions)
    };
    if facts.activators == 0 {
        if is_left_listed {
            return settle();
        }
        let why = if facts.no_activator {
            NO_ACTIVATOR
        } else {
            "no activator is ready: the workload stays awake"
        };
        return stay().why(why);
    }
    if facts.replicas == 0 {
        return Step::new(State::Asleep, [AddActivators]).why(PUT_TO_ZERO);
    }
    if facts.ready == 0 {
        return Step::new(State::Waking, [AddActivators]).why("no pod is ready");
    }
    if !facts.services_switched {
        return Step::new(State::Awake, Vec::from_iter(facts.scale()))
            .why("a Service was changed: Lull is putting its named ports back");
    }
    if facts.should_sleep() {
        return Step::new(State::FallingAsleep, [AddActivators]);
    }
    if facts.needs_burst() {
        let mut actions = vec![AddActivators];
        actions.extend(facts.scale());
        return Step::new(State::Bursting, actions);
    }
    if is_left_listed {
        return settle();
    }
    stay()
}

fn bursting(facts: &Facts, delays: &Delays) -> Step {
    use Action::{AddActivators, HoldSelector, RestoreSelector};
    if facts.is_without_activators() {
        return Step::new(State::Settling, [RestoreSelector]).why("no activator is ready");
    }
    if facts.replicas == 0 {
        return Step::new(State::Asleep, [AddActivators]);
    }
    if facts.should_sleep() && facts.since >= delays.propagation {
        return Step::new(State::FallingAsleep, [AddActivators]);
    }
    if facts.ready == 0 {
        return Step::new(State::Waking, [AddActivators]).why("no pod is ready");
    }
    if !facts.can_list() {
        // All traffic may come by those that are listed.
        return Step::new(State::Bursting, Vec::from_iter(facts.scale()))
            .why("no activator is heard: those that are listed stay");
    }
    let mut actions = vec![AddActivators];
    actions.extend(facts.scale());
    if facts.burst_enough && facts.since >= delays.burst_hold {
        if facts.selector_held {
            actions.push(RestoreSelector);
        }
        return Step::new(State::Settling, actions);
    }
    if facts.burst_short && facts.since >= delays.propagation {
        // Also while it is held: one of several Services may only now have what it is to be held for.
        actions.push(HoldSelector);
    }
    let step = Step::new(State::Bursting, actions);
    if facts.burst_short || facts.burst_enough {
        step
    } else {
        step.why(BURST_UNKNOWN)
    }
}

fn falling_asleep(facts: &Facts, delays: &Delays) -> Step {
    use Action::{AddActivators, Scale};
    if facts.replicas == 0 {
        return Step::new(State::Asleep, [AddActivators]);
    }
    if facts.arrived || !facts.should_sleep() || facts.activators == 0 {
        return Step::new(State::Settling, [AddActivators]).why("traffic before it fell asleep");
    }
    if facts.since < delays.propagation {
        return Step::new(State::FallingAsleep, [AddActivators]);
    }
    Step::new(
        State::Asleep,
        [
            AddActivators,
            Scale {
                from: facts.replicas,
                to: 0,
            },
        ],
    )
}

fn asleep(facts: &Facts) -> Step {
    use Action::{AddActivators, RestoreSelector, Scale};
    if facts.replicas > 0 {
        return Step::new(State::Waking, [AddActivators]);
    }
    if facts.may_wake && (facts.held > 0 || !facts.may_sleep) {
        let wake = Scale {
            from: 0,
            to: facts.want.max(1),
        };
        return Step::new(State::Waking, [wake, AddActivators]);
    }
    let mut actions = vec![AddActivators];
    if facts.selector_held {
        actions.push(RestoreSelector);
    }
    Step::new(State::Asleep, actions)
}

fn waking(facts: &Facts, delays: &Delays) -> Step {
    use Action::{AddActivators, AskAgain, RestoreSelector, Scale};
    if facts.replicas == 0 && facts.held == 0 && facts.may_sleep {
        return Step::new(State::Asleep, [AddActivators]);
    }
    if facts.ready > 0 && (facts.native_ready || facts.selector_held) {
        return Step::new(State::Settling, [AddActivators]);
    }
    let given_up = facts.replicas > 0
        && facts.ready == 0
        && facts.may_sleep
        && facts.in_flight == 0
        && !facts.activators_unheard
        && facts.since >= delays.wake_deadline;
    if given_up {
        return Step::new(
            State::Asleep,
            [
                AddActivators,
                Scale {
                    from: facts.replicas,
                    to: 0,
                },
            ],
        )
        .why(format!(
            "no pod became ready within {} s",
            delays.wake_deadline.as_secs()
        ));
    }
    if facts.is_stuck(delays) {
        let actions = [
            AddActivators,
            AskAgain {
                from: facts.replicas,
            },
        ];
        let why = format!(
            "no pod was made within {} s, {} held: asked for anew",
            delays.ask_again.as_secs(),
            facts.held
        );
        return Step::new(State::Waking, actions).why(why);
    }
    let mut actions = vec![AddActivators];
    actions.extend(
        facts
            .scale()
            .filter(|a| matches!(a, Scale { from, to } if to > from)),
    );
    if facts.selector_held {
        actions.push(RestoreSelector);
    }
    Step::new(State::Waking, actions)
}

fn settling(facts: &Facts, delays: &Delays) -> Step {
    use Action::{AddActivators, RemoveActivators, RemoveSlices, RestoreSelector};
    if facts.replicas == 0 && facts.activators > 0 {
        return Step::new(State::Asleep, [AddActivators]).why(PUT_TO_ZERO);
    }
    if facts.ready == 0 {
        return Step::new(State::Waking, [AddActivators]);
    }
    let mut actions = Vec::from_iter(facts.can_list().then_some(AddActivators));
    actions.extend(facts.scale());
    if facts.needs_burst() && !facts.is_without_activators() {
        return Step::new(State::Bursting, actions);
    }
    if facts.selector_held {
        actions.push(RestoreSelector);
        return Step::new(State::Settling, actions);
    }
    if !facts.burst_enough && !facts.is_without_activators() {
        return Step::new(State::Settling, actions).why(BURST_UNKNOWN);
    }
    // Also where Kubernetes has listed the pods long after the state began: everybody has to hear of that, too.
    if facts.native_ready && facts.native_for.min(facts.since) >= delays.propagation {
        let leave = match facts.pods_first {
            Some(_) => RemoveSlices,
            None => RemoveActivators,
        };
        return Step::new(State::Awake, [leave]);
    }
    Step::new(State::Settling, actions)
}

#[cfg(test)]
mod tests;
