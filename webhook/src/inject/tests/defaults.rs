//! Cluster-wide defaults: they are in what is rendered afresh, and no reason to render it.

use super::*;

const APP_IMAGE: &str = "/spec/template/spec/containers/0/image";

/// Injected with the built-in defaults.
fn stored(annotations: &Value) -> Value {
    defaulted(create(&deployment(annotations)))
}

fn annotated(object: &Value, key: &str, value: &str) -> Value {
    let mut object = object.clone();
    object["metadata"]["annotations"][key] = value.into();
    object
}

fn updated(old: &Value, new: &Value, config: &InjectConfig) -> Value {
    mutate(Some(old), new, config).expect("admitted").object
}

#[test]
fn a_fresh_injection_has_them_and_the_workloads_own_value_wins() {
    let config = defaults(&[
        ("timeout", "20s"),
        ("idle-timeout", "5s"),
        ("sidecar-memory-limit", "1Gi"),
    ]);
    let new = deployment(&json!({ "lull.dev/scale": "true", "lull.dev/idle-timeout": "7s" }));
    let injected = mutate(None, &new, &config).expect("admitted").object;
    assert_eq!(env(&injected, "QP_TIMEOUT").as_deref(), Some("20s"));
    assert_eq!(env(&injected, "QP_IDLE_TIMEOUT").as_deref(), Some("7s"));
    assert_eq!(sidecar(&injected)["resources"]["limits"]["memory"], "1Gi");
}

#[test]
fn a_changed_default_alone_never_changes_a_template() {
    let config = defaults(&[
        ("timeout", "20s"),
        ("idle-timeout", "5s"),
        ("container-concurrency", "10"),
        ("access-log", "true"),
        ("sidecar-cpu-limit", "1"),
        ("window", "30s"),
    ]);
    let own = json!({ "lull.dev/scale": "true", "lull.dev/timeout": "300s" });
    for old in [stored(&json!({ "lull.dev/scale": "true" })), stored(&own)] {
        for new in [
            old.clone(),
            annotated(&old, "lull.dev/window", "6s"),
            annotated(&old, "team", "shop"),
            // What `kubectl replace` and helm send: nothing of ours.
            with(
                deployment(&old["metadata"]["annotations"]),
                "/spec/template",
                strip(template(&old), None),
            ),
        ] {
            let object = updated(&old, &new, &config);
            assert_eq!(template(&object), template(&old));
        }
    }
}

#[test]
fn the_users_next_change_of_template_or_sidecar_takes_them() {
    let config = defaults(&[("timeout", "20s")]);
    let old = stored(&json!({ "lull.dev/scale": "true" }));
    for new in [
        with(old.clone(), APP_IMAGE, json!("shop:2")),
        annotated(&old, "lull.dev/idle-timeout", "7s"),
    ] {
        let object = updated(&old, &new, &config);
        assert_eq!(env(&object, "QP_TIMEOUT").as_deref(), Some("20s"));
    }
    // An annotation that goes makes room for the default; one that says the same is taken, too.
    let own = stored(&json!({ "lull.dev/scale": "true", "lull.dev/timeout": "300s" }));
    let gone = without(own.clone(), "/metadata/annotations/lull.dev~1timeout");
    let object = updated(&own, &gone, &config);
    assert_eq!(env(&object, "QP_TIMEOUT").as_deref(), Some("20s"));
    let said = annotated(&old, "lull.dev/timeout", "20s");
    let object = updated(&old, &said, &config);
    assert_eq!(env(&object, "QP_TIMEOUT").as_deref(), Some("20s"));
}

#[test]
fn an_annotation_that_missed_the_webhook_is_taken_by_the_next_update() {
    let old = annotated(
        &stored(&json!({ "lull.dev/scale": "true" })),
        "lull.dev/timeout",
        "9s",
    );
    let object = updated(&old, &old, &defaults(&[("idle-timeout", "5s")]));
    assert_eq!(env(&object, "QP_TIMEOUT").as_deref(), Some("9s"));
    assert_eq!(env(&object, "QP_IDLE_TIMEOUT").as_deref(), Some("5s"));
}

#[test]
fn a_default_never_refuses_a_workload() {
    let config = defaults(&[("max-scale", "2"), ("sidecar-memory-limit", "16Mi")]);
    let own = json!({
        "lull.dev/scale": "true",
        "lull.dev/min-scale": "5",
        "lull.dev/sidecar-memory-request": "64Mi",
    });
    let injected = mutate(None, &deployment(&own), &config)
        .expect("admitted")
        .object;
    assert_eq!(sidecar(&injected)["resources"]["limits"]["memory"], "64Mi");
}

#[test]
fn the_collector_of_spans_comes_with_the_next_injection_and_stays() {
    let config = InjectConfig {
        otlp_endpoint: Some("http://otel:4318".parse().unwrap()),
        ..super::config()
    };
    let variable = |object: &Value| env(object, "QP_OTLP_ENDPOINT");
    let old = stored(&json!({ "lull.dev/scale": "true" }));
    assert_eq!(variable(&old), None);
    let object = updated(&old, &old, &config);
    assert_eq!(template(&object), template(&old), "no rollout for it alone");
    let rolled = updated(
        &old,
        &with(old.clone(), APP_IMAGE, json!("shop:2")),
        &config,
    );
    assert_eq!(variable(&rolled).as_deref(), Some("http://otel:4318"));
    // The workload leaves: what it runs with is in its record.
    let leaving = without(rolled.clone(), "/metadata/annotations/lull.dev~1scale");
    let leaving = with(leaving, APP_IMAGE, json!("shop:3"));
    let object = updated(&rolled, &leaving, &super::config());
    assert_eq!(variable(&object).as_deref(), Some("http://otel:4318"));
}
