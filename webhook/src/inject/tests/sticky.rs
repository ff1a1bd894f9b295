//! Updates of a workload that is injected already.

use super::*;

const APP_IMAGE: &str = "/spec/template/spec/containers/0/image";

fn stored() -> Value {
    defaulted(create(&opted_in()))
}

#[test]
fn an_update_that_leaves_the_template_alone_keeps_it_byte_for_byte() {
    let old = stored();
    let newer = image("lull/queue-proxy:2");
    let half = without(old.clone(), "/spec/template/metadata/labels/lull.dev~1pod");
    let no_record = without(
        old.clone(),
        "/spec/template/metadata/annotations/lull.dev~1injected",
    );
    let mut no_container = old.clone();
    let containers = no_container
        .pointer_mut("/spec/template/spec/containers")
        .unwrap();
    containers.as_array_mut().unwrap().pop();
    let edited = with(
        old.clone(),
        "/spec/template/spec/containers/1/image",
        json!("mine"),
    );
    // What `kubectl replace` and helm send: nothing of ours.
    let plain = with(
        defaulted(opted_in()),
        "/metadata/labels",
        json!({ "team": "shop" }),
    );
    for new in [old.clone(), half, no_record, no_container, edited, plain] {
        let mutation = mutate(Some(&old), &new, &newer).unwrap();
        assert_eq!(template(&mutation.object), template(&old));
        assert_eq!(mutation.object["metadata"], new["metadata"]);
        assert!(mutation.warnings.is_empty());
    }
}

#[test]
fn a_setting_of_the_sidecar_renders_it_anew() {
    for (key, value, variable, expected) in [
        (
            "lull.dev/container-concurrency",
            "7",
            "QP_CONTAINER_CONCURRENCY",
            "7",
        ),
        ("lull.dev/timeout", "9s", "QP_TIMEOUT", "9s"),
        (
            "lull.dev/response-start-timeout",
            "8s",
            "QP_RESPONSE_START_TIMEOUT",
            "8s",
        ),
        ("lull.dev/access-log", "true", "QP_ACCESS_LOG", "true"),
        ("lull.dev/name-callers", "false", "QP_NAME_CALLERS", "false"),
        ("lull.dev/idle-timeout", "6s", "QP_IDLE_TIMEOUT", "6s"),
        ("lull.dev/ports", "7000", "QP_PORTS", "8012=7000/http"),
    ] {
        let old = stored();
        let mut new = old.clone();
        new["metadata"]["annotations"][key] = value.into();
        let mutation = mutate(Some(&old), &new, &image("lull/queue-proxy:2")).unwrap();
        assert_eq!(env(&mutation.object, variable).as_deref(), Some(expected));
        assert_eq!(sidecar(&mutation.object)["image"], "lull/queue-proxy:2");
    }
}

#[test]
fn a_setting_of_the_autoscaler_does_not_roll_the_pods() {
    let old = stored();
    let mut new = old.clone();
    new["metadata"]["annotations"]["lull.dev/window"] = "30s".into();
    let mutation = mutate(Some(&old), &new, &image("lull/queue-proxy:2")).unwrap();
    assert_eq!(mutation.object, new);
}

#[test]
fn a_port_that_is_declared_no_more_is_warned_of() {
    let old = stored();
    let ports = "/spec/template/spec/containers/0/ports";
    let fewer = json!([{ "name": "http", "containerPort": 8080, "protocol": "TCP" }]);
    let new = with(old.clone(), ports, fewer);
    let mutation = mutate(Some(&old), &new, &config()).unwrap();
    assert_eq!(mutation.warnings.len(), 1, "{:?}", mutation.warnings);
    assert!(mutation.warnings[0].contains("port 5432 no more"));
    let named = with(
        new,
        "/metadata/annotations/lull.dev~1ports",
        json!("8080,5432/tcp"),
    );
    let mutation = mutate(Some(&old), &named, &config()).unwrap();
    assert!(mutation.warnings.is_empty(), "{:?}", mutation.warnings);
}

#[test]
fn the_users_next_rollout_brings_the_new_sidecar() {
    let old = stored();
    for new in [
        with(old.clone(), APP_IMAGE, json!("shop:2")),
        with(defaulted(opted_in()), APP_IMAGE, json!("shop:2")),
    ] {
        let mutation = mutate(Some(&old), &new, &image("lull/queue-proxy:2")).unwrap();
        assert_eq!(sidecar(&mutation.object)["image"], "lull/queue-proxy:2");
        let expected = with(defaulted(opted_in()), APP_IMAGE, json!("shop:2"));
        assert_eq!(
            strip(template(&mutation.object), None),
            *template(&expected)
        );
    }
}

#[test]
fn a_pre_stop_that_apply_merged_into_ours_is_the_users() {
    let old = stored();
    let hook = "/spec/template/spec/containers/0/lifecycle/preStop/exec";
    let exec = json!({ "command": ["sleep", "5"] });
    let new = update(&old, &with(old.clone(), hook, exec.clone()));
    let lifecycle = &template(&new)["spec"]["containers"][0]["lifecycle"];
    assert_eq!(*lifecycle, json!({ "preStop": { "exec": exec } }));
    assert_eq!(
        strip(template(&new), None)["spec"]["containers"][0]["lifecycle"],
        *lifecycle
    );
}

#[test]
fn a_container_that_is_renamed_takes_no_hook_of_ours_along() {
    let name = "/spec/template/spec/containers/0/name";
    let renamed = |object: Value| with(object, name, json!("web"));
    let new = update(&stored(), &renamed(stored()));
    assert_eq!(
        strip(template(&new), None),
        *template(&renamed(defaulted(opted_in())))
    );
    // The user's own one at another port stays, though it is at the same path.
    let own = json!({ "preStop": { "httpGet": { "path": "/wait-for-drain", "port": 1 } } });
    let lifecycle = "/spec/template/spec/containers/0/lifecycle";
    let new = update(&stored(), &with(renamed(stored()), lifecycle, own.clone()));
    let left = strip(template(&new), None);
    assert_eq!(left["spec"]["containers"][0]["lifecycle"], own);
}

#[test]
fn a_list_of_excluded_ports_that_the_user_changed_is_kept() {
    let annotations = json!({ ISTIO_EXCLUDE_INBOUND_PORTS: "7777" });
    let old = with_pod_annotations(annotations);
    let old = create(&old);
    let key = "/spec/template/metadata/annotations/traffic.sidecar.istio.io~1excludeInboundPorts";
    for (value, users) in [
        ("7777,8022,9090,9091", Some("7777")),
        ("7777", Some("7777")),
        ("7777,6666,8022,9090,9091", Some("7777,6666")),
        ("8022,9090,9091", None),
        ("6666,9090", Some("6666,9090")),
    ] {
        let new = update(&old, &with(old.clone(), key, json!(value)));
        let merged = annotation(&new, ISTIO_EXCLUDE_INBOUND_PORTS).unwrap();
        assert!(
            ["8022", "9090", "9091"]
                .iter()
                .all(|port| merged.contains(port))
        );
        let stripped = strip(template(&new), None);
        assert_eq!(
            stripped["metadata"]["annotations"][ISTIO_EXCLUDE_INBOUND_PORTS].as_str(),
            users,
            "{value}"
        );
    }
}

#[test]
fn a_traffic_port_that_was_kept_out_of_the_mesh_goes_with_its_app_port() {
    let annotations = json!({ ISTIO_EXCLUDE_INBOUND_PORTS: "8080,7777" });
    let old = create(&with_pod_annotations(annotations));
    let key = "/spec/template/metadata/annotations/traffic.sidecar.istio.io~1excludeInboundPorts";
    for (value, merged) in [
        ("8080,7777", "8080,7777,8022,9090,9091,8012"),
        ("7777", "7777,8022,9090,9091"),
        ("7777,8022,9090,9091,8012", "7777,8022,9090,9091"),
    ] {
        let new = update(&old, &with(old.clone(), key, json!(value)));
        let now = annotation(&new, ISTIO_EXCLUDE_INBOUND_PORTS);
        assert_eq!(now, Some(merged), "{value}");
    }
}

#[test]
fn a_list_of_captured_ports_that_the_user_changed_is_kept() {
    let annotations = json!({ ISTIO_INCLUDE_INBOUND_PORTS: "8080" });
    let old = create(&with_pod_annotations(annotations));
    let key = "/spec/template/metadata/annotations/traffic.sidecar.istio.io~1includeInboundPorts";
    for (value, merged, users) in [
        ("8080,8012", "8080,8012", "8080"),
        ("8080", "8080,8012", "8080"),
        ("8080,8012,7777", "8080,7777,8012", "8080,7777"),
        ("7777", "7777", "7777"),
        ("8012", "8012", "8012"),
        ("*", "*", "*"),
    ] {
        let new = update(&old, &with(old.clone(), key, json!(value)));
        let now = annotation(&new, ISTIO_INCLUDE_INBOUND_PORTS);
        assert_eq!(now, Some(merged), "{value}");
        let stripped = strip(template(&new), None);
        let left = &stripped["metadata"]["annotations"][ISTIO_INCLUDE_INBOUND_PORTS];
        assert_eq!(left, users, "{value}");
    }
}

#[test]
fn replicas_are_kept_with_a_warning() {
    let old = with(stored(), "/spec/replicas", json!(0));
    let new = with(old.clone(), "/spec/replicas", json!(3));
    let mutation = mutate(Some(&old), &new, &config()).unwrap();
    assert_eq!(mutation.object, old);
    assert_eq!(
        mutation.warnings,
        ["spec.replicas=3 is kept at 0: lull.dev scales this workload; use kubectl scale"]
    );
}

#[test]
fn replicas_are_the_users_where_lull_does_not_scale() {
    let set = |object: Value, n: u32| with(object, "/spec/replicas", json!(n));
    let class = json!({ "lull.dev/scale": "true", "lull.dev/class": "none" });
    let unscaled = create(&deployment(&class));
    let leaving = without(stored(), "/metadata/annotations/lull.dev~1scale");
    for (old, new) in [
        (set(unscaled.clone(), 0), set(unscaled, 3)),
        (set(opted_in(), 0), set(opted_in(), 3)),
        (set(stored(), 0), set(leaving, 3)),
    ] {
        let mutation = mutate(Some(&old), &new, &config()).unwrap();
        assert_eq!(mutation.object["spec"]["replicas"], 3);
        assert!(mutation.warnings.is_empty());
    }
}

#[test]
fn pods_that_missed_the_webhook_are_healed_by_the_next_update() {
    let mut old = stored();
    let containers = old.pointer_mut("/spec/template/spec/containers").unwrap();
    containers.as_array_mut().unwrap().pop();
    let new = update(&old, &old);
    assert_eq!(sidecar(&new)["image"], "lull/queue-proxy:1");
    assert_eq!(
        strip(template(&new), None),
        *template(&defaulted(opted_in()))
    );
}

#[test]
fn annotations_that_are_wrong_already_hold_up_no_other_change() {
    let wrong = |object: Value| {
        with(
            object,
            "/metadata/annotations/lull.dev~1of-tomorrow",
            json!("1"),
        )
    };
    for (old, has_sidecar) in [(wrong(stored()), true), (wrong(opted_in()), false)] {
        let new = with(old.clone(), APP_IMAGE, json!("shop:2"));
        let mutation = mutate(Some(&old), &new, &image("lull/queue-proxy:2")).unwrap();
        assert_eq!(mutation.warnings.len(), 1, "{:?}", mutation.warnings);
        assert!(mutation.warnings[0].contains("lull.dev/of-tomorrow"));
        assert_eq!(
            strip(template(&mutation.object), None),
            strip(template(&new), None)
        );
        assert_eq!(is_injected(&mutation.object), has_sidecar);
        // What Lull is told is another matter.
        let told = with(new, "/metadata/annotations/lull.dev~1window", json!("1s"));
        assert!(mutate(Some(&old), &told, &config()).is_err());
    }
    assert!(mutate(Some(&stored()), &wrong(stored()), &config()).is_err());
}

#[test]
fn a_copy_under_another_name_is_injected_for_that_name() {
    let copy = with(stored(), "/metadata/name", json!("shop2"));
    let copy = create(&copy);
    assert_eq!(template(&copy)["metadata"]["labels"][POD_LABEL], "shop2");
    assert_eq!(
        strip(template(&copy), None),
        *template(&defaulted(opted_in()))
    );
}

#[test]
fn a_broken_record_is_replaced() {
    let key = "/spec/template/metadata/annotations/lull.dev~1injected";
    let old = with(create(&opted_in()), key, json!("{"));
    let new = update(&old, &old);
    assert_eq!(template(&new), template(&create(&opted_in())));
    assert!(
        annotation(&new, INJECTED_ANNOTATION)
            .unwrap()
            .starts_with("{\"version\"")
    );
}
