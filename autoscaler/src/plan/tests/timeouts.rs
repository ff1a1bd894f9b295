//! For how long callers in a mesh try to connect, and wakes that take longer.

use super::*;

#[test]
fn a_connect_timeout_is_written_where_it_puts_nobody_elses_rule_out_of_force() {
    let rule = |name: &str, namespace: &str, host: &str| {
        let metadata = json!({ "name": name, "namespace": namespace });
        json!({ "kind": "DestinationRule", "metadata": metadata, "spec": { "host": host } })
    };
    let mut ours = rule("shop-lull", "ns", "shop");
    ours["metadata"]["labels"] = json!({ WORKLOAD_LABEL: "shop" });
    let of_callers = rule("to-shop", "web", "shop.ns.svc.cluster.local");
    let rows = [
        (None, true),
        (Some(ours), true),
        (Some(of_callers), true),
        (Some(rule("shop", "ns", "shop")), false),
        (Some(rule("wide", "ns", "*.ns.svc.cluster.local")), false),
        (Some(rule("all", "istio-system", "*.local")), false),
    ];
    let annotations = json!({ "lull.dev/connect-timeout": "40s" });
    for (rule, is_written) in rows {
        let service = json!({ "kind": "Service" });
        let workload = json!({ "metadata": { "annotations": annotations } });
        let objects = std::iter::once(service).chain(rule.clone()).collect();
        let mut case = case(workload, objects);
        let plan = plan_of(&case);
        let policy = CallerPolicy {
            connect_timeout: Some(Duration::from_secs(40)),
            pods_first: None,
        };
        let written = BTreeMap::from([("shop".to_owned(), policy)]);
        let expected = if is_written { written } else { BTreeMap::new() };
        assert_eq!(plan.rules, expected, "{rule:?}");
        let step = "create DestinationRule shop-lull: connectTimeout 40s for shop";
        let steps = plan.steps("shop-lull");
        assert_eq!(steps.iter().any(|s| s == step), is_written, "{steps:?}");
        case.outside_mesh = true;
        assert!(plan_of(&case).rules.is_empty(), "{rule:?}");
    }
}

#[test]
fn a_rule_that_has_the_name_of_lull_s_own_is_left_alone_and_told() {
    let annotations = json!({ "lull.dev/connect-timeout": "40s" });
    let workload = json!({ "metadata": { "annotations": annotations } });
    let metadata = json!({ "name": "shop-lull", "namespace": "ns" });
    let spec = json!({ "host": "pay.example" });
    let rule = json!({ "kind": "DestinationRule", "metadata": metadata, "spec": spec });
    let mut case = case(workload, vec![json!({ "kind": "Service" }), rule]);
    let plan = plan_of(&case);
    assert!(plan.rules.is_empty());
    assert!(!plan.is_refused(), "{plan:?}");
    let [found] = &plan.findings[..] else {
        panic!("{plan:?}");
    };
    assert_eq!(found.reason, Reason::LongHold);
    assert_eq!(found.object, "DestinationRule shop-lull");
    assert!(
        found.message.contains(r#""connectTimeout":"40s""#),
        "{found}"
    );
    case.outside_mesh = true;
    assert!(plan_of(&case).findings.is_empty());
}

#[test]
fn long_wakes_are_told_with_the_line_that_is_missing() {
    let annotated = |annotations: Value| json!({ "metadata": { "annotations": annotations } });
    let plain = || annotated(json!({}));
    let rule = |timeout: &str| {
        let pool = json!({ "tcp": { "connectTimeout": timeout } });
        let spec = json!({ "host": "shop", "trafficPolicy": { "connectionPool": pool } });
        json!({ "kind": "DestinationRule", "spec": spec })
    };
    let workload = "Deployment shop took up to ";
    let rows: [(Value, Option<Value>, u64, &[&str]); 8] = [
        (
            plain(),
            None,
            9_000,
            &[
                workload,
                "10s to wake",
                r#"set lull.dev/connect-timeout: "20s""#,
            ],
        ),
        (
            plain(),
            None,
            12_000,
            &["15s to wake", r#"set lull.dev/connect-timeout: "30s""#],
        ),
        (
            plain(),
            None,
            35_000,
            &["40s to wake", r#"set lull.dev/connect-timeout: "60s""#],
        ),
        (
            plain(),
            None,
            50_000,
            &[
                r#"set lull.dev/hold-timeout: "120s" and apply {"#,
                r#""connectTimeout":"120s""#,
            ],
        ),
        (
            annotated(json!({ "lull.dev/connect-timeout": "20s" })),
            None,
            21_000,
            &[r#"set lull.dev/connect-timeout: "60s""#],
        ),
        (
            annotated(json!({ "lull.dev/connect-timeout": "60s", "lull.dev/hold-timeout": "9s" })),
            None,
            11_000,
            &["hold them for 9s", r#"set lull.dev/hold-timeout: "30s""#],
        ),
        (
            plain(),
            Some(rule("12s")),
            11_000,
            &[
                "DestinationRule shop is about Deployment shop, which took up to 15s",
                r#"put into its trafficPolicy {"connectionPool":{"tcp":{"connectTimeout":"30s"}}}"#,
            ],
        ),
        (
            plain(),
            Some(rule("120s")),
            29_000,
            &[r#"; set lull.dev/hold-timeout: "60s" on Deployment shop"#],
        ),
    ];
    for (workload, rule, ms, parts) in rows {
        let service = json!({ "kind": "Service" });
        let mut case = case(workload, std::iter::once(service).chain(rule).collect());
        case.wakes_ms = vec![ms];
        let findings = plan_of(&case).findings;
        let text = match &findings[..] {
            [one] if one.reason == Reason::LongWakes => one.to_string(),
            other => panic!("{ms} ms: {other:?}"),
        };
        for part in parts {
            assert!(text.contains(part), "{ms} ms: no {part:?} in {text}");
        }
    }
}

#[test]
fn what_is_told_of_long_wakes_stays_the_same_from_wake_to_wake() {
    let told = |wakes_ms: &[u64]| {
        let mut case = case(json!({}), vec![json!({ "kind": "Service" })]);
        case.wakes_ms = wakes_ms.to_vec();
        plan_of(&case)
    };
    let first = told(&[11_000]);
    assert_eq!(first.findings.len(), 1);
    assert_eq!(told(&[14_000, 11_000]), first);
    assert_eq!(told(&[900, 10_200, 13_000, 11_000]), first);
    assert!(told(&[900, 10]).findings.is_empty());
}
