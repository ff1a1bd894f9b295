//! Numbers: `KPA numeric test vectors`, taken from Knative's own unit tests (rows marked T there)
//! and derived from its formulas (rows marked D). Row numbers are kept.

use super::*;
use lull_contract::HumanDuration;
use proptest::prelude::*;

/// A calm decider with rates of 10, total = target / 0.75 unless a row says otherwise.
struct Case {
    decider: Decider,
    settings: Settings,
}

fn settings(target: f64, burst: i64) -> Settings {
    Settings {
        target: target / 0.75,
        target_utilization_percentage: 75.0,
        target_burst_capacity: burst,
        ..Settings::default()
    }
}

impl Case {
    fn new(target: f64, burst: i64) -> Self {
        let mut decider = Decider::new(1, Duration::ZERO);
        (decider.up_rate, decider.down_rate) = (10.0, 10.0);
        Self {
            decider,
            settings: settings(target, burst),
        }
    }

    /// Decides and checks want, excess burst capacity (where given) and whether panic is on.
    fn at(
        &mut self,
        second: u64,
        (ready, stable, panic): (u32, f64, f64),
        (want, excess, in_panic): (u32, Option<i64>, bool),
    ) {
        let observed = Observed {
            stable,
            panic,
            ready,
        };
        let got = self
            .decider
            .decide(&self.settings, observed, Duration::from_secs(second));
        assert_eq!(got.want, want, "want at {second} s: {got:?}");
        if let Some(excess) = excess {
            assert_eq!(got.excess_burst_capacity, excess, "excess at {second} s");
        }
        assert_eq!(
            self.decider.panic_since.is_some(),
            in_panic,
            "panic at {second} s"
        );
    }
}

#[test]
fn single_decisions() {
    // (row, target, burst, (ready, stable, panic), (want, excess, panic))
    let rows = [
        (1, 10.0, 100, (1, 0.0, 0.0), (0, Some(-87), false)),
        (2, 181.0, -1, (1, 21.0, 26.0), (1, Some(-1), false)),
        (4, 10.0, 100, (1, 50.0, 50.0), (5, Some(-137), true)),
        (5, 10.0, 100, (5, 50.0, 50.0), (5, Some(-84), false)),
        (10, 10.0, 81, (0, 1000.0, 888.0), (10, Some(-969), true)),
        (13, 10.0, 75, (1, 0.0, 0.0), (0, Some(-62), false)),
        (17, 10.0, 0, (5, 50.0, 100.0), (10, Some(0), true)),
    ];
    for (row, target, burst, observed, expected) in rows {
        println!("row {row}");
        Case::new(target, burst).at(0, observed, expected);
    }
}

#[test]
fn activation_scale_lifts_a_wake_but_never_idleness() {
    let mut row_14 = Case::new(10.0, 75);
    row_14.settings.activation_scale = 2;
    row_14.at(0, (1, 0.0, 0.0), (0, Some(-62), false));
    let mut row_16 = Case::new(10.0, 50);
    row_16.settings.activation_scale = 5;
    row_16.decider.up_rate = 2.0;
    row_16.at(0, (1, 1.0, 1.0), (5, Some(-38), false));
}

#[test]
fn scale_down_is_limited_by_rate() {
    let mut row_7 = Case::new(10.0, 1982);
    row_7.decider.down_rate = 1.1;
    row_7.at(0, (100, 1.0, 1.0), (90, Some(-650), false));
    let mut row_31 = Case::new(10.0, 61);
    row_31.at(0, (100, 1.0, 1.0), (10, Some(1271), false));
    row_31.at(0, (10, 1.0, 1.0), (1, Some(71), false));
}

#[test]
fn panic_starts_holds_extends_and_ends() {
    let mut row_25 = Case::new(1.0, 98);
    row_25.at(0, (10, 11.0, 25.0), (25, Some(-110), true));
    row_25.at(30, (40, 30.0, 41.0), (41, Some(-86), true));
    row_25.at(62, (55, 50.0, 56.0), (50, Some(-81), false));
    let mut row_26 = Case::new(1.0, 98);
    row_26.at(0, (10, 11.0, 25.0), (25, Some(-110), true));
    row_26.at(30, (40, 30.0, 80.0), (80, Some(-125), true));
    assert_eq!(row_26.decider.panic_since, Some(Duration::from_secs(30)));
    let mut row_29 = Case::new(10.0, 93);
    row_29.at(0, (1, 100.0, 100.0), (10, Some(-180), true));
    row_29.at(0, (10, 100.0, 1000.0), (100, Some(-960), true));
    row_29.at(30, (10, 1.0, 1.0), (100, Some(39), true));
    row_29.at(61, (10, 1.0, 1.0), (1, Some(39), false));
}

#[test]
fn growth_is_exponential_in_panic() {
    let mut row_28 = Case::new(1.0, 101);
    let steps = [
        (0, 1, 6.0, -106),
        (0, 6, 36.0, -129),
        (1, 36, 216.0, -269),
        (1, 216, 1296.0, -1109),
    ];
    for (second, ready, load, excess) in steps {
        row_28.at(
            second,
            (ready, load, load),
            (to_count(load), Some(excess), true),
        );
    }
    row_28.at(2, (1296, 1296.0, 1296.0), (1296, Some(331), true));
}

#[test]
fn a_new_target_counts_at_once() {
    let mut row_32 = Case::new(10.0, 77);
    row_32.at(0, (1, 100.0, 101.0), (10, Some(-165), true));
    row_32.settings = settings(1.0, 71);
    row_32.at(0, (10, 100.0, 101.0), (100, Some(-159), true));
}

#[test]
fn scale_down_delay_keeps_the_peak() {
    let delayed = || {
        let mut case = Case::new(10.0, 0);
        case.settings.scale_down_delay = HumanDuration::from_secs(300);
        case.settings.panic_threshold_percentage = 10_000.0;
        case
    };
    let mut row_34 = delayed();
    row_34.at(2, (0, 40.0, 40.0), (4, None, false));
    row_34.at(300, (0, 0.0, 0.0), (4, None, false));
    row_34.at(302, (0, 0.0, 0.0), (0, None, false));
    let mut row_35 = delayed();
    for (second, load, want) in [
        (540, 40.0, 4),
        (600, 30.0, 4),
        (660, 0.0, 4),
        (840, 0.0, 3),
        (900, 0.0, 0),
    ] {
        row_35.at(second, (0, load, load), (want, None, false));
    }
    let mut row_37 = Case::new(10.0, 0);
    row_37.settings.panic_threshold_percentage = 10_000.0;
    row_37.at(0, (0, 40.0, 40.0), (4, None, false));
    row_37.at(0, (0, 20.0, 20.0), (2, None, false));
}

/// Section 6.3: five slots, which are two seconds each here.
#[test]
fn the_delay_is_a_sliding_maximum() {
    type Row = (&'static str, &'static [u32], &'static [u32]);
    let each_slot: [Row; 3] = [
        ("6.3 row 1", &[5, 6, 5, 5, 5, 5, 5], &[5, 6, 6, 6, 6, 6, 5]),
        ("6.3 row 2", &[5, 6, 5, 7, 5, 5, 1], &[5, 6, 6, 7, 7, 7, 7]),
        (
            "6.3 row 3",
            &[5, 8, 5, 7, 5, 5, 1, 4, 4, 4, 4, 9, 3, 4, 2, 1, 0],
            &[5, 8, 8, 8, 8, 8, 7, 7, 5, 5, 4, 9, 9, 9, 9, 9, 4],
        ),
    ];
    let one_slot: [Row; 2] = [
        ("6.3 row 5", &[1, 2, 3, 4, 5, 6, 7], &[1, 2, 3, 4, 5, 6, 7]),
        ("6.3 row 6", &[7, 6, 5, 4, 3, 2, 1], &[7, 7, 7, 7, 7, 7, 7]),
    ];
    let delay = DELAY_SLOT * 5;
    let run = |input: &[u32], step: Duration| -> Vec<u32> {
        let mut decider = Decider::new(0, Duration::ZERO);
        let slots = (0u32..).zip(input);
        slots
            .map(|(slot, want)| decider.delayed(delay, *want, step * slot))
            .collect()
    };
    for (row, input, output) in each_slot {
        assert_eq!(run(input, DELAY_SLOT), output, "{row}");
    }
    for (row, input, output) in one_slot {
        assert_eq!(run(input, Duration::ZERO), output, "{row}");
    }
    let mut decider = Decider::new(0, Duration::ZERO);
    let row_4 = [(6, 0), (5, 1), (2, 2), (1, 6)]
        .map(|(want, slot)| decider.delayed(delay, want, DELAY_SLOT * slot));
    assert_eq!(row_4, [6, 6, 6, 2], "6.3 row 4");
    let timed = |input: [(u32, Duration); 2]| {
        let mut decider = Decider::new(0, Duration::ZERO);
        input.map(|(want, at)| decider.delayed(Duration::from_secs(5), want, at))
    };
    let row_7 = [(5, Duration::ZERO), (4, Duration::from_secs(6))];
    assert_eq!(timed(row_7), [5, 4], "6.3 row 7");
    let row_8 = [(6, Duration::ZERO), (5, Duration::from_millis(900))];
    assert_eq!(timed(row_8), [6, 6], "6.3 row 8");
}

/// Section 1, after the table: what a decider is before its first decision.
#[test]
fn a_new_decider_panics_where_there_is_more_than_one_pod() {
    let rows = [(0, false, 0), (1, false, 1), (2, true, 2)];
    for (ready, in_panic, most) in rows {
        let decider = Decider::new(ready, Duration::ZERO);
        let state = (decider.panic_since.is_some(), decider.max_panic_pods);
        assert_eq!(state, (in_panic, most), "{ready} ready");
    }
}

/// Section 3, after the table: what a Service begins with, before there is any load.
#[test]
fn excess_burst_capacity_before_any_load_is_that_of_the_pods() {
    for (burst, excess) in [(42, 8), (-1, -1)] {
        let settings = Settings {
            target: 25.0,
            target_burst_capacity: burst,
            ..Settings::default()
        };
        let unused = Observed {
            stable: 0.0,
            panic: 0.0,
            ready: 2,
        };
        assert_eq!(excess_burst_capacity(&settings, unused), excess);
    }
}

/// Rows 23a and 23b: calm growth, by the stable window alone.
#[test]
fn growth_without_panic_follows_the_stable_window() {
    let mut row_23 = Case::new(10.0, 101);
    row_23.at(0, (1, 50.0, 10.0), (5, Some(-98), false));
    row_23.at(0, (1, 100.0, 10.0), (10, Some(-98), false));
}

#[test]
fn a_decision_already_in_panic_is_the_panic_proposal() {
    let mut row_22 = Case::new(1.0, 100);
    row_22.decider.panic_since = Some(Duration::ZERO);
    row_22.decider.max_panic_pods = 5;
    row_22.at(5, (5, 20.0, 30.0), (30, Some(-124), true));
}

#[test]
fn rps_uses_the_same_formula() {
    let mut row_11 = Case::new(10.0, 100);
    row_11.settings.metric = lull_contract::Metric::Rps;
    row_11.at(0, (1, 100.0, 99.0), (10, Some(-186), true));
}

#[test]
fn production_defaults() {
    let decide = |start: u32, ready, load| {
        let settings = Settings {
            target_burst_capacity: 211,
            ..Settings::default()
        };
        let observed = Observed {
            stable: load,
            panic: load,
            ready,
        };
        let mut decider = Decider::new(start, Duration::ZERO);
        let got = decider.decide(&settings, observed, Duration::ZERO);
        (
            got.want,
            got.excess_burst_capacity,
            decider.panic_since.is_some(),
        )
    };
    assert_eq!(decide(0, 0, 1.0), (1, -212, false), "row 38");
    assert_eq!(decide(0, 3, 89.0), (2, 0, false), "row 40");
    assert_eq!(decide(0, 3, 89.5), (2, -1, false), "row 41");
    assert_eq!(decide(0, 10, 1.0), (5, 788, false), "row 43");
    assert_eq!(decide(0, 7, 0.0), (3, 489, false), "row 44");
}

/// Row 46: one request at a time in each pod. A hard limit of one is used whole here, so that the
/// numbers are those of a target of one.
#[test]
fn a_burst_on_pods_of_one_slot_is_panic() {
    let one_slot = Settings {
        target: 1.0,
        target_burst_capacity: 211,
        ..Settings::default()
    };
    let limited = Settings {
        container_concurrency: 1,
        ..one_slot.clone()
    };
    for (settings, want) in [(one_slot, 8), (limited, 5)] {
        let observed = Observed {
            stable: 5.0,
            panic: 5.0,
            ready: 1,
        };
        let mut decider = Decider::new(1, Duration::ZERO);
        let got = decider.decide(&settings, observed, Duration::ZERO);
        assert_eq!((got.want, got.excess_burst_capacity), (want, -215));
        assert!(got.panicking);
    }
}

proptest! {
    /// What is remembered of panic was reached within the rates, too.
    #[test]
    fn a_decision_keeps_both_rates(
        (up, down) in (1.0f64..20.0, 1.0f64..20.0),
        steps in prop::collection::vec((0u64..90, 0.0f64..3_000.0, 0.0f64..3_000.0), 1..40),
    ) {
        let settings = settings(10.0, 0);
        let mut decider = Decider::new(1, Duration::ZERO);
        (decider.up_rate, decider.down_rate) = (up, down);
        let (mut now, mut ready) = (Duration::ZERO, 1);
        for (pause, stable, panic) in steps {
            now += Duration::from_secs(pause);
            let got = decider.decide(&settings, Observed { stable, panic, ready }, now);
            let pods = f64::from(ready.max(1));
            prop_assert!(f64::from(got.want) <= (up * pods).ceil(), "{} pods: {:?}", ready, got);
            prop_assert!(f64::from(got.want) >= (pods / down).floor(), "{} pods: {:?}", ready, got);
            ready = got.want;
        }
    }
}

#[test]
fn a_restarted_autoscaler_keeps_the_pods_that_are_there() {
    let mut decider = Decider::new(5, Duration::ZERO);
    let idle = Observed {
        stable: 0.0,
        panic: 0.0,
        ready: 5,
    };
    let settings = Settings::default();
    assert_eq!(
        decider
            .decide(&settings, idle, Duration::from_secs(30))
            .want,
        5
    );
    assert_eq!(
        decider
            .decide(&settings, idle, Duration::from_secs(61))
            .want,
        2
    );
}

#[test]
fn reasons_are_short_and_say_the_numbers() {
    let mut decider = Decider::new(1, Duration::ZERO);
    let observed = Observed {
        stable: 10.0,
        panic: 143.0,
        ready: 1,
    };
    let got = decider.decide(&Settings::default(), observed, Duration::ZERO);
    assert_eq!(got.reason.to_string(), "panic: 143.0 / 70.0 per pod");
}
