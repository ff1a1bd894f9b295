//! Why a workload has the count that it has: as text for people, and as a label of few values.
//!
//! Pure. A [`Verdict`] knows what its count follows from; the facts tell where it is not followed.

use crate::{
    demand::Measured,
    kpa::Reason,
    machine::{Facts, NO_ACTIVATOR},
    policy::{Rule, Verdict},
    words,
};

/// Why a count is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No load in the stable window.
    Idle,
    /// The stable window's load.
    Load,
    /// The panic window's load.
    Panic,
    /// Kept for the scale-down delay.
    ScaleDownDelay,
    /// Requests wait at activators.
    Held,
    /// The user's minimum.
    MinScale,
    /// The user's maximum.
    MaxScale,
    /// It has not had its initial scale yet.
    InitialScale,
    /// The last pod stays for the retention period.
    Retention,
    /// Somebody else's count is kept for a window.
    Others,
    /// Class `hpa`: above zero a HorizontalPodAutoscaler has the count.
    ClassHpa,
    /// Class `none`.
    ClassNone,
    /// A pod or an activator is not heard: nothing shrinks.
    Unheard,
    /// Watched for less than a window: nothing shrinks.
    Young,
    /// A rollout is under way: nothing shrinks.
    Rollout,
    /// Connections go round the queue-proxy: it stays awake.
    Bypass,
    /// Something is in flight, though nothing has come for a window: it stays awake.
    InFlight,
    /// There is no activator at all: it is kept awake.
    NoActivator,
}

// === impl Why ===

impl Why {
    /// Every one.
    pub(crate) const ALL: [Self; 18] = [
        Self::Idle,
        Self::Load,
        Self::Panic,
        Self::ScaleDownDelay,
        Self::Held,
        Self::MinScale,
        Self::MaxScale,
        Self::InitialScale,
        Self::Retention,
        Self::Others,
        Self::ClassHpa,
        Self::ClassNone,
        Self::Unheard,
        Self::Young,
        Self::Rollout,
        Self::Bypass,
        Self::InFlight,
        Self::NoActivator,
    ];

    /// Why the count is what it is after `verdict`, where `facts` are seen and `measured`.
    #[must_use]
    pub fn of(verdict: &Verdict, facts: &Facts, measured: &Measured) -> Self {
        let (grows, shrinks) = (verdict.want > facts.replicas, verdict.want < facts.replicas);
        let sleeps = shrinks && verdict.want == 0;
        match verdict.rule {
            Rule::Unscaled => Self::ClassNone,
            _ if verdict.want == 0 && facts.no_activator => Self::NoActivator,
            _ if !measured.mostly_heard && !grows => Self::Unheard,
            _ if sleeps && !measured.heard => Self::Unheard,
            _ if shrinks && !facts.may_shrink => Self::Young,
            _ if shrinks && facts.rolling => Self::Rollout,
            _ if sleeps && facts.bypassed => Self::Bypass,
            _ if sleeps && facts.in_flight + facts.forwarding > 0 => Self::InFlight,
            Rule::Held => Self::Held,
            Rule::MinScale => Self::MinScale,
            Rule::MaxScale { .. } => Self::MaxScale,
            Rule::InitialScale => Self::InitialScale,
            Rule::Retention => Self::Retention,
            Rule::Others => Self::Others,
            Rule::Hpa => Self::ClassHpa,
            Rule::Algorithm => match verdict.decision.reason {
                Reason::Idle => Self::Idle,
                Reason::Stable { .. } => Self::Load,
                Reason::Panic { .. } => Self::Panic,
                Reason::Delay { .. } => Self::ScaleDownDelay,
            },
        }
    }

    /// In a few words.
    #[must_use]
    pub fn text(self, verdict: &Verdict, facts: &Facts, measured: &Measured) -> String {
        match self {
            Self::Unheard => format!("{}: nothing shrinks", silent(measured)),
            Self::Young => "watched for less than a window: nothing shrinks".to_owned(),
            Self::Rollout => "a rollout is under way: nothing shrinks".to_owned(),
            Self::Bypass => "connections go round the queue-proxy: it stays awake".to_owned(),
            Self::InFlight => {
                let count = facts.in_flight + facts.forwarding;
                format!("{count} in flight: it stays awake")
            }
            Self::NoActivator => NO_ACTIVATOR.to_owned(),
            _ => verdict.to_string(),
        }
    }

    /// As the label says it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Load => "load",
            Self::Panic => "panic",
            Self::ScaleDownDelay => "scale-down-delay",
            Self::Held => "held",
            Self::MinScale => "min-scale",
            Self::MaxScale => "max-scale",
            Self::InitialScale => "initial-scale",
            Self::Retention => "retention",
            Self::Others => "others",
            Self::ClassHpa => "class-hpa",
            Self::ClassNone => "class-none",
            Self::Unheard => "unheard",
            Self::Young => "young",
            Self::Rollout => "rollout",
            Self::Bypass => "bypass",
            Self::InFlight => "in-flight",
            Self::NoActivator => "no-activator",
        }
    }
}

/// How many of whom are not heard: pods are their user's to look at, activators Lull's.
fn silent(measured: &Measured) -> String {
    let count = |number: u32, noun: &str| words::count(number.into(), noun);
    let verb = |count: u32| if count == 1 { "is" } else { "are" };
    let (pods, activators) = (measured.silent, measured.silent_activators);
    match (pods, activators) {
        (0, 0) => "not everybody is heard".to_owned(),
        (pods, 0) => format!("{} {} not heard", count(pods, "pod"), verb(pods)),
        (0, activators) => {
            let who = count(activators, "activator");
            format!("{who} {} not heard", verb(activators))
        }
        (pods, activators) => {
            let (pods, activators) = (count(pods, "pod"), count(activators, "activator"));
            format!("{pods} and {activators} are not heard")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kpa::Decision;

    fn verdict(want: u32, rule: Rule, reason: Reason) -> Verdict {
        Verdict {
            want,
            rule,
            decision: Decision {
                want,
                excess_burst_capacity: 0,
                panicking: false,
                reason,
            },
            decided: true,
            burst_enough: true,
            known: true,
            may_shrink: true,
            silent: 0,
            overruled: false,
        }
    }

    fn heard(heard: bool) -> Measured {
        Measured {
            heard,
            mostly_heard: heard,
            ..Measured::default()
        }
    }

    /// Two pods of which everything is known.
    fn facts() -> Facts {
        Facts {
            replicas: 2,
            ready: 2,
            known: true,
            may_shrink: true,
            ..Facts::default()
        }
    }

    #[test]
    fn every_rule_and_every_reason_of_the_algorithm_has_a_label() {
        let (load, per_pod) = (1.0, 70.0);
        let algorithm = [
            (Reason::Idle, "idle"),
            (Reason::Stable { load, per_pod }, "load"),
            (Reason::Panic { load, per_pod }, "panic"),
            (Reason::Delay { without: 1 }, "scale-down-delay"),
        ];
        for (reason, label) in algorithm {
            let verdict = verdict(2, Rule::Algorithm, reason);
            assert_eq!(Why::of(&verdict, &facts(), &heard(true)).label(), label);
        }
        let rules = [
            (Rule::Held, "held"),
            (Rule::MinScale, "min-scale"),
            (Rule::MaxScale { asked: 9 }, "max-scale"),
            (Rule::InitialScale, "initial-scale"),
            (Rule::Retention, "retention"),
            (Rule::Others, "others"),
            (Rule::Hpa, "class-hpa"),
            (Rule::Unscaled, "class-none"),
        ];
        for (rule, label) in rules {
            let verdict = verdict(2, rule, Reason::Idle);
            assert_eq!(Why::of(&verdict, &facts(), &heard(true)).label(), label);
        }
    }

    #[test]
    fn what_keeps_a_count_from_shrinking_is_why_it_is_what_it_is() {
        let is = facts();
        let rows = [
            (1, false, is, "unheard"),
            (2, false, is, "unheard"),
            (3, false, is, "idle"),
            (
                1,
                true,
                Facts {
                    may_shrink: false,
                    ..is
                },
                "young",
            ),
            (
                2,
                true,
                Facts {
                    may_shrink: false,
                    ..is
                },
                "idle",
            ),
            (
                1,
                true,
                Facts {
                    rolling: true,
                    ..is
                },
                "rollout",
            ),
            (
                0,
                true,
                Facts {
                    bypassed: true,
                    ..is
                },
                "bypass",
            ),
            (
                1,
                true,
                Facts {
                    bypassed: true,
                    ..is
                },
                "idle",
            ),
            (0, true, Facts { in_flight: 1, ..is }, "in-flight"),
            (
                0,
                true,
                Facts {
                    forwarding: 1,
                    ..is
                },
                "in-flight",
            ),
            (0, true, is, "idle"),
            (
                0,
                true,
                Facts {
                    no_activator: true,
                    ..is
                },
                "no-activator",
            ),
            (
                1,
                true,
                Facts {
                    no_activator: true,
                    ..is
                },
                "idle",
            ),
        ];
        for (want, is_heard, facts, label) in rows {
            let verdict = verdict(want, Rule::Algorithm, Reason::Idle);
            let why = Why::of(&verdict, &facts, &heard(is_heard));
            assert_eq!(why.label(), label, "{want} {is_heard} {facts:?}");
            assert!(!why.text(&verdict, &facts, &heard(is_heard)).is_empty());
        }
    }

    #[test]
    fn who_is_not_heard_is_said_with_the_count() {
        let rows = [
            (1, 0, "1 pod is not heard: nothing shrinks"),
            (2, 0, "2 pods are not heard: nothing shrinks"),
            (0, 1, "1 activator is not heard: nothing shrinks"),
            (0, 2, "2 activators are not heard: nothing shrinks"),
            (
                3,
                1,
                "3 pods and 1 activator are not heard: nothing shrinks",
            ),
        ];
        let verdict = verdict(0, Rule::Algorithm, Reason::Idle);
        for (silent, silent_activators, expected) in rows {
            let measured = Measured {
                silent,
                silent_activators,
                ..heard(false)
            };
            let text = Why::Unheard.text(&verdict, &facts(), &measured);
            assert_eq!(text, expected);
        }
    }
}
