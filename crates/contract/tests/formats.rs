//! What versions of Lull have written must stay readable: while Lull is upgraded old and new ones run
//! side by side, sidecars stay with their pods until the next rollout, and objects stay for good.
//!
//! Each file in `formats` is as some version wrote it. Never edit one, nor what is expected of it: where
//! a test fails, it is the reader that is wrong. What is added to a format comes with a file of its own,
//! `<format>-first.json` has the least that was ever written.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::{collections::BTreeSet, fs, path::PathBuf};

use lull_contract::{
    AppPort, AppProtocol, HumanDuration,
    annotations::SidecarResources,
    injected::Sidecar,
    original::{Original, OriginalPort, TargetPort},
    report::{
        ActivatorReport, CallerCount, CallerRequests, HeldWorkload, Lately, Load, QueueProxyReport,
        SeenCaller, Ways, Woken,
    },
    settings::Ignore,
};

/// Every file. What the webhook notes is read as a whole by `crates/injection/src/record.rs`.
const FILES: [&str; 13] = [
    "activator-report-1-first.json",
    "activator-report-1-ways.json",
    "activator-report-1.json",
    "injected-first.json",
    "injected-name-callers.json",
    "injected.json",
    "original.json",
    "queue-proxy-report-1-callers.json",
    "queue-proxy-report-1.json",
    "queue-proxy-report-loopback.json",
    "scaledworkload-v1alpha1-first.json",
    "scaledworkload-v1alpha1-kept-awake.json",
    "scaledworkload-v1alpha1.json",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

fn written(file: &str) -> String {
    assert!(FILES.contains(&file), "{file} is not listed");
    fs::read_to_string(folder().join(file)).unwrap()
}

#[test]
fn no_file_is_left_out() {
    let names = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = names.collect();
    assert_eq!(names, BTreeSet::from(FILES.map(str::to_owned)));
}

#[test]
fn a_report_of_a_queue_proxy_is_read() {
    let report = QueueProxyReport::parse(written("queue-proxy-report-1.json").as_bytes());
    let expected = QueueProxyReport {
        v: 1,
        pod: "shop-5d8f7-x2x4z".into(),
        boot: 4_503_599_627_370_495,
        now_us: 60_000_000,
        load: Load {
            in_flight: 3,
            in_flight_us: 180_000_000,
            requests: 4,
        },
        queued: 1,
        limit: 10,
        app_ready: true,
        draining: false,
        bypass: 2,
        lately: Lately::default(),
        loopback_only: Vec::new(),
    };
    assert_eq!(report.unwrap(), expected);
}

#[test]
fn who_has_called_a_pod_is_read() {
    let told = |caller: &str, requests, asked: &[(&str, u64)]| CallerRequests {
        caller: caller.into(),
        requests,
        asked: asked
            .iter()
            .map(|(class, of)| ((*class).into(), *of))
            .collect(),
    };
    let text = written("queue-proxy-report-1-callers.json");
    let report = QueueProxyReport::parse(text.as_bytes()).unwrap();
    let expected = Lately {
        last_us: 59_000_000,
        requests: 120,
        callers: vec![
            told("prod/checkout", 98, &[("GET /api/*", 90), ("POST /pay", 8)]),
            told("10.0.0.7", 13, &[]),
        ],
    };
    assert_eq!(report.lately, expected);
}

#[test]
fn a_report_of_an_app_that_listens_at_loopback_alone_is_read() {
    let report = written("queue-proxy-report-loopback.json");
    let report = QueueProxyReport::parse(report.as_bytes()).unwrap();
    assert_eq!((report.app_ready, report.bypass), (false, 0));
    assert_eq!(report.loopback_only, [8080, 5432]);
}

#[test]
fn a_report_of_an_activator_is_read() {
    let report = ActivatorReport::parse(written("activator-report-1.json").as_bytes());
    let phases = [
        ("created", 20_000),
        ("scheduled", 31_000),
        ("running", 480_000),
        ("answering", 600_000),
        ("first-byte", 612_000),
    ];
    let woken = Woken {
        number: 3,
        phases_us: phases.map(|(name, us)| (name.to_owned(), us)).into(),
        by: Some(SeenCaller {
            address: "10.0.0.7".into(),
            asked: "GET shop.web/cart".into(),
        }),
    };
    let held = HeldWorkload {
        namespace: "web".into(),
        name: "shop".into(),
        uid: "5b2a3f1c-0000-4000-8000-000000000000".into(),
        ports: vec![10_000, 10_007],
        held: Load {
            in_flight: 2,
            in_flight_us: 1_500_000,
            requests: 40,
        },
        forwarding: 1,
        held_for_us: 350_000,
        woken: Some(woken),
        callers: vec![CallerCount {
            address: "10.0.0.7".into(),
            holds: 9,
        }],
        ways: Ways::default(),
    };
    let expected = ActivatorReport {
        v: 1,
        pod: "lull-activator-7c9d-abcde".into(),
        boot: u64::MAX,
        now_us: 90_000_000,
        edge: 5,
        sequence: 7,
        partial: true,
        workloads: vec![held],
    };
    assert_eq!(report.unwrap(), expected);
}

#[test]
fn the_least_that_an_activator_ever_told_is_a_complete_report() {
    let report = ActivatorReport::parse(written("activator-report-1-first.json").as_bytes());
    let held = HeldWorkload {
        namespace: "web".into(),
        name: "shop".into(),
        uid: "u-1".into(),
        ports: vec![10_000],
        held: Load::default(),
        forwarding: 0,
        held_for_us: 0,
        woken: Some(Woken {
            number: 1,
            phases_us: Vec::new(),
            by: None,
        }),
        callers: Vec::new(),
        ways: Ways::default(),
    };
    let expected = ActivatorReport {
        v: 1,
        pod: "lull-activator-7c9d-abcde".into(),
        boot: 1,
        now_us: 90_000_000,
        edge: 5,
        sequence: 0,
        partial: false,
        workloads: vec![held],
    };
    assert_eq!(report.unwrap(), expected);
}

#[test]
fn how_callers_come_to_an_activator_is_read() {
    let report = ActivatorReport::parse(written("activator-report-1-ways.json").as_bytes());
    let ways = Ways {
        http1: 12,
        h2c: 3,
        tls: 40,
        tcp: 0,
    };
    assert_eq!(report.unwrap().workloads[0].ways, ways);
}

#[test]
fn the_record_on_a_template_tells_of_its_sidecar() {
    let http = AppPort {
        number: 8080,
        protocol: AppProtocol::Http,
    };
    let tcp = AppPort {
        number: 5432,
        protocol: AppProtocol::Tcp,
    };
    let resources = |cpu_limit: Option<&str>| SidecarResources {
        cpu_request: "25m".into(),
        memory_request: "16Mi".into(),
        cpu_limit: cpu_limit.map(Into::into),
        memory_limit: "256Mi".into(),
    };
    let ignore = |paths: &[&str]| Ignore {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        user_agents: vec!["kube-probe/".into()],
    };
    let full = Sidecar {
        ports: vec![http, tcp],
        container_concurrency: 10,
        queue_depth: 100,
        timeout: HumanDuration::from_secs(300),
        response_start_timeout: Some(HumanDuration::from_secs(20)),
        idle_timeout: Some(HumanDuration::from_secs(30)),
        ignore: ignore(&["/healthz"]),
        access_log: true,
        name_callers: true,
        otlp_endpoint: Some("http://collector.tracing:4318".into()),
        resources: resources(Some("1")),
    };
    let first = Sidecar {
        ports: vec![http],
        container_concurrency: 0,
        queue_depth: 0,
        timeout: HumanDuration::from_secs(300),
        response_start_timeout: None,
        idle_timeout: None,
        ignore: ignore(&[]),
        access_log: false,
        name_callers: true,
        otlp_endpoint: None,
        resources: resources(None),
    };
    let unnamed = Sidecar {
        name_callers: false,
        ..first.clone()
    };
    for (file, expected) in [
        ("injected.json", full),
        ("injected-first.json", first),
        ("injected-name-callers.json", unnamed),
    ] {
        let read = Sidecar::recorded(&written(file));
        assert_eq!(read, Some(expected), "{file}");
    }
}

#[test]
fn the_note_on_a_service_tells_what_it_was() {
    let port = |port, target_port| OriginalPort { port, target_port };
    let expected = Original {
        ports: vec![
            port(80, TargetPort::Name("web".into())),
            port(81, TargetPort::Number(9000)),
        ],
        selector: [("app".to_owned(), "shop".to_owned())].into(),
    };
    assert_eq!(Original::parse(&written("original.json")), Some(expected));
}

#[cfg(feature = "crd")]
mod scaled_workload {
    use std::time::Duration;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use lull_contract::{
        Class, Metric, Settings,
        scaled_workload::{
            Mode, ScaledWorkload, ScaledWorkloadSpec, ScaledWorkloadStatus, State, Target,
            WorkloadPort,
        },
        view::{AwakeShare, Caller, KeptAwake, PhaseView, WakeView},
    };

    use super::*;

    fn read(file: &str) -> ScaledWorkload {
        serde_json::from_str(&written(file)).unwrap()
    }

    fn shop(uid: &str) -> Target {
        Target {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: "shop".into(),
            uid: uid.into(),
        }
    }

    fn time(text: &str) -> Time {
        Time(text.parse().unwrap())
    }

    fn full_settings() -> Settings {
        let secs = HumanDuration::from_secs;
        Settings {
            class: Class::Hpa,
            min_scale: 1,
            max_scale: 20,
            initial_scale: 3,
            activation_scale: 2,
            metric: Metric::Rps,
            target: 150.0,
            target_utilization_percentage: 80.0,
            window: secs(120),
            panic_window_percentage: 20.5,
            panic_threshold_percentage: 300.0,
            scale_down_delay: secs(30),
            scale_to_zero_pod_retention_period: secs(90),
            target_burst_capacity: -1,
            container_concurrency: 10,
            queue_depth: 100,
            timeout: secs(60),
            response_start_timeout: Some(HumanDuration(Duration::from_millis(500))),
            idle_timeout: Some(secs(5)),
            hold_timeout: secs(90),
            connection_hold_timeout: secs(20),
            connect_timeout: Some(secs(15)),
            standby: true,
            server_timing: false,
            splice_max_age: Some(secs(3_600)),
            ignore: Ignore {
                paths: vec!["/healthz".into()],
                user_agents: vec!["kube-probe/".into()],
            },
        }
    }

    fn full_spec() -> ScaledWorkloadSpec {
        let port = |app_port, protocol, activator_port| WorkloadPort {
            app_port,
            protocol,
            activator_port,
        };
        ScaledWorkloadSpec {
            target: shop("5b2a3f1c-0000-4000-8000-000000000000"),
            pod_selector: [("lull.dev/pod".to_owned(), "shop".to_owned())].into(),
            ports: vec![
                port(8080, AppProtocol::Http, 10_000),
                port(5432, AppProtocol::Tcp, 10_007),
            ],
            settings: full_settings(),
            original_replicas: 2,
        }
    }

    fn full_status() -> ScaledWorkloadStatus {
        let phase = |name: &str, ms| PhaseView {
            name: name.into(),
            ms,
        };
        let wake = WakeView {
            at: "2026-11-26T15:05:00Z".into(),
            by: vec![Caller {
                address: "10.0.0.7".into(),
                asked: "GET shop.web/cart".into(),
                pod: Some("web/front-1".into()),
                workload: Some("web/front".into()),
                account: None,
            }],
            scaled_to: 2,
            total_ms: Some(612),
            waited_ms: Some(600),
            phases: vec![phase("created", 20), phase("answering", 600)],
        };
        ScaledWorkloadStatus {
            mode: Mode::Proxy,
            state: State::Waking,
            ready: 1,
            desired: 2,
            in_flight: 4,
            held: 1,
            reason: "somebody is held".into(),
            services: vec!["shop".into(), "shop-admin".into()],
            plain_pods: Vec::new(),
            state_since: Some(time("2026-11-26T15:10:00Z")),
            saved_pod_seconds: 86_400,
            wakes: vec![wake],
            kept_awake: KeptAwake::default(),
            conditions: vec![Condition {
                last_transition_time: time("2026-11-26T15:00:05Z"),
                message: String::new(),
                observed_generation: None,
                reason: "Enrolled".into(),
                status: "True".into(),
                type_: "Enrolled".into(),
            }],
        }
    }

    #[test]
    fn one_that_is_stored_is_read() {
        let stored = read("scaledworkload-v1alpha1.json");
        assert_eq!(stored.spec, full_spec());
        assert_eq!(stored.status, Some(full_status()));
    }

    #[test]
    fn who_has_kept_it_awake_is_read() {
        let stored = read("scaledworkload-v1alpha1-kept-awake.json");
        let by = |caller: Caller, percent| AwakeShare { caller, percent };
        let pod = Caller {
            address: "10.0.0.7".into(),
            asked: "GET /api/*".into(),
            pod: Some("web/front-1".into()),
            workload: Some("web/front".into()),
            account: None,
        };
        let account = Caller {
            account: Some("prod/checkout".into()),
            ..Caller::default()
        };
        let expected = KeptAwake {
            at: "2026-11-26T15:09:58.250Z".into(),
            by: vec![by(pod, 82), by(account, 11)],
            others_percent: 7,
        };
        assert_eq!(stored.status.unwrap().kept_awake, expected);
    }

    #[test]
    fn what_was_not_written_yet_is_as_it_is_by_default() {
        let stored = read("scaledworkload-v1alpha1-first.json");
        let spec = ScaledWorkloadSpec {
            target: shop("u-1"),
            pod_selector: [].into(),
            ports: Vec::new(),
            settings: Settings::default(),
            original_replicas: 1,
        };
        let status = ScaledWorkloadStatus {
            state: State::Planned,
            reason: "would be enrolled".into(),
            ..ScaledWorkloadStatus::default()
        };
        assert_eq!((stored.spec, stored.status), (spec, Some(status)));
    }

    /// A field that a later version adds is missing in what this one has written, whichever it is.
    #[test]
    fn a_setting_that_is_missing_is_as_it_is_by_default() {
        let text = written("scaledworkload-v1alpha1.json");
        let mut stored: serde_json::Value = serde_json::from_str(&text).unwrap();
        stored["spec"]["settings"] = serde_json::json!({ "ignore": { "paths": ["/healthz"] } });
        let stored: ScaledWorkload = serde_json::from_value(stored).unwrap();
        let mut expected = Settings::default();
        expected.ignore.paths = vec!["/healthz".into()];
        assert_eq!(stored.spec.settings, expected);
    }
}
