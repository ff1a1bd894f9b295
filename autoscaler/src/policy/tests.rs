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
    assert!(!known(&load(0.0), 158));
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
    assert!(!known(&load(0.0), 238));
    assert!(known(&load(0.0), 240));
}

/// Nobody is heard of `silent` pods, and the windows have run empty.
fn nobody_heard(silent: u32) -> Measured {
    Measured {
        silent,
        ..Measured::default()
    }
}

fn with_burst_capacity(burst: i64) -> Settings {
    Settings {
        target_burst_capacity: burst,
        ..Settings::default()
    }
}

/// Of a verdict for `measured` and so many pods: may shrink, is short of burst capacity, has enough.
fn judged(
    policy: &mut Policy,
    (settings, measured): (&Settings, &Measured),
    count: u32,
    second: u64,
) -> (bool, bool, bool) {
    let verdict = policy.verdict(settings, measured, pods(count), at(second));
    let facts = verdict.facts(settings, measured, pods(count));
    (facts.may_shrink, facts.burst_short, facts.burst_enough)
}

/// Section 1, row 20; and section 8, the status: what was decided stays.
#[test]
fn row_20_without_data_there_is_no_decision_to_follow() {
    let settings = with_burst_capacity(50);
    let mut policy = Policy::new(true, at(0));
    let mut judge =
        |measured: &Measured, second| judged(&mut policy, (&settings, measured), 2, second);
    assert_eq!(judge(&load(160.0), 100), (true, true, false));
    assert_eq!(judge(&nobody_heard(2), 200), (false, false, false));
    assert_eq!(judge(&load(100.0), 300), (true, false, true));
}

#[test]
fn a_restart_knows_of_enough_burst_capacity_only_after_a_window() {
    let settings = with_burst_capacity(50);
    let mut policy = Policy::new(true, at(100));
    let mut judge = |second| judged(&mut policy, (&settings, &load(100.0)), 2, second);
    assert_eq!(judge(102), (false, false, false));
    assert_eq!(judge(158), (false, false, false));
    assert_eq!(judge(160), (true, false, true));
    // Short it is from the first report on.
    let mut policy = Policy::new(true, at(100));
    let short = judged(&mut policy, (&settings, &load(160.0)), 2, 102);
    assert_eq!(short, (false, true, false));
}

#[test]
fn a_decision_made_when_less_was_heard_is_not_followed_down() {
    let settings = with_burst_capacity(50);
    let mut policy = Policy::new(true, at(0));
    let mut judge =
        |measured: &Measured, second| judged(&mut policy, (&settings, measured), 1, second);
    assert_eq!(judge(&nobody_heard(1), 100), (false, false, false));
    // The next one isn't due yet, and this one knows of no load.
    assert_eq!(judge(&load(90.0), 101), (false, false, false));
    assert_eq!(judge(&load(90.0), 102), (true, true, false));
    // One that lacks a pod is followed as long as that pod is silent.
    let one_silent = Measured {
        heard: false,
        silent: 1,
        ..load(1.0)
    };
    assert!(judge(&one_silent, 104).0 && judge(&one_silent, 105).0);
    assert!(judge(&one_silent, 106).0 && !judge(&load(1.0), 107).0);
    assert!(judge(&load(1.0), 108).0);
}

#[test]
fn a_silent_pod_is_taken_for_full_before_activators_leave() {
    let settings = with_burst_capacity(50);
    // (pods, silent ones of them, enough): 100 each, a load of 100, 50 to spare.
    let rows = [
        (2, 0, true),
        (2, 1, false),
        (3, 1, true),
        (4, 2, true),
        (3, 2, false),
    ];
    for (count, silent, expected) in rows {
        let measured = Measured {
            heard: silent == 0,
            silent,
            ..load(100.0)
        };
        let mut policy = Policy::new(true, at(0));
        let enough = judged(&mut policy, (&settings, &measured), count, 100);
        assert_eq!(enough, (true, false, expected), "{silent} of {count}");
    }
    // Where none is asked for, no load is too much.
    let none = with_burst_capacity(0);
    let mut policy = Policy::new(true, at(0));
    let enough = judged(&mut policy, (&none, &nobody_heard(1)), 1, 1);
    assert_eq!(enough, (false, false, true));
}

#[test]
fn burst_capacity_is_enough_when_it_has_not_been_short_for_a_window() {
    let settings = with_burst_capacity(50);
    let mut policy = Policy::new(true, at(0));
    let mut judge = |(count, measured): (u32, f64), second| {
        judged(&mut policy, (&settings, &load(measured)), count, second)
    };
    let (short, not_yet, enough) = (
        (true, true, false),
        (true, false, false),
        (true, false, true),
    );
    assert_eq!(judge((2, 160.0), 100), short);
    assert_eq!(judge((2, 149.0), 130), not_yet);
    assert_eq!(judge((2, 151.0), 140), short);
    assert_eq!(judge((2, 149.0), 199), not_yet);
    assert_eq!(judge((2, 149.0), 201), enough);
    // What sleeps has no capacity, which says nothing about the pods that come.
    assert_eq!(judge((0, 0.0), 300), short);
    assert_eq!(judge((1, 1.0), 303), enough);
}

/// Section 3: 0 and 1 have the same sign, 0 and -42 don't.
#[test]
fn the_sign_of_excess_burst_capacity_is_the_mode() {
    let rows = [
        (42, 158.0, 0, false),
        (42, 157.0, 1, false),
        (84, 158.0, -42, true),
        (-1, 0.0, -1, true),
    ];
    for (burst, panic, excess, expected) in rows {
        let (settings, measured) = (with_burst_capacity(burst), load(panic));
        let mut policy = Policy::new(true, at(0));
        let verdict = policy.verdict(&settings, &measured, pods(2), at(100));
        assert_eq!(verdict.decision.excess_burst_capacity, excess);
        let facts = verdict.facts(&settings, &measured, pods(2));
        assert_eq!(
            (facts.burst_short, facts.burst_enough),
            (expected, !expected),
            "{excess}"
        );
    }
}

/// Section 8: what a verdict decides of how a decision is applied; the rest is in
/// `machine/tests/vectors.rs`.
#[test]
fn bounds_lift_an_idle_count() {
    let settings = Settings::default;
    let retention = |seconds| Settings {
        scale_to_zero_pod_retention_period: HumanDuration::from_secs(seconds),
        ..settings()
    };
    let initial = |initial_scale| Settings {
        initial_scale,
        ..settings()
    };
    let min_scale = Settings {
        min_scale: 2,
        ..settings()
    };
    let rows = [
        (10, retention(300), 1, 1),
        (11, retention(0), 1, 0),
        (19, min_scale, 3, 2),
        (29, initial(2), 2, 1),
        (31, initial(0), 0, 0),
    ];
    for (row, settings, count, expected) in rows {
        let mut policy = Policy::new(true, at(0));
        let mut want = |second| {
            let verdict = policy.verdict(&settings, &load(0.0), pods(count), at(second));
            verdict.want
        };
        // The panic that a start with several pods begins with is over then.
        want(0);
        assert_eq!(want(100), expected, "8, row {row}");
    }
    let mut row_28 = Policy::new(false, at(0));
    let activating = row_28.verdict(&initial(5), &load(1.0), pods(5), at(2));
    assert_eq!(activating.want, 5, "8, row 28");
    // Initial scale by annotation, and what the first verdict asks for.
    for (initial_scale, begun) in [(1, 1), (2, 2), (0, 1)] {
        let mut policy = Policy::new(false, at(0));
        let verdict = policy.verdict(&initial(initial_scale), &load(1.0), pods(1), at(2));
        assert_eq!(verdict.want, begun, "8, initial scale {initial_scale}");
    }
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
        (min, spread, initial, activation) in
            (0u32..4, prop_oneof![Just(0u32), 1u32..20], 0u32..6, 1u32..6),
        // Now and then so low that only the rate bounds the count.
        (target, limit, burst) in
            (prop_oneof![0.01f64..0.05, 0.05f64..300.0], 0u32..50, -1i64..400),
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
    /// Whatever is measured and seen, a count stays within the user's bounds, falls by no more than
    /// half for each decision, and grows to no more than a thousand times as many.
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
            let lifts = [settings.activation_scale, settings.min_scale, wanted_for_held(&settings, holds)];
            let lift = lifts.into_iter().max().unwrap_or(0);
            let most = count.max(1).saturating_mul(1_000).max(lift);
            prop_assert!(verdict.want <= most, "{} pods: {:?}", count, verdict);
            count = verdict.want;
            policy.wrote(count);
        }
    }
}
