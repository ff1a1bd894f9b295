use super::*;

/// What Lull noted on the Service [`plain`].
const NOTE: &str = r#"{"ports":[{"port":80,"targetPort":"web"},{"port":81,"targetPort":9000}],"selector":{"app":"shop"}}"#;

fn plain() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "shop", "annotations": { "team": "a" } },
        "spec": {
            "clusterIP": "10.96.0.9",
            "type": "ClusterIP",
            "selector": { "app": "shop" },
            "someFutureField": 7,
            "ports": [
                { "name": "http", "port": 80, "targetPort": "web", "protocol": "TCP" },
                { "name": "admin", "port": 81, "targetPort": 9000, "protocol": "TCP" },
                { "name": "dns", "port": 80, "targetPort": 53, "protocol": "UDP" },
            ],
        },
    })
}

fn switched() -> Value {
    let mut service = plain();
    service["metadata"]["annotations"][ORIGINAL_ANNOTATION] = NOTE.into();
    service["spec"]["ports"][0]["targetPort"] = "lull-8080".into();
    service["spec"]["ports"][1]["targetPort"] = "lull-9000".into();
    service
}

fn held() -> Value {
    with(&switched(), |service| {
        service["spec"]["selector"] = json!({ HELD_LABEL: "uid-1" });
    })
}

fn with(service: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut service = service.clone();
    change(&mut service);
    service
}

fn kept(old: &Value, new: &Value) -> Value {
    let mutation = keep(old, new);
    assert_eq!(mutation.warnings, [""; 0]);
    let again = keep(&mutation.object, &mutation.object).object;
    assert_eq!(again, mutation.object, "it is at rest");
    mutation.object
}

fn target(service: &Value, index: usize) -> &Value {
    &service["spec"]["ports"][index]["targetPort"]
}

fn noted(service: &Value) -> Option<Original> {
    original(service).map(|(_, original)| original)
}

#[test]
fn a_manifest_that_is_applied_again_changes_nothing() {
    let client_side_apply = with(&held(), |service| {
        service["spec"]["ports"] = plain()["spec"]["ports"].clone();
        service["spec"]["selector"]["app"] = "shop".into();
    });
    let server_side_apply = with(&held(), |service| {
        service["spec"]["ports"] = plain()["spec"]["ports"].clone();
        service["spec"]["selector"] = plain()["spec"]["selector"].clone();
    });
    let without_targets = with(&switched(), |service| {
        service["spec"]["ports"][0]["targetPort"] = "web".into();
        service["spec"]["ports"][1]["targetPort"] = 9000.into();
    });
    let rows = [
        ("nothing", switched(), switched()),
        ("nothing while held", held(), held()),
        ("kubectl apply", held(), client_side_apply),
        ("server-side apply", held(), server_side_apply),
        ("ports alone", switched(), without_targets),
        ("kubectl replace", switched(), plain()),
        ("kubectl replace while held", held(), plain()),
    ];
    for (what, old, new) in rows {
        assert_eq!(kept(&old, &new), old, "{what}");
    }
}

#[test]
fn a_patch_of_one_key_of_a_held_selector_keeps_the_others() {
    let two = |object: Value| {
        with(&object, |service| {
            let note = NOTE.replace(r#""app":"shop""#, r#""app":"shop","version":"blue""#);
            service["metadata"]["annotations"][ORIGINAL_ANNOTATION] = note.into();
        })
    };
    let old = two(held());
    let patched = with(&old, |service| {
        service["spec"]["selector"]["version"] = "green".into();
    });
    let green = json!({ "app": "shop", "version": "green" });
    assert_eq!(kept(&old, &patched)["spec"]["selector"], green);
    // A manifest says all that it wants.
    let applied = with(&patched, |service| {
        let key = "kubectl.kubernetes.io/last-applied-configuration";
        service["metadata"]["annotations"][key] = "{}".into();
    });
    let alone = json!({ "version": "green" });
    assert_eq!(kept(&old, &applied)["spec"]["selector"], alone);
}

#[test]
fn what_the_user_changes_beside_it_is_taken() {
    let new = with(&plain(), |service| {
        service["metadata"]["annotations"]["team"] = "b".into();
        service["spec"]["sessionAffinity"] = "ClientIP".into();
        service["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/h2c".into();
    });
    let expected = with(&held(), |service| {
        service["metadata"]["annotations"]["team"] = "b".into();
        service["spec"]["sessionAffinity"] = "ClientIP".into();
        service["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/h2c".into();
    });
    assert_eq!(kept(&held(), &new), expected);
}

#[test]
fn annotations_that_a_replacement_leaves_out_come_back() {
    let new = with(&plain(), |service| {
        service["metadata"] = json!({ "name": "shop" });
    });
    let object = kept(&switched(), &new);
    let annotations = json!({ ORIGINAL_ANNOTATION: NOTE });
    assert_eq!(object["metadata"]["annotations"], annotations);
}

#[test]
fn a_note_that_somebody_has_changed_is_what_it_was() {
    let new = with(&switched(), |service| {
        service["metadata"]["annotations"][ORIGINAL_ANNOTATION] = "{}".into();
    });
    assert_eq!(kept(&switched(), &new), switched());
}

#[test]
fn another_target_is_the_new_original() {
    for old in [switched(), held()] {
        let new = with(&old, |service| {
            service["spec"]["ports"][0]["targetPort"] = 8081.into();
            service["spec"]["ports"][1]["targetPort"] = 9000.into();
        });
        let object = kept(&old, &new);
        assert_eq!(*target(&object, 0), 8081, "the autoscaler switches it");
        assert_eq!(*target(&object, 1), "lull-9000", "this one is no other");
        assert_eq!(object["spec"]["selector"], old["spec"]["selector"]);
        let noted = noted(&object).unwrap();
        assert_eq!(noted.target(80), Some(&TargetPort::Number(8081)));
        assert_eq!(noted.target(81), Some(&TargetPort::Number(9000)));
        // Applied again before the autoscaler was there.
        assert_eq!(kept(&object, &object), object);
    }
}

#[test]
fn ports_that_come_and_go_are_the_users() {
    let new = with(&switched(), |service| {
        service["spec"]["ports"] = json!([
            { "name": "http", "port": 8000, "targetPort": "web", "protocol": "TCP" },
            { "name": "copy", "port": 82, "targetPort": "lull-9000", "protocol": "TCP" },
            { "name": "bare", "port": 83 },
        ]);
    });
    let object = kept(&switched(), &new);
    assert_eq!(object["spec"], new["spec"]);
    let noted = noted(&object).unwrap();
    assert_eq!(noted.target(8000), None);
    assert_eq!(noted.target(82), Some(&TargetPort::Number(9000)));
    // A port that comes back is not one that is applied again.
    let back = with(&object, |service| {
        service["spec"]["ports"] = plain()["spec"]["ports"].clone();
    });
    let back = kept(&object, &back);
    assert_eq!(*target(&back, 0), "web");
}

#[test]
fn another_selector_makes_the_service_the_users_again() {
    let wider = json!({ "app": "shop", "tier": "web" });
    let merged = json!({ "app": "store", HELD_LABEL: "uid-1" });
    let rows = [
        (switched(), wider.clone(), wider.clone()),
        (held(), wider.clone(), wider),
        (held(), merged, json!({ "app": "store" })),
        (switched(), json!(null), json!(null)),
    ];
    for (old, selector, expected) in rows {
        let new = with(&old, |service| {
            service["spec"]["selector"] = selector.clone();
        });
        let object = kept(&old, &new);
        let plain = with(&plain(), |service| {
            service["spec"]["selector"] = expected.clone();
        });
        assert_eq!(object, plain, "{selector}");
    }
}

#[test]
fn a_service_without_endpoints_of_its_own_is_the_users_again() {
    let new = with(&held(), |service| {
        service["spec"]["type"] = "ExternalName".into();
    });
    let plain = with(&plain(), |service| {
        service["spec"]["type"] = "ExternalName".into();
    });
    assert_eq!(kept(&held(), &new), plain);
}

#[test]
fn a_sentinel_of_somebody_else_does_not_stay() {
    let new = with(&switched(), |service| {
        service["spec"]["selector"][HELD_LABEL] = "x".into();
    });
    assert_eq!(kept(&switched(), &new), switched());
}

#[test]
fn services_that_are_not_lulls_or_go_are_left_alone() {
    let broken = with(&switched(), |service| {
        service["metadata"]["annotations"][ORIGINAL_ANNOTATION] = "{".into();
    });
    let going = with(&plain(), |service| {
        service["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    for (old, new) in [
        (plain(), plain()),
        (plain(), held()),
        (broken, plain()),
        (switched(), going),
        (json!(null), switched()),
        (switched(), json!(7)),
        (switched(), json!({ "metadata": {}, "spec": [] })),
    ] {
        assert_eq!(keep(&old, &new).object, new);
    }
}
