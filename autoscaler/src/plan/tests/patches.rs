//! What is changed in a Service and how it is given back.

use super::*;

/// The plan of the base workload with these Services.
fn planned(services: &[&Service]) -> Vec<PlannedService> {
    let objects = services.iter().map(|service| {
        let mut object = serde_json::to_value(service).unwrap();
        object["kind"] = json!("Service");
        object
    });
    let workload = json!({
        "metadata": { "annotations": { "lull.dev/ports": "8080,9000" } },
    });
    let plan = plan_of(&case(workload, objects.collect()));
    assert!(!plan.is_refused(), "{plan:?}");
    plan.services
}

fn plain() -> Service {
    let ports = json!([
        { "name": "http", "port": 80, "targetPort": "web" },
        { "name": "admin", "port": 81, "targetPort": 9000, "protocol": "TCP" },
        { "name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP" },
    ]);
    read(merged(
        &json!({ "kind": "Service", "spec": { "ports": ports } }),
    ))
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
fn a_switched_service_comes_back_byte_for_byte() {
    let before = plain();
    let plan = planned(&[&before]);
    assert!(!is_switched(&before, &plan[0], true));
    let switched = apply(&before, &switch_patch(&before, &plan[0], true));
    assert!(is_switched(&switched, &plan[0], true));
    assert_eq!(planned(&[&switched]), plan, "planning is stable");
    let held = apply(&switched, &hold_patch(&switched, "uid-1"));
    assert!(is_held(&held));
    assert_eq!(planned(&[&held]), plan, "also while held");
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
    let plan = planned(&[&before]);
    let mut changed = apply(&before, &switch_patch(&before, &plan[0], true));
    changed.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].target_port =
        Some(IntOrString::Int(8080));
    assert!(!is_switched(&changed, &plan[0], true));
    let again = apply(&changed, &switch_patch(&changed, &plan[0], true));
    let restored = apply(&again, &restore_patch(&again).unwrap());
    let ports = restored.spec.unwrap().ports.unwrap();
    assert_eq!(ports[0].target_port, Some(IntOrString::Int(8080)));
    assert_eq!(ports[1].target_port, Some(IntOrString::Int(9000)));
}

#[test]
fn a_service_goes_on_by_a_ports_earlier_number_until_things_are_settled() {
    let before = plain();
    let older = planned(&[&before]);
    let first = apply(&before, &switch_patch(&before, &older[0], false));
    // `web` is 8081 in the next template.
    let mut newer = older;
    let port = &mut newer[0].ports[0];
    (port.app_port, port.earlier) = (8081, vec![8080]);
    let target = |service: &Service| {
        let ports = service.spec.as_ref().unwrap().ports.as_ref().unwrap();
        ports[0].target_port.clone().unwrap()
    };
    let named = |name: &str| IntOrString::String(name.to_owned());

    assert!(is_switched(&first, &newer[0], false));
    let kept = apply(&first, &switch_patch(&first, &newer[0], false));
    assert_eq!(target(&kept), named("lull-8080"));
    assert!(!is_switched(&kept, &newer[0], true));
    let settled = apply(&kept, &switch_patch(&kept, &newer[0], true));
    assert_eq!(target(&settled), named("lull-8081"));
    // It doesn't go back when another older pod turns up.
    assert!(is_switched(&settled, &newer[0], false));
    let restored = apply(&settled, &restore_patch(&settled).unwrap());
    assert_eq!(restored.spec, before.spec);
    // What isn't Lull's is switched to what it means now.
    let switched = apply(&before, &switch_patch(&before, &newer[0], false));
    assert_eq!(target(&switched), named("lull-8081"));
}

#[test]
fn what_lull_writes_into_a_service_is_no_news_to_plans_and_what_its_user_writes_is() {
    let before = plain();
    let plan = planned(&[&before]);
    let switched = apply(&before, &switch_patch(&before, &plan[0], true));
    let held = apply(&switched, &hold_patch(&switched, "uid-1"));
    for ours in [&switched, &held] {
        assert!(is_planned_alike(&before, ours) && is_planned_alike(ours, &before));
        assert!(!is_noted(&before) && is_noted(ours));
    }
    let changes: [fn(&mut Service); 6] = [
        |s| {
            s.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].target_port =
                Some(IntOrString::Int(8081))
        },
        |s| drop(s.spec.as_mut().unwrap().ports.as_mut().unwrap().pop()),
        |s| s.spec.as_mut().unwrap().selector = Some([("app".to_owned(), "new".to_owned())].into()),
        |s| s.spec.as_mut().unwrap().session_affinity = Some("ClientIP".to_owned()),
        // The note is all that says what was there.
        |s| s.metadata.annotations = None,
        |s| s.metadata.labels = Some([(WORKLOAD_LABEL.to_owned(), "shop".to_owned())].into()),
    ];
    for (number, change) in changes.iter().enumerate() {
        for there in [&switched, &held] {
            let mut changed = there.clone();
            change(&mut changed);
            assert!(!is_planned_alike(there, &changed), "{number}");
        }
    }
}

#[test]
fn our_private_service_is_never_taken_for_a_public_one() {
    let mut private = plain();
    private.metadata.name = Some("shop-lull".into());
    private.metadata.labels = Some([(WORKLOAD_LABEL.to_owned(), "shop".to_owned())].into());
    let names: Vec<String> = planned(&[&plain(), &private])
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert_eq!(names, ["shop"]);
}
