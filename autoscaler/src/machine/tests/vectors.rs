//! Section 8 of `KPA numeric test vectors`: how a decision is applied. Row numbers are kept; those
//! that a verdict decides are in `policy/tests.rs`, those that Lull has nothing for in
//! `docs/decisions/every-pod-is-pulled.md`.
//!
//! Knative's grace period is the propagation delay here, its progress deadline the wake's.

use super::*;

/// So many pods with nothing to do.
fn unused(replicas: u32) -> Facts {
    Facts {
        replicas,
        ready: replicas,
        ..idle()
    }
}

/// The same, where not everybody is heard: some may be in use.
fn doubted(replicas: u32) -> Facts {
    Facts {
        known: false,
        ..unused(replicas)
    }
}

/// The same, where hardly anybody is heard.
fn unheard(replicas: u32) -> Facts {
    Facts {
        may_shrink: false,
        ..doubted(replicas)
    }
}

/// One pod where the load asks for more.
fn short_of(want: u32, ready: u32) -> Facts {
    Facts {
        want,
        ready,
        native_ready: ready > 0,
        ..busy()
    }
}

/// Nothing is there and somebody is held.
fn called(want: u32) -> Facts {
    Facts {
        want,
        held: 1,
        in_flight: 1,
        ..unused(0)
    }
}

/// What `/scale` is written to, if it is.
fn written(state: State, facts: &Facts) -> Option<u32> {
    let step = step(state, facts, &delays());
    step.actions.iter().find_map(|action| match action {
        Action::Scale { to, .. } => Some(*to),
        _ => None,
    })
}

#[test]
fn sleep_waits_for_what_is_known_and_for_its_delay() {
    use State::{Asleep, Awake, FallingAsleep, Waking};
    let delays = delays();
    let since = |since, facts| Facts { since, ..facts };
    let waited = |facts| since(delays.propagation, facts);
    let almost = delays.propagation.saturating_sub(Duration::from_millis(1));
    let retained = Facts {
        want: 1,
        ..unused(1)
    };
    let always_proxy = Facts {
        burst_short: true,
        burst_enough: false,
        ..unused(1)
    };
    let unreached = Facts {
        activators: 0,
        ..unused(1)
    };
    let not_started = Facts {
        ready: 0,
        native_ready: false,
        ..unused(1)
    };
    let rows = [
        (1, Awake, doubted(1), None),
        (4, FallingAsleep, unused(1), None),
        (5, FallingAsleep, waited(unused(1)), Some(0)),
        (7, FallingAsleep, since(almost, unused(1)), None),
        (8, FallingAsleep, waited(unused(1)), Some(0)),
        (10, FallingAsleep, waited(retained), None),
        (13, FallingAsleep, waited(always_proxy), Some(0)),
        (14, FallingAsleep, waited(unreached), None),
        (
            16,
            Waking,
            since(delays.wake_deadline, not_started),
            Some(0),
        ),
        (26, Asleep, unheard(0), None),
        (31, Asleep, unused(0), None),
    ];
    for (row, state, facts, expected) in rows {
        assert_eq!(written(state, &facts), expected, "8, row {row}: {facts:?}");
    }
}

#[test]
fn a_count_is_followed_down_to_its_minimum_and_up_at_once() {
    use State::{Asleep, Awake, Bursting, Settling, Waking};
    let never_to_zero = |want, replicas| Facts {
        want,
        may_sleep: false,
        ..unused(replicas)
    };
    let rows = [
        (2, Awake, doubted(10), Some(1)),
        (19, Awake, never_to_zero(2, 10), Some(2)),
        (23, Awake, short_of(10, 1), Some(10)),
        (23, Bursting, short_of(10, 1), Some(10)),
        (23, Settling, short_of(10, 1), Some(10)),
        (23, Waking, short_of(10, 0), Some(10)),
        (25, Asleep, called(1), Some(1)),
        (25, Asleep, called(10), Some(10)),
        (26, Awake, unheard(12), None),
        (29, Awake, doubted(2), Some(1)),
        (32, Awake, never_to_zero(1, 10), Some(1)),
        (34, Awake, unheard(10), None),
    ];
    for (row, state, facts, expected) in rows {
        assert_eq!(written(state, &facts), expected, "8, row {row}: {facts:?}");
    }
}
