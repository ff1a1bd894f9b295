//! What the sidecar asks for.

use super::*;

#[test]
fn the_pod_stays_guaranteed() {
    let equal = json!({ "cpu": "1", "memory": "1Gi" });
    let resources = json!({ "requests": equal, "limits": equal });
    let new = with(
        opted_in(),
        "/spec/template/spec/containers/0/resources",
        resources,
    );
    let ours = sidecar(&create(&new))["resources"].clone();
    assert_eq!(ours["requests"], ours["limits"]);
    assert_eq!(ours["limits"], json!({ "cpu": "25m", "memory": "256Mi" }));

    let burstable = json!({ "requests": { "cpu": "1" }, "limits": equal });
    let new = with(new, "/spec/template/spec/containers/0/resources", burstable);
    let ours = sidecar(&create(&new))["resources"].clone();
    assert_eq!(
        ours["requests"], ours["limits"],
        "an absent request is the limit"
    );

    let none = json!({ "limits": { "memory": "1Gi" } });
    let new = with(new, "/spec/template/spec/containers/0/resources", none);
    let ours = sidecar(&create(&new))["resources"].clone();
    assert_eq!(ours["limits"], json!({ "memory": "256Mi" }));
    assert_eq!(ours["requests"], json!({ "cpu": "25m", "memory": "16Mi" }));
}

#[test]
fn what_the_pod_says_for_all_containers_holds_for_the_sidecar() {
    for (pod, expected) in [
        (
            json!({ "requests": { "cpu": "1" }, "limits": { "memory": "128Mi" } }),
            json!({ "requests": {}, "limits": {} }),
        ),
        (
            json!({ "requests": { "memory": "128Mi" } }),
            json!({ "requests": { "cpu": "25m" }, "limits": {} }),
        ),
    ] {
        let new = with(opted_in(), "/spec/template/spec/resources", pod.clone());
        assert_eq!(sidecar(&create(&new))["resources"], expected, "{pod}");
    }
}
