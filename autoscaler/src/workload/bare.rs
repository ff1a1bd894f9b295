//! A template that has lost its sidecar: somebody has written it while the webhook was away.
//!
//! Its new pods have none of the named ports that the Services ask for, so no caller would be sent to
//! them. Until the sidecar is back they are reached as without Lull, and then the workload is enrolled
//! anew. Activators, who know pods by a label that these don't have, are told of their addresses by the
//! status. As with leaving ([`super::leave`]), every step looks at the objects and does what is missing.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Service;
use lull_contract::{
    Class,
    scaled_workload::{ScaledWorkload, State},
};

use super::{Task, leave::only_names, status::Say};
use crate::{
    context::WriteError,
    plan::{self, PlannedService},
    policy::{Policy, wanted_for_held},
    target::Target,
};

/// What is said of such a workload.
pub(super) const SIDECAR_LOST: &str = "its template has lost the sidecar while the webhook was \
                                       away: callers reach its pods directly until it is back";

/// How long a workload that sleeps, and that nobody calls, is left asleep: the webhook, which is asked
/// meanwhile, may have been away for a moment only.
const LEFT_ASLEEP: Duration = Duration::from_secs(2);

/// What is seen of it.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a hidden enum"
)]
struct Seen {
    /// A Service's ports lead to names that new pods don't have.
    is_switched: bool,
    /// A Service's selector is the sentinel, so no pod is in its endpoints.
    is_held: bool,
    /// Activators are in the Services' endpoints.
    is_listed: bool,
    /// It has no pods, and it is Lull that wakes it.
    may_wake: bool,
    /// Somebody is held, or it has slept without the sidecar for long enough.
    is_due: bool,
    /// Kubernetes lists a ready pod for every Service, be it for none of its ports.
    is_ready: bool,
    /// The same for a port.
    is_reached: bool,
    /// The Services were given back a propagation delay ago.
    is_heard: bool,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: it is as without Lull, or what is waited for is not there.
    Wait,
    /// The user's selector, so that pods are in the endpoints before activators go.
    Release,
    /// A count above zero.
    Wake,
    /// The Services as their user had them.
    GiveBack,
    /// Activators out of the endpoints.
    TakeOut,
}

/// The next step. In a mesh, activators are no endpoints any more once the Services are given back, so
/// a pod is ready before that.
fn step(seen: Seen) -> Step {
    if !seen.is_switched && !seen.is_listed {
        return Step::Wait;
    }
    if seen.is_held {
        return Step::Release;
    }
    if !seen.is_ready {
        let wakes = seen.may_wake && seen.is_due;
        return if wakes { Step::Wake } else { Step::Wait };
    }
    if seen.is_switched {
        return Step::GiveBack;
    }
    if seen.is_reached && seen.is_heard {
        return Step::TakeOut;
    }
    Step::Wait
}

// === impl Task ===

impl Task {
    /// Asks the webhook for the sidecar; until it is there, callers reach the pods without it.
    pub(super) async fn without_sidecar(
        &mut self,
        target: &Target,
        workload: Option<&ScaledWorkload>,
    ) -> Result<(), WriteError> {
        let carried_on = match workload.filter(|workload| !workload.spec.is_dry_run()) {
            Some(workload) => self.go_without_sidecar(target, workload).await,
            // It has never been ours.
            None => Ok(()),
        };
        // Whatever was refused: the webhook may be back.
        self.ask_for_injection(target).await?;
        carried_on
    }

    async fn go_without_sidecar(
        &mut self,
        target: &Target,
        workload: &ScaledWorkload,
    ) -> Result<(), WriteError> {
        if self.state != Some(State::Enrolling) {
            tracing::warn!(workload = %self.key, "the template has lost its sidecar");
            self.enter(State::Enrolling);
            // What was measured before says nothing of the time after it.
            self.policy = Policy::new(true, self.ctx.now());
        }
        let services = self.our_services(Some(workload), target);
        let named = only_names(&services);
        let say = Say::unenrolled(SIDECAR_LOST, self.plain_pods(&named));
        self.say(workload, say).await?;
        let replicas = self.replicas(target);
        let class = workload.spec.settings.class;
        let may_wake = replicas == 0 && class != Class::None;
        let seen = self.seen_without_sidecar(&services, &named, may_wake);
        match step(seen) {
            Step::Wait => {}
            Step::Release => self.restore_selector(&named).await?,
            Step::Wake => {
                let wanted = self.wanted_without_sidecar(workload);
                self.scale(target, replicas, wanted).await?;
            }
            Step::GiveBack => {
                // Istio would take them for endpoints at the number of the user's port, where no activator listens.
                self.remove_entries_but(&[]).await?;
                self.give_back(&services).await?;
            }
            Step::TakeOut => self.remove_all_activators().await?,
        }
        if !seen.is_listed && !seen.is_switched {
            self.remove_order().await?;
        }
        if seen.is_listed && !seen.is_ready {
            // Those that are there stay so long, and dead ones leave.
            self.add_activators_as_planned(target, workload).await?;
        }
        Ok(())
    }

    /// What is seen of it; `named` are the names of `services`.
    fn seen_without_sidecar(
        &mut self,
        services: &[Arc<Service>],
        named: &[PlannedService],
        may_wake: bool,
    ) -> Seen {
        let is_called = self.mailbox.demand.lock().held() > 0;
        let is_switched = services.iter().any(|service| plan::is_noted(service));
        Seen {
            is_switched,
            is_held: services.iter().any(|service| plan::is_held(service)),
            is_listed: self.lists_activators(),
            may_wake,
            is_due: is_called || self.state_since.elapsed() >= LEFT_ASLEEP,
            // Where there is no Service any more, nobody is to be let down.
            is_ready: named.is_empty() || self.native_ready(named),
            is_reached: named.is_empty() || self.native_reached(named),
            is_heard: !is_switched && self.are_given_back(),
        }
    }

    /// What the user had at least: nobody but Lull would make it more, and without sidecars Lull can't
    /// tell.
    fn wanted_without_sidecar(&self, workload: &ScaledWorkload) -> u32 {
        let held = self.mailbox.demand.lock().held();
        let held = wanted_for_held(&workload.spec.settings, held);
        workload.spec.original_replicas.max(held).max(1)
    }
}

#[cfg(test)]
mod tests;
