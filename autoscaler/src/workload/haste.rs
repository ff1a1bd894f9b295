//! When a status that has changed is written. Pure.
//!
//! What another replica goes on from is written before the next step. All else only informs: it waits
//! a while, so that what changes meanwhile goes with it, and most of it with the next step. Of that only
//! the history of wakes can't be found out again: before the process ends it is written.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lull_contract::scaled_workload::{ScaledWorkloadStatus, State};

use super::status::{WARNINGS, tells_no_activator};
use crate::context::WAKES_FIRST;

/// How long what only informs waits for more of it.
pub(super) const JOINED: Duration = Duration::from_secs(2);
/// The same where a step is about to come that tells it too, which takes a propagation delay.
const PUT_OFF: Duration = Duration::from_secs(10);

/// How soon a status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// It is there.
    Done,
    /// It only informs.
    Soon,
    /// Another replica goes on from it.
    Now,
}

/// How soon `wanted` is written, where the API server has `there`.
pub(super) fn haste(there: &ScaledWorkloadStatus, wanted: &ScaledWorkloadStatus) -> Haste {
    let goes_on_alike = is_resumed_alike(there.state, wanted.state)
        && (there.mode, &there.services) == (wanted.mode, &wanted.services)
        && decisive(there).eq(decisive(wanted))
        // Whoever is held is let through to these.
        && there.plain_pods == wanted.plain_pods
        && tells_no_activator(there) == tells_no_activator(wanted);
    if !goes_on_alike {
        Haste::Now
    } else if there == wanted {
        Haste::Done
    } else {
        Haste::Soon
    }
}

/// Conditions that another replica goes on from. What is only said goes with the next status: how long
/// wakes take is found out by a wake, whose end is about to be written anyway.
fn decisive(status: &ScaledWorkloadStatus) -> impl Iterator<Item = &Condition> {
    let conditions = status.conditions.iter();
    conditions.filter(|condition| condition.type_ != WARNINGS)
}

/// Whether `wanted` tells of wakes that nobody would know of by `there`.
pub(super) fn tells_wakes(there: &ScaledWorkloadStatus, wanted: &ScaledWorkloadStatus) -> bool {
    there.wakes != wanted.wakes
}

/// Whether a replica that finds `there` goes on as if it had found `wanted`.
///
/// Who finds a workload `Asleep` that has pods takes it for `Waking`, and wakes one for which somebody
/// is held: a wake that is over soon is told with its end.
fn is_resumed_alike(there: State, wanted: State) -> bool {
    there == wanted || (there, wanted) == (State::Asleep, State::Waking)
}

/// How long what only informs of a workload in `state` waits; `has_no_time`: the API server has none for
/// wakes and this.
pub(super) fn patience(state: State, has_no_time: bool) -> Duration {
    match state {
        _ if has_no_time => WAKES_FIRST,
        State::FallingAsleep | State::Settling => PUT_OFF,
        _ => JOINED,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use lull_contract::view::WakeView;

    use super::*;
    use crate::{
        machine::{self, Delays, Facts},
        workload::planning::KEPT_AWAKE,
    };

    fn awake() -> ScaledWorkloadStatus {
        ScaledWorkloadStatus {
            state: State::Awake,
            mode: State::Awake.mode(),
            ready: 1,
            desired: 1,
            services: vec!["shop".to_owned()],
            ..ScaledWorkloadStatus::default()
        }
    }

    fn condition(kind: &str, message: &str) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: "Any".to_owned(),
            message: message.to_owned(),
            observed_generation: None,
            last_transition_time: Time("2026-01-01T00:00:00Z".parse().unwrap()),
        }
    }

    #[test]
    fn what_another_replica_goes_on_from_is_written_now_and_all_else_soon() {
        let there = awake();
        let with = |change: fn(&mut ScaledWorkloadStatus)| {
            let mut wanted = awake();
            change(&mut wanted);
            wanted
        };
        for (what, wanted, expected) in [
            ("nothing", awake(), Haste::Done),
            ("ready", with(|s| s.ready = 2), Haste::Soon),
            ("desired", with(|s| s.desired = 2), Haste::Soon),
            ("in flight", with(|s| s.in_flight = 2), Haste::Soon),
            ("held", with(|s| s.held = 2), Haste::Soon),
            (
                "reason",
                with(|s| s.reason = "idle".to_owned()),
                Haste::Soon,
            ),
            (
                "wakes",
                with(|s| s.wakes.push(WakeView::default())),
                Haste::Soon,
            ),
            (
                "state",
                with(|s| s.state = State::FallingAsleep),
                Haste::Now,
            ),
            ("mode", with(|s| s.mode = State::Asleep.mode()), Haste::Now),
            ("services", with(|s| s.services.clear()), Haste::Now),
            (
                "plain pods",
                with(|s| s.plain_pods.push("10.0.0.1".to_owned())),
                Haste::Now,
            ),
            (
                "conditions",
                with(|s| s.conditions.push(condition("Enrolled", ""))),
                Haste::Now,
            ),
            (
                "what is only said",
                with(|s| {
                    s.conditions
                        .push(condition(WARNINGS, "took up to 15s to wake"))
                }),
                Haste::Soon,
            ),
            (
                "that there is no activator",
                with(|s| s.conditions.push(condition(WARNINGS, KEPT_AWAKE))),
                Haste::Now,
            ),
        ] {
            assert_eq!(haste(&there, &wanted), expected, "{what}");
        }
    }

    #[test]
    fn only_wakes_are_lost_with_the_process() {
        let there = awake();
        let other = ScaledWorkloadStatus {
            in_flight: 2,
            reason: "busy".to_owned(),
            ..awake()
        };
        assert!(!tells_wakes(&there, &other));
        let woken = ScaledWorkloadStatus {
            wakes: vec![WakeView::default()],
            ..awake()
        };
        assert!(tells_wakes(&there, &woken));
    }

    #[test]
    fn of_all_steps_only_one_waits_that_is_found_again_without_its_status() {
        let pairs = State::ALL.map(|a| State::ALL.map(|b| (a, b)));
        let waiting: Vec<_> = pairs
            .into_iter()
            .flatten()
            .filter(|(there, wanted)| there != wanted && is_resumed_alike(*there, *wanted))
            .collect();
        assert_eq!(waiting, [(State::Asleep, State::Waking)]);
        // As it is found, with or without pods that are ready.
        for ready in [0, 1] {
            let facts = Facts {
                replicas: 1,
                ready,
                ..Facts::default()
            };
            let found = machine::step(State::Asleep, &facts, &Delays::default());
            assert_eq!(found.state, State::Waking);
        }
    }

    #[test]
    fn what_informs_waits_for_the_step_that_is_about_to_come_and_for_wakes() {
        assert_eq!(patience(State::Awake, false), JOINED);
        assert_eq!(patience(State::Waking, false), JOINED);
        assert_eq!(patience(State::Settling, false), PUT_OFF);
        assert_eq!(patience(State::FallingAsleep, false), PUT_OFF);
        assert_eq!(patience(State::Awake, true), WAKES_FIRST);
        assert_eq!(patience(State::Settling, true), WAKES_FIRST);
    }
}
