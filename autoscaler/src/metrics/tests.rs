use lull_contract::{
    report::{ActivatorReport, MAX_QUEUE_PROXY_BYTES, QueueProxyReport},
    scaled_workload::State,
};
use lull_process::docs;

use super::*;

fn key(name: &str) -> Key {
    Key {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn numbers(state: State) -> Numbers {
    Numbers {
        state,
        desired: 3,
        ready: 2,
        in_flight: 7,
        held: 5,
        panicking: true,
        heard: false,
    }
}

fn registered() -> (Registry, Metrics) {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    (registry, metrics)
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

/// Samples of the workload `name`, sorted.
fn of_workload(registry: &Registry, name: &str) -> Vec<String> {
    let label = format!("workload=\"{name}\"");
    let text = text(registry);
    let samples = text.lines().filter(|line| line.contains(&label));
    let mut samples: Vec<String> = samples.map(str::to_owned).collect();
    samples.sort();
    samples
}

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let documented = include_str!("../../../docs/metrics.md");
    let differences = docs::registry_differences(documented, "autoscaler", |registry| {
        let metrics = Metrics::register(registry);
        let series = State::ALL.map(|state| {
            let series = metrics.workload(&key(&state.to_string()));
            series.observe(numbers(state));
            series
        });
        (metrics, series)
    });
    assert_eq!(differences, [""; 0]);
}

#[test]
fn a_workload_shows_what_was_seen_last_until_its_task_ends() {
    let (registry, metrics) = registered();
    let (one, other) = (metrics.workload(&key("one")), metrics.workload(&key("two")));
    assert_eq!(of_workload(&registry, "one"), [""; 0], "nothing was seen");
    one.observe(numbers(State::Awake));
    other.observe(numbers(State::Waking));
    let labels = "namespace=\"shop\",workload=\"one\"";
    let expected = [
        format!("lull_autoscaler_desired_pods{{{labels}}} 3"),
        format!("lull_autoscaler_heard{{{labels}}} 0"),
        format!("lull_autoscaler_held{{{labels}}} 5"),
        format!("lull_autoscaler_in_flight{{{labels}}} 7"),
        format!("lull_autoscaler_panicking{{{labels}}} 1"),
        format!("lull_autoscaler_ready_pods{{{labels}}} 2"),
        format!("lull_autoscaler_workload_state{{{labels},state=\"Awake\",mode=\"Serve\"}} 1"),
    ];
    assert_eq!(of_workload(&registry, "one"), expected);
    drop(one);
    assert_eq!(of_workload(&registry, "one"), [""; 0]);
    assert_eq!(of_workload(&registry, "two").len(), expected.len());
}

#[test]
fn one_series_tells_the_state_also_after_it_has_changed() {
    let (registry, metrics) = registered();
    let series = metrics.workload(&key("one"));
    series.enter(State::Leaving);
    assert_eq!(of_workload(&registry, "one"), [""; 0], "nothing was seen");
    series.observe(numbers(State::Awake));
    series.enter(State::Asleep);
    let samples = of_workload(&registry, "one");
    let states: Vec<_> = samples.iter().filter(|s| s.contains("state=")).collect();
    assert_eq!(states.len(), 1, "{samples:?}");
    assert!(states[0].contains("state=\"Asleep\",mode=\"Proxy\"} 1"));
    series.hide();
    assert_eq!(of_workload(&registry, "one"), [""; 0], "another leads");
}

#[test]
fn a_successor_of_the_same_name_keeps_its_series() {
    let (registry, metrics) = registered();
    let (first, second) = (metrics.workload(&key("one")), metrics.workload(&key("one")));
    second.observe(numbers(State::Awake));
    drop(first);
    assert_eq!(of_workload(&registry, "one").len(), 7);
}

#[test]
fn every_way_of_refusing_a_report_is_counted_apart() {
    let (registry, metrics) = registered();
    let hostile = [
        vec![b' '; MAX_QUEUE_PROXY_BYTES + 1],
        b"<html>".to_vec(),
        br#"{"v":9}"#.to_vec(),
        br#"{"v":1,"pod":"p","boot":1,"now_us":1,"in_flight":99999999,"in_flight_us":0,"requests":0,"queued":0,"limit":0,"app_ready":true,"draining":false,"bypass":0}"#.to_vec(),
    ];
    for body in hostile {
        metrics.refused(Asked::Pod, &QueueProxyReport::parse(&body).unwrap_err());
    }
    let broken = ActivatorReport::parse(b"{").unwrap_err();
    metrics.refused(Asked::Activator, &broken);
    metrics.pull_failed(Asked::Activator, &PullError::TooLong(1));
    let callers = br#"{"v":1,"pod":"p","boot":1,"now_us":1,"in_flight":0,"in_flight_us":0,"requests":0,"queued":0,"limit":0,"app_ready":true,"draining":false,"bypass":0,"lately":{"last_us":1,"requests":1,"callers":[{"caller":"<b>","requests":1}]}}"#;
    let used = QueueProxyReport::parse_telling(callers, |e| metrics.refused(Asked::Pod, e));
    assert!(used.unwrap().lately.is_empty());
    let text = text(&registry);
    for (from, why, count) in [
        ("pod", "too-long", 1),
        ("pod", "malformed", 1),
        ("pod", "version", 1),
        ("pod", "absurd", 1),
        ("pod", "callers", 1),
        ("activator", "too-long", 1),
        ("activator", "malformed", 1),
        ("activator", "version", 0),
    ] {
        let line = format!(
            "lull_autoscaler_reports_refused_total{{from=\"{from}\",why=\"{why}\"}} {count}\n"
        );
        assert!(text.contains(&line), "no {line}in {text}");
    }
    assert!(text.contains("lull_autoscaler_pulls_failed_total{from=\"activator\"} 0\n"));
}

#[test]
fn a_decision_counts_by_why_and_by_the_age_of_what_it_was_made_on() {
    let (registry, metrics) = registered();
    metrics.decided(Why::Panic, Some(Duration::from_secs(2)));
    metrics.decided(Why::Unheard, None);
    let text = text(&registry);
    for line in [
        "lull_autoscaler_decisions_total{reason=\"panic\"} 1\n",
        "lull_autoscaler_decisions_total{reason=\"unheard\"} 1\n",
        "lull_autoscaler_decisions_total{reason=\"idle\"} 0\n",
        "lull_autoscaler_pull_age_seconds_count 1\n",
    ] {
        assert!(text.contains(line), "no {line}in {text}");
    }
}
