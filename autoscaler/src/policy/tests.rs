use super::*;
use crate::demand::Totals;
use lull_contract::HumanDuration;
use proptest::prelude::*;

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn load(load: f64) -> Measured {
    Measured {
        stable: load,
        panic: load,
        heard: true,
        mostly_heard: true,
        ..Measured::default()
    }
}

fn held(count: u64) -> Measured {
    let totals = Totals {
        held: count,
        in_flight: count,
        ..Totals::default()
    };
    Measured {
        totals,
        heard: true,
        mostly_heard: true,
        ..Measured::default()
    }
}

fn pods(count: u32) -> Seen {
    Seen {
        replicas: count,
        ready: count,
    }
}

#[test]
fn a_wake_is_sized_by_what_is_held() {
    let settings = Settings::default();
    assert_eq!(wanted_for_held(&settings, 0), 0);
    assert_eq!(wanted_for_held(&settings, 1), 1);
    assert_eq!(wanted_for_held(&settings, 250), 3);
    let bounded = Settings {
        max_scale: 2,
        activation_scale: 5,
        ..settings
    };
    assert_eq!(wanted_for_held(&bounded, 1), 2);
}

#[test]
fn above_one_pod_a_horizontal_pod_autoscaler_has_the_count_to_itself() {
    let settings = Settings {
        class: Class::Hpa,
        max_scale: 2,
        ..Settings::default()
    };
    assert_eq!(wanted_for_held(&settings, 250), 1);
    let want = |measured: &Measured, replicas| {
        let mut policy = Policy::new(true, at(0));
        policy.verdict(&settings, measured, pods(replicas), at(100))
    };
    let busy = want(&load(900.0), 3);
    assert_eq!((busy.want, busy.rule), (3, Rule::Hpa));
    assert!(busy.to_string().starts_with("class hpa"), "{busy}");
    assert_eq!(want(&load(0.0), 3).want, 0);
    assert_eq!(want(&load(0.0), 0).want, 0);
    assert_eq!(want(&held(250), 0).want, 1);
    let patient = Settings {
        initial_scale: 5,
        scale_down_delay: HumanDuration::from_secs(60),
        ..settings.clone()
    };
    let mut policy = Policy::new(false, at(0));
    let mut want = |second| {
        policy
            .verdict(&patient, &load(0.0), pods(3), at(second))
            .want
    };
    assert_eq!((want(100), want(159), want(160)), (3, 3, 0));
}

#[test]
fn class_none_is_never_scaled() {
    let settings = Settings {
        class: Class::None,
        ..Settings::default()
    };
    for measured in [load(900.0), load(0.0), held(3)] {
        let mut policy = Policy::new(true, at(0));
        let verdict = policy.verdict(&settings, &measured, pods(3), at(100));
        let facts = verdict.facts(&settings, &measured, pods(3));
        assert_eq!(
            (verdict.want, facts.may_sleep, facts.zero_only),
            (3, false, true)
        );
    }
}

#[test]
fn a_silent_pod_keeps_only_itself_and_adds_none() {
    let settings = Settings {
        target: 10.0,
        target_utilization_percentage: 100.0,
        ..Settings::default()
    };
    let measured = Measured {
        heard: false,
        silent: 1,
        ..load(15.0)
    };
    let mut policy = Policy::new(true, at(0));
    policy.verdict(&settings, &load(15.0), pods(4), at(100));
    // The panic that a start with several pods begins with is over.
    let verdict = policy.verdict(&settings, &measured, pods(4), at(200));
    assert_eq!(
        (verdict.want, verdict.known, verdict.may_shrink),
        (3, false, true)
    );
    assert_eq!(
        verdict.to_string(),
        "load 15.0 / 10.0 per pod; 1 silent, counted as busy"
    );
    // One that is new, and has not been asked yet, is no reason to grow.
    let new = Measured {
        stable: 5.0,
        panic: 5.0,
        ..measured
    };
    let mut policy = Policy::new(true, at(0));
    assert_eq!(policy.verdict(&settings, &new, pods(1), at(100)).want, 1);
}

#[test]
fn nothing_shrinks_until_a_whole_window_is_known() {
    let settings = Settings::default();
    let mut policy = Policy::new(true, at(100));
    let mut known = |measured: &Measured, second| {
        let verdict = policy.verdict(&settings, measured, pods(3), at(second));
        verdict.known
    };
    assert!(!known(&load(0.0), 159));
    assert!(known(&load(0.0), 160));
    let silent = Measured {
        heard: false,
        ..load(0.0)
    };
    assert!(!known(&silent, 170));
    let other_window = Measured {
        restarted: true,
        ..load(0.0)
    };
    assert!(!known(&other_window, 180));
    assert!(!known(&load(0.0), 239));
    assert!(known(&load(0.0), 240));
}

#[test]
fn a_restarted_autoscaler_keeps_the_count() {
    let mut policy = Policy::new(true, at(0));
    let verdict = policy.verdict(&Settings::default(), &load(0.0), pods(7), at(1));
    assert_eq!(verdict.want, 7, "{verdict}");
}

#[test]
fn the_last_pod_stays_for_the_retention_period() {
    let settings = Settings {
        scale_to_zero_pod_retention_period: HumanDuration::from_secs(90),
        ..Settings::default()
    };
    let mut policy = Policy::new(true, at(0));
    let mut want = |second| {
        policy
            .verdict(&settings, &load(0.0), pods(1), at(second))
            .want
    };
    assert_eq!([want(10), want(99), want(100)], [1, 1, 0]);
}

#[test]
fn somebody_elses_count_is_kept_for_one_window() {
    let settings = Settings::default();
    let mut policy = Policy::new(true, at(0));
    let busy = load(10.0);
    assert_eq!(policy.verdict(&settings, &busy, pods(1), at(2)).want, 1);
    let other = policy.verdict(&settings, &busy, pods(4), at(4));
    assert_eq!((other.want, other.overruled), (4, true));
    assert_eq!(
        other.to_string(),
        "scaled to 4 by somebody else: kept for a window"
    );
    let later = policy.verdict(&settings, &busy, pods(4), at(63));
    assert_eq!((later.want, later.overruled), (4, false));
    let after = policy.verdict(&settings, &busy, pods(4), at(64));
    assert_eq!(
        (after.want, after.rule),
        (2, Rule::Algorithm),
        "half for each decision"
    );
}

#[test]
fn a_count_that_the_last_leader_wrote_a_moment_ago_is_not_somebody_elses() {
    let settings = Settings::default();
    let mut policy = Policy::new(true, at(100));
    policy.verdict(&settings, &load(900.0), pods(5), at(100));
    // The watch shows only now what was written before this leader began.
    let late = policy.verdict(&settings, &load(900.0), pods(8), at(101));
    assert!(!late.overruled);
    let next = policy.verdict(&settings, &load(900.0), pods(8), at(103));
    assert!(next.want > 8, "it grows: {next}");
    assert!(
        policy
            .verdict(&settings, &load(900.0), pods(9), at(105))
            .overruled
    );
}

#[test]
fn a_verdict_says_what_its_count_follows_from() {
    let settings = Settings::default;
    let bounds = Settings {
        min_scale: 2,
        max_scale: 3,
        ..settings()
    };
    let unscaled = Settings {
        class: Class::None,
        ..settings()
    };
    let initial = Settings {
        initial_scale: 4,
        ..settings()
    };
    let retention = Settings {
        scale_to_zero_pod_retention_period: HumanDuration::from_secs(90),
        ..settings()
    };
    let rows = [
        (settings(), load(0.0), 1, "idle"),
        (settings(), load(35.0), 1, "load 35.0 / 70.0 per pod"),
        (settings(), load(700.0), 1, "panic: 700.0 / 70.0 per pod"),
        (settings(), held(250), 0, "requests wait at activators"),
        (bounds.clone(), load(0.0), 1, "min-scale (load asks for 0)"),
        (bounds, load(700.0), 1, "max-scale (10 asked for)"),
        (initial, load(1.0), 1, "initial scale (load asks for 1)"),
        (
            retention,
            load(0.0),
            1,
            "idle: the last pod stays for its retention period",
        ),
        (
            unscaled,
            load(9.0),
            3,
            "class none: Lull leaves the count alone",
        ),
    ];
    for (settings, measured, count, said) in rows {
        let mut policy = Policy::new(false, at(0));
        let verdict = policy.verdict(&settings, &measured, pods(count), at(2));
        assert_eq!(verdict.to_string(), said, "{verdict:?}");
        assert_eq!(policy.last(), Some(&verdict));
    }
}

#[test]
fn a_decision_that_is_kept_is_not_a_new_one() {
    let (settings, mut policy) = (Settings::default(), Policy::new(true, at(0)));
    let mut decided = |measured: &Measured, second| {
        let verdict = policy.verdict(&settings, measured, pods(1), at(second));
        verdict.decided
    };
    assert!(decided(&load(1.0), 2));
    assert!(!decided(&load(1.0), 3));
    assert!(decided(&load(1.0), 4));
    assert!(decided(&held(1), 5), "at once when requests are held");
}

#[test]
fn our_own_counts_and_wakes_by_any_replica_are_nobody_elses() {
    let settings = Settings::default();
    let mut policy = Policy::new(true, at(0));
    assert!(
        !policy
            .verdict(&settings, &load(300.0), pods(1), at(2))
            .overruled
    );
    policy.wrote(5);
    assert!(
        !policy
            .verdict(&settings, &load(300.0), pods(5), at(4))
            .overruled
    );
    policy.wrote(0);
    assert!(
        !policy
            .verdict(&settings, &held(1), pods(2), at(6))
            .overruled
    );
    let hpa = Settings {
        class: Class::Hpa,
        ..Settings::default()
    };
    assert!(!policy.verdict(&hpa, &load(1.0), pods(4), at(8)).overruled);
}

#[test]
fn a_count_of_zero_by_somebody_else_is_just_sleep() {
    let settings = Settings::default();
    let mut policy = Policy::new(true, at(0));
    policy.verdict(&settings, &load(1.0), pods(1), at(2));
    let verdict = policy.verdict(&settings, &load(0.0), pods(0), at(4));
    assert_eq!((verdict.overruled, verdict.rule), (true, Rule::Algorithm));
    assert_eq!(policy.verdict(&settings, &held(3), pods(0), at(5)).want, 1);
}

#[test]
fn the_initial_scale_holds_until_it_has_been_there_once() {
    let settings = Settings {
        initial_scale: 3,
        ..Settings::default()
    };
    let mut policy = Policy::new(false, at(0));
    assert_eq!(
        policy.verdict(&settings, &load(1.0), pods(1), at(2)).want,
        3
    );
    policy.wrote(3);
    let there = policy.verdict(&settings, &load(1.0), pods(3), at(4));
    assert_eq!(there.want, 1, "the algorithm alone");
    let mut restarted = Policy::new(true, at(0));
    assert_eq!(
        restarted
            .verdict(&settings, &load(1.0), pods(1), at(2))
            .want,
        1
    );
}

prop_compose! {
    fn any_settings()(
        (min, spread, initial, activation) in (0u32..4, 0u32..20, 0u32..6, 1u32..6),
        (target, limit, burst) in (0.01f64..300.0, 0u32..50, -1i64..400),
        (window, delay, retention) in (6u64..120, 0u64..90, 0u64..90),
    ) -> Settings {
        Settings {
            min_scale: min,
            max_scale: if spread == 0 { 0 } else { min + spread },
            initial_scale: initial,
            activation_scale: activation,
            target,
            container_concurrency: limit,
            target_burst_capacity: burst,
            window: HumanDuration::from_secs(window),
            scale_down_delay: HumanDuration::from_secs(delay),
            scale_to_zero_pod_retention_period: HumanDuration::from_secs(retention),
            ..Settings::default()
        }
    }
}

proptest! {
    /// Whatever is measured and seen, a count stays within the user's bounds and falls by no more
    /// than half for each decision.
    #[test]
    fn a_verdict_keeps_bounds_and_rates(
        settings in any_settings(),
        start in 0u32..20,
        steps in prop::collection::vec((1u64..5, 0.0f64..2_000.0, 0.0f64..2_000.0, 0u64..300), 1..60),
    ) {
        let mut policy = Policy::new(true, at(0));
        let (mut now, mut count, mut floor) = (0, start, 0);
        let mut decided_at = 0;
        for (pause, stable, panic, holds) in steps {
            now += pause;
            let measured = Measured { stable, panic, ..held(holds) };
            let verdict = policy.verdict(&settings, &measured, pods(count), at(now));
            prop_assert!(verdict.want >= settings.min_scale);
            prop_assert!(settings.max_scale == 0 || verdict.want <= settings.max_scale);
            prop_assert!(holds == 0 || verdict.want > 0);
            if holds > 0 || now >= decided_at + 2 || decided_at == 0 {
                (decided_at, floor) = (now, count / 2);
            }
            let bound = if settings.max_scale == 0 { u32::MAX } else { settings.max_scale };
            prop_assert!(verdict.want >= floor.min(bound), "{} pods: {:?}", count, verdict);
            count = verdict.want;
            policy.wrote(count);
        }
    }
}
