//! Activators that stay among Istio's endpoints, behind pods.

use super::*;

#[test]
fn activators_stand_by_once_callers_have_heard_to_call_pods_first() {
    let told = |pods_first: Duration| Facts {
        pods_first: Some(pods_first),
        ..busy()
    };
    let heard = told(delays().propagation);
    let actions = |facts: Facts| step(State::Awake, &facts, &delays()).actions;
    assert_eq!(actions(busy()), []);
    assert_eq!(actions(told(Duration::ZERO)), []);
    assert_eq!(actions(heard), [Action::StandBy]);
    let growing = Facts { want: 2, ..heard };
    let grows = Action::Scale { from: 1, to: 2 };
    assert_eq!(actions(growing), [grows, Action::StandBy]);
    let unheard = Facts {
        activators: 0,
        activators_unheard: true,
        ..heard
    };
    assert_eq!(actions(unheard), [], "those that are there may answer");
    let gone = Facts {
        activators: 0,
        ..heard
    };
    assert_eq!(actions(gone), [Action::StandBy], "the dead leave");
    let alone = Facts {
        ready: 0,
        native_ready: false,
        ..gone
    };
    assert_eq!(actions(alone), [], "there is no pod to call instead");
}

#[test]
fn activators_that_stand_by_leave_the_slices_alone_as_long_as_callers_are_told() {
    let settled = Facts {
        since: delays().propagation,
        ..busy()
    };
    // Also where that was a moment ago: who has not heard of it finds them beside pods, as before.
    for told in [Duration::ZERO, delays().propagation] {
        let told = Facts {
            pods_first: Some(told),
            ..settled
        };
        let awake = step(State::Settling, &told, &delays());
        assert_eq!(
            (awake.state, awake.actions),
            (State::Awake, vec![Action::RemoveSlices])
        );
    }
    // It is not asked for any more, or somebody has taken the rule away.
    let left = Facts {
        listed: true,
        ..settled
    };
    assert_eq!(next(State::Awake, left), State::Settling);
    let out = step(State::Settling, &left, &delays()).actions;
    assert_eq!(out, [Action::RemoveActivators]);
}

#[test]
fn a_workload_whose_activators_stand_by_falls_asleep_and_bursts_as_any_other() {
    let told = |facts: Facts| Facts {
        pods_first: Some(delays().propagation),
        ..facts
    };
    let short = Facts {
        burst_short: true,
        burst_enough: false,
        ..busy()
    };
    let unready = Facts { ready: 0, ..busy() };
    for facts in [idle(), short, unready] {
        let (plain, standing) = (facts, told(facts));
        let of = |facts: Facts| step(State::Awake, &facts, &delays());
        assert_eq!(of(standing), of(plain), "{facts:?}");
    }
}
