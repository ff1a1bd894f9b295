//! What an injected template looks like, and what is refused.

use super::*;

#[test]
fn a_fresh_injection_is_the_golden_one() {
    let golden: Value =
        serde_json::from_str(include_str!("../../../testdata/injected.json")).unwrap();
    let injected = create(&opted_in());
    assert_eq!(
        injected,
        golden,
        "{}",
        serde_json::to_string_pretty(&injected).unwrap()
    );
}

#[test]
fn scale_false_and_no_annotation_are_left_alone() {
    for new in [
        deployment(&json!({ "lull.dev/scale": "false" })),
        deployment(&json!({ "team": "shop" })),
        deployment(&json!({ "lull.dev/window": "nonsense" })),
    ] {
        let mutation = mutate(None, &new, &config()).unwrap();
        assert_eq!(mutation.object, new);
        assert!(mutation.warnings.is_empty());
    }
}

#[test]
fn each_wrong_annotation_is_refused_with_key_value_and_what_is_allowed() {
    for (key, value, allowed) in [
        (
            "lull.dev/scale",
            "yes",
            "\"true\", \"false\" or \"dry-run\"",
        ),
        ("lull.dev/min-scale", "-1", "whole number from 0"),
        ("lull.dev/max-scale", "many", "whole number from 0"),
        ("lull.dev/initial-scale", "0", "whole number from 1"),
        ("lull.dev/activation-scale", "0", "whole number from 1"),
        ("lull.dev/metric", "cpu", "concurrency or rps"),
        ("lull.dev/target", "0", "at least 0.01"),
        (
            "lull.dev/target-utilization-percentage",
            "0",
            "from 1 to 100",
        ),
        ("lull.dev/window", "5s", "from 6s to 3600s"),
        ("lull.dev/panic-window-percentage", "101", "from 1 to 100"),
        (
            "lull.dev/panic-threshold-percentage",
            "1",
            "from 110 to 1000",
        ),
        ("lull.dev/scale-down-delay", "2h", "from 0s to 3600s"),
        (
            "lull.dev/scale-to-zero-pod-retention-period",
            "x",
            "from 0s",
        ),
        ("lull.dev/target-burst-capacity", "-2", "-1"),
        (
            "lull.dev/container-concurrency",
            "ten",
            "whole number from 0",
        ),
        ("lull.dev/queue-depth", "0", "whole number from 1"),
        ("lull.dev/timeout", "60", "duration from 1s"),
        ("lull.dev/response-start-timeout", "0s", "duration from 1s"),
        ("lull.dev/access-log", "yes", "\"true\" or \"false\""),
        ("lull.dev/name-callers", "no", "\"true\" or \"false\""),
        ("lull.dev/idle-timeout", "0s", "duration from 1s"),
        ("lull.dev/hold-timeout", "0s", "duration from 1s"),
        (
            "lull.dev/ignore",
            "/a\u{1}",
            "comma-separated list of request paths",
        ),
        ("lull.dev/ports", "0", "port numbers 1-65535"),
        ("lull.dev/class", "keda", "kpa, hpa or none"),
        ("lull.dev/sidecar-cpu-request", "fast", "quantity"),
        ("lull.dev/sidecar-memory-limit", "-1Mi", "quantity"),
        ("lull.dev/sclae", "true", "not a key that Lull knows"),
    ] {
        let text = refused(&deployment(
            &json!({ "lull.dev/scale": "true", key: value }),
        ));
        for part in ["deployment shop: ", key, &format!("{value:?}"), allowed] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}

#[test]
fn every_fault_has_a_line() {
    let text = refused(&deployment(&json!({
        "lull.dev/scale": "true", "lull.dev/window": "1s", "lull.dev/class": "x",
    })));
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        text.lines()
            .all(|line| line.starts_with("deployment shop: annotation lull.dev/"))
    );
}

#[test]
fn other_kinds_are_injected_under_a_name_of_their_own() {
    let new = with(opted_in(), "/kind", json!("StatefulSet"));
    let labels = create(&new)["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!(labels[POD_LABEL], "shop.statefulset");
    let wrong = json!({ "lull.dev/scale": "true", "lull.dev/class": "x" });
    let text = refused(&with(deployment(&wrong), "/kind", json!("StatefulSet")));
    assert!(text.starts_with("statefulset shop: annotation "), "{text}");
}

#[test]
fn a_faulty_object_may_be_deleted() {
    let new = deployment(&json!({ "lull.dev/scale": "true", "lull.dev/window": "1s" }));
    let new = with(
        new,
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:00:00Z"),
    );
    assert_eq!(create(&new), new);
}

#[test]
fn no_declared_port_is_refused_with_an_example() {
    let new = without(opted_in(), "/spec/template/spec/containers/0/ports");
    assert!(refused(&new).contains("lull.dev/ports: \"8080\""));
}

#[test]
fn host_network_is_refused() {
    let new = with(opted_in(), "/spec/template/spec/hostNetwork", json!(true));
    assert!(refused(&new).contains("hostNetwork is true"));
}

#[test]
fn windows_is_refused() {
    for (key, value) in [
        ("os", json!({ "name": "windows" })),
        ("nodeSelector", json!({ "kubernetes.io/os": "windows" })),
    ] {
        let new = with(opted_in(), &format!("/spec/template/spec/{key}"), value);
        assert!(refused(&new).contains("for nodes with Windows"), "{key}");
    }
    let linux = json!({ "kubernetes.io/os": "linux" });
    let new = with(opted_in(), "/spec/template/spec/nodeSelector", linux);
    assert!(is_injected(&create(&new)));
}

#[test]
fn named_ports_come_before_declared_ones() {
    let new = deployment(&json!({ "lull.dev/scale": "true", "lull.dev/ports": "7000,7001/tcp" }));
    assert_eq!(
        env(&create(&new), "QP_PORTS").unwrap(),
        "8012=7000/http,8013=7001/tcp"
    );
}

#[test]
fn ports_that_the_app_declares_or_probes_are_not_taken() {
    let ports = json!([
        { "containerPort": 8012 }, { "containerPort": 8022 },
        { "containerPort": 9090 }, { "containerPort": 9091 },
    ]);
    let new = with(opted_in(), "/spec/template/spec/containers/0/ports", ports);
    let probe = json!({ "tcpSocket": { "port": 8013 } });
    let new = with(new, "/spec/template/spec/containers/0/livenessProbe", probe);
    let injected = create(&new);
    assert_eq!(
        env(&injected, "QP_PORTS").unwrap(),
        "8014=8012/http,8015=8022/http,8016=9090/http,8017=9091/http"
    );
    let small = ["lull-admin", "lull-report", "lull-metrics"].map(|name| port(&injected, name));
    assert_eq!(small, [8023, 9092, 9093]);
    assert_eq!(env(&injected, "QP_ADMIN_PORT").unwrap(), "8023");
    assert_eq!(
        sidecar(&injected)["readinessProbe"]["httpGet"]["port"],
        8023
    );
    let app = &template(&injected)["spec"]["containers"][0];
    assert_eq!(app["lifecycle"]["preStop"]["httpGet"]["port"], 8023);
    assert_eq!(
        annotation(&injected, ISTIO_EXCLUDE_INBOUND_PORTS),
        Some("8023,9092,9093")
    );
}

#[test]
fn a_port_that_prometheus_calls_is_not_taken() {
    let annotations = json!({ "prometheus.io/port": "9090" });
    let new = with_pod_annotations(annotations);
    let injected = create(&new);
    let small = ["lull-admin", "lull-report", "lull-metrics"].map(|name| port(&injected, name));
    assert_eq!(small, [8022, 9091, 9092]);
}

#[test]
fn an_own_pre_stop_is_kept() {
    let own = json!({ "preStop": { "exec": { "command": ["sleep", "5"] } } });
    let new = with(
        opted_in(),
        "/spec/template/spec/containers/0/lifecycle",
        own.clone(),
    );
    let injected = create(&new);
    assert_eq!(
        template(&injected)["spec"]["containers"][0]["lifecycle"],
        own
    );
}

#[test]
fn init_containers_and_a_ready_made_istio_proxy_stay_as_they_are() {
    let init = json!([{ "name": "init", "image": "i", "ports": [{ "containerPort": 8012 }] }]);
    let mut new = with(
        opted_in(),
        "/spec/template/spec/initContainers",
        init.clone(),
    );
    let proxy = json!({ "name": "istio-proxy", "ports": [{ "containerPort": 15090 }] });
    let containers = new.pointer_mut("/spec/template/spec/containers").unwrap();
    containers.as_array_mut().unwrap().push(proxy.clone());
    let injected = create(&new);
    assert_eq!(template(&injected)["spec"]["initContainers"], init);
    assert_eq!(template(&injected)["spec"]["containers"][1], proxy);
    assert_eq!(
        env(&injected, "QP_PORTS").unwrap(),
        "8013=8080/http,8014=5432/tcp"
    );
}

#[test]
fn readiness_probes_are_translated() {
    let connect = |port: u16, ms: u64| json!({ "port": port, "path": null, "host": null, "headers": [], "timeoutMs": ms });
    for (probe, expected) in [
        (
            json!({ "httpGet": { "port": 8080 } }),
            json!([
                { "port": 8080, "path": "/", "host": null, "headers": [], "timeoutMs": 1000 },
            ]),
        ),
        (
            json!({ "httpGet": { "port": 1, "path": "/x", "host": "h" }, "timeoutSeconds": 3 }),
            json!([
                { "port": 1, "path": "/x", "host": "h", "headers": [], "timeoutMs": 3000 },
            ]),
        ),
        (
            json!({ "httpGet": { "port": "http", "scheme": "HTTPS" } }),
            json!([connect(8080, 1000)]),
        ),
        (
            json!({ "tcpSocket": { "port": "tcp-db" } }),
            json!([connect(5432, 1000)]),
        ),
        (
            json!({ "tcpSocket": { "port": "nobody" } }),
            json!([connect(8080, 1000), connect(5432, 1000)]),
        ),
        (
            json!({ "grpc": { "port": 8080 } }),
            json!([connect(8080, 1000)]),
        ),
        (
            json!({ "exec": { "command": ["true"] } }),
            json!([connect(8080, 1000), connect(5432, 1000)]),
        ),
        (Value::Null, json!([])),
    ] {
        let new = with(
            opted_in(),
            "/spec/template/spec/containers/0/readinessProbe",
            probe.clone(),
        );
        let text = env(&create(&new), "QP_APP_PROBES").unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            expected,
            "{probe}"
        );
    }
}

#[test]
fn startup_probes_are_translated_where_they_can_be_asked_and_say_more() {
    let check = |path: &str| json!([{ "port": 8080, "path": path, "host": null, "headers": [], "timeoutMs": 1000 }]);
    let healthz = json!({ "httpGet": { "path": "/healthz", "port": "http" } });
    let started =
        json!({ "httpGet": { "path": "/started", "port": "http" }, "failureThreshold": 30 });
    for (startup, readiness, expected) in [
        (started.clone(), Value::Null, Some(check("/started"))),
        (started, healthz.clone(), Some(check("/started"))),
        (healthz.clone(), healthz, None),
        (
            json!({ "exec": { "command": ["true"] } }),
            Value::Null,
            None,
        ),
        (
            json!({ "grpc": { "port": 8080 } }),
            Value::Null,
            Some(with(check("/"), "/0/path", Value::Null)),
        ),
        (Value::Null, Value::Null, None),
    ] {
        let app = "/spec/template/spec/containers/0";
        let new = with(opted_in(), &format!("{app}/startupProbe"), startup.clone());
        let new = with(new, &format!("{app}/readinessProbe"), readiness);
        let text = env(&create(&new), "QP_STARTUP_PROBES");
        let found = text.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(found, expected, "{startup}");
    }
}

#[test]
fn a_dollar_in_a_value_is_not_expanded_by_the_kubelet() {
    let new = deployment(&json!({ "lull.dev/scale": "true", "lull.dev/ignore": "/$(HOME)" }));
    assert!(
        env(&create(&new), "QP_IGNORE")
            .unwrap()
            .contains("/$$(HOME)")
    );
}

#[test]
fn odd_shapes_are_left_alone_with_a_warning() {
    for (pointer, odd) in [
        ("/spec", json!(null)),
        ("/spec", json!([])),
        ("/spec/template", json!("x")),
        ("/spec/template/metadata", json!(null)),
        ("/spec/template/metadata/labels", json!([1])),
        ("/spec/template/metadata/annotations", json!(7)),
        ("/spec/template/spec", json!(null)),
        ("/spec/template/spec/containers", json!({})),
        ("/spec/template/spec/containers", json!([])),
        ("/spec/template/spec/containers", json!([7])),
        ("/spec/template/spec/containers", json!([{ "image": "x" }])),
        (
            "/spec/template/spec/containers",
            json!([{ "name": QUEUE_PROXY_CONTAINER }]),
        ),
        ("/spec/template/spec/containers/0/lifecycle", json!(null)),
        ("/metadata/name", json!("")),
    ] {
        let new = with(opted_in(), pointer, odd);
        let injected = create(&opted_in());
        for old in [None, Some(&opted_in()), Some(&injected), Some(&new)] {
            let mutation = mutate(old, &new, &config()).unwrap();
            assert_eq!(mutation.object, new, "{pointer}");
            assert_eq!(
                mutation.warnings.len(),
                1,
                "{pointer}: {:?}",
                mutation.warnings
            );
        }
    }
    for odd in [
        json!(null),
        json!([]),
        json!("x"),
        json!({ "metadata": [] }),
    ] {
        assert_eq!(create(&odd), odd);
    }
}
