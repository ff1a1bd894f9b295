use super::*;

/// Awake, in the moment in which the template is written: an old pod is ready.
fn awake() -> Seen {
    Seen {
        is_switched: true,
        is_due: true,
        is_ready: true,
        is_reached: true,
        ..Seen::default()
    }
}

fn asleep() -> Seen {
    Seen {
        is_switched: true,
        is_listed: true,
        may_wake: true,
        ..Seen::default()
    }
}

#[test]
fn pods_are_in_the_endpoints_before_activators_leave_them() {
    let given_back = Seen {
        is_switched: false,
        is_listed: true,
        ..awake()
    };
    let rows = [
        ("awake", awake(), Step::GiveBack),
        (
            "given back",
            Seen {
                is_listed: false,
                ..given_back
            },
            Step::Wait,
        ),
        ("activators in, nobody has heard", given_back, Step::Wait),
        (
            "and heard",
            Seen {
                is_heard: true,
                ..given_back
            },
            Step::TakeOut,
        ),
        (
            "heard, and the pods are listed for no port yet",
            Seen {
                is_heard: true,
                is_reached: false,
                ..given_back
            },
            Step::Wait,
        ),
        (
            "heard, and the pod has gone",
            Seen {
                is_heard: true,
                is_ready: false,
                is_reached: false,
                ..given_back
            },
            Step::Wait,
        ),
        (
            "all traffic by the activators",
            Seen {
                is_held: true,
                is_listed: true,
                is_ready: false,
                ..awake()
            },
            Step::Release,
        ),
        (
            "the same, and the pods are in the endpoints again",
            Seen {
                is_listed: true,
                ..awake()
            },
            Step::GiveBack,
        ),
        (
            "no old pod left, new ones are listed for no port",
            Seen {
                is_reached: false,
                ..awake()
            },
            Step::GiveBack,
        ),
        (
            "never switched",
            Seen {
                is_switched: false,
                ..awake()
            },
            Step::Wait,
        ),
    ];
    for (what, seen, then) in rows {
        assert_eq!(step(seen), then, "{what}");
    }
}

#[test]
fn a_sleeper_is_woken_and_keeps_its_services_until_a_pod_is_ready() {
    let due = Seen {
        is_due: true,
        ..asleep()
    };
    let rows = [
        ("the webhook may be back in a moment", asleep(), Step::Wait),
        ("called, or not back", due, Step::Wake),
        (
            "woken",
            Seen {
                may_wake: false,
                ..due
            },
            Step::Wait,
        ),
        (
            "its pod is ready",
            Seen {
                may_wake: false,
                is_ready: true,
                ..due
            },
            Step::GiveBack,
        ),
        (
            "scaled to 0 again with its Services given back",
            Seen {
                is_switched: false,
                ..due
            },
            Step::Wake,
        ),
    ];
    for (what, seen, then) in rows {
        assert_eq!(step(seen), then, "{what}");
    }
}
