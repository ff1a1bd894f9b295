use k8s_openapi::api::core::v1 as core;
use lull_contract::names::{ISTIO_PROXY_CONTAINER, REGION_LABEL, ZONE_LABEL};

use super::*;

fn workload() -> ScaledWorkload {
    serde_json::from_value(json!({
        "metadata": { "name": "shop", "namespace": "team", "uid": "u-1" },
        "spec": {
            "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "d-1" },
            "podSelector": { POD_LABEL: "shop" },
            "ports": [
                { "appPort": 8080, "protocol": "http", "activatorPort": 10_001 },
                { "appPort": 5432, "protocol": "tcp", "activatorPort": 10_002 },
            ],
            "settings": lull_contract::Settings::default(),
            "originalReplicas": 1,
        },
    }))
    .unwrap()
}

fn slim(pod: Value) -> Pod {
    serde_json::from_value::<core::Pod>(pod).unwrap().into()
}

fn activator() -> Pod {
    slim(json!({
        "metadata": { "name": "lull-activator-1", "namespace": "lull-system", "uid": "a-1" },
        "status": { "podIP": "10.0.0.9" },
    }))
}

fn template(value: Value) -> PodTemplateSpec {
    serde_json::from_value(value).unwrap()
}

fn identity() -> PodIdentity {
    PodIdentity::of(&template(json!({
        "metadata": { "labels": { "app": "shop", "version": "v1", POD_LABEL: "shop" } },
        "spec": { "containers": [], "serviceAccountName": "seller" },
    })))
}

#[test]
fn an_entry_knows_a_port_by_the_number_that_it_had_too() {
    let renumbered = |was, is| Renumbered { was, is };
    let identity = PodIdentity {
        renumbered: vec![renumbered(8000, 8080), renumbered(8001, 8081)],
        ..identity()
    };
    let entry = entry(&workload(), &identity, &activator()).unwrap();
    let ports = json!({ "lull-8000": 10_001, "lull-8080": 10_001, "lull-5432": 10_002 });
    assert_eq!(entry["spec"]["ports"], ports);
}

#[test]
fn an_entry_has_the_pods_identity_but_for_the_label_of_pods() {
    let entry = entry(&workload(), &identity(), &activator()).unwrap();
    assert_eq!(
        entry["spec"],
        json!({
            "address": "10.0.0.9",
            "ports": { "lull-8080": 10_001, "lull-5432": 10_002 },
            "labels": { "app": "shop", "version": "v1", HELD_LABEL: "u-1" },
            "serviceAccount": "seller",
        })
    );
    let metadata = &entry["metadata"];
    assert_eq!(metadata["name"], "shop-lull-activator-1");
    assert_eq!(metadata["namespace"], "team");
    assert_eq!(metadata["labels"]["lull.dev/workload"], "shop");
    let owner = &metadata["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("ScaledWorkload"), &json!("u-1"))
    );
}

#[test]
fn an_entry_is_where_its_activator_is_unless_the_template_says_another_place() {
    let mut activator = activator();
    let place = |identity: &PodIdentity, activator: &Pod| {
        let entry = entry(&workload(), identity, activator).unwrap();
        entry["spec"]["locality"].clone()
    };
    assert_eq!(place(&identity(), &activator), Value::Null);
    for (label, value) in [(REGION_LABEL, "eu"), (ZONE_LABEL, "eu-1")] {
        activator.labels.insert(label.to_owned(), value.to_owned());
    }
    assert_eq!(place(&identity(), &activator), "eu/eu-1");
    let mut elsewhere = identity();
    let label = ("istio-locality".to_owned(), "us.us-1".to_owned());
    elsewhere.labels.extend([label]);
    // Istio takes it from the label.
    assert_eq!(place(&elsewhere, &activator), Value::Null);
}

#[test]
fn a_rule_for_callers_says_what_is_asked_for_and_is_read_back_as_ours() {
    let minute = Some(Duration::from_secs(60));
    let policy = |connect_timeout: Option<Duration>, pods: Option<&str>| CallerPolicy {
        connect_timeout,
        pods_first: pods.map(str::to_owned),
    };
    let pool = json!({ "tcp": { "connectTimeout": "60s" } });
    let setting = json!({ "enabled": true, "failoverPriority": ["lull.dev/pod=shop"] });
    let balancer = json!({ "localityLbSetting": setting });
    let detection = json!({
        "consecutive5xxErrors": 0, "consecutiveGatewayErrors": 0, "minHealthPercent": 1,
    });
    let rows = [
        (policy(minute, None), json!({ "connectionPool": &pool })),
        (
            policy(None, Some("shop")),
            json!({ "loadBalancer": &balancer, "outlierDetection": &detection }),
        ),
        (
            policy(minute, Some("shop")),
            json!({
                "connectionPool": &pool,
                "loadBalancer": &balancer,
                "outlierDetection": &detection,
            }),
        ),
    ];
    for (said, expected) in &rows {
        let rule = callers_rule(&workload(), "web", said);
        assert_eq!(rule["metadata"]["name"], "web-lull");
        assert_eq!(rule["spec"]["host"], "web");
        assert_eq!(rule["spec"]["trafficPolicy"], *expected);
        let read = DestinationRule::from_object(&object(&rule));
        assert!(read.is_for_workload("shop") && !read.is_for_workload("bank"));
        assert!(!read.ejects, "{said:?}");
        for (other, _) in &rows {
            assert_eq!(read.says("web", other), said == other, "{said:?}");
        }
        assert!(!read.says("shop", said), "{said:?}");
    }
    assert!(policy(None, None).is_empty() && !rows[1].0.is_empty());
}

#[test]
fn an_activator_without_an_address_has_no_entry() {
    let pod = Pod {
        ip: None,
        ..activator()
    };
    assert_eq!(entry(&workload(), &identity(), &pod), None);
}

#[test]
fn an_entry_is_written_again_only_where_it_says_something_else() {
    let wanted = entry(&workload(), &identity(), &activator()).unwrap();
    let mut written = wanted.clone();
    // What the API server and others add is not ours to compare.
    written["metadata"]["resourceVersion"] = json!("7");
    written["spec"]["weight"] = json!(1);
    written["status"] = json!({});
    let is = |value: &Value| {
        let there: WorkloadEntry = serde_json::from_value(value.clone()).unwrap();
        entry_is(&there, &wanted)
    };
    assert!(is(&written));
    for (field, value) in [
        ("address", json!("10.0.0.8")),
        ("ports", json!({ "lull-8080": 10_003, "lull-5432": 10_002 })),
        ("labels", json!({ "app": "shop" })),
        ("serviceAccount", json!("default")),
        ("locality", json!("eu/eu-1")),
    ] {
        let mut other = written.clone();
        other["spec"][field] = value;
        assert!(!is(&other), "{field}");
    }
}

#[test]
fn the_service_account_has_an_old_name_and_a_default() {
    for (spec, expected) in [
        (json!({}), "default"),
        (json!({ "serviceAccountName": "" }), "default"),
        (json!({ "serviceAccount": "old" }), "old"),
        (
            json!({ "serviceAccount": "old", "serviceAccountName": "new" }),
            "new",
        ),
    ] {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let identity = PodIdentity::of(&template(json!({ "spec": spec })));
        assert_eq!(identity.service_account, expected);
    }
}

#[test]
fn the_templates_own_word_on_istio_is_a_label_before_an_annotation() {
    for (labels, annotations, expected) in [
        (json!({}), json!({}), None),
        (json!({ ISTIO_INJECT: "true" }), json!({}), Some(true)),
        (json!({}), json!({ ISTIO_INJECT: "false" }), Some(false)),
        (
            json!({ ISTIO_INJECT: "false" }),
            json!({ ISTIO_INJECT: "true" }),
            Some(false),
        ),
        (json!({ ISTIO_INJECT: "odd" }), json!({}), None),
    ] {
        let metadata = json!({ "labels": labels, "annotations": annotations });
        let identity = PodIdentity::of(&template(json!({ "metadata": metadata })));
        assert_eq!(identity.inject, expected, "{metadata}");
    }
}

/// A pod with a container, in the list `list`, of this name.
fn pod(list: &str, container: &str, leaves: bool) -> Arc<Pod> {
    let mut pod = json!({ "metadata": {}, "spec": { "containers": [{ "name": "app" }] } });
    pod["spec"][list] = json!([{ "name": container }]);
    if leaves {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    Arc::new(slim(pod))
}

#[test]
fn pods_tell_whether_the_workload_is_in_the_mesh() {
    let meshed = pod("containers", ISTIO_PROXY_CONTAINER, false);
    let native = pod("initContainers", ISTIO_PROXY_CONTAINER, false);
    let plain = pod("containers", "app", false);
    let plain_leaving = pod("containers", "app", true);
    let meshed_leaving = pod("initContainers", ISTIO_PROXY_CONTAINER, true);
    for (pods, expected) in [
        (vec![Arc::clone(&meshed)], true),
        (vec![native], true),
        (vec![Arc::clone(&plain)], false),
        (vec![Arc::clone(&plain), meshed], true),
        (vec![plain, Arc::clone(&meshed_leaving)], false),
        (vec![plain_leaving, meshed_leaving], true),
    ] {
        // Whatever else points the other way.
        let signs = Signs {
            pods: &pods,
            inject: Some(!expected),
            has_entries: !expected,
            has_open_slice: expected,
        };
        assert_eq!(is_meshed(&signs), expected, "{pods:?}");
    }
}

#[test]
fn without_pods_what_was_written_holds_then_the_template_then_the_mesh() {
    for (has_entries, has_open_slice, inject, expected) in [
        (false, false, None, true),
        (false, false, Some(false), false),
        (false, true, None, false),
        (false, true, Some(true), true),
        (true, false, None, true),
        (true, true, Some(false), true),
    ] {
        let signs = Signs {
            pods: &[],
            inject,
            has_entries,
            has_open_slice,
        };
        assert_eq!(is_meshed(&signs), expected, "{signs:?}");
    }
}
