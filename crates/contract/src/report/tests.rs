use std::collections::BTreeSet;

use lull_process::docs;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn report() -> QueueProxyReport {
    QueueProxyReport {
        v: VERSION,
        pod: "shop-1".into(),
        boot: u64::MAX,
        now_us: 5,
        load: Load {
            in_flight: 3,
            in_flight_us: 9,
            requests: 4,
        },
        queued: 1,
        limit: 10,
        app_ready: true,
        draining: false,
        bypass: 0,
        lately: Lately::default(),
        loopback_only: Vec::new(),
    }
}

/// Somebody who has called lately.
fn caller() -> CallerRequests {
    CallerRequests {
        caller: "10.0.0.7".into(),
        requests: 9,
        asked: vec![("GET /cart".into(), 9)],
    }
}

fn report_with(callers: Vec<CallerRequests>) -> QueueProxyReport {
    let lately = Lately {
        last_us: 4,
        requests: callers.iter().map(|told| told.requests).sum(),
        callers,
    };
    QueueProxyReport { lately, ..report() }
}

fn parse(value: &Value) -> Result<QueueProxyReport, ReportError> {
    QueueProxyReport::parse(value.to_string().as_bytes())
}

/// The report as JSON, changed by `change`.
fn with(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Value {
    let mut value = serde_json::to_value(report()).unwrap();
    change(value.as_object_mut().unwrap());
    value
}

#[test]
fn other_versions_and_absurd_numbers_are_refused() {
    let other = with(|fields| fields["v"] = 2.into());
    assert!(matches!(parse(&other), Err(ReportError::Version(2))));
    let absurd = with(|fields| fields["in_flight"] = (1u64 << 40).into());
    assert!(matches!(parse(&absurd), Err(ReportError::Absurd(..))));
    let long = vec![b' '; MAX_QUEUE_PROXY_BYTES + 1];
    assert!(matches!(
        QueueProxyReport::parse(&long),
        Err(ReportError::TooLong(..))
    ));
}

#[test]
fn another_version_is_refused_as_such_whatever_it_looks_like() {
    for other in [json!({"v": 2}), json!({"v": 0, "load": [1, 2], "pod": 7})] {
        let refused = parse(&other).unwrap_err();
        assert!(matches!(refused, ReportError::Version(_)), "{refused}");
        let refused = ActivatorReport::parse(other.to_string().as_bytes()).unwrap_err();
        assert!(matches!(refused, ReportError::Version(_)), "{refused}");
    }
}

#[test]
fn unknown_fields_are_left_alone_and_missing_ones_refuse_the_report() {
    let more = with(|fields| {
        fields.insert("new".into(), json!({"a": [1]}));
    });
    assert_eq!(parse(&more).unwrap(), report());
    for field in with(|_| {}).as_object().unwrap().keys() {
        let less = with(|fields| {
            fields.remove(field);
        });
        let refused = parse(&less).unwrap_err();
        assert!(
            matches!(refused, ReportError::Malformed(_)),
            "{field}: {refused}"
        );
    }
}

/// Names in the first column of the table below `## section` of the documentation.
fn documented(section: &str) -> BTreeSet<String> {
    docs::table(include_str!("../../../../docs/report.md"), section)
        .iter()
        .flat_map(|row| docs::quoted(&row["field"]))
        .map(str::to_owned)
        .collect()
}

fn fields(value: &impl Serialize) -> BTreeSet<String> {
    let value = serde_json::to_value(value).unwrap();
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_documentation_lists_every_field_and_no_other() {
    let by = SeenCaller::default();
    let woken = Woken {
        number: 1,
        phases_us: Vec::new(),
        by: Some(by.clone()),
    };
    let held_caller = CallerCount::default();
    let ways = Ways {
        http1: 1,
        ..Ways::default()
    };
    let held = HeldWorkload {
        ways,
        ..held("shop", vec![held_caller.clone()], woken.clone())
    };
    let activator = activator_with(Vec::new());
    let (called, calls) = (report_with(vec![caller()]), caller());
    let called = QueueProxyReport {
        loopback_only: vec![8080],
        ..called
    };
    assert_eq!(documented("Queue-proxy"), fields(&called));
    assert_eq!(documented("Who has called lately"), fields(&called.lately));
    assert_eq!(documented("Caller of a pod"), fields(&calls));
    assert_eq!(documented("Activator"), fields(&activator));
    assert_eq!(documented("Activator's workload"), fields(&held));
    let section = "Activator's last wake of a workload";
    assert_eq!(documented(section), fields(&woken));
    assert_eq!(documented("Caller that began a wake"), fields(&by));
    assert_eq!(documented("Caller that was held"), fields(&held_caller));
    assert_eq!(documented("Ways of a workload's callers"), fields(&ways));
}

#[test]
fn callers_that_no_queue_proxy_names_are_left_out_and_the_rest_is_used() {
    let bytes = |report: &QueueProxyReport| serde_json::to_vec(report).unwrap();
    let honest = report_with(vec![caller()]);
    assert_eq!(QueueProxyReport::parse(&bytes(&honest)).unwrap(), honest);
    let hostile = CallerRequests {
        caller: "<b>".into(),
        ..caller()
    };
    let (told, mut why) = (bytes(&report_with(vec![caller(), hostile])), None);
    let taken = QueueProxyReport::parse_telling(&told, |error| why = Some(error.to_string()));
    assert_eq!(taken.unwrap(), report());
    let why = why.expect("it is told");
    assert!(why.contains("characters of no caller=2"), "{why}");
}

fn activator_with(workloads: Vec<HeldWorkload>) -> ActivatorReport {
    ActivatorReport {
        v: VERSION,
        pod: "a-1".into(),
        boot: 1,
        now_us: 1,
        edge: 0,
        sequence: 1,
        partial: false,
        workloads,
    }
}

/// What an activator tells of a workload.
fn held(name: &str, callers: Vec<CallerCount>, woken: Woken) -> HeldWorkload {
    HeldWorkload {
        namespace: "default".into(),
        name: name.into(),
        uid: "u".into(),
        ports: Vec::new(),
        held: Load::default(),
        forwarding: 0,
        held_for_us: 0,
        woken: Some(woken),
        callers,
        ways: Ways::default(),
    }
}

/// A wake with one phase, of a name of so many bytes, for somebody who asked in so many.
fn woken(phase: usize, asked: usize) -> Woken {
    Woken {
        number: 1,
        phases_us: vec![("p".repeat(phase), 1)],
        by: Some(SeenCaller {
            address: "10.0.0.7".into(),
            asked: "x".repeat(asked),
        }),
    }
}

#[test]
fn callers_and_wakes_beyond_the_bounds_are_left_out() {
    let far = CallerCount {
        address: "f".repeat(MAX_ADDRESS_BYTES + 1),
        holds: 1,
    };
    let many = vec![CallerCount::default(); MAX_CALLERS + 1];
    let few = || vec![CallerCount::default(); MAX_CALLERS];
    // Callers, wake, and whether the one and the other are kept.
    let cases = [
        (few(), woken(MAX_PHASE_BYTES, MAX_ASKED_BYTES), [true, true]),
        (few(), woken(0, MAX_ASKED_BYTES + 1), [true, false]),
        (few(), woken(MAX_PHASE_BYTES + 1, 0), [true, false]),
        (vec![far], woken(0, 0), [false, true]),
        (many, woken(0, 0), [false, true]),
    ];
    for (callers, woken, kept) in cases {
        let told = held("shop", callers, woken);
        let mut taken = told.clone();
        let is_whole = taken.leave_out().is_ok();
        let found = [taken.callers == told.callers, taken.woken == told.woken];
        assert_eq!((found, is_whole), (kept, kept == [true, true]), "{told:?}");
    }
}

#[test]
fn what_is_left_out_of_one_workload_refuses_no_other() {
    let load = Load {
        in_flight: 2,
        ..Load::default()
    };
    let odd = HeldWorkload {
        held: load,
        ..held("odd", Vec::new(), woken(0, MAX_ASKED_BYTES + 1))
    };
    let other = held("shop", Vec::new(), woken(0, 0));
    let told = activator_with(vec![odd.clone(), other.clone()]);
    let (bytes, mut why) = (serde_json::to_vec(&told).unwrap(), None);
    let taken = ActivatorReport::parse_telling(&bytes, |error| why = Some(error.to_string()));
    let odd = HeldWorkload { woken: None, ..odd };
    assert_eq!(taken.unwrap().workloads, [odd, other]);
    let why = why.expect("it is told");
    assert!(why.contains("bytes of what was asked for=193"), "{why}");
}

#[test]
fn the_documented_example_is_a_report() {
    let docs = include_str!("../../../../docs/report.md");
    let example = docs
        .lines()
        .find(|line| line.starts_with("{\"v\""))
        .unwrap();
    let parsed = QueueProxyReport::parse(example.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&parsed).unwrap(), example);
}

prop_compose! {
    fn loads()(
        in_flight in 0..=MAX_IN_FLIGHT,
        in_flight_us in any::<u64>(),
        requests in any::<u64>(),
    ) -> Load {
        Load { in_flight, in_flight_us, requests }
    }
}

prop_compose! {
    fn callers_lately()(
        last_us in any::<u64>(),
        others in 1..=u64::MAX,
        callers in proptest::collection::vec(
            (
                "[0-9a-z.:/-]{0,96}",
                any::<u64>(),
                proptest::collection::vec(("[A-Z]{0,7} /[a-z*]{0,55}", any::<u64>()), 0..=MAX_CLASSES),
            ),
            0..=MAX_LATELY,
        ),
    ) -> Lately {
        let callers = callers.into_iter();
        let told = |(caller, requests, asked)| CallerRequests { caller, requests, asked };
        Lately { last_us, requests: others, callers: callers.map(told).collect() }
    }
}

prop_compose! {
    fn queue_proxy_reports()(
        pod in ".{0,60}",
        (boot, now_us, queued, bypass) in any::<(u64, u64, u64, u64)>(),
        load in loads(),
        limit in any::<u32>(),
        (app_ready, draining) in any::<(bool, bool)>(),
        lately in callers_lately(),
        loopback_only in proptest::collection::vec(any::<u16>(), 0..5),
    ) -> QueueProxyReport {
        QueueProxyReport {
            v: VERSION, pod, boot, now_us, load, queued, limit, app_ready, draining, bypass, lately,
            loopback_only,
        }
    }
}

prop_compose! {
    fn held_workloads()(
        (namespace, name, uid) in (".{0,20}", ".{0,20}", ".{0,40}"),
        ports in proptest::collection::vec(any::<u16>(), 0..5),
        held in loads(),
        (forwarding, held_for_us) in any::<(u64, u64)>(),
        woken in proptest::option::of((
            any::<u64>(),
            proptest::collection::vec((".{0,12}", any::<u64>()), 0..=MAX_PHASES),
            proptest::option::of(("[0-9a-f:.]{0,40}", "[ -~]{0,192}")),
        )),
        callers in proptest::collection::vec(("[0-9a-f:.]{0,40}", any::<u64>()), 0..=MAX_CALLERS),
        (http1, h2c, tls, tcp) in any::<(u64, u64, u64, u64)>(),
    ) -> HeldWorkload {
        let woken = woken.map(|(number, phases_us, by)| {
            let by = by.map(|(address, asked)| SeenCaller { address, asked });
            Woken { number, phases_us, by }
        });
        let callers = callers.into_iter();
        let callers = callers.map(|(address, holds)| CallerCount { address, holds }).collect();
        let ways = Ways { http1, h2c, tls, tcp };
        HeldWorkload {
            namespace, name, uid, ports, held, forwarding, held_for_us, woken, callers, ways,
        }
    }
}

prop_compose! {
    fn activator_reports()(
        pod in ".{0,60}",
        (boot, now_us, edge) in any::<(u64, u64, u64)>(),
        (sequence, partial) in any::<(u64, bool)>(),
        workloads in proptest::collection::vec(held_workloads(), 0..5),
    ) -> ActivatorReport {
        ActivatorReport { v: VERSION, pod, boot, now_us, edge, sequence, partial, workloads }
    }
}

proptest! {
    #[test]
    fn a_report_comes_back_as_it_was_sent(
        queue_proxy in queue_proxy_reports(),
        activator in activator_reports(),
    ) {
        let bytes = serde_json::to_vec(&queue_proxy).unwrap();
        prop_assert_eq!(QueueProxyReport::parse(&bytes).unwrap(), queue_proxy);
        let bytes = serde_json::to_vec(&activator).unwrap();
        prop_assert_eq!(ActivatorReport::parse(&bytes).unwrap(), activator);
    }

    /// Kubernetes' names have at most 253 characters.
    #[test]
    fn an_honest_report_is_never_too_long(
        report in queue_proxy_reports(),
        pod in "[a-z0-9.-]{253}",
    ) {
        let bytes = serde_json::to_vec(&QueueProxyReport { pod, ..report }).unwrap();
        prop_assert!(bytes.len() < MAX_QUEUE_PROXY_BYTES, "{}", bytes.len());
    }

    #[test]
    fn any_bytes_are_answered_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = QueueProxyReport::parse(&bytes);
        let _ = ActivatorReport::parse(&bytes);
    }

    /// Damage reaches further into the parser than noise does.
    #[test]
    fn a_damaged_report_is_answered_without_a_panic(
        report in activator_reports(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = serde_json::to_vec(&report).unwrap();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(parsed) = ActivatorReport::parse(&bytes) {
            prop_assert_eq!(parsed.v, VERSION);
        }
    }
}
