//! Templates whose pods get an ordinary istio-proxy.

use lull_contract::names::{ISTIO_INJECT, ISTIO_NATIVE_SIDECAR, ISTIO_PROXY_CONFIG};

use super::*;

const CONTAINER: &str = "/spec/template/spec/containers/0";
/// What the proxy is told where nobody has told it anything.
const TOLD: &str = r#"{"proxyMetadata":{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS":"true","MINIMUM_DRAIN_DURATION":"15s"}}"#;

fn classic() -> Value {
    with_pod_annotations(json!({ ISTIO_NATIVE_SIDECAR: "false" }))
}

fn by_default() -> InjectConfig {
    InjectConfig {
        classic_proxies: true,
        ..config()
    }
}

/// The hook that keeps the app's container.
fn hook(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]
}

fn is_classic(object: &Value) -> bool {
    assert_eq!(
        hook(object).get("sleep").is_some(),
        sidecar(object).get("lifecycle").is_none()
    );
    hook(object).get("sleep").is_some()
}

#[test]
fn no_hook_calls_by_an_agent_that_ends_with_the_app() {
    let new = classic();
    let injected = create(&new);
    assert_eq!(*hook(&injected), json!({ "sleep": { "seconds": 12 } }));
    assert!(sidecar(&injected).get("lifecycle").is_none());
    assert_eq!(annotation(&injected, ISTIO_PROXY_CONFIG), Some(TOLD));
    assert_eq!(strip(template(&injected), None), *template(&new));
    assert_eq!(update(&injected, &injected), injected);
    assert_eq!(update(&injected, &new), injected, "applied again");
    let native = create(&opted_in());
    assert_eq!(annotation(&native, ISTIO_PROXY_CONFIG), None);
}

#[test]
fn the_template_goes_before_the_operator_s_default() {
    let by_default = |new: &Value| mutate(None, new, &by_default()).unwrap().object;
    assert!(is_classic(&by_default(&opted_in())));
    let rows = [
        (ISTIO_NATIVE_SIDECAR, "true", false),
        (ISTIO_NATIVE_SIDECAR, "false", true),
        (ISTIO_NATIVE_SIDECAR, "", true),
        (ISTIO_INJECT, "false", false),
        (ISTIO_INJECT, "true", true),
    ];
    for (key, value, expected) in rows {
        let new = with_pod_annotations(json!({ key: value }));
        assert_eq!(is_classic(&by_default(&new)), expected, "{key}: {value}");
    }
    let labels = json!({ "app": "shop", ISTIO_INJECT: "false" });
    let new = with(opted_in(), "/spec/template/metadata/labels", labels);
    assert!(!is_classic(&by_default(&new)), "a label");
}

#[test]
fn a_changed_default_waits_for_the_next_rollout_and_stays_while_leaving() {
    let old = create(&opted_in());
    let same = mutate(Some(&old), &old, &by_default()).unwrap().object;
    assert_eq!(same, old);
    let image = format!("{CONTAINER}/image");
    let rolled = with(old.clone(), &image, json!("shop:2"));
    let rolled = mutate(Some(&old), &rolled, &by_default()).unwrap().object;
    assert!(is_classic(&rolled));
    let leaving = without(rolled.clone(), "/metadata/annotations/lull.dev~1scale");
    let leaving = with(leaving, &image, json!("shop:3"));
    assert!(is_classic(&update(&rolled, &leaving)), "by its record");
}

#[test]
fn what_the_user_tells_the_proxy_stays() {
    let none = [
        "[]",
        "proxyMetadata: []",
        "a: b: c",
        r#"{"proxyMetadata":{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS":"false","MINIMUM_DRAIN_DURATION":"1s"}}"#,
    ];
    let merged = [
        ("", TOLD.to_owned()),
        (
            "holdApplicationUntilProxyStarts: yes\n",
            format!(r#"{{"holdApplicationUntilProxyStarts":true,{}"#, &TOLD[1..]),
        ),
        (
            "proxyMetadata:\n  MINIMUM_DRAIN_DURATION: 20s\n",
            r#"{"proxyMetadata":{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS":"true","MINIMUM_DRAIN_DURATION":"20s"}}"#
                .to_owned(),
        ),
    ];
    let kept = none.map(|text| (text, text.to_owned()));
    for (users, expected) in merged.into_iter().chain(kept) {
        let annotations = json!({ ISTIO_NATIVE_SIDECAR: "false", ISTIO_PROXY_CONFIG: users });
        let new = with_pod_annotations(annotations);
        let injected = create(&new);
        let told = annotation(&injected, ISTIO_PROXY_CONFIG).unwrap();
        let [told, expected] = [told, &expected].map(|text| {
            let value: Result<Value, _> = serde_json::from_str(text);
            value.unwrap_or_else(|_| text.into())
        });
        assert_eq!(told, expected, "{users}");
        assert_eq!(strip(template(&injected), None), *template(&new), "{users}");
    }
}

#[test]
fn a_short_grace_period_is_shared_and_none_has_no_hook() {
    let grace = "/spec/template/spec/terminationGracePeriodSeconds";
    for (seconds, hold) in [(60, Some(12)), (20, Some(10)), (2, Some(1)), (1, None)] {
        let new = with(classic(), grace, json!(seconds));
        let injected = create(&new);
        let slept = hook(&injected)["sleep"]["seconds"].as_u64();
        assert_eq!(slept, hold, "{seconds}");
        assert_eq!(strip(template(&injected), None), *template(&new));
    }
}

#[test]
fn our_hook_goes_with_a_renamed_container_and_a_user_s_stays() {
    let old = create(&classic());
    let renamed = with(old, &format!("{CONTAINER}/name"), json!("web"));
    let expected = with(classic(), &format!("{CONTAINER}/name"), json!("web"));
    assert_eq!(strip(template(&renamed), None), *template(&expected));

    let own = json!({ "preStop": { "sleep": { "seconds": 12 } } });
    let new = with(classic(), &format!("{CONTAINER}/lifecycle"), own);
    assert_eq!(strip(template(&create(&new)), None), *template(&new));
}
