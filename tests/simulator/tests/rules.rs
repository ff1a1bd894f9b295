//! What must hold whatever comes: nothing lost, no sleep on a request, always a ready endpoint.

use std::sync::LazyLock;

use lull_contract::{HumanDuration, Settings, scaled_workload::Mode};
use lull_simulator::{Faults, Outcome, Scenario, all, run, scenario::Rate, table};
use proptest::prelude::*;

/// The scenarios as the documentation shows them, and what came of each; run once for all tests.
static DOCUMENTED: LazyLock<Vec<(Scenario, Outcome)>> = LazyLock::new(|| {
    let outcome = |scenario: &Scenario| run(scenario, 1, Faults::default());
    let scenarios = all().into_iter();
    scenarios
        .map(|scenario| (scenario.clone(), outcome(&scenario)))
        .collect()
});

#[test]
fn no_scenario_breaks_a_rule_or_loses_a_request_and_all_end_asleep() {
    for (scenario, outcome) in DOCUMENTED.iter() {
        assert_eq!(outcome.broken, [""; 0], "{}", scenario.name);
        assert_eq!(outcome.lost, 0, "{}", scenario.name);
        assert!(outcome.requests > 0, "{}", scenario.name);
        assert!(outcome.sleeps > 0, "{} never slept", scenario.name);
    }
}

#[test]
fn the_documentation_has_the_figures_of_seed_one() {
    let documented = include_str!("../../../docs/simulations.md");
    for (scenario, outcome) in DOCUMENTED.iter() {
        let row = table::row(scenario, outcome);
        assert!(
            documented.contains(&row),
            "make simulate writes it; missing: {row}"
        );
    }
}

#[test]
fn modes_do_not_flap() {
    for (scenario, outcome) in DOCUMENTED.iter() {
        let modes: Vec<_> = outcome.points.iter().map(|p| p.state.mode()).collect();
        let changes = modes.windows(2).filter(|pair| pair[0] != pair[1]).count();
        // Into sleep and out of it, and one burst at each side.
        let most = usize::try_from(outcome.sleeps + 1).unwrap() * 6;
        assert!(
            changes <= most,
            "{}: {changes} changes of mode",
            scenario.name
        );
    }
}

/// Three pods of ten slots, of which ten shall be spare; the load takes about all the others.
fn edge(rate: Rate) -> Scenario {
    Scenario {
        name: "edge",
        what: "about as much as leaves the burst capacity asked for",
        seconds: 900,
        rate,
        service: 0.5,
        start: (0.6, 3.0),
        settings: Settings {
            container_concurrency: 10,
            queue_depth: 100,
            target_burst_capacity: 10,
            min_scale: 3,
            max_scale: 3,
            ..Settings::default()
        },
    }
}

/// Each change of mode there is a push to all Envoys: Proxy lasts for a window at least.
#[test]
fn modes_do_not_flap_where_burst_capacity_is_about_zero() {
    // In the mean 16, 17, 18, 19 and 20 in flight.
    let rates: [Rate; 5] = [|_| 32.0, |_| 34.0, |_| 36.0, |_| 38.0, |_| 40.0];
    let window = Settings::default().window.0.as_secs();
    let mut changes = 0;
    for (rate, seed) in rates.into_iter().zip(1..) {
        let scenario = edge(rate);
        let outcome = run(&scenario, seed, Faults::default());
        assert_eq!((outcome.lost, outcome.broken), (0, vec![]), "seed {seed}");
        let modes: Vec<_> = outcome.points.iter().map(|p| p.state.mode()).collect();
        let stays: Vec<_> = modes.chunk_by(|a, b| a == b).collect();
        // The first one began before, the last one has not ended.
        let whole = stays.iter().take(stays.len() - 1).skip(1);
        for stay in whole {
            let seconds = u64::try_from(stay.len()).unwrap();
            let is_long = stay[0] == Mode::Serve || seconds >= window;
            assert!(is_long, "seed {seed}: {seconds} s in {:?}", stay[0]);
        }
        changes += stays.len() - 1;
        let most = 2 * u64::from(scenario.seconds) / window;
        assert!(u64::try_from(stays.len()).unwrap() <= most, "seed {seed}");
    }
    assert!(changes > 0, "that is not the edge");
}

prop_compose! {
    fn scenarios()(
        rate in prop::sample::select(vec![
            (|t: f64| if t % 150.0 < 20.0 { 40.0 } else { 0.0 }) as fn(f64) -> f64,
            |_| 0.05,
            |_| 3.0,
            |t| if t % 97.0 < 1.0 { 200.0 } else { 0.2 },
        ]),
        service in prop::sample::select(vec![0.05, 0.5, 5.0, 40.0]),
        start in prop::sample::select(vec![(0.5, 1.0), (0.5, 20.0), (10.0, 15.0)]),
        (limit, burst, max) in (0u32..4, prop::sample::select(vec![-1i64, 0, 5, 200]), 0u32..5),
        (window, delay, retention) in (6u64..40, 0u64..20, 0u64..20),
        target in 1.0f64..50.0,
    ) -> Scenario {
        Scenario {
            name: "any",
            what: "any",
            seconds: 400,
            rate,
            service,
            start,
            settings: Settings {
                container_concurrency: limit,
                queue_depth: 10,
                target_burst_capacity: burst,
                max_scale: max,
                target,
                window: HumanDuration::from_secs(window),
                scale_down_delay: HumanDuration::from_secs(delay),
                scale_to_zero_pod_retention_period: HumanDuration::from_secs(retention),
                ..Settings::default()
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 64, ..ProptestConfig::default() })]

    /// Also with pulls that fail and an autoscaler that restarts.
    #[test]
    fn nothing_is_lost_whatever_comes(
        scenario in scenarios(),
        seed in any::<u64>(),
        failed_pulls in prop::sample::select(vec![0.0, 0.1, 0.6, 0.9]),
        restart_every in prop::sample::select(vec![0u32, 7, 61]),
    ) {
        let outcome = run(&scenario, seed, Faults { failed_pulls, restart_every });
        prop_assert_eq!(outcome.broken, Vec::<String>::new());
        prop_assert_eq!(outcome.lost, 0);
    }
}
