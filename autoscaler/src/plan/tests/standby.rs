//! Whether activators stand by behind pods, and what says so to callers in a mesh.

use super::*;

fn asking(annotations: &Value) -> Value {
    json!({ "metadata": { "annotations": annotations } })
}

fn service(name: &str) -> Value {
    json!({ "kind": "Service", "metadata": { "name": name } })
}

fn rule((namespace, name): (&str, &str), host: &str, policy: &Value) -> Value {
    json!({
        "kind": "DestinationRule",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "host": host, "trafficPolicy": policy },
    })
}

/// What callers are to be told.
fn pods_first() -> CallerPolicy {
    CallerPolicy {
        connect_timeout: None,
        pods_first: Some("shop".to_owned()),
    }
}

#[test]
fn both_that_is_asked_for_of_callers_is_one_rule() {
    let annotations = json!({ "lull.dev/standby": "true", "lull.dev/connect-timeout": "40s" });
    let mut case = case(asking(&annotations), vec![service("shop")]);
    let plan = plan_of(&case);
    let policy = CallerPolicy {
        connect_timeout: Some(Duration::from_secs(40)),
        ..pods_first()
    };
    let rules = BTreeMap::from([("shop".to_owned(), policy)]);
    assert_eq!((&plan.rules, plan.stands_by), (&rules, true));
    let said = "connectTimeout 40s, pods before activators";
    let step = format!("create DestinationRule shop-lull: {said} for shop");
    assert_eq!(plan.steps("shop-lull").last(), Some(&step));
    case.outside_mesh = true;
    let plan = plan_of(&case);
    assert!(plan.rules.is_empty() && !plan.stands_by, "{plan:?}");
}

#[test]
fn nobody_stands_by_unless_all_callers_of_all_services_call_pods_first() {
    let says = pods_first().traffic_policy();
    let silent = json!({});
    let (own, more) = (("ns", "own"), ("ns", "more"));
    let (root, of_callers) = (("istio-system", "all"), ("web", "to-shop"));
    // Rules of the user's, the Services with a rule of Lull's, and whether activators stand by.
    let rows: [(Vec<Value>, &[&str], bool); 7] = [
        (vec![], &["shop", "web"], true),
        (vec![rule(own, "shop", &silent)], &[], false),
        (vec![rule(own, "shop", &says)], &["web"], true),
        (vec![rule(root, "*.local", &silent)], &[], false),
        (vec![rule(root, "*.local", &says)], &[], true),
        (
            vec![rule(own, "shop", &says), rule(more, "shop", &silent)],
            &[],
            false,
        ),
        (
            vec![rule(of_callers, "shop.ns.svc.cluster.local", &silent)],
            &["shop", "web"],
            true,
        ),
    ];
    for (rules, written, stands_by) in rows {
        let services = vec![service("shop"), service("web")];
        let objects = services.into_iter().chain(rules.clone()).collect();
        let case = case(asking(&json!({ "lull.dev/standby": "true" })), objects);
        let plan = plan_of(&case);
        let names: Vec<&str> = plan.rules.keys().map(String::as_str).collect();
        assert_eq!((&names[..], plan.stands_by), (written, stands_by));
        let is_told = plan.findings.iter().any(|f| f.reason == Reason::NoStandby);
        assert_eq!(is_told, !stands_by, "{rules:?}");
    }
}

#[test]
fn nobody_stands_by_where_other_pods_would_come_last_too() {
    let other = json!({ "kind": "Deployment", "metadata": { "name": "other" } });
    let case = case(
        asking(&json!({ "lull.dev/standby": "true" })),
        vec![service("shop"), other],
    );
    let plan = plan_of(&case);
    assert!(plan.is_refused(), "{plan:?}");
    assert!(plan.rules.is_empty() && !plan.stands_by, "{plan:?}");
}

#[test]
fn what_a_rule_of_the_user_s_has_to_say_is_told_until_it_says_so() {
    let asked = || asking(&json!({ "lull.dev/standby": "true" }));
    let found = |rule: Value| findings_of(asked(), vec![service("shop"), rule]);
    let text = found(rule(("ns", "own"), "shop", &json!({})));
    for line in [
        r#""failoverPriority":["lull.dev/pod=shop"]"#,
        r#""outlierDetection":{"consecutive5xxErrors":0,"#,
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    let says = pods_first().traffic_policy();
    assert_eq!(found(rule(("ns", "own"), "shop", &says)), "");
    // One for something else that has the name of Lull's.
    let text = found(rule(("ns", "shop-lull"), "pay.example", &json!({})));
    let object = "DestinationRule shop-lull has the name";
    assert!(text.starts_with(object), "{text}");
    assert!(text.contains("lull.dev/standby"), "{text}");
}
