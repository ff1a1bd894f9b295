//! Reports in, measurements out.

use lull_contract::{
    HumanDuration,
    report::{Lately, VERSION},
};

use super::*;

fn report(boot: u64, now_us: u64, load: (u64, u64, u64)) -> QueueProxyReport {
    QueueProxyReport {
        v: VERSION,
        pod: "p".into(),
        boot,
        now_us,
        load: Load {
            in_flight: load.0,
            in_flight_us: load.1,
            requests: load.2,
        },
        queued: 0,
        limit: 0,
        app_ready: true,
        draining: false,
        bypass: 0,
        lately: Lately::default(),
        loopback_only: Vec::new(),
    }
}

fn settings() -> Settings {
    Settings {
        window: HumanDuration::from_secs(10),
        ..Settings::default()
    }
}

fn demand() -> Demand {
    Demand::new(&settings())
}

const SEC: u64 = 1_000_000;

fn measure(demand: &mut Demand, second: u64) -> Measured {
    let p = Reporter {
        name: "p",
        ready: true,
    };
    let at = Duration::from_secs(second);
    demand.measure(&settings(), [p].into_iter(), [].into_iter(), at)
}

#[test]
fn a_call_is_as_old_as_the_report_that_told_of_it() {
    let (mut demand, at) = (demand(), Duration::from_secs);
    demand.pod_reported("p", &report(1, 900 * SEC, (0, 0, 7)), at(100));
    assert_eq!(demand.called_at(), None, "nobody knows when the seven came");
    demand.pod_reported("p", &report(1, 901 * SEC, (0, 0, 8)), at(101));
    demand.pod_reported("p", &report(1, 902 * SEC, (0, 0, 8)), at(102));
    assert_eq!(demand.called_at(), Some(at(101)));
}

#[test]
fn a_missed_pull_loses_nothing() {
    let at = Duration::from_secs;
    let (mut each, mut late) = (demand(), demand());
    for second in 1..=8 {
        each.pod_reported(
            "p",
            &report(1, second * SEC, (2, 2 * second * SEC, 4 * second)),
            at(100 + second),
        );
    }
    late.pod_reported("p", &report(1, SEC, (2, 2 * SEC, 4)), at(101));
    late.pod_reported("p", &report(1, 8 * SEC, (2, 16 * SEC, 32)), at(108));
    let (each, late) = (measure(&mut each, 108), measure(&mut late, 108));
    assert_eq!((each.stable, each.panic), (2.0, 2.0));
    assert_eq!(each, late);
    assert_eq!(late.totals.arrivals, 32);
}

/// Section 6.4: what a second's report says of the second.
#[test]
fn an_average_is_what_happened() {
    let rows = [
        (
            "two requests of 500 ms, one after the other",
            (0, SEC, 2),
            1.0,
        ),
        ("one request that spans the second", (1, SEC, 0), 1.0),
        ("two that overlap for all of it", (2, 2 * SEC, 2), 2.0),
    ];
    for (row, load, average) in rows {
        let mut demand = demand();
        demand.pod_reported("p", &report(1, SEC, load), Duration::from_secs(1));
        let measured = measure(&mut demand, 1);
        assert!(
            (measured.panic - average).abs() < 1e-9,
            "{row}: {measured:?}"
        );
    }
}

/// Whoever is held arrives at a pod in the end, and counts there.
#[test]
fn requests_per_second_are_those_that_arrive_at_pods() {
    let settings = Settings {
        metric: Metric::Rps,
        ..settings()
    };
    let at = Duration::from_secs;
    let mut demand = Demand::new(&settings);
    for second in 1..=8 {
        // Five at a time, twenty a second.
        let load = (5, 5 * second * SEC, 20 * second);
        demand.pod_reported("p", &report(1, second * SEC, load), at(100 + second));
    }
    let mut last = None;
    for (second, in_flight) in [(107, 3), (108, 9)] {
        let heard = hearing(1, second);
        let reports = (last.replace(heard), heard);
        demand.activator_reported("a", reports, &held(in_flight, in_flight * SEC));
    }
    let [p, a] = ["p", "a"].map(|name| Reporter { name, ready: true });
    let activators = [(a, last)].into_iter();
    let measured = demand.measure(&settings, [p].into_iter(), activators, at(108));
    assert_eq!((measured.stable, measured.panic), (20.0, 20.0));
    assert_eq!((measured.totals.held, measured.totals.in_flight), (9, 14));
    assert!(!measured.restarted, "{measured:?}");
}

#[test]
fn a_pod_that_begins_anew_or_is_late_loses_no_request() {
    let settings = Settings {
        metric: Metric::Rps,
        ..settings()
    };
    let at = Duration::from_secs;
    let mut demand = Demand::new(&settings);
    demand.pod_reported("p", &report(1, SEC, (0, 0, 10)), at(101));
    // Two pulls have failed.
    demand.pod_reported("p", &report(1, 4 * SEC, (0, 0, 40)), at(104));
    demand.pod_reported("p", &report(2, SEC, (0, 0, 10)), at(105));
    let p = Reporter {
        name: "p",
        ready: true,
    };
    let measured = demand.measure(&settings, [p].into_iter(), [].into_iter(), at(105));
    assert_eq!((measured.stable, measured.totals.arrivals), (10.0, 50));
}

#[test]
fn an_old_process_is_known_from_now_on_and_a_restart_is_no_drop() {
    let at = Duration::from_secs;
    let mut demand = demand();
    demand.pod_reported("p", &report(1, 1000 * SEC, (0, 5000 * SEC, 9000)), at(10));
    assert_eq!(demand.totals(at(13)).arrivals, 0);
    demand.pod_reported("p", &report(2, SEC, (0, SEC, 3)), at(12));
    assert_eq!(demand.totals(at(13)).arrivals, 3);
    // A report that comes twice, or late, counts once.
    demand.pod_reported("p", &report(2, SEC, (0, SEC, 3)), at(13));
    assert_eq!(demand.totals(at(13)).arrivals, 3);
}

#[test]
fn one_silent_pod_of_many_is_told_from_a_cut_off_autoscaler() {
    let rows = [
        (2, 2, 0, true),
        (1, 2, 1, true),
        (1, 3, 2, false),
        (0, 1, 1, false),
    ];
    for (heard, ready, silent, mostly) in rows {
        let mut demand = demand();
        let names = ["a", "b", "c"];
        for name in &names[..heard] {
            demand.pod_reported(name, &report(1, SEC, (0, 0, 0)), Duration::from_secs(9));
        }
        let pods = names[..ready]
            .iter()
            .map(|name| Reporter { name, ready: true });
        let now = Duration::from_secs(10);
        let measured = demand.measure(&settings(), pods, [].into_iter(), now);
        let told = (measured.silent, measured.mostly_heard);
        assert_eq!(told, (silent, mostly), "{heard} of {ready}");
        assert_eq!(measured.heard, silent == 0);
    }
}

#[test]
fn silence_is_unknown_and_gone_reporters_are_forgotten() {
    let at = Duration::from_secs;
    let mut demand = demand();
    let unknown = measure(&mut demand, 0);
    assert_eq!((unknown.heard, unknown.oldest), (false, None));
    demand.pod_reported("p", &report(1, SEC, (7, 0, 0)), at(1));
    demand.pod_reported("gone", &report(2, SEC, (3, 0, 0)), at(1));
    assert!(measure(&mut demand, 4).heard);
    let late = measure(&mut demand, 5);
    assert_eq!((late.heard, late.oldest), (false, Some(at(4))));
    assert_eq!(late.totals.in_flight, 7);
}

#[test]
fn other_windows_start_empty_and_say_so() {
    let mut demand = demand();
    demand.pod_reported(
        "p",
        &report(1, 8 * SEC, (2, 16 * SEC, 4)),
        Duration::from_secs(8),
    );
    assert!(!measure(&mut demand, 8).restarted);
    let now = Duration::from_secs(8);
    let other = demand.measure(&Settings::default(), [].into_iter(), [].into_iter(), now);
    assert_eq!((other.restarted, other.stable), (true, 0.0));
}

#[test]
fn connections_round_the_queue_proxy_are_remembered_for_a_window() {
    let mut demand = demand();
    let seen = QueueProxyReport {
        bypass: 1,
        ..report(1, SEC, (0, 0, 0))
    };
    demand.pod_reported("p", &seen, Duration::from_secs(1));
    demand.pod_reported("p", &report(1, 2 * SEC, (0, 0, 0)), Duration::from_secs(2));
    assert!(measure(&mut demand, 11).totals.bypassed);
    assert!(!measure(&mut demand, 12).totals.bypassed);
}

#[test]
fn ports_that_are_listened_on_at_loopback_alone_are_known_as_long_as_a_pod_says_so() {
    let mut demand = demand();
    let says = |ports: &[u16], second: u64| QueueProxyReport {
        loopback_only: ports.to_vec(),
        ..report(1, second * SEC, (0, 0, 0))
    };
    let at = Duration::from_secs;
    demand.pod_reported("p", &says(&[8080], 1), at(1));
    assert!(demand.loopback_only().is_empty(), "it has just begun");
    demand.pod_reported("p", &says(&[8080, 80], 6), at(6));
    demand.pod_reported("q", &says(&[80], 6), at(6));
    assert_eq!(demand.loopback_only(), [80, 8080]);
    demand.pod_reported("p", &says(&[], 7), at(7));
    assert_eq!(demand.loopback_only(), [80]);
    let gone = [].into_iter();
    demand.keep_only(&gone, &gone);
    assert!(demand.loopback_only().is_empty());
}

#[test]
fn what_only_activators_told_before_pods_are_heard_is_not_the_load() {
    let at = Duration::from_secs;
    let mut demand = demand();
    demand.activator_reported("a", (None, hearing(1, 1)), &held(0, 0));
    demand.pod_reported("p", &report(1, 2 * SEC, (9, 0, 0)), at(2));
    demand.begin(at(9));
    // An older process, so it is known from now on.
    for second in 9..=11 {
        let load = (2, 2 * second * SEC, second);
        demand.pod_reported(
            "p",
            &report(1, 1_000 * SEC + second * SEC, load),
            at(second),
        );
    }
    // It says that nobody was held since second 1.
    let reports = (Some(hearing(1, 9)), hearing(1, 10));
    demand.activator_reported("a", reports, &held(0, 0));
    let measured = measure(&mut demand, 11);
    assert_eq!((measured.stable, measured.panic), (2.0, 2.0));
    assert_eq!(measured.totals.arrivals, 2);
}

#[test]
fn of_what_began_before_only_the_part_since_then_counts() {
    let at = Duration::from_secs;
    let mut demand = demand();
    demand.begin(at(106));
    // A young process: four seconds with two in flight, two of them before.
    demand.pod_reported("p", &report(1, 4 * SEC, (2, 8 * SEC, 1)), at(108));
    let measured = measure(&mut demand, 108);
    assert!((measured.stable - 2.0).abs() < 1e-9, "{measured:?}");
}

#[test]
fn a_report_tells_whether_its_activator_listens_on_other_ports_than_before() {
    let mut demand = demand();
    let mut other = held(0, 0);
    let reports = |secs| (Some(hearing(1, secs - 1)), hearing(1, secs));
    assert!(demand.activator_reported("a", (None, hearing(1, 1)), &other));
    assert!(!demand.activator_reported("a", reports(2), &other));
    other.ports.push(10_002);
    assert!(demand.activator_reported("a", reports(3), &other));
    let older = reports(3);
    assert!(!demand.activator_reported("a", older, &held(0, 0)));
}

#[test]
fn what_an_activator_held_that_is_gone_is_not_held_any_more() {
    let mut demand = demand();
    demand.activator_reported("a", (None, hearing(1, 1)), &held(3, 0));
    let there = |name| Reporter { name, ready: true };
    demand.keep_only(&[].into_iter(), &[there("a"), there("b")].into_iter());
    assert_eq!(demand.held(), 3);
    demand.keep_only(&[].into_iter(), &[there("b")].into_iter());
    assert_eq!((demand.held(), demand.held_since()), (0, None));
}

fn hearing(complete: u64, secs: u64) -> Hearing {
    Hearing {
        boot: 1,
        complete,
        now_us: secs * SEC,
        at: Duration::from_secs(secs),
    }
}

fn held(in_flight: u64, in_flight_us: u64) -> HeldWorkload {
    HeldWorkload {
        namespace: "d".into(),
        name: "shop".into(),
        uid: "u".into(),
        ports: vec![10_001],
        held: Load {
            in_flight,
            in_flight_us,
            requests: in_flight,
        },
        forwarding: 2,
        held_for_us: 400_000,
        woken: None,
        callers: Vec::new(),
        ways: Ways::default(),
    }
}

#[test]
fn when_it_was_told_first_that_somebody_is_held_is_known_until_nobody_is() {
    let mut demand = demand();
    let mut told_at = |second: u64, in_flight: u64| {
        let report = held(in_flight, second * SEC);
        let last = (second > 1).then(|| hearing(second - 1, second - 1));
        demand.activator_reported("a", (last, hearing(second, second)), &report);
        demand.held_told()
    };
    let second = |second| Some(Duration::from_secs(second));
    assert_eq!((told_at(1, 3), told_at(2, 5)), (second(1), second(1)));
    assert_eq!((told_at(3, 0), told_at(4, 1)), (None, second(4)));
}

#[test]
fn how_callers_have_come_is_summed_over_the_activators_that_there_are() {
    let mut demand = demand();
    let ways = |http1, tls| Ways {
        http1,
        tls,
        ..Ways::default()
    };
    for (activator, ways) in [("a", ways(3, 1)), ("b", ways(2, 0)), ("a", ways(4, 1))] {
        let told = HeldWorkload { ways, ..held(0, 0) };
        demand.activator_reported(activator, (None, hearing(1, ways.http1)), &told);
    }
    assert_eq!(demand.ways(), ways(6, 1));
}

#[test]
fn what_an_activator_leaves_out_is_as_it_was_until_its_last_report() {
    let mut demand = demand();
    let measure = |demand: &mut Demand, hearing, secs| {
        let a = Reporter {
            name: "a",
            ready: true,
        };
        let activators = [(a, Some(hearing))].into_iter();
        let now = Duration::from_secs(secs);
        demand.measure(&settings(), [].into_iter(), activators, now)
    };
    demand.activator_reported("a", (None, hearing(1, 1)), &held(0, 0));
    // Nothing about this workload until second 99.
    assert!(measure(&mut demand, hearing(1, 99), 100).heard);
    let silent = measure(&mut demand, hearing(1, 99), 103);
    assert!(!silent.heard, "the activator says nothing");
    assert_eq!((silent.silent, silent.silent_activators), (0, 1));
    let left_out = measure(&mut demand, hearing(2, 99), 100);
    assert!(!left_out.heard, "it knows the workload no more");
    // Of second 99 to 100 it says that one was held throughout.
    let reports = (Some(hearing(1, 99)), hearing(1, 100));
    demand.activator_reported("a", reports, &held(1, SEC));
    let now = measure(&mut demand, hearing(1, 100), 100);
    assert!((now.panic - 1.0).abs() < 1e-9, "{now:?}");
    assert!(
        (now.stable - 0.1).abs() < 1e-9,
        "nine idle seconds: {now:?}"
    );
}

#[test]
fn held_counts_as_demand_and_tells_its_ports() {
    let mut demand = demand();
    let now = hearing(1, 1);
    demand.activator_reported("a", (None, now), &held(5, 0));
    let totals = demand.totals(now.at);
    assert_eq!(
        (totals.held, totals.in_flight, totals.forwarding),
        (5, 5, 2)
    );
    assert_eq!(demand.held_since(), Some(Duration::from_millis(600)));
    assert!(demand.listens(("a", now), [10_001].into_iter()));
    assert!(!demand.listens(("a", now), [10_002].into_iter()));
    assert!(!demand.listens(("b", now), [10_001].into_iter()));
    let later = Hearing { complete: 2, ..now };
    assert!(
        !demand.listens(("a", later), [10_001].into_iter()),
        "left out"
    );
    demand.activator_reported("a", (Some(now), hearing(2, 2)), &held(5, 0));
    assert!(
        demand.listens(("a", now), [10_001].into_iter()),
        "told before the whole report counts as heard"
    );
    let restarted = Hearing { boot: 2, ..now };
    assert!(!demand.listens(("a", restarted), [10_001].into_iter()));
}
