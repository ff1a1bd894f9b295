use super::*;

fn service(value: Value) -> Service {
    let mut service: Service = serde_json::from_value(value).unwrap();
    service.metadata.name.get_or_insert_with(|| "shop".into());
    service.metadata.resource_version = Some("7".into());
    service
}

fn plain() -> Service {
    service(json!({ "spec": {
        "clusterIP": "10.96.0.9", "selector": { "app": "shop" },
        "ports": [{ "name": "http", "port": 80, "targetPort": "web" },
                  { "name": "admin", "port": 81, "targetPort": 9000, "protocol": "TCP" },
                  { "name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP" }] } }))
}

fn template() -> Template {
    Template {
        labels: [("app".to_owned(), "shop".to_owned())].into(),
        named_ports: vec![("web".into(), 8080)],
        app_ports: vec![8080, 9000],
        headless_sibling: false,
    }
}

/// Applies a JSON patch as the API server would, minus the resourceVersion test.
fn apply(service: &Service, patch: &Value) -> Service {
    let mut value = serde_json::to_value(service).unwrap();
    for op in patch.as_array().unwrap() {
        let path = op["path"].as_str().unwrap();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/");
        match op["op"].as_str().unwrap() {
            "test" => assert_eq!(value.pointer(path).unwrap(), &op["value"]),
            "add" => value.pointer_mut(parent).unwrap()[&key] = op["value"].clone(),
            "remove" => {
                value
                    .pointer_mut(parent)
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .remove(&key)
                    .unwrap();
            }
            other => panic!("{other}"),
        }
    }
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_stateful_set_keeps_its_headless_service_and_needs_another() {
    let mut headless = plain();
    headless.metadata.name = Some("pods".into());
    headless.spec.as_mut().unwrap().cluster_ip = Some("None".into());
    let stateful = Template {
        headless_sibling: true,
        ..template()
    };
    let planned = plan(&stateful, &[&headless, &plain()], &[]).unwrap();
    assert_eq!(planned.len(), 1);
    assert_eq!(planned[0].name, "shop");
    let alone = plan(&stateful, &[&headless], &[]).unwrap_err();
    assert_eq!(alone[0].reason, "NoService");
    let deployment = plan(&template(), &[&headless, &plain()], &[]).unwrap_err();
    assert_eq!(deployment[0].reason, "Headless");
}

#[test]
fn a_switched_service_comes_back_byte_for_byte() {
    let before = plain();
    let planned = plan(&template(), &[&before], &[]).unwrap();
    assert!(!is_switched(&before, &planned[0]));
    let switched = apply(&before, &switch_patch(&before, &planned[0]));
    assert!(is_switched(&switched, &planned[0]));
    assert_eq!(
        plan(&template(), &[&switched], &[]).unwrap(),
        planned,
        "planning is stable"
    );
    let held = apply(&switched, &hold_patch(&switched, "uid-1"));
    assert!(is_held(&held));
    assert_eq!(
        plan(&template(), &[&held], &[]).unwrap(),
        planned,
        "also while held"
    );
    let released = apply(&held, &release_patch(&held));
    assert_eq!(released.spec, switched.spec);
    for ours in [&switched, &held] {
        let restored = apply(ours, &restore_patch(ours).unwrap());
        assert_eq!(restored.spec, before.spec);
        assert!(restored.metadata.annotations.unwrap_or_default().is_empty());
    }
    assert_eq!(restore_patch(&before), None);
}

#[test]
fn a_target_that_the_user_changed_meanwhile_is_the_new_original() {
    let before = plain();
    let planned = plan(&template(), &[&before], &[]).unwrap();
    let mut changed = apply(&before, &switch_patch(&before, &planned[0]));
    changed.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].target_port =
        Some(IntOrString::Int(8080));
    assert!(!is_switched(&changed, &planned[0]));
    let again = apply(&changed, &switch_patch(&changed, &planned[0]));
    let restored = apply(&again, &restore_patch(&again).unwrap());
    let ports = restored.spec.unwrap().ports.unwrap();
    assert_eq!(ports[0].target_port, Some(IntOrString::Int(8080)));
    assert_eq!(ports[1].target_port, Some(IntOrString::Int(9000)));
}

#[test]
fn what_stands_in_the_way_is_named_with_what_to_do() {
    let with = |key: &str, value: Value| {
        let mut service = serde_json::to_value(plain()).unwrap();
        service["spec"][key] = value;
        self::service(service)
    };
    let rows = [
        (with("clusterIP", json!("None")), "Headless"),
        (with("type", json!("ExternalName")), "ExternalName"),
        (
            with("internalTrafficPolicy", json!("Local")),
            "LocalTraffic",
        ),
        (
            with("externalTrafficPolicy", json!("Local")),
            "LocalTraffic",
        ),
        (
            with("ports", json!([{ "port": 80, "targetPort": 7 }])),
            "UndeclaredPort",
        ),
        (
            with("ports", json!([{ "port": 80, "targetPort": "nope" }])),
            "UnknownTargetPort",
        ),
        (with("selector", json!({ "app": "other" })), "NoService"),
    ];
    for (service, reason) in rows {
        let obstacles = plan(&template(), &[&service], &[]).unwrap_err();
        assert_eq!(obstacles[0].reason, reason, "{obstacles:?}");
    }
    let others = [("blue".to_owned(), template().labels)];
    assert_eq!(
        plan(&template(), &[&plain()], &others).unwrap_err()[0].reason,
        "SharedService"
    );
    let undeclared = with("ports", json!([{ "port": 80, "targetPort": 7 }]));
    let text = &plan(&template(), &[&undeclared], &[]).unwrap_err()[0].message;
    assert!(text.contains("lull.dev/ports: \"8080,9000,7\""), "{text}");
}

#[test]
fn our_private_service_is_never_taken_for_a_public_one() {
    let mut private = plain();
    private.metadata.labels = Some([(WORKLOAD_LABEL.to_owned(), "shop".to_owned())].into());
    assert_eq!(
        plan(&template(), &[&private], &[]).unwrap_err()[0].reason,
        "NoService"
    );
}
