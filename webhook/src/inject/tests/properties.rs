//! Un-injecting is exact, whatever the template looks like.

use lull_contract::names::{ISTIO_NATIVE_SIDECAR, ISTIO_PROXY_CONFIG};
use proptest::{collection, option, prelude::*};

use super::*;

fn map() -> impl Strategy<Value = Option<Value>> {
    option::of(prop_oneof![
        Just(json!({})),
        Just(json!({ "app": "shop" })),
        Just(json!({ "app": "shop", ISTIO_EXCLUDE_INBOUND_PORTS: "" })),
        Just(json!({ ISTIO_EXCLUDE_INBOUND_PORTS: "1" })),
        Just(json!({ ISTIO_EXCLUDE_INBOUND_PORTS: "9090, 22" })),
        Just(json!({ ISTIO_EXCLUDE_INBOUND_PORTS: "8022,9090,9091" })),
        Just(json!({ ISTIO_EXCLUDE_INBOUND_PORTS: "8012, 8080" })),
        Just(json!({ ISTIO_INCLUDE_INBOUND_PORTS: "8080" })),
        Just(json!({ ISTIO_INCLUDE_INBOUND_PORTS: "1, 8080,8012" })),
        Just(json!({ ISTIO_INCLUDE_INBOUND_PORTS: "*", ISTIO_EXCLUDE_INBOUND_PORTS: "1" })),
        Just(json!({ ISTIO_NATIVE_SIDECAR: "false" })),
        Just(json!({ ISTIO_NATIVE_SIDECAR: "false", ISTIO_PROXY_CONFIG: "concurrency: 2" })),
    ])
}

fn lifecycle() -> impl Strategy<Value = Option<Value>> {
    option::of(prop_oneof![
        Just(json!({})),
        Just(json!({ "postStart": { "exec": { "command": ["true"] } } })),
        Just(json!({ "preStop": { "sleep": { "seconds": 1 } } })),
        Just(json!({ "preStop": { "httpGet": { "path": "/wait-for-drain", "port": 1 } } })),
    ])
}

fn put(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[key] = value;
    }
}

prop_compose! {
    fn container(name: String)(
        lifecycle in lifecycle(),
        ports in option::of(collection::vec(prop_oneof![1u16..100, 8010u16..8025, 9089u16..9093], 0..4)),
        probe in any::<bool>(),
    ) -> Value {
        let mut container = json!({ "name": name, "image": "x", "future": [1, null] });
        put(&mut container, "lifecycle", lifecycle);
        put(&mut container, "ports", ports.map(|ports| {
            ports.iter().map(|port| json!({ "containerPort": port })).collect()
        }));
        put(&mut container, "readinessProbe", probe.then(|| json!({ "tcpSocket": { "port": 1 } })));
        container
    }
}

prop_compose! {
    fn pod_template()(
        metadata in option::of((map(), map())),
        containers in (1usize..4).prop_flat_map(|n| {
            (0..n).map(|i| container(format!("c{i}"))).collect::<Vec<_>>()
        }),
        grace in option::of(0u32..100),
    ) -> Value {
        let mut template = json!({ "spec": { "containers": containers } });
        put(&mut template["spec"], "terminationGracePeriodSeconds", grace.map(Value::from));
        if let Some((labels, annotations)) = metadata {
            template["metadata"] = json!({});
            put(&mut template["metadata"], "labels", labels);
            put(&mut template["metadata"], "annotations", annotations);
        }
        template
    }
}

/// Opted in, with a port named so that templates without ports pass.
fn of(template: &Value) -> Value {
    let annotations = json!({ "lull.dev/scale": "true", "lull.dev/ports": "8080" });
    with(deployment(&annotations), "/spec/template", template.clone())
}

proptest! {
    #[test]
    fn uninjecting_is_exact(user in pod_template()) {
        let injected = create(&of(&user));
        prop_assert!(is_injected(&injected));
        prop_assert_eq!(&strip(template(&injected), None), &user);
        let leave = with(injected.clone(), "/metadata/annotations/lull.dev~1leave", json!("uninject"));
        prop_assert_eq!(template(&update(&injected, &leave)).clone(), user);
    }

    #[test]
    fn a_template_without_our_parts_is_not_touched(user in pod_template()) {
        prop_assert_eq!(strip(&user, None), user);
    }

    #[test]
    fn injecting_twice_changes_nothing(user in pod_template()) {
        let injected = create(&of(&user));
        prop_assert_eq!(&create(&injected), &injected);
        prop_assert_eq!(&update(&injected, &injected), &injected);
        prop_assert_eq!(update(&injected, &of(&user)), injected);
    }

    #[test]
    fn numbers_never_collide(user in pod_template()) {
        let injected = create(&of(&user));
        let ours: Vec<u64> = sidecar(&injected)["ports"].as_array().unwrap().iter()
            .map(|port| port["containerPort"].as_u64().unwrap()).collect();
        let containers = user["spec"]["containers"].as_array().unwrap();
        let users = containers.iter().flat_map(|c| shape::list(c, "ports"))
            .filter_map(|port| port["containerPort"].as_u64());
        let all: Vec<u64> = users.chain(ours.iter().copied()).collect();
        for port in &ours {
            prop_assert_eq!(all.iter().filter(|p| *p == port).count(), 1);
        }
    }

    #[test]
    fn the_patch_leads_to_the_object(user in pod_template(), other in pod_template()) {
        let old = create(&of(&user));
        let mut new = of(&other);
        let object = update(&old, &new);
        let patch = json_patch::diff(&new, &object);
        json_patch::patch(&mut new, &patch).unwrap();
        prop_assert_eq!(new, object);
    }

    #[test]
    fn any_json_is_answered_without_a_panic(
        text in "[a-z]{0,3}",
        pointer in prop::sample::select(vec![
            "/metadata", "/metadata/name", "/metadata/annotations", "/spec", "/spec/template",
            "/spec/template/metadata", "/spec/template/metadata/annotations", "/spec/replicas",
            "/spec/template/spec", "/spec/template/spec/containers",
            "/spec/template/spec/containers/0", "/spec/template/spec/containers/0/ports",
            "/spec/template/spec/containers/0/readinessProbe",
            "/spec/template/spec/containers/0/lifecycle",
        ]),
        kind in 0..6,
    ) {
        let odd = match kind {
            0 => Value::Null, 1 => json!(text), 2 => json!([text]), 3 => json!({ text: 1 }),
            4 => json!([[{ "name": text }]]), _ => json!(-1),
        };
        let good = create(&opted_in());
        let bad = with(good.clone(), pointer, odd);
        let _ = mutate(None, &bad, &config());
        let _ = mutate(Some(&good), &bad, &config());
        let _ = mutate(Some(&bad), &good, &config());
        let _ = mutate(Some(&bad), &bad, &config());
    }
}
