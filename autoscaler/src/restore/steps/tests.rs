use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::core::GroupVersionKind;
use lull_contract::names::HELD_LABEL;

use super::*;
use crate::mesh::CallerPolicy;

/// Lull's note on a Service that targeted `web`.
const NOTE: &str = r#"{"ports":[{"port":80,"targetPort":"web"}],"selector":{"app":"shop"}}"#;

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn plain_template() -> Value {
    json!({
        "metadata": { "labels": { "app": "shop" } },
        "spec": { "containers": [{ "name": "app" }] },
    })
}

fn injected_template() -> Value {
    let mut template = plain_template();
    template["metadata"]["labels"]["lull.dev/pod"] = "shop".into();
    template["metadata"]["annotations"] = json!({ "lull.dev/injected": "{" });
    template["spec"]["containers"] = json!([{ "name": "app" }, { "name": "lull-queue-proxy" }]);
    template
}

fn deployment(replicas: u32, template: &Value) -> (ApiResource, DynamicObject) {
    let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
    let object = of(json!({
        "metadata": { "name": "shop", "namespace": "ns", "resourceVersion": "7" },
        "spec": { "replicas": replicas, "template": template },
    }));
    (ApiResource::from_gvk(&kind), object)
}

fn public(target: &str, annotations: &Value) -> Service {
    of(json!({
        "metadata": {
            "name": "shop", "namespace": "ns", "resourceVersion": "8", "annotations": annotations,
        },
        "spec": {
            "selector": { "app": "shop" },
            "ports": [{ "port": 80, "targetPort": target }],
        },
    }))
}

fn switched() -> Service {
    public("lull-8080", &json!({ "lull.dev/original": NOTE }))
}

fn private() -> Service {
    of(json!({ "metadata": {
        "name": "shop-lull", "namespace": "ns", "labels": { "lull.dev/workload": "shop" },
    } }))
}

fn slice(name: &str, by: &str, ready: bool) -> EndpointSlice {
    of(json!({
        "metadata": { "name": name, "namespace": "ns", "labels": {
            "kubernetes.io/service-name": "shop",
            "endpointslice.kubernetes.io/managed-by": by,
            "lull.dev/workload": "shop",
        } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }],
    }))
}

fn activators() -> EndpointSlice {
    slice("shop-lull", "lull.dev", true)
}

/// As Kubernetes lists the pod.
fn native() -> EndpointSlice {
    slice("shop-x", "endpointslice-controller.k8s.io", true)
}

fn entry() -> WorkloadEntry {
    of(json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": "shop-a", "namespace": "ns", "labels": { "lull.dev/workload": "shop" },
        },
        "spec": { "address": "10.0.0.1", "labels": { "app": "shop", "lull.dev/held": "uid" } },
    }))
}

fn pod() -> Pod {
    Pod::from(of::<KubePod>(json!({
        "metadata": { "name": "p", "namespace": "ns", "labels": { "lull.dev/pod": "shop" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })))
}

fn workload(replicas: u32) -> DeserializeGuard<ScaledWorkload> {
    let spec = of(json!({
        "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u" },
        "podSelector": {}, "ports": [], "settings": lull_contract::Settings::default(),
        "originalReplicas": replicas,
    }));
    let mut workload = ScaledWorkload::new("shop", spec);
    workload.metadata.namespace = Some("ns".into());
    DeserializeGuard(Ok(workload))
}

fn asleep() -> Seen {
    Seen {
        targets: vec![deployment(0, &injected_template())],
        services: vec![switched(), private()],
        slices: vec![activators()],
        ..Seen::default()
    }
}

/// Each step in words, and whether its turn has come.
fn told(seen: &Seen, is_late: bool) -> Vec<(String, bool)> {
    let planned = steps(seen, is_late).into_iter();
    planned.map(|p| (p.step.to_string(), p.now)).collect()
}

fn now(seen: &Seen) -> Vec<String> {
    let all = told(seen, false).into_iter();
    all.filter_map(|(step, now)| now.then_some(step)).collect()
}

#[test]
fn a_sleeper_is_given_back_in_order() {
    let mut seen = asleep();
    let all = [
        ("wake Deployment ns/shop with 1 pods", true),
        ("give Service ns/shop back", false),
        ("take the sidecar out of Deployment ns/shop", false),
        ("delete EndpointSlice ns/shop-lull", false),
        ("delete Service ns/shop-lull", false),
    ];
    let all = all.map(|(step, now)| (step.to_owned(), now));
    assert_eq!(told(&seen, false), all, "this is also what --dry-run says");

    seen.targets = vec![deployment(1, &injected_template())];
    assert_eq!(now(&seen), [""; 0], "no pod is ready");
    seen.pods = vec![pod()];
    assert_eq!(now(&seen), [""; 0], "Kubernetes lists no pod yet");
    seen.slices.push(native());
    assert_eq!(now(&seen), ["give Service ns/shop back"]);

    seen.services = vec![public("web", &json!({})), private()];
    seen.slices.pop();
    assert_eq!(now(&seen), [""; 0], "it lists none any more");
    seen.slices.push(native());
    assert_eq!(now(&seen), ["delete EndpointSlice ns/shop-lull"]);

    seen.slices.remove(0);
    assert_eq!(now(&seen), ["take the sidecar out of Deployment ns/shop"]);

    seen.targets = vec![deployment(1, &plain_template())];
    assert_eq!(now(&seen), ["delete Service ns/shop-lull"]);

    seen.services.pop();
    assert!(steps(&seen, false).is_empty());
}

#[test]
fn in_a_mesh_entries_go_before_the_ports_change_and_hidden_slices_as_others_do() {
    let mut seen = Seen {
        targets: vec![deployment(1, &injected_template())],
        services: vec![switched(), private()],
        slices: vec![
            slice("shop-lull-hidden", "lull.dev", true),
            slice("shop-lull-hidden-ipv6", "lull.dev", true),
        ],
        entries: vec![entry()],
        pods: vec![pod()],
        ..Seen::default()
    };
    assert_eq!(now(&seen), [""; 0], "Kubernetes lists no pod yet");
    seen.slices.push(native());
    assert_eq!(now(&seen), ["delete WorkloadEntry ns/shop-a"]);
    let late = told(&seen, true);
    let back = ("give Service ns/shop back".to_owned(), true);
    assert!(late.contains(&back), "not for ever: {late:?}");
    let first = ("delete WorkloadEntry ns/shop-a".to_owned(), true);
    assert_eq!(late.first(), Some(&first), "before the ports, then as well");
    let entries = std::mem::take(&mut seen.entries);
    assert_eq!(now(&seen), ["give Service ns/shop back"]);

    seen.services = vec![public("web", &json!({})), private()];
    let out = [
        "delete EndpointSlice ns/shop-lull-hidden",
        "delete EndpointSlice ns/shop-lull-hidden-ipv6",
    ];
    assert_eq!(now(&seen), out);

    seen.slices.drain(..2);
    seen.entries = entries;
    let last = ["delete WorkloadEntry ns/shop-a"];
    assert_eq!(now(&seen), last, "the sidecar stays until then");
    seen.entries.clear();
    assert_eq!(now(&seen), ["take the sidecar out of Deployment ns/shop"]);
}

#[test]
fn a_selector_is_given_back_before_the_ports_are() {
    let mut held = switched();
    let sentinel = BTreeMap::from([(HELD_LABEL.to_owned(), "uid".to_owned())]);
    held.spec.as_mut().unwrap().selector = Some(sentinel);
    let mut seen = Seen {
        targets: vec![deployment(1, &injected_template())],
        services: vec![held],
        slices: vec![activators(), native()],
        pods: vec![pod()],
        ..Seen::default()
    };
    let first = "give the selector of Service ns/shop back";
    assert_eq!(now(&seen), [first], "what is listed still is about to go");
    let late = told(&seen, true).into_iter().filter(|(_, now)| *now);
    let late: Vec<String> = late.map(|(step, _)| step).collect();
    assert_eq!(late, ["give Service ns/shop back"], "at once, by one patch");
    seen.services = vec![switched()];
    assert_eq!(now(&seen), ["give Service ns/shop back"]);
}

/// A template that says where its sidecar takes traffic.
fn template_with_ports() -> Value {
    let mut template = injected_template();
    template["spec"]["containers"][1]["ports"] = json!([
        { "name": "lull-8080", "containerPort": 8012 },
        { "name": "lull-report", "containerPort": 9090 },
    ]);
    template
}

/// As Kubernetes lists the pod at `port`.
fn native_at(port: u16) -> EndpointSlice {
    let mut slice = native();
    slice.ports = of(json!([{ "name": "", "port": port }]));
    slice
}

#[test]
fn the_sidecar_stays_until_kubernetes_has_read_the_ports() {
    let seen = |port| Seen {
        targets: vec![deployment(1, &template_with_ports())],
        services: vec![public("web", &json!({}))],
        slices: vec![native_at(port)],
        pods: vec![pod()],
        ..Seen::default()
    };
    let step = "take the sidecar out of Deployment ns/shop".to_owned();
    assert_eq!(told(&seen(8012), false), [(step.clone(), false)]);
    assert_eq!(told(&seen(8012), true), [(step.clone(), true)]);
    assert_eq!(told(&seen(8080), false), [(step, true)]);
}

#[test]
fn activators_stay_until_kubernetes_has_read_the_ports() {
    let seen = |port| Seen {
        targets: vec![deployment(1, &template_with_ports())],
        services: vec![public("web", &json!({}))],
        slices: vec![activators(), native_at(port)],
        pods: vec![pod()],
        ..Seen::default()
    };
    let out = "delete EndpointSlice ns/shop-lull";
    assert_eq!(now(&seen(8012)), [""; 0], "what it lists is of before");
    assert_eq!(now(&seen(8080)), [out]);
    let late = told(&seen(8012), true);
    assert!(
        late.contains(&(out.to_owned(), true)),
        "not for ever: {late:?}"
    );
}

#[test]
fn connect_timeouts_go_when_nobody_is_held_any_more() {
    let metadata = json!({
        "name": "shop-lull", "namespace": "ns", "labels": { "lull.dev/workload": "shop" },
    });
    let seen = Seen {
        rules: vec![of(json!({ "metadata": metadata }))],
        ..asleep()
    };
    let step = "delete DestinationRule ns/shop-lull".to_owned();
    assert!(told(&seen, false).contains(&(step.clone(), false)));
    let alone = Seen {
        rules: seen.rules,
        ..Seen::default()
    };
    assert_eq!(now(&alone), [step]);
}

#[test]
fn activators_that_stand_by_go_then_the_rule_and_then_the_sidecar() {
    let metadata = json!({
        "name": "shop-lull", "namespace": "ns", "labels": { "lull.dev/workload": "shop" },
    });
    let policy = CallerPolicy {
        connect_timeout: None,
        pods_first: Some("shop".to_owned()),
    };
    let spec = json!({ "host": "shop", "trafficPolicy": policy.traffic_policy() });
    let mut seen = Seen {
        targets: vec![deployment(1, &template_with_ports())],
        services: vec![public("web", &json!({}))],
        slices: vec![native_at(8080)],
        entries: vec![entry()],
        rules: vec![of(json!({ "metadata": metadata, "spec": spec }))],
        pods: vec![pod()],
        ..Seen::default()
    };
    assert_eq!(now(&seen), ["delete WorkloadEntry ns/shop-a"]);
    seen.entries = Vec::new();
    assert_eq!(now(&seen), ["delete DestinationRule ns/shop-lull"]);
    seen.rules = Vec::new();
    let sidecar = "take the sidecar out of Deployment ns/shop";
    assert_eq!(now(&seen), [sidecar]);
}

#[test]
fn what_a_scaled_workload_still_knows_is_used_and_it_goes_last() {
    let mut seen = asleep();
    seen.workloads = vec![workload(3)];
    let steps = told(&seen, false);
    let first = ("wake Deployment ns/shop with 3 pods".to_owned(), true);
    let last = ("delete ScaledWorkload ns/shop".to_owned(), false);
    assert_eq!((steps.first(), steps.last()), (Some(&first), Some(&last)));
    let alone = Seen {
        workloads: vec![workload(3)],
        ..Seen::default()
    };
    assert_eq!(now(&alone), ["delete ScaledWorkload ns/shop"]);
}

#[test]
fn a_scaled_workload_that_cannot_be_read_stops_nothing_and_goes_last_as_well() {
    let mut seen = asleep();
    let unread = json!({ "metadata": { "name": "shop", "namespace": "ns" }, "spec": {} });
    seen.workloads = vec![of(unread)];
    assert!(seen.workloads[0].0.is_err());
    let steps = told(&seen, false);
    let first = ("wake Deployment ns/shop with 1 pods".to_owned(), true);
    let last = ("delete ScaledWorkload ns/shop".to_owned(), false);
    assert_eq!((steps.first(), steps.last()), (Some(&first), Some(&last)));
}

#[test]
fn pods_that_do_not_get_ready_hold_nothing_up_for_ever() {
    let mut seen = asleep();
    seen.targets = vec![deployment(1, &injected_template())];
    let (step, now) = told(&seen, true).swap_remove(0);
    assert_eq!((step.as_str(), now), ("give Service ns/shop back", true));
    seen.services = vec![public("web", &json!({}))];
    let steps = told(&seen, true);
    let out = ("delete EndpointSlice ns/shop-lull".to_owned(), true);
    assert!(steps.contains(&out), "{steps:?}");
}

#[test]
fn patches_give_back_what_was_there_on_condition_of_the_version() {
    let mut seen = asleep();
    seen.targets = vec![deployment(1, &injected_template())];
    let steps = steps(&seen, true);
    let patch = |wanted: fn(&Step) -> Option<&Value>| {
        let patch = steps.iter().find_map(|planned| wanted(&planned.step));
        patch.cloned().unwrap()
    };
    let template = patch(|step| match step {
        Step::Uninject { patch, .. } => Some(patch),
        _ => None,
    });
    assert_eq!(
        template,
        json!([
            { "op": "test", "path": "/metadata/resourceVersion", "value": "7" },
            { "op": "replace", "path": "/spec/template", "value": plain_template() },
        ])
    );
    let service = patch(|step| match step {
        Step::RestoreService { patch, .. } => Some(patch),
        _ => None,
    });
    assert_eq!(service[0]["value"], "8");
    assert_eq!(service[1]["value"], "web");
}

#[test]
fn a_mark_of_somebody_who_was_leaving_goes_and_the_users_own_settings_stay() {
    let (kind, mut object) = deployment(1, &plain_template());
    let marks = [("lull.dev/leave", "requested"), ("lull.dev/scale", "true")];
    let marks = marks.map(|(key, value)| (key.to_owned(), value.to_owned()));
    object.metadata.annotations = Some(marks.into());
    let seen = Seen {
        targets: vec![(kind, object)],
        ..Seen::default()
    };
    let steps = steps(&seen, false);
    let [
        Planned {
            step: Step::Uninject { patch, .. },
            now: true,
        },
    ] = steps.as_slice()
    else {
        panic!("{steps:?}");
    };
    let remove = json!({ "op": "remove", "path": "/metadata/annotations/lull.dev~1leave" });
    assert_eq!(patch[1], remove);
    assert_eq!(patch.as_array().map(Vec::len), Some(2));
}

#[test]
fn a_service_whose_workload_is_gone_is_given_back_at_once() {
    let seen = Seen {
        services: vec![switched()],
        slices: vec![activators()],
        ..Seen::default()
    };
    assert_eq!(now(&seen), ["give Service ns/shop back"]);
    let without_service = Seen {
        slices: vec![activators()],
        ..Seen::default()
    };
    assert_eq!(now(&without_service), ["delete EndpointSlice ns/shop-lull"]);
}

#[test]
fn what_is_not_lulls_is_left_alone() {
    let seen = Seen {
        targets: vec![deployment(0, &plain_template())],
        services: vec![public("web", &json!({ "team": "a" }))],
        slices: vec![slice("shop-x", "endpointslice-controller.k8s.io", true)],
        ..Seen::default()
    };
    assert!(steps(&seen, true).is_empty());
}
