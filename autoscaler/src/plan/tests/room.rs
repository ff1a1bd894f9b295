//! What is said of ResourceQuotas and LimitRanges.

use super::*;

fn range(item: Value) -> Value {
    let mut item = item;
    item["type"] = json!("Container");
    json!({ "kind": "LimitRange", "spec": { "limits": [item] } })
}

#[test]
fn a_bound_that_the_sidecar_breaks_is_told_with_the_line_that_keeps_it() {
    let quota = |hard: Value| json!({ "kind": "ResourceQuota", "spec": { "hard": hard } });
    let rows = [
        (
            quota(json!({ "limits.cpu": "4" })),
            "set lull.dev/sidecar-cpu-limit",
        ),
        (
            quota(json!({ "limits.memory": "100Mi" })),
            "has limits of memory of 100Mi, and a pod takes 256Mi at least",
        ),
        (
            range(json!({ "maxLimitRequestRatio": { "memory": "4" } })),
            "at most 4 times of its request, and the sidecar has 256Mi of 16Mi: set \
             lull.dev/sidecar-memory-request: \"64Mi\"",
        ),
        (
            range(json!({ "max": { "memory": "128Mi" } })),
            "set lull.dev/sidecar-memory-limit: \"128Mi\"",
        ),
        (
            range(json!({ "min": { "memory": "32Mi" } })),
            "set lull.dev/sidecar-memory-request: \"32Mi\"",
        ),
        (
            range(json!({ "default": { "cpu": "10m" } })),
            "limit is 10m by default, and its request is 25m: set lull.dev/sidecar-cpu-limit: \
             \"25m\"",
        ),
    ];
    for (object, expected) in rows {
        let text = findings_of(
            json!({}),
            vec![json!({ "kind": "Service" }), object.clone()],
        );
        assert!(text.contains(expected), "{object}: {text}");
    }
}

#[test]
fn what_is_told_to_be_set_is_enough() {
    let ranges = [
        range(json!({ "maxLimitRequestRatio": { "memory": "1.5" } })),
        range(json!({ "max": { "memory": "100M" } })),
        range(json!({ "min": { "memory": "20000001" } })),
    ];
    for range in ranges {
        let service = || json!({ "kind": "Service" });
        let text = findings_of(json!({}), vec![service(), range.clone()]);
        let (_, told) = text.split_once(": set ").unwrap();
        let (key, told) = told.split_once(": \"").unwrap();
        let (value, _) = told.split_once('"').unwrap();
        let workload = json!({ "metadata": { "annotations": { key: value } } });
        let text = findings_of(workload, vec![service(), range.clone()]);
        assert_eq!(text, "", "{range}: {key}={value}");
    }
}

#[test]
fn what_lets_no_pod_be_made_keeps_awake_only_who_has_pods() {
    let no_pods = || json!({ "kind": "ResourceQuota", "spec": { "hard": { "pods": "0" } } });
    let headless = || json!({ "kind": "Service", "spec": { "clusterIP": "None" } });
    let service = || json!({ "kind": "Service" });
    for (objects, with_pods, without) in [
        (vec![service()], false, false),
        (vec![service(), no_pods()], true, false),
        (vec![headless()], true, true),
        (vec![headless(), no_pods()], true, true),
    ] {
        let plan = plan_of(&case(json!({}), objects));
        let kept = [true, false].map(|has_pods| plan.keeps_awake(has_pods));
        assert_eq!(kept, [with_pods, without], "{:?}", plan.findings);
    }
}
