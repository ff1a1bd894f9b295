//! What a template needs where istio-proxy is an ordinary container ("classic") and no native sidecar.
//!
//! A native one ends after all others. An ordinary one is told to end at the same moment as the app's
//! containers: its agent, by which Istio has the kubelet make every HTTP hook of a container, takes no
//! call from then on, and five seconds later it is gone. So the app's containers are kept by a hook that
//! calls nobody, and the proxy is told to wait until the drain is over and nobody is connected.

use lull_contract::names::{ISTIO_INJECT, ISTIO_NATIVE_SIDECAR, ISTIO_PROXY_CONFIG};
use lull_injection::{Classic, ProxyConfig};
use serde_json::{Map, Value, json};

/// For how long the app's containers are kept: the sidecar's shortest drain, and time for it to end.
const HOLD_SECS: u32 = 12;
/// For how much longer the proxy stays, whoever is connected: an app that is told to end may still call
/// others.
const LONGER_SECS: u32 = 3;

/// What pods of the template `base` need, which have `grace_secs` to end; `None` where istio-proxy is a
/// native sidecar, as the template or else `by_default` says, or where there is none.
pub(super) fn needed(base: &Value, by_default: bool, grace_secs: u64) -> Option<Classic> {
    let said = |map: &str, key: &str| {
        let value = base.pointer("/metadata")?.get(map)?.get(key)?.as_str()?;
        Some(value).filter(|value| !value.is_empty())
    };
    let mut maps = ["labels", "annotations"].into_iter();
    let is_outside = maps.any(|map| said(map, ISTIO_INJECT) == Some("false"));
    let native = said("annotations", ISTIO_NATIVE_SIDECAR);
    let is_classic = native.map_or(by_default && !is_outside, |native| native == "false");
    is_classic.then(|| Classic {
        hold_secs: hold_secs(grace_secs),
        proxy_config: None,
    })
}

/// At most half of the time that a pod has to end: the app wants some of it, too.
fn hold_secs(grace_secs: u64) -> u32 {
    let half = u32::try_from(grace_secs / 2).unwrap_or(HOLD_SECS);
    half.min(HOLD_SECS)
}

/// The hook that keeps the app's containers, where there is time for one.
pub(super) fn pre_stop(classic: &Classic) -> Option<Value> {
    let seconds = classic.hold_secs;
    (seconds > 0).then(|| json!({ "sleep": { "seconds": seconds } }))
}

/// Tells the proxy, by the pod's `annotations`, when it may end; says what was done to them.
pub(super) fn tell_proxy(
    annotations: &mut Map<String, Value>,
    hold_secs: u32,
) -> Option<ProxyConfig> {
    let before = annotations.get(ISTIO_PROXY_CONFIG).and_then(Value::as_str);
    let before = before.map(str::to_owned);
    let now = merged(before.as_deref(), hold_secs)?;
    annotations.insert(ISTIO_PROXY_CONFIG.to_owned(), now.clone().into());
    Some(ProxyConfig { before, now })
}

/// The settings `before` with ours. None where the user's say all of it, and where they are not
/// understood: Istio then has what the user wrote.
fn merged(before: Option<&str>, hold_secs: u32) -> Option<String> {
    let mut config = before.map_or_else(|| Some(Map::new()), read)?;
    let metadata = config
        .entry("proxyMetadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()?;
    let users = metadata.len();
    let least = format!("{}s", hold_secs.saturating_add(LONGER_SECS));
    for (name, value) in [
        ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"),
        ("MINIMUM_DRAIN_DURATION", least.as_str()),
    ] {
        metadata.entry(name).or_insert_with(|| value.into());
    }
    (metadata.len() > users).then(|| Value::Object(config).to_string())
}

/// JSON is taken as it is; of other YAML, such words as `yes` are read as Istio reads them.
fn read(text: &str) -> Option<Map<String, Value>> {
    let json = serde_json::from_str(text).ok();
    json.or_else(|| serde_saphyr::from_str(text).ok())
}
