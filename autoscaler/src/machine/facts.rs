//! What a step is made from, and what follows from it alone.

use std::time::Duration;

use super::{Action, Delays};

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
    /// For so long they have, without a break, and no selector was the sentinel; zero where that is not so.
    pub native_for: Duration,
    /// While it is being enrolled, or awake: activators are in the public Services' endpoints from before,
    /// where they don't stand by.
    pub listed: bool,
    /// For so long callers in the mesh have been told to call pods before activators, which may stand by in
    /// Istio's endpoints then; `None` where they have not, or nobody asks for it.
    pub pods_first: Option<Duration>,
    /// Activators that can be listed: ready and listening on the workload's ports.
    pub activators: u32,
    /// One that is ready is not heard, so it may be one more of them, and hold somebody.
    pub activators_unheard: bool,
    /// Time since the state began.
    pub since: Duration,
    /// For so long there has been no pod at all, though the count is above zero.
    pub podless: Duration,
}

// === impl Facts ===

impl Facts {
    /// Nothing in flight anywhere, everybody heard, no rollout: pods may go.
    fn idle(&self) -> bool {
        self.in_flight == 0 && self.forwarding == 0 && !self.bypassed && self.known && !self.rolling
    }

    pub(super) fn should_sleep(&self) -> bool {
        self.may_sleep && self.want == 0 && self.idle()
    }

    /// All traffic is to come by the activators. Not by one that has just come back after there was
    /// none: where it goes again, nobody is reached.
    pub(super) fn needs_burst(&self) -> bool {
        self.burst_short && !self.no_activator
    }

    /// No activator can bring traffic, for all that is known. A process that has just started has
    /// heard none yet: that is unknown.
    pub(super) fn is_without_activators(&self) -> bool {
        self.no_activator || (self.activators == 0 && !self.activators_unheard)
    }

    /// Whether it is known who can be listed. Until then those that are listed stay.
    pub(super) fn can_list(&self) -> bool {
        self.activators > 0 || !self.activators_unheard
    }

    /// Whether activators may come in behind pods: every caller has heard whom to call first. Where there is
    /// nobody to come in, those that are listed go; not where no pod is either: they may still answer.
    pub(super) fn may_stand_by(&self, delays: &Delays) -> bool {
        let is_heard = |told: Duration| told >= delays.propagation;
        let is_anybody_there = self.activators > 0 || self.native_ready;
        is_anybody_there && self.can_list() && self.pods_first.is_some_and(is_heard)
    }

    /// Somebody waits for pods of which none is made. The next one to ask for them must be us.
    pub(super) fn is_stuck(&self, delays: &Delays) -> bool {
        // Who may not sleep is at zero for no moment either.
        let is_ours = self.may_wake && self.may_sleep && self.activators > 0;
        let is_asked = self.replicas > 0 && self.ready == 0;
        is_ours && is_asked && self.held > 0 && self.podless >= delays.ask_again
    }

    /// The scale action that the decision asks for above zero, if any.
    pub(super) fn scale(&self) -> Option<Action> {
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
