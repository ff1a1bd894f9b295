use super::*;
use crate::HumanDuration;
use proptest::prelude::*;

fn annotations(pairs: &[(&str, &str)]) -> Annotations {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn defaults_hold_where_nothing_is_said() {
    let wanted = parse(&annotations(&[(SCALE, "true"), ("team", "shop")])).expect("valid");
    assert_eq!(wanted.settings, Settings::default());
    assert_eq!(wanted.ports, None);
    assert_eq!(wanted.sidecar.cpu_limit, None);
}

#[test]
fn values_are_read() {
    let wanted = parse(&annotations(&[
        (SCALE, "true"),
        (PORTS, "8080, 5432/tcp"),
        ("lull.dev/container-concurrency", "10"),
        ("lull.dev/window", "6s"),
        ("lull.dev/timeout", "30s"),
        ("lull.dev/server-timing", "false"),
        ("lull.dev/splice-max-age", "10m"),
        ("lull.dev/standby", "true"),
        ("lull.dev/ignore", "/healthz, Uptime/"),
    ]))
    .expect("valid");
    let settings = wanted.settings;
    assert_eq!(settings.queue_depth, 100);
    assert_eq!(settings.target_burst_capacity, 200);
    assert_eq!(settings.hold_timeout, HumanDuration::from_secs(30));
    assert_eq!(
        settings.connection_hold_timeout,
        HumanDuration::from_secs(25)
    );
    assert!(!settings.server_timing && settings.standby);
    assert_eq!(settings.splice_max_age, Some(HumanDuration::from_secs(600)));
    assert!(settings.ignores("/healthz", None) && settings.ignores("/", Some("Uptime/1")));
    assert!(
        !settings.ignores("/", Some("kube-probe/1")),
        "the list replaces the defaults"
    );
    let ports = wanted.ports.expect("ports");
    assert_eq!(
        ports[0],
        AppPort {
            number: 8080,
            protocol: AppProtocol::Http
        }
    );
    assert_eq!(
        ports[1],
        AppPort {
            number: 5432,
            protocol: AppProtocol::Tcp
        }
    );
}

/// Each row: key, wrong value. The refusal must name all three: key, value, what is allowed.
pub(crate) const WRONG: [(&str, &str); 40] = [
    (SCALE, "yes"),
    (SCALE, ""),
    (SCALE, "dryrun"),
    (ACCEPT_ACTIVATOR_SOURCE, "yes"),
    (PORTS, ""),
    (PORTS, "0"),
    (PORTS, "http"),
    (PORTS, "8080,8080"),
    (PORTS, "70000"),
    ("lull.dev/min-scale", "-1"),
    ("lull.dev/min-scale", "1.5"),
    ("lull.dev/max-scale", "many"),
    ("lull.dev/max-scale", "99999999999"),
    ("lull.dev/initial-scale", "0"),
    ("lull.dev/activation-scale", "0"),
    ("lull.dev/metric", "cpu"),
    ("lull.dev/target", "0"),
    ("lull.dev/target", "NaN"),
    ("lull.dev/target-utilization-percentage", "0"),
    ("lull.dev/target-utilization-percentage", "70%"),
    ("lull.dev/window", "5s"),
    ("lull.dev/window", "60"),
    ("lull.dev/window", "2h"),
    ("lull.dev/panic-window-percentage", "101"),
    ("lull.dev/panic-threshold-percentage", "100"),
    ("lull.dev/scale-down-delay", "-5s"),
    ("lull.dev/scale-to-zero-pod-retention-period", "soon"),
    ("lull.dev/target-burst-capacity", "-2"),
    ("lull.dev/container-concurrency", "+3"),
    ("lull.dev/queue-depth", "0"),
    ("lull.dev/timeout", "0s"),
    ("lull.dev/hold-timeout", "2h"),
    ("lull.dev/connect-timeout", "9s"),
    ("lull.dev/connect-timeout", "61s"),
    ("lull.dev/splice-max-age", "0s"),
    ("lull.dev/standby", "yes"),
    ("lull.dev/class", "vpa"),
    ("lull.dev/server-timing", "yes"),
    ("lull.dev/sidecar-cpu-request", "-25m"),
    ("lull.dev/min-scle", "1"),
];

#[test]
fn each_wrong_value_is_named_with_what_is_allowed() {
    for (key, value) in WRONG {
        let errors = parse(&annotations(&[(key, value)])).expect_err(key);
        assert_eq!(errors.len(), 1, "{key}={value}: {errors:?}");
        let text = errors[0].to_string();
        assert!(
            text.contains(key) && text.contains(&format!("{value:?}")),
            "{text}"
        );
        assert!(errors[0].allowed.starts_with("must") || errors[0].allowed.starts_with("is not"));
    }
}

#[test]
fn all_faults_are_listed_at_once() {
    let errors = parse(&annotations(&[
        ("lull.dev/window", "1s"),
        ("lull.dev/min-scale", "x"),
        ("lull.dev/typo", "1"),
    ]))
    .expect_err("three faults");
    let keys: Vec<&str> = errors.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(
        keys,
        ["lull.dev/min-scale", "lull.dev/typo", "lull.dev/window"]
    );
}

#[test]
fn scales_must_fit_the_maximum() {
    let errors = parse(&annotations(&[
        ("lull.dev/min-scale", "5"),
        ("lull.dev/max-scale", "3"),
    ]))
    .expect_err("min over max");
    assert!(
        errors[0]
            .to_string()
            .contains("lull.dev/max-scale, which is 3"),
        "{errors:?}"
    );
}

#[test]
fn requests_must_fit_their_limits_and_the_built_in_ones_give_way() {
    let errors = parse(&annotations(&[
        ("lull.dev/sidecar-memory-request", "1Gi"),
        ("lull.dev/sidecar-memory-limit", "512Mi"),
    ]))
    .expect_err("request over limit");
    assert_eq!(
        errors[0].to_string(),
        "annotation lull.dev/sidecar-memory-request=\"1Gi\": \
         must not be more than lull.dev/sidecar-memory-limit, which is 512Mi"
    );
    for (key, value, request, limit) in [
        ("lull.dev/sidecar-memory-request", "1Gi", "1Gi", "1Gi"),
        ("lull.dev/sidecar-memory-limit", "8M", "8M", "8M"),
        ("lull.dev/sidecar-memory-limit", "17Mi", "16Mi", "17Mi"),
    ] {
        let sidecar = parse(&annotations(&[(key, value)])).expect(key).sidecar;
        assert_eq!(sidecar.memory_request, request);
        assert_eq!(sidecar.memory_limit, limit);
    }
}

#[test]
fn what_the_sidecar_was_told_counts_and_what_follows_from_it() {
    let annotations = annotations(&[
        ("lull.dev/container-concurrency", "10"),
        ("lull.dev/timeout", "30s"),
        ("lull.dev/idle-timeout", "3s"),
        ("lull.dev/ignore", "/new"),
        ("lull.dev/window", "6s"),
    ]);
    let wanted = parse(&annotations).expect("valid");
    let sidecar = Sidecar {
        ports: Vec::new(),
        container_concurrency: 0,
        queue_depth: 0,
        timeout: HumanDuration::from_secs(60),
        response_start_timeout: Some(HumanDuration::from_secs(5)),
        idle_timeout: None,
        ignore: Settings::default().ignore,
        access_log: false,
        name_callers: true,
        otlp_endpoint: None,
        resources: wanted.sidecar,
    };
    let runs = parse_injected(&annotations, &Defaults::default(), Some(&sidecar)).expect("valid");
    let expected = Settings {
        window: HumanDuration::from_secs(6),
        timeout: HumanDuration::from_secs(60),
        hold_timeout: HumanDuration::from_secs(60),
        response_start_timeout: Some(HumanDuration::from_secs(5)),
        ..Settings::default()
    };
    assert_eq!(runs.settings, expected);
}

#[test]
fn who_may_try_to_connect_for_longer_is_held_for_longer() {
    let rows: [(&[(&str, &str)], u64); 5] = [
        (&[], 25),
        (&[(CONNECT_TIMEOUT, "10s")], 25),
        (&[(CONNECT_TIMEOUT, "60s")], 60),
        (&[("lull.dev/hold-timeout", "8s")], 8),
        (
            &[(CONNECT_TIMEOUT, "60s"), ("lull.dev/hold-timeout", "110s")],
            110,
        ),
    ];
    for (said, expected) in rows {
        let settings = parse(&annotations(said)).expect("valid").settings;
        let expected = HumanDuration::from_secs(expected);
        assert_eq!(settings.connection_hold_timeout, expected, "{said:?}");
    }
}

#[test]
fn the_documentation_names_every_key_and_no_other() {
    let rows = include_str!("../../../../docs/annotations.md").lines();
    let keys = rows.filter_map(|row| row.strip_prefix("| `")?.split('|').next());
    let mut documented: Vec<String> = keys
        .flat_map(|keys| keys.split(',').map(|key| key.replace(['`', ' '], "")))
        .collect();
    documented.sort_unstable();
    let unknown = parse(&annotations(&[("lull.dev/?", "")])).expect_err("unknown");
    let (_, known) = unknown[0].allowed.split_once("known are ").expect("a list");
    assert_eq!(documented, known.split(", ").collect::<Vec<_>>());
}

#[test]
fn leaving_is_not_opted_in() {
    assert!(opted_in(&annotations(&[(SCALE, "true")])));
    assert!(!opted_in(&annotations(&[(SCALE, "false")])));
    assert!(!opted_in(&annotations(&[
        (SCALE, "true"),
        (LEAVE, "requested")
    ])));
    assert_eq!(
        leave(&annotations(&[(LEAVE, "uninject")])),
        Some(Leave::Uninject)
    );
}

#[test]
fn a_dry_run_is_neither_on_nor_off() {
    let mode = |pairs: &[(&str, &str)]| mode(&annotations(pairs));
    assert_eq!(mode(&[(SCALE, "true")]), ScaleMode::On);
    assert_eq!(mode(&[(SCALE, "dry-run")]), ScaleMode::DryRun);
    for off in ["false", "", "TRUE"] {
        assert_eq!(mode(&[(SCALE, off)]), ScaleMode::Off, "{off:?}");
    }
    assert_eq!(mode(&[]), ScaleMode::Off);
    let leaves = [(SCALE, "dry-run"), (LEAVE, "requested")];
    assert_eq!(mode(&leaves), ScaleMode::Off);
    assert!(!opted_in(&annotations(&[(SCALE, "dry-run")])));
    assert!(parse(&annotations(&[(SCALE, "dry-run")])).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_answered_without_a_panic(index in 0usize..WRONG.len(), value in ".{0,40}") {
        let _ = parse(&annotations(&[(WRONG[index].0, &value)]));
    }
}
