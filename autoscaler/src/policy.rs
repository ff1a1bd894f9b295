//! What one workload should have, over time: the algorithm's decisions within the user's bounds,
//! and what has to be remembered between them.
//!
//! Pure: everything seen and `now` are arguments. [`crate::machine`] turns a [`Verdict`] into steps.

mod burst;

use std::{fmt, time::Duration};

use lull_contract::{Class, Settings};

use self::burst::Burst;
use crate::{
    demand::Measured,
    kpa::{Decider, Decision, Observed},
    machine::Facts,
};

/// Knative's tick: decisions less far apart would shrink faster than its rate limit means.
const DECIDE_EVERY: Duration = Duration::from_secs(2);

/// After a policy begins, how long the watch may still show a count that the last leader wrote.
const LATE: Duration = Duration::from_secs(2);

/// The pods as the API server shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// `spec.replicas` of the target.
    pub replicas: u32,
    /// Pods that take traffic.
    pub ready: u32,
}

/// What the count of a [`Verdict`] follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The algorithm's decision.
    Algorithm,
    /// What activators hold asks for more.
    Held,
    /// The user's minimum is more.
    MinScale,
    /// It has not had its initial scale yet.
    InitialScale,
    /// The last pod stays for the retention period.
    Retention,
    /// The user's maximum is less.
    MaxScale {
        /// Pods that were asked for.
        asked: u32,
    },
    /// Somebody else's count is kept for a window.
    Others,
    /// Class `hpa`: above zero the count is left as it is.
    Hpa,
    /// Class `none`: the count is left as it is.
    Unscaled,
}

/// Why there are more pods than the algorithm asks for while activators hold something.
pub(crate) const HELD: &str = "requests wait at activators";

/// What a workload should have now.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Pods wanted, within min and max.
    pub want: u32,
    /// What that count follows from.
    pub rule: Rule,
    /// What the algorithm said.
    pub decision: Decision,
    /// It said so just now: the decision is not one that is kept until the next is due.
    pub decided: bool,
    /// Excess burst capacity is known not to have been negative for a window.
    pub burst_enough: bool,
    /// Every pod and activator was heard lately and for a whole window: it may sleep.
    pub known: bool,
    /// The same of activators and most pods: it may shrink.
    pub may_shrink: bool,
    /// Ready pods that are silent; each of them stays.
    pub silent: u32,
    /// Somebody else's count was seen for the first time.
    pub overruled: bool,
}

/// The memory of one workload's verdicts.
#[derive(Debug, Clone)]
pub struct Policy {
    decider: Option<Decider>,
    decision: Option<(Duration, Decision)>,
    /// What was unheard when it was made, as [`unheard`] counts it.
    unheard: u32,
    burst: Burst,
    /// The last verdict.
    verdict: Option<Verdict>,
    begun: Duration,
    known_since: Duration,
    idle_since: Option<Duration>,
    /// It has had its initial scale once.
    initialised: bool,
    /// The count that was seen last, or that we wrote after.
    replicas: Option<u32>,
    /// A count that somebody else wrote, and when it was seen.
    others: Option<(u32, Duration)>,
}

// === impl Policy ===

impl Policy {
    /// Nothing known yet; `initialised`: the workload is past its initial scale.
    #[must_use]
    pub fn new(initialised: bool, now: Duration) -> Self {
        Self {
            decider: None,
            decision: None,
            unheard: 0,
            burst: Burst::default(),
            verdict: None,
            begun: now,
            known_since: now,
            idle_since: None,
            initialised,
            replicas: None,
            others: None,
        }
    }

    /// The verdict at `now`.
    pub fn verdict(
        &mut self,
        settings: &Settings,
        measured: &Measured,
        seen: Seen,
        now: Duration,
    ) -> Verdict {
        if measured.restarted {
            self.known_since = now;
        }
        let overruled = self.note_replicas(settings, measured, seen.replicas, now);
        let is_window_known = now >= self.known_since + settings.window.0;
        let (decision, decided) = self.decide(settings, measured, seen.ready, now);
        let unheard = unheard(measured, is_window_known);
        if decided {
            self.unheard = unheard;
            self.burst.note(&decision, seen.ready, now);
        }
        // One that is kept from a moment when less was heard lacks what is heard now.
        let is_of_now = self.unheard <= unheard;
        let (want, rule) = match self.respected(settings, now) {
            Some(count) => (count, Rule::Others),
            None => self.want(settings, measured, (&decision, seen), now),
        };
        let mut verdict = Verdict {
            want,
            rule,
            decision,
            decided,
            burst_enough: false,
            known: measured.heard && is_window_known && is_of_now,
            may_shrink: measured.mostly_heard && is_window_known && is_of_now,
            silent: measured.silent,
            overruled,
        };
        verdict.burst_enough = self.burst.is_enough(settings, &verdict, now);
        self.verdict = Some(verdict.clone());
        verdict
    }

    /// We wrote this count.
    pub fn wrote(&mut self, replicas: u32) {
        self.replicas = Some(replicas);
        self.others = None;
    }

    /// The last verdict.
    #[must_use]
    pub fn last(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Takes note of the count; whether somebody else has changed it.
    fn note_replicas(
        &mut self,
        settings: &Settings,
        measured: &Measured,
        replicas: u32,
        now: Duration,
    ) -> bool {
        let before = self.replicas.replace(replicas).unwrap_or(replicas);
        // Above zero only class kpa has the count to itself; and any replica of ours may wake.
        let is_wake = before == 0 && measured.totals.held > 0;
        let is_last_leaders = now < self.begun + LATE;
        if before == replicas || settings.class != Class::Kpa || is_wake || is_last_leaders {
            return false;
        }
        // A workload that somebody puts to sleep wakes with the next request.
        self.others = (replicas > 0).then_some((replicas, now));
        true
    }

    fn respected(&mut self, settings: &Settings, now: Duration) -> Option<u32> {
        self.others = self
            .others
            .filter(|(_, since)| now < *since + settings.window.0);
        self.others.map(|(count, _)| count)
    }

    /// The decision, and whether it is new; a kept one until the next is due, but at once when
    /// requests are held.
    fn decide(
        &mut self,
        settings: &Settings,
        measured: &Measured,
        ready: u32,
        now: Duration,
    ) -> (Decision, bool) {
        if let Some((at, decision)) = &self.decision
            && now < *at + DECIDE_EVERY
            && measured.totals.held == 0
        {
            return (decision.clone(), false);
        }
        let decider = self.decider.get_or_insert_with(|| Decider::new(ready, now));
        let observed = Observed {
            stable: measured.stable,
            panic: measured.panic,
            ready,
        };
        let decision = decider.decide(settings, observed, now);
        self.decision = Some((now, decision.clone()));
        (decision, true)
    }

    /// The decision within min and max, lifted by what is held, by the initial scale and by the
    /// retention period; and which of them it follows from.
    fn want(
        &mut self,
        settings: &Settings,
        measured: &Measured,
        (decision, seen): (&Decision, Seen),
        now: Duration,
    ) -> (u32, Rule) {
        let replicas = seen.replicas;
        if settings.class == Class::None {
            return (replicas, Rule::Unscaled);
        }
        let lifts = [
            (wanted_for_held(settings, measured.totals.held), Rule::Held),
            (settings.min_scale, Rule::MinScale),
            (self.initial(settings, replicas), Rule::InitialScale),
        ];
        let asked = match settings.class {
            // Its pods don't go one after the other: there is one step down, and it is all of it.
            Class::Hpa if measured.stable == 0.0 && measured.silent == 0 => 0,
            // Unknown is busy: a silent pod stays, and none of the others goes in its place.
            _ => seen
                .ready
                .min(decision.want + measured.silent)
                .max(decision.want),
        };
        let (mut want, mut rule) = (asked, Rule::Algorithm);
        for (pods, lift) in lifts {
            if pods > want {
                (want, rule) = (pods, lift);
            }
        }
        if want == 0 {
            let since = *self.idle_since.get_or_insert(now);
            let retention = settings.scale_to_zero_pod_retention_period.0;
            let stays = match settings.class {
                // Its one step down does not pass the algorithm's delay.
                Class::Hpa => retention.max(settings.scale_down_delay.0),
                _ => retention,
            };
            if now < since + stays && replicas > 0 {
                (want, rule) = (1, Rule::Retention);
            }
        } else {
            self.idle_since = None;
        }
        match (settings.class, bounded(settings, want)) {
            // How many there are above zero is for the HorizontalPodAutoscaler to say.
            (Class::Hpa, _) if want > 0 && replicas > 0 => (replicas, Rule::Hpa),
            (Class::Hpa, _) => (want.min(1), rule),
            (_, most) if most < want => (most, Rule::MaxScale { asked: want }),
            (_, want) => (want, rule),
        }
    }

    /// Fewest pods until the initial scale has been there once. An initial scale of one is what
    /// every workload that is enrolled awake has anyway.
    fn initial(&mut self, settings: &Settings, replicas: u32) -> u32 {
        // Above zero a HorizontalPodAutoscaler may never go as far.
        self.initialised |= replicas >= settings.initial_scale || settings.class == Class::Hpa;
        if self.initialised || settings.initial_scale <= 1 || replicas == 0 {
            0
        } else {
            settings.initial_scale
        }
    }
}

/// Pods whose load a decision made now would lack; all of them where too much is unheard to shrink.
fn unheard(measured: &Measured, is_window_known: bool) -> u32 {
    if measured.mostly_heard && is_window_known {
        measured.silent
    } else {
        u32::MAX
    }
}

/// Pods for `held` requests that wait right now, at least the activation scale; one where a
/// HorizontalPodAutoscaler takes over from there.
#[must_use]
pub fn wanted_for_held(settings: &Settings, held: u64) -> u32 {
    if held == 0 {
        return 0;
    }
    if settings.class == Class::Hpa {
        return 1;
    }
    let held = f64::from(u32::try_from(held).unwrap_or(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a saturating cast of a whole number that is not negative"
    )]
    let pods = (held / settings.total_per_pod().max(1.0)).ceil() as u32;
    bounded(settings, pods.max(settings.activation_scale))
}

fn bounded(settings: &Settings, pods: u32) -> u32 {
    match settings.max_scale {
        0 => pods,
        max => pods.min(max),
    }
}

// === impl Verdict ===

impl Verdict {
    /// The facts that follow from it; what only the cluster's objects tell is left at its default.
    #[must_use]
    pub fn facts(&self, settings: &Settings, measured: &Measured, seen: Seen) -> Facts {
        let totals = &measured.totals;
        Facts {
            replicas: seen.replicas,
            ready: seen.ready,
            want: self.want,
            zero_only: settings.class != Class::Kpa,
            may_sleep: settings.min_scale == 0 && settings.class != Class::None,
            may_wake: settings.class != Class::None,
            burst_short: self.decision.excess_burst_capacity < 0,
            burst_enough: self.burst_enough,
            in_flight: totals.in_flight,
            held: totals.held,
            forwarding: totals.forwarding,
            bypassed: totals.bypassed,
            known: self.known,
            may_shrink: self.may_shrink,
            activators_unheard: measured.silent_activators > 0,
            ..Facts::default()
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (want, load) = (self.want, self.decision.want);
        match self.rule {
            Rule::Algorithm => self.decision.reason.fmt(f),
            Rule::Held => f.write_str(HELD),
            Rule::MinScale => write!(f, "min-scale (load asks for {load})"),
            Rule::InitialScale => write!(f, "initial scale (load asks for {load})"),
            Rule::Retention => f.write_str("idle: the last pod stays for its retention period"),
            Rule::MaxScale { asked } => write!(f, "max-scale ({asked} asked for)"),
            Rule::Others => write!(f, "scaled to {want} by somebody else: kept for a window"),
            Rule::Hpa => f.write_str("class hpa: its HorizontalPodAutoscaler scales from 1 on"),
            Rule::Unscaled => f.write_str("class none: Lull leaves the count alone"),
        }?;
        match self.silent {
            0 => Ok(()),
            silent => write!(f, "; {silent} silent, counted as busy"),
        }
    }
}

#[cfg(test)]
mod tests;
