//! The life of an enrolled workload as a state machine: a pure function of the state and of what
//! is seen.
//!
//! Rules that every step keeps: add before take away (activators are in the Service's endpoints
//! before pods go, pods are ready before activators go out); unknown is busy (nothing shrinks on
//! missing data); each state can be resumed by another replica, because an action is repeated until
//! what it does is seen.

use std::time::Duration;

use lull_contract::scaled_workload::State;

/// Why a workload is awake while there is no activator at all.
pub(crate) const NO_ACTIVATOR: &str =
    "no activator has been ready for a while: it is kept awake until one is back";

/// Why activators stay in the way though burst capacity looks like enough.
const BURST_UNKNOWN: &str =
    "burst capacity is not known to have been enough for a window: activators stay";

/// What is seen of a workload at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a hidden enum"
)]
pub struct Facts {
    /// `spec.replicas` of the target.
    pub replicas: u32,
    /// Ready pods with a queue-proxy.
    pub ready: u32,
    /// Pods that the decision wants, within min and max.
    pub want: u32,
    /// Whether anything but us scales between 1 and n (class `hpa`).
    pub zero_only: bool,
    /// Whether the workload may go to zero at all.
    pub may_sleep: bool,
    /// Whether it is Lull that wakes it from zero.
    pub may_wake: bool,
    /// There is no activator at all ([`crate::absence`]), and so `may_sleep` is false: asleep it
    /// would be reached by nobody. One that has just come back may be among `activators` already.
    pub no_activator: bool,
    /// Excess burst capacity is negative.
    pub burst_short: bool,
    /// It has not been for a window, and that is known: nothing that is unheard could make it so.
    /// Neither this nor `burst_short` where nobody can say.
    pub burst_enough: bool,
    /// In flight at pods plus held at activators.
    pub in_flight: u64,
    /// Held at activators.
    pub held: u64,
    /// Let through by activators and not ended.
    pub forwarding: u64,
    /// Connections went round a queue-proxy within the stable window.
    pub bypassed: bool,
    /// Something arrived since the state began.
    pub arrived: bool,
    /// Every pod and activator was heard lately and for a whole window.
    pub known: bool,
    /// The same of every activator and most pods, which is enough to shrink, but not to sleep.
    pub may_shrink: bool,
    /// A rollout is under way.
    pub rolling: bool,
    /// Public Services are as Lull left them.
    pub services_switched: bool,
    /// A public Service's selector is the sentinel.
    pub selector_held: bool,
    /// Kubernetes' own slices of every public Service list a ready pod.
    pub native_ready: bool,
    /// Activators that can be listed: ready and listening on the workload's ports.
    pub activators: u32,
    /// One that is ready is not heard, so it may be one more of them.
    pub activators_unheard: bool,
    /// Time since the state began.
    pub since: Duration,
    /// For so long there has been no pod at all, though the count is above zero.
    pub podless: Duration,
}

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
    /// Sentinel selector on the public Services.
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

// === impl Facts ===

impl Facts {
    /// Nothing in flight anywhere, everybody heard, no rollout: pods may go.
    fn idle(&self) -> bool {
        self.in_flight == 0 && self.forwarding == 0 && !self.bypassed && self.known && !self.rolling
    }

    fn should_sleep(&self) -> bool {
        self.may_sleep && self.want == 0 && self.idle()
    }

    /// All traffic is to come by the activators. Not by one that has just come back after there was
    /// none: where it goes again, nobody is reached.
    fn needs_burst(&self) -> bool {
        self.burst_short && !self.no_activator
    }

    /// No activator can bring traffic, for all that is known. A process that has just started has
    /// heard none yet: that is unknown.
    fn is_without_activators(&self) -> bool {
        self.no_activator || (self.activators == 0 && !self.activators_unheard)
    }

    /// Somebody waits for pods of which none is made. The next one to ask for them must be us.
    fn is_stuck(&self, delays: &Delays) -> bool {
        // Who may not sleep is at zero for no moment either.
        let is_ours = self.may_wake && self.may_sleep && self.activators > 0;
        let is_asked = self.replicas > 0 && self.ready == 0;
        is_ours && is_asked && self.held > 0 && self.podless >= delays.ask_again
    }

    /// The scale action that the decision asks for above zero, if any.
    fn scale(&self) -> Option<Action> {
        let to = self.want.max(1);
        let (up, down) = (to > self.replicas, to < self.replicas);
        let allowed = if self.replicas == 0 {
            up && self.may_wake
        } else {
            !self.zero_only
        };
        let shrink = down && self.may_shrink && !self.rolling;
        (allowed && (up || shrink)).then_some(Action::Scale {
            from: self.replicas,
            to,
        })
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
        State::Awake => awake(facts),
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
        (true, _) => Step::new(State::Awake, []),
    }
}

fn awake(facts: &Facts) -> Step {
    use Action::{AddActivators, RestoreSelector};
    if facts.selector_held {
        // Left over from a burst that somebody cut short.
        return Step::new(State::Settling, [AddActivators, RestoreSelector]);
    }
    if facts.activators == 0 {
        let why = if facts.no_activator {
            NO_ACTIVATOR
        } else {
            "no activator is ready: the workload stays awake"
        };
        return Step::new(State::Awake, Vec::from_iter(facts.scale())).why(why);
    }
    if facts.replicas == 0 {
        return Step::new(State::Asleep, [AddActivators]).why("scaled to 0 by somebody else");
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
    Step::new(State::Awake, Vec::from_iter(facts.scale()))
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
    if facts.activators == 0 {
        // Those that are listed stay: all traffic may come by them.
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
    if facts.burst_short && !facts.selector_held && facts.since >= delays.propagation {
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
    use Action::{AddActivators, RemoveActivators, RestoreSelector};
    if facts.ready == 0 {
        return Step::new(State::Waking, [AddActivators]);
    }
    let mut actions = vec![AddActivators];
    actions.extend(facts.scale());
    if facts.needs_burst() && facts.activators > 0 {
        return Step::new(State::Bursting, actions);
    }
    if facts.selector_held {
        actions.push(RestoreSelector);
        return Step::new(State::Settling, actions);
    }
    if !facts.burst_enough && !facts.is_without_activators() {
        return Step::new(State::Settling, actions).why(BURST_UNKNOWN);
    }
    if facts.native_ready && facts.since >= delays.propagation {
        return Step::new(State::Awake, [RemoveActivators]);
    }
    Step::new(State::Settling, actions)
}

#[cfg(test)]
mod tests;
