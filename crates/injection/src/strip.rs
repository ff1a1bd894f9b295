//! Taking our parts out of a template, whether all of them are there, some, or none.

use lull_contract::names::{
    INJECTED_ANNOTATION, ISTIO_EXCLUDE_INBOUND_PORTS, ISTIO_INCLUDE_INBOUND_PORTS,
    ISTIO_PROXY_CONFIG, POD_LABEL, QUEUE_PROXY_CONTAINER, WAIT_FOR_DRAIN,
};
use serde_json::{Map, Value};

use crate::{Record, SmallPorts, parts, shape};

/// The template as the user wrote it.
///
/// The template's own record says what was ours. Where it is lost, `fallback` does (the record of
/// the object that this one replaces); without either only what is certainly ours goes.
#[must_use]
pub fn strip(template: &Value, fallback: Option<&Record>) -> Value {
    let own = Record::of(template);
    let record = own.as_ref().or(fallback);
    let mut stripped = template.clone();
    if record.is_none() && !has_traces(template) {
        return stripped;
    }
    strip_containers(&mut stripped, record);
    strip_metadata(&mut stripped, record);
    stripped
}

fn has_traces(template: &Value) -> bool {
    let has = |map: &str, key: &str| {
        template
            .pointer(map)
            .is_some_and(|map| map.get(key).is_some())
    };
    has("/metadata/labels", POD_LABEL)
        || has("/metadata/annotations", INJECTED_ANNOTATION)
        || shape::containers(template)
            .any(|c| shape::container_name(c) == Some(QUEUE_PROXY_CONTAINER))
}

fn strip_containers(template: &mut Value, record: Option<&Record>) {
    let Some(containers) = template
        .pointer_mut("/spec/containers")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    containers.retain(|c| shape::container_name(c) != Some(QUEUE_PROXY_CONTAINER));
    let names: Vec<&str> = containers
        .iter()
        .filter_map(shape::container_name)
        .collect();
    let is_gone = |name: &String| !names.contains(&name.as_str());
    let is_one_gone = record.is_some_and(|record| record.pre_stop.iter().any(is_gone));
    for container in containers {
        let Some(name) = shape::container_name(container).map(str::to_owned) else {
            continue;
        };
        let is_ours = record.is_none_or(|record| {
            record.pre_stop.contains(&name) || (is_one_gone && has_our_hook(container, record))
        });
        if !is_ours {
            continue;
        }
        let Some(container) = container.as_object_mut() else {
            continue;
        };
        let place = parts::lifecycle_place(&name);
        remove_from(container, "lifecycle", &place, record, |lifecycle| {
            remove_hook(lifecycle, record.and_then(hold));
        });
    }
}

/// Whether the container's preStop is as the record's: one that is renamed takes our hook along, under
/// a name that no record has.
fn has_our_hook(container: &Value, record: &Record) -> bool {
    let hook = container.pointer("/lifecycle/preStop");
    let called = hook.and_then(|hook| hook.pointer("/httpGet/port"));
    shape::port_number(called) == Some(record.small_ports.admin)
        || hook.is_some_and(|hook| sleeps(hook, hold(record)))
}

/// For how many seconds our preStop sleeps, where it doesn't call.
fn hold(record: &Record) -> Option<u32> {
    record.classic.as_ref().map(|classic| classic.hold_secs)
}

fn sleeps(hook: &Value, seconds: Option<u32>) -> bool {
    let slept = hook.pointer("/sleep/seconds").and_then(Value::as_u64);
    slept.is_some() && slept == seconds.map(u64::from)
}

/// Removes our preStop, known by its path, since the API server adds fields and the port may be another,
/// or by the `seconds` that it sleeps.
///
/// Only our handler goes: where `kubectl apply` has merged the user's new one into the same hook,
/// that one stays.
fn remove_hook(lifecycle: &mut Map<String, Value>, seconds: Option<u32>) {
    let Some(hook) = lifecycle.get_mut("preStop") else {
        return;
    };
    let path = hook.pointer("/httpGet/path").and_then(Value::as_str);
    let ours = if path == Some(WAIT_FOR_DRAIN) {
        "httpGet"
    } else if sleeps(hook, seconds) {
        "sleep"
    } else {
        return;
    };
    let Some(hook) = hook.as_object_mut() else {
        return;
    };
    hook.remove(ours);
    if hook.is_empty() {
        lifecycle.remove("preStop");
    }
}

fn strip_metadata(template: &mut Value, record: Option<&Record>) {
    let Some(template) = template.as_object_mut() else {
        return;
    };
    remove_from(template, "metadata", "metadata", record, |metadata| {
        remove_from(metadata, "labels", "labels", record, |labels| {
            labels.remove(POD_LABEL);
        });
        remove_from(
            metadata,
            "annotations",
            "annotations",
            record,
            |annotations| {
                annotations.remove(INJECTED_ANNOTATION);
                restore_excluded_ports(annotations, record);
                restore_included_ports(annotations, record);
                restore_proxy_config(annotations, record);
            },
        );
    });
}

/// Runs `remove` on the map at `key`, which goes too if that emptied it and we had made it.
fn remove_from(
    parent: &mut Map<String, Value>,
    key: &str,
    place: &str,
    record: Option<&Record>,
    remove: impl FnOnce(&mut Map<String, Value>),
) {
    let Some(map) = parent.get_mut(key).and_then(Value::as_object_mut) else {
        return;
    };
    let was_empty = map.is_empty();
    remove(map);
    let keep = record.is_some_and(|record| record.keep_empty.iter().any(|kept| kept == place));
    if map.is_empty() && !was_empty && !keep {
        parent.remove(key);
    }
}

/// What Istio is told to exclude, without our ports; a list that lacks one of them is the user's.
fn restore_excluded_ports(annotations: &mut Map<String, Value>, record: Option<&Record>) {
    let Some(current) = annotations
        .get(ISTIO_EXCLUDE_INBOUND_PORTS)
        .and_then(Value::as_str)
    else {
        return;
    };
    let before = record.and_then(|record| record.exclude_inbound_ports.as_deref());
    let ours = record.map_or_else(
        || SmallPorts::default().all().to_vec(),
        Record::excluded_ports,
    );
    if current == parts::excluded_ports(before, &ours) {
        match before {
            Some(before) => annotations.insert(ISTIO_EXCLUDE_INBOUND_PORTS.into(), before.into()),
            None => annotations.remove(ISTIO_EXCLUDE_INBOUND_PORTS),
        };
        return;
    }
    let added = parts::added_ports(before, &ours);
    let items: Vec<&str> = current.split(',').map(str::trim).collect();
    if added.is_empty() || !added.iter().all(|port| items.contains(&port.as_str())) {
        return;
    }
    let rest: Vec<&str> = items
        .into_iter()
        .filter(|item| !added.iter().any(|port| port == item))
        .collect();
    if rest.is_empty() {
        annotations.remove(ISTIO_EXCLUDE_INBOUND_PORTS);
    } else {
        let rest = rest.join(",");
        annotations.insert(ISTIO_EXCLUDE_INBOUND_PORTS.into(), rest.into());
    }
}

/// What Istio is told to capture, without our ports; a list that lacks one of them, or has nothing
/// else, is the user's.
fn restore_included_ports(annotations: &mut Map<String, Value>, record: Option<&Record>) {
    let current = annotations
        .get(ISTIO_INCLUDE_INBOUND_PORTS)
        .and_then(Value::as_str);
    let included = record.and_then(|record| record.include_inbound_ports.as_ref());
    let (Some(current), Some(included)) = (current, included) else {
        return;
    };
    let users = if current == parts::included_ports(included) {
        included.before.clone()
    } else {
        let added: Vec<String> = included.added.iter().map(u16::to_string).collect();
        let (ours, users): (Vec<&str>, Vec<&str>) = current
            .split(',')
            .map(str::trim)
            .partition(|item| added.iter().any(|port| port == item));
        if users.is_empty() || !added.iter().all(|port| ours.contains(&port.as_str())) {
            return;
        }
        users.join(",")
    };
    annotations.insert(ISTIO_INCLUDE_INBOUND_PORTS.into(), users.into());
}

/// The settings of Istio's proxy without ours; settings that are not as we wrote them are the user's.
fn restore_proxy_config(annotations: &mut Map<String, Value>, record: Option<&Record>) {
    let classic = record.and_then(|record| record.classic.as_ref());
    let Some(config) = classic.and_then(|classic| classic.proxy_config.as_ref()) else {
        return;
    };
    let current = annotations.get(ISTIO_PROXY_CONFIG).and_then(Value::as_str);
    if current != Some(config.now.as_str()) {
        return;
    }
    match &config.before {
        Some(before) => annotations.insert(ISTIO_PROXY_CONFIG.into(), before.clone().into()),
        None => annotations.remove(ISTIO_PROXY_CONFIG),
    };
}
