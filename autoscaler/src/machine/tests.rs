use super::*;
use proptest::prelude::*;

mod standby;
mod vectors;

fn delays() -> Delays {
    Delays::default()
}

/// An awake workload with one busy pod.
fn busy() -> Facts {
    Facts {
        replicas: 1,
        ready: 1,
        want: 1,
        may_sleep: true,
        may_wake: true,
        in_flight: 3,
        burst_enough: true,
        known: true,
        may_shrink: true,
        services_switched: true,
        native_ready: true,
        native_for: delays().propagation,
        activators: 2,
        ..Facts::default()
    }
}

fn idle() -> Facts {
    Facts {
        want: 0,
        in_flight: 0,
        ..busy()
    }
}

fn next(state: State, facts: Facts) -> State {
    step(state, &facts, &delays()).state
}

#[test]
fn a_workload_falls_asleep_only_after_activators_are_in_and_known() {
    let first = step(State::Awake, &idle(), &delays());
    assert_eq!(
        (first.state, first.actions),
        (State::FallingAsleep, vec![Action::AddActivators])
    );
    assert_eq!(next(State::FallingAsleep, idle()), State::FallingAsleep);
    let late = Facts {
        since: delays().propagation,
        ..idle()
    };
    let last = step(State::FallingAsleep, &late, &delays());
    assert_eq!(last.state, State::Asleep);
    assert_eq!(
        last.actions,
        [Action::AddActivators, Action::Scale { from: 1, to: 0 }]
    );
}

#[test]
fn traffic_and_the_unknown_keep_it_awake() {
    for facts in [
        Facts {
            in_flight: 1,
            ..idle()
        },
        Facts {
            forwarding: 1,
            ..idle()
        },
        Facts {
            bypassed: true,
            ..idle()
        },
        Facts {
            known: false,
            ..idle()
        },
        Facts {
            rolling: true,
            ..idle()
        },
        Facts {
            activators: 0,
            ..idle()
        },
        Facts {
            may_sleep: false,
            want: 1,
            ..idle()
        },
        Facts {
            services_switched: false,
            ..idle()
        },
    ] {
        assert_eq!(next(State::Awake, facts), State::Awake, "{facts:?}");
    }
    let arrived = Facts {
        arrived: true,
        ..idle()
    };
    assert_eq!(next(State::FallingAsleep, arrived), State::Settling);
}

#[test]
fn the_first_held_request_wakes() {
    let held = Facts {
        replicas: 0,
        ready: 0,
        want: 3,
        held: 120,
        in_flight: 120,
        ..busy()
    };
    let wake = step(State::Asleep, &held, &delays());
    assert_eq!(wake.state, State::Waking);
    assert_eq!(
        wake.actions[0],
        Action::Scale { from: 0, to: 3 },
        "the patch goes first"
    );
}

#[test]
fn activators_leave_only_when_the_pods_are_in_the_native_slice() {
    let ready = Facts {
        since: delays().propagation,
        ..busy()
    };
    assert_eq!(
        next(State::Waking, Facts { ready: 0, ..busy() }),
        State::Waking
    );
    assert_eq!(next(State::Waking, busy()), State::Settling);
    assert_eq!(
        next(
            State::Settling,
            Facts {
                native_ready: false,
                ..ready
            }
        ),
        State::Settling
    );
    assert_eq!(next(State::Settling, busy()), State::Settling);
    let just_listed = Facts {
        native_for: Duration::ZERO,
        since: Duration::from_secs(600),
        ..busy()
    };
    assert_eq!(next(State::Waking, just_listed), State::Settling);
    assert_eq!(next(State::Settling, just_listed), State::Settling);
    let settled = step(State::Settling, &ready, &delays());
    assert_eq!(
        (settled.state, settled.actions),
        (State::Awake, vec![Action::RemoveActivators])
    );
}

#[test]
fn activators_from_before_it_is_enrolled_anew_leave_as_after_a_wake() {
    let left = Facts {
        listed: true,
        ..busy()
    };
    let unswitched = Facts {
        services_switched: false,
        ..left
    };
    let asleep = Facts {
        replicas: 0,
        ready: 0,
        ..left
    };
    for (facts, then) in [
        (busy(), State::Awake),
        (left, State::Settling),
        (unswitched, State::Enrolling),
        (asleep, State::Asleep),
    ] {
        assert_eq!(next(State::Enrolling, facts), then, "{facts:?}");
    }
}

#[test]
fn activators_that_a_step_cut_short_has_left_in_leave_as_after_a_wake() {
    let left = Facts {
        listed: true,
        since: delays().propagation,
        ..busy()
    };
    let just_taken_out = Facts {
        since: Duration::ZERO,
        ..left
    };
    // None that could take the places of those that are listed.
    let dead = Facts {
        activators: 0,
        ..left
    };
    let none = Facts {
        no_activator: true,
        may_sleep: false,
        ..dead
    };
    let idle = Facts {
        want: 0,
        in_flight: 0,
        ..left
    };
    let short = Facts {
        burst_short: true,
        burst_enough: false,
        ..left
    };
    let unready = Facts { ready: 0, ..left };
    let put_to_zero = Facts {
        replicas: 0,
        ..left
    };
    for (facts, then) in [
        (left, State::Settling),
        (just_taken_out, State::Awake),
        (dead, State::Settling),
        (none, State::Settling),
        (idle, State::FallingAsleep),
        (short, State::Bursting),
        (unready, State::Waking),
        (put_to_zero, State::Asleep),
    ] {
        assert_eq!(next(State::Awake, facts), then, "{facts:?}");
    }
    let growing = Facts { want: 2, ..left };
    let grown = step(State::Awake, &growing, &delays()).actions;
    assert_eq!(grown, [Action::Scale { from: 1, to: 2 }]);
}

#[test]
fn short_burst_capacity_holds_the_selector_and_gives_it_back() {
    let short = Facts {
        burst_short: true,
        burst_enough: false,
        ..busy()
    };
    assert_eq!(next(State::Awake, short), State::Bursting);
    let early = step(State::Bursting, &short, &delays());
    assert!(
        !early.actions.contains(&Action::HoldSelector),
        "activators first"
    );
    let covered = Facts {
        since: delays().propagation,
        ..short
    };
    let partly_held = Facts {
        selector_held: true,
        ..covered
    };
    for facts in [covered, partly_held] {
        let covered = step(State::Bursting, &facts, &delays());
        assert!(covered.actions.contains(&Action::HoldSelector), "{facts:?}");
    }
    let enough = Facts {
        selector_held: true,
        since: delays().burst_hold,
        ..busy()
    };
    let back = step(State::Bursting, &enough, &delays());
    assert_eq!(back.state, State::Settling);
    assert!(back.actions.contains(&Action::RestoreSelector));
}

#[test]
fn activators_leave_only_when_burst_capacity_is_known_to_be_enough() {
    let unknown = Facts {
        burst_enough: false,
        known: false,
        may_shrink: false,
        since: Duration::from_secs(3600),
        ..busy()
    };
    let held = Facts {
        selector_held: true,
        ..unknown
    };
    for (state, facts) in [
        (State::Bursting, unknown),
        (State::Bursting, held),
        (State::Settling, unknown),
    ] {
        let kept = step(state, &facts, &delays());
        assert_eq!(kept.state, state, "{facts:?}");
        assert_eq!(kept.actions, [Action::AddActivators], "{facts:?}");
        assert_eq!(kept.reason.as_deref(), Some(BURST_UNKNOWN));
    }
    let grown = Facts { want: 2, ..held };
    let grown = step(State::Bursting, &grown, &delays());
    let grows = Action::Scale { from: 1, to: 2 };
    assert_eq!(grown.actions, [Action::AddActivators, grows]);
    // Nor do they come in on what is unknown.
    assert_eq!(next(State::Awake, unknown), State::Awake);
}

#[test]
fn a_burst_goes_on_while_a_new_process_has_heard_no_activator_yet() {
    let new = Facts {
        burst_enough: false,
        known: false,
        may_shrink: false,
        selector_held: true,
        activators: 0,
        activators_unheard: true,
        ..busy()
    };
    for since in [Duration::ZERO, delays().burst_hold] {
        let kept = step(State::Bursting, &Facts { since, ..new }, &delays());
        assert_eq!((kept.state, kept.actions), (State::Bursting, vec![]));
    }
    let short = Facts {
        burst_short: true,
        ..new
    };
    for (facts, then) in [(new, State::Settling), (short, State::Bursting)] {
        let step = step(State::Settling, &facts, &delays());
        let adds = step.actions.contains(&Action::AddActivators);
        assert_eq!((step.state, adds), (then, false), "{step:?}");
    }
    let none = Facts {
        activators_unheard: false,
        ..new
    };
    let certain = Facts {
        no_activator: true,
        may_sleep: false,
        ..new
    };
    for facts in [none, certain] {
        let given_up = step(State::Bursting, &facts, &delays());
        assert_eq!(
            (given_up.state, given_up.actions),
            (State::Settling, vec![Action::RestoreSelector])
        );
    }
}

#[test]
fn a_wake_that_never_gets_ready_is_given_up_when_nobody_waits() {
    let stuck = Facts {
        ready: 0,
        in_flight: 0,
        native_ready: false,
        since: delays().wake_deadline,
        ..busy()
    };
    let step_ = step(State::Waking, &stuck, &delays());
    assert_eq!(step_.state, State::Asleep);
    assert!(step_.reason.unwrap().contains("no pod became ready"));
    for somebody_may_wait in [
        Facts {
            in_flight: 1,
            held: 1,
            ..stuck
        },
        Facts {
            activators_unheard: true,
            ..stuck
        },
    ] {
        assert_eq!(next(State::Waking, somebody_may_wait), State::Waking);
    }
}

#[test]
fn a_wake_that_brings_no_pod_at_all_is_asked_for_anew() {
    let stuck = Facts {
        ready: 0,
        held: 1,
        in_flight: 1,
        native_ready: false,
        podless: delays().ask_again,
        ..busy()
    };
    let asked = step(State::Waking, &stuck, &delays());
    assert_eq!(
        (asked.state, asked.actions),
        (
            State::Waking,
            vec![Action::AddActivators, Action::AskAgain { from: 1 }]
        )
    );
    assert!(asked.reason.unwrap().contains("no pod was made"));
    let back = Facts {
        replicas: 0,
        podless: Duration::ZERO,
        ..stuck
    };
    let back = step(State::Waking, &back, &delays());
    assert!(back.actions.contains(&Action::Scale { from: 0, to: 1 }));
    for patient in [
        Facts {
            podless: Duration::ZERO,
            ..stuck
        },
        Facts { held: 0, ..stuck },
        Facts {
            may_wake: false,
            ..stuck
        },
        Facts {
            may_sleep: false,
            ..stuck
        },
        Facts {
            activators: 0,
            ..stuck
        },
        Facts {
            no_activator: true,
            may_sleep: false,
            ..stuck
        },
    ] {
        let step = step(State::Waking, &patient, &delays());
        let asks = |action: &Action| matches!(action, Action::AskAgain { .. });
        assert!(!step.actions.iter().any(asks), "{patient:?}");
    }
}

#[test]
fn a_workload_of_class_none_that_somebody_has_put_to_zero_stays_there() {
    let zero = Facts {
        replicas: 0,
        ready: 0,
        may_sleep: false,
        may_wake: false,
        zero_only: true,
        ..idle()
    };
    for state in [State::Awake, State::Asleep] {
        let scales = |facts: Facts| {
            let step = step(state, &facts, &delays());
            step.actions
                .iter()
                .any(|action| matches!(action, Action::Scale { .. }))
        };
        assert!(!scales(zero), "{state}");
        let held = Facts {
            held: 1,
            in_flight: 1,
            activators: 0,
            ..zero
        };
        assert!(!scales(held), "{state}");
    }
}

#[test]
fn one_that_somebody_puts_to_zero_sleeps_also_where_its_pods_are_not_gone_yet() {
    for state in [
        State::Awake,
        State::Settling,
        State::Bursting,
        State::FallingAsleep,
    ] {
        // Also one that was woken a moment ago, for which pods are wanted still.
        for want in [0, 1] {
            let put = Facts {
                replicas: 0,
                want,
                ..busy()
            };
            let step = step(state, &put, &delays());
            assert_eq!(step.state, State::Asleep, "{state}");
            assert_eq!(step.actions, [Action::AddActivators], "{state}");
        }
    }
}

/// The way of a sleeping workload without any activator, and what is said of it.
#[test]
fn without_any_activator_a_sleeping_workload_is_woken_and_kept_in_serve_mode() {
    let none = Facts {
        may_sleep: false,
        no_activator: true,
        activators: 0,
        ..idle()
    };
    let zero = Facts {
        replicas: 0,
        ready: 0,
        native_ready: false,
        ..none
    };
    let woken = step(State::Asleep, &zero, &delays());
    assert_eq!(woken.state, State::Waking);
    assert_eq!(woken.actions[0], Action::Scale { from: 0, to: 1 });
    assert_eq!(woken.reason.as_deref(), Some(NO_ACTIVATOR));
    assert_eq!(next(State::Waking, none), State::Settling);
    let settled = Facts {
        since: delays().propagation,
        ..none
    };
    assert_eq!(next(State::Settling, settled), State::Awake);
    // One that has just come back changes nothing yet.
    for activators in [0, 1] {
        let (none, burst_short) = (Facts { activators, ..none }, true);
        let awake = step(State::Awake, &none, &delays());
        assert_eq!(awake.state, State::Awake);
        assert_eq!(awake.reason.as_deref(), Some(NO_ACTIVATOR));
        let short = Facts {
            burst_short,
            ..none
        };
        for (state, then) in [
            (State::Awake, State::Awake),
            (State::Settling, State::Settling),
            (State::Bursting, State::Settling),
            (State::FallingAsleep, State::Settling),
        ] {
            assert_eq!(next(state, short), then, "{state} {short:?}");
        }
    }
}

#[test]
fn without_any_activator_a_wake_is_never_given_up() {
    let stuck = Facts {
        ready: 0,
        may_sleep: false,
        no_activator: true,
        activators: 0,
        native_ready: false,
        since: delays().wake_deadline,
        ..idle()
    };
    let step = step(State::Waking, &stuck, &delays());
    assert_eq!(
        (step.state, step.actions),
        (State::Waking, vec![Action::AddActivators])
    );
}

#[test]
fn a_workload_of_class_none_is_left_asleep_without_any_activator() {
    let zero = Facts {
        replicas: 0,
        ready: 0,
        may_sleep: false,
        may_wake: false,
        no_activator: true,
        activators: 0,
        ..idle()
    };
    let step = step(State::Asleep, &zero, &delays());
    assert_eq!((step.state, step.reason), (State::Asleep, None));
}

#[test]
fn nothing_shrinks_in_a_rollout_or_while_unknown() {
    let shrink = Facts {
        replicas: 5,
        ready: 5,
        want: 2,
        ..busy()
    };
    let scale = |facts| step(State::Awake, &facts, &delays()).actions;
    assert_eq!(scale(shrink), [Action::Scale { from: 5, to: 2 }]);
    assert_eq!(
        scale(Facts {
            rolling: true,
            ..shrink
        }),
        []
    );
    assert_eq!(
        scale(Facts {
            known: false,
            may_shrink: false,
            ..shrink
        }),
        []
    );
    assert_eq!(
        scale(Facts {
            known: false,
            ..shrink
        }),
        [Action::Scale { from: 5, to: 2 }]
    );
    assert_eq!(
        scale(Facts {
            zero_only: true,
            ..shrink
        }),
        []
    );
    assert_eq!(
        scale(Facts {
            known: false,
            want: 9,
            ..shrink
        }),
        [Action::Scale { from: 5, to: 9 }]
    );
}

prop_compose! {
    fn any_facts()(
        (replicas, ready, want, activators) in (0u32..4, 0u32..4, 0u32..4, 0u32..3),
        (in_flight, held, forwarding) in (0u64..2, 0u64..2, 0u64..2),
        flags in any::<[bool; 16]>(),
        (since, podless, native_for) in (0u64..700, 0u64..40, 0u64..10),
        pods_first in prop::option::of(0u64..10),
    ) -> Facts {
        Facts {
            replicas, ready: ready.min(replicas), want, activators,
            in_flight: in_flight + held, held, forwarding,
            zero_only: flags[0], may_sleep: flags[1] && !flags[12], burst_short: flags[2], arrived: flags[3],
            burst_enough: flags[13] && !flags[2],
            known: flags[4] && !flags[14], rolling: flags[5], services_switched: flags[6],
            selector_held: flags[7], native_ready: flags[8], bypassed: flags[9],
            may_shrink: (flags[4] || flags[10]) && !flags[14], may_wake: flags[11],
            no_activator: flags[12], activators_unheard: flags[14], listed: flags[15],
            since: Duration::from_secs(since),
            podless: Duration::from_secs(podless),
            pods_first: pods_first.map(Duration::from_secs),
            native_for: Duration::from_secs(if flags[8] && !flags[7] { native_for } else { 0 }),
        }
    }
}

const STATES: [State; 7] = [
    State::Enrolling,
    State::Awake,
    State::Bursting,
    State::FallingAsleep,
    State::Asleep,
    State::Waking,
    State::Settling,
];

proptest! {
    /// Whatever is seen, no step leaves a Service without a ready endpoint or sleeps on doubt.
    #[test]
    fn no_step_takes_away_before_it_has_added(index in 0usize..7, facts in any_facts()) {
        let step = step(STATES[index], &facts, &delays());
        for action in &step.actions {
            match action {
                Action::RemoveActivators | Action::RemoveSlices => {
                    let stand_by = *action == Action::RemoveSlices;
                    prop_assert_eq!(stand_by, facts.pods_first.is_some());
                    prop_assert!(facts.ready > 0 && facts.native_ready && !facts.selector_held);
                    prop_assert!(facts.burst_enough || facts.is_without_activators());
                    prop_assert!(facts.native_for >= delays().propagation && facts.since >= delays().propagation);
                    prop_assert_eq!(step.state, State::Awake);
                }
                Action::StandBy => {
                    prop_assert!(facts.pods_first.is_some_and(|told| told >= delays().propagation));
                    prop_assert!(facts.activators > 0 || !facts.activators_unheard);
                    prop_assert!(facts.activators > 0 || facts.native_ready);
                    prop_assert_eq!((STATES[index], step.state), (State::Awake, State::Awake));
                }
                Action::HoldSelector => prop_assert!(facts.activators > 0 && facts.ready > 0),
                Action::Scale { to: 0, .. } => {
                    prop_assert!(facts.in_flight == 0 && facts.may_sleep && !facts.activators_unheard);
                    let quiet = facts.known && facts.forwarding == 0 && !facts.bypassed;
                    prop_assert!(quiet || facts.ready == 0);
                }
                Action::AskAgain { .. } => {
                    prop_assert!(facts.ready == 0 && facts.podless >= delays().ask_again);
                    prop_assert!(facts.held > 0 && facts.may_wake && facts.may_sleep && facts.activators > 0);
                    prop_assert_eq!(step.state, State::Waking);
                }
                Action::Scale { from, to } if to < from => {
                    prop_assert!(facts.may_shrink && !facts.rolling && !facts.zero_only);
                }
                _ => {}
            }
        }
    }

    /// All traffic comes by activators until it is known that it need not, or can't.
    #[test]
    fn a_burst_is_not_given_up_on_doubt(facts in any_facts()) {
        let step = step(State::Bursting, &facts, &delays());
        let is_without_pods = facts.ready == 0 || facts.replicas == 0;
        let sleeps = facts.known && step.state == State::FallingAsleep;
        let may_leave = facts.burst_enough || facts.is_without_activators();
        prop_assert!(step.state == State::Bursting || is_without_pods || sleeps || may_leave, "{:?}", step);
        if !may_leave {
            prop_assert!(!step.actions.contains(&Action::RestoreSelector), "{:?}", step);
        }
    }

    /// Without any activator nothing goes where only an activator would reach it.
    #[test]
    fn nothing_depends_on_an_activator_while_there_is_none(index in 0usize..7, facts in any_facts()) {
        let facts = Facts { no_activator: true, may_sleep: false, ..facts };
        let step = step(STATES[index], &facts, &delays());
        prop_assert!(!matches!(step.state, State::FallingAsleep | State::Bursting), "{:?}", step);
        for action in &step.actions {
            let is_lost = matches!(action, Action::Scale { to: 0, .. } | Action::HoldSelector);
            prop_assert!(!is_lost, "{:?}", step);
        }
        if STATES[index] == State::Asleep && facts.replicas == 0 && facts.may_wake {
            let wakes = step.actions.iter().any(|a| matches!(a, Action::Scale { from: 0, to } if *to > 0));
            prop_assert!(wakes, "{:?}", step);
        }
    }

    #[test]
    fn held_requests_always_lead_to_a_wake(facts in any_facts()) {
        let facts = Facts { replicas: 0, ready: 0, held: 1, in_flight: 1, may_wake: true, ..facts };
        for state in [State::Asleep, State::Waking] {
            let step = step(state, &facts, &delays());
            let woken = step.actions.iter().any(|a| matches!(a, Action::Scale { from: 0, to } if *to > 0));
            prop_assert!(woken, "{:?}: {:?}", state, step);
        }
    }
}
