use proptest::{collection::btree_map, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;
use crate::{
    HumanDuration, Metric,
    annotations::{SCALE, parse, parse_with},
};

/// Every key with values that are right by themselves; some clash with some of others.
static VALUES: [(&str, &[&str]); 31] = [
    ("access-log", &["true", "false"]),
    ("activation-scale", &["1", "2", "4"]),
    ("class", &["kpa", "hpa", "none"]),
    ("connect-timeout", &["10s", "1m"]),
    ("container-concurrency", &["0", "1", "50"]),
    ("hold-timeout", &["1s", "1h"]),
    ("idle-timeout", &["1s", "24h"]),
    ("ignore", &["", "/healthz", "/a,b/"]),
    ("initial-scale", &["1", "3", "6"]),
    ("max-scale", &["0", "1", "3", "5"]),
    ("metric", &["concurrency", "rps"]),
    ("min-scale", &["0", "2", "6"]),
    ("name-callers", &["true", "false"]),
    ("panic-threshold-percentage", &["110", "1000"]),
    ("panic-window-percentage", &["1", "100"]),
    ("queue-depth", &["1", "1000"]),
    ("response-start-timeout", &["1s", "24h"]),
    ("scale-down-delay", &["0s", "1h"]),
    ("scale-to-zero-pod-retention-period", &["0", "24h"]),
    ("server-timing", &["true", "false"]),
    ("sidecar-cpu-limit", &["10m", "1", "2000m"]),
    ("sidecar-cpu-request", &["5m", "0.5", "2"]),
    ("sidecar-memory-limit", &["8Mi", "128M", "1Gi"]),
    ("sidecar-memory-request", &["4Mi", "256Mi", "1G"]),
    ("splice-max-age", &["1s", "24h"]),
    ("standby", &["true", "false"]),
    ("target", &["0.01", "50", "1e3"]),
    ("target-burst-capacity", &["-1", "0", "500"]),
    ("target-utilization-percentage", &["1", "99.5"]),
    ("timeout", &["1s", "10m"]),
    ("window", &["6s", "1h"]),
];

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn defaults(pairs: &[(&str, &str)]) -> Defaults {
    Defaults::parse(&data(pairs)).expect("valid")
}

/// Annotations without the prefix.
fn own(pairs: &[(&str, &str)]) -> Annotations {
    data(pairs)
        .into_iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), value))
        .collect()
}

/// What `wanted` has under the key `suffix`.
fn said(wanted: &Wanted, suffix: &str) -> Value {
    let camel = |suffix: &str| {
        let mut words = suffix.split('-');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |all, word| {
            format!("{all}{}{}", word[..1].to_uppercase(), &word[1..])
        })
    };
    let all = serde_json::to_value(wanted).unwrap();
    match suffix.strip_prefix("sidecar-") {
        Some(rest) => all["sidecar"][camel(rest)].clone(),
        None if ["access-log", "name-callers"].contains(&suffix) => all[camel(suffix)].clone(),
        None => all["settings"][camel(suffix)].clone(),
    }
}

#[test]
fn the_workloads_own_value_wins_and_the_built_in_one_comes_last() {
    let defaults = defaults(&[("window", "30s"), ("timeout", "20s")]);
    let wanted = parse_with(&own(&[("scale", "true"), ("window", "6s")]), &defaults).unwrap();
    assert_eq!(wanted.settings.window, HumanDuration::from_secs(6));
    assert_eq!(wanted.settings.timeout, HumanDuration::from_secs(20));
    assert_eq!(wanted.settings.hold_timeout, HumanDuration::from_secs(20));
    assert_eq!(wanted.settings.max_scale, 0);
    let nothing_said = parse_with(&Annotations::new(), &defaults).unwrap();
    assert_eq!(defaults.effective(), nothing_said);
}

#[test]
fn where_a_default_clashes_with_the_workload_the_default_gives_way() {
    for (default, own_value, low, high) in [
        (("max-scale", "3"), ("min-scale", "5"), 5, 5),
        (("min-scale", "5"), ("max-scale", "3"), 3, 3),
        (("max-scale", "3"), ("min-scale", "2"), 2, 3),
    ] {
        let wanted = parse_with(&own(&[own_value]), &defaults(&[default])).unwrap();
        let settings = wanted.settings;
        assert_eq!((settings.min_scale, settings.max_scale), (low, high));
    }
    let wide = defaults(&[
        ("sidecar-memory-request", "64Mi"),
        ("sidecar-cpu-limit", "1"),
    ]);
    let tight = own(&[
        ("sidecar-memory-limit", "32Mi"),
        ("sidecar-cpu-request", "2"),
    ]);
    let sidecar = parse_with(&tight, &wide).unwrap().sidecar;
    assert_eq!(sidecar.memory_request, "32Mi");
    assert_eq!(sidecar.cpu_limit.as_deref(), Some("2"));
}

#[test]
fn a_target_is_of_the_metric_that_it_stands_beside() {
    for (default, own_metric, target) in [
        (vec![("target", "50")], None, 50.0),
        (vec![("target", "50")], Some("rps"), 200.0),
        (vec![("target", "50"), ("metric", "rps")], None, 50.0),
        (
            vec![("target", "50"), ("metric", "rps")],
            Some("concurrency"),
            100.0,
        ),
    ] {
        let said: Vec<_> = own_metric
            .map(|metric| ("metric", metric))
            .into_iter()
            .collect();
        let settings = parse_with(&own(&said), &defaults(&default))
            .unwrap()
            .settings;
        assert!((settings.target - target).abs() < 1e-9, "{default:?}");
    }
    let both = own(&[("metric", "rps"), ("target", "7")]);
    let settings = parse_with(&both, &defaults(&[("target", "50")]))
        .unwrap()
        .settings;
    assert!(settings.metric == Metric::Rps && (settings.target - 7.0).abs() < 1e-9);
}

#[test]
fn a_fault_of_the_workload_is_named_and_a_default_never_is() {
    let wrong = own(&[("window", "soon")]);
    let errors = parse_with(&wrong, &defaults(&[("window", "30s"), ("max-scale", "3")]));
    let errors = errors.expect_err("a wrong window");
    assert_eq!(errors, parse(&wrong).expect_err("a wrong window"));
}

#[test]
fn every_fault_is_listed_with_key_value_and_what_is_allowed() {
    let faults = Defaults::parse(&data(&[
        ("window", "soon"),
        ("min-scale", "5"),
        ("max-scale", "3"),
        ("target", "50\n"),
        ("scale", "true"),
        ("windw", "30s"),
    ]));
    let faults = faults.expect_err("five faults");
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let unknown = "is not a key that has a cluster-wide value; those that have one are access-log,";
    for (text, expected) in texts.iter().zip([
        "min-scale=\"5\": must not be more than max-scale, which is 3",
        format!("scale=\"true\": {unknown}").as_str(),
        "target=\"50\\n\": must be a number of at least 0.01",
        "window=\"soon\": must be a duration from 6s to 3600s",
        format!("windw=\"30s\": {unknown}").as_str(),
    ]) {
        assert!(text.starts_with(expected), "{text}");
    }
    assert_eq!(texts.len(), 5);
    let json = serde_json::to_value(&faults[3]).unwrap();
    assert_eq!(json["key"], "window");
    assert_eq!(json["value"], "soon");
}

#[test]
fn the_manual_names_what_only_a_workload_can_have() {
    let manual = include_str!("../../../../../docs/settings.md");
    let sentence = manual.split("only a workload itself can have:").nth(1);
    let named = sentence.and_then(|rest| rest.lines().next()).unwrap();
    for key in ["scale", "ports", "accept-activator-source"] {
        let faults = Defaults::parse(&data(&[(key, "true")])).expect_err(key);
        assert_eq!(faults[0].key, key);
        assert!(named.contains(&format!("`{key}`")), "{key} not in {named}");
    }
}

#[test]
fn what_only_a_workload_can_have_is_no_default() {
    for key in ["scale", "ports", "leave", "original", "injected"] {
        let faults = Defaults::parse(&data(&[(key, "true")])).expect_err(key);
        assert_eq!(faults[0].key, key);
    }
}

#[test]
fn of_a_wrong_map_what_is_right_can_be_had() {
    let mixed = data(&[
        ("window", "soon"),
        ("timeout", "20s"),
        ("min-scale", "5"),
        ("max-scale", "3"),
    ]);
    let right = defaults(&[("timeout", "20s"), ("max-scale", "3")]);
    assert_eq!(Defaults::what_is_right(&mixed), right);
    assert_eq!(
        serde_json::to_value(&right).unwrap(),
        json!({ "max-scale": "3", "timeout": "20s" })
    );
}

#[test]
fn the_table_of_values_has_every_key() {
    let faults = Defaults::parse(&data(&[("?", "")])).expect_err("unknown");
    let keys: Vec<&str> = VALUES.iter().map(|(key, _)| *key).collect();
    assert!(
        faults[0]
            .allowed
            .ends_with(&format!("are {}", keys.join(", "))),
        "{}",
        faults[0].allowed
    );
    for (key, values) in VALUES {
        for value in values {
            defaults(&[(key, value)]);
        }
    }
}

fn some_values() -> impl Strategy<Value = BTreeMap<String, String>> {
    let each: Vec<_> = VALUES
        .iter()
        .map(|(key, values)| {
            option::of(select(*values))
                .prop_map(move |value| Some(((*key).to_owned(), value?.to_owned())))
        })
        .collect();
    each.prop_map(|each| each.into_iter().flatten().collect())
}

proptest! {
    #[test]
    fn valid_annotations_stay_valid_and_win_whatever_the_defaults(
        own in some_values(),
        defaults in some_values(),
    ) {
        // The rules are the same, so this makes annotations that clash nowhere among themselves.
        let mut own = Defaults::what_is_right(&own).values;
        let defaults = Defaults::what_is_right(&defaults);
        own.insert(SCALE.to_owned(), "true".to_owned());
        let alone = parse(&own).expect("valid by themselves");
        let together = parse_with(&own, &defaults);
        prop_assert!(together.is_ok(), "{together:?}");
        let together = together.unwrap();
        for key in own.keys().filter(|key| *key != SCALE) {
            let suffix = key.strip_prefix(PREFIX).unwrap();
            let value = said(&together, suffix);
            prop_assert!(!value.is_null(), "{key}");
            prop_assert_eq!(value, said(&alone, suffix), "{}", key);
        }
        let settings = &together.settings;
        let most = settings.min_scale.max(settings.activation_scale).max(settings.initial_scale);
        prop_assert!(settings.max_scale == 0 || most <= settings.max_scale);
    }

    #[test]
    fn any_map_is_answered_without_a_panic(
        data in btree_map(
            prop_oneof![select(VALUES.map(|(key, _)| key).to_vec()), Just("scale"), Just("")],
            ".{0,20}",
            0..5,
        ),
    ) {
        let data: BTreeMap<String, String> = data
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let right = Defaults::what_is_right(&data);
        prop_assert!(Defaults::parse(&data).is_err() || right == Defaults::parse(&data).unwrap());
        prop_assert!(parse_with(&Annotations::new(), &right).is_ok());
    }
}

#[test]
fn the_chart_takes_every_key_and_no_other() {
    let schema = include_str!("../../../../../charts/lull/values.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let keys = schema["properties"]["settings"]["properties"].as_object();
    let keys: Vec<&str> = keys.unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, VALUES.map(|(key, _)| key));
}
