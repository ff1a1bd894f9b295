//! What becomes of a public Service that Lull has switched when somebody else writes it: a pure
//! function of the old object and the new one.
//!
//! ```text
//! a manifest that is applied again --> exactly what was there: no write, nothing to fight about
//! another target of a port ----------> the user's, noted as the original; the autoscaler goes on from it
//! another selector, or another type -> the Service is the user's again; the autoscaler plans it anew
//! ```
//!
//! Lull's own writes don't come here: the chart's webhook configuration lets them pass.

use std::collections::BTreeMap;

use lull_contract::{
    names::{HELD_LABEL, ORIGINAL_ANNOTATION},
    original::{Original, OriginalPort, TargetPort},
    ports::app_port_of,
};
use serde_json::{Map, Value, json};

use crate::inject::Mutation;

type Labels = BTreeMap<String, String>;

/// Decides what becomes of the Service `new`, which replaces `old`.
#[must_use]
pub fn keep(old: &Value, new: &Value) -> Mutation {
    let mut mutation = Mutation {
        object: new.clone(),
        warnings: Vec::new(),
    };
    let is_deleted = new.pointer("/metadata/deletionTimestamp").is_some();
    let is_understood = new["metadata"].is_object() && new["spec"].is_object();
    let (false, true, Some((text, original))) = (is_deleted, is_understood, original(old)) else {
        return mutation;
    };
    let mut selector = user_selector(new, &original);
    if is_held(new) && applied(new) == applied(old) {
        // A patch names some keys, and means the others to stay.
        selector = original
            .selector
            .clone()
            .into_iter()
            .chain(selector)
            .collect();
    }
    let is_other = selector != user_selector(old, &original);
    if is_other || new["spec"]["type"] == "ExternalName" {
        give_back(&mut mutation.object, &original, &selector);
        return mutation;
    }
    keep_selector(&mut mutation.object, old);
    let noted = keep_ports(&mut mutation.object, old, original.clone());
    let text = if noted == original {
        text.to_owned()
    } else {
        noted.to_text()
    };
    note(&mut mutation.object, &text);
    mutation
}

/// Lull's note on a Service, as text and as what it says.
fn original(service: &Value) -> Option<(&str, Original)> {
    let annotations = service.pointer("/metadata/annotations")?;
    let text = annotations.get(ORIGINAL_ANNOTATION)?.as_str()?;
    Some((text, Original::parse(text)?))
}

fn labels(map: &Value) -> Labels {
    serde_json::from_value(map.clone()).unwrap_or_default()
}

fn is_held(service: &Value) -> bool {
    service["spec"]["selector"].get(HELD_LABEL).is_some()
}

/// What `kubectl apply` notes of the manifest, if it was that.
fn applied(service: &Value) -> Option<&Value> {
    let annotations = service.pointer("/metadata/annotations")?;
    annotations.get("kubectl.kubernetes.io/last-applied-configuration")
}

/// The user's own selector in `service`.
///
/// `kubectl apply` adds its keys to the sentinel, which is in no manifest, and server-side apply puts
/// its own in the sentinel's place: what stands beside the sentinel is the whole of what the manifest
/// says.
fn user_selector(service: &Value, original: &Original) -> Labels {
    let mut selector = labels(&service["spec"]["selector"]);
    if selector.remove(HELD_LABEL).is_some() && selector.is_empty() {
        return original.selector.clone();
    }
    selector
}

/// The sentinel as it was, or the user's selector without one.
fn keep_selector(service: &mut Value, old: &Value) {
    let before = &old["spec"]["selector"];
    if let Some(held) = before.get(HELD_LABEL) {
        service["spec"]["selector"] = json!({ HELD_LABEL: held });
    } else if service["spec"]["selector"] != *before {
        // The users' parts are equal, so it is a sentinel that nobody but Lull may set.
        service["spec"]["selector"] = before.clone();
    }
}

/// Puts named ports back where the user says what was there before them; returns what the user has
/// said in the end.
fn keep_ports(service: &mut Value, old: &Value, mut original: Original) -> Original {
    for port in tcp_ports(service) {
        let Some((number, target)) = number_and_target(port) else {
            continue;
        };
        let noted = original.ports.iter_mut().find(|p| p.port == number);
        match (served(&target), noted) {
            // As Lull left it; or a new port, which the autoscaler switches where the pods serve it.
            (Some(_), Some(_)) | (None, None) => {}
            // Copied from a port that Lull has switched: the user means the app's port.
            (Some(app_port), None) => original.ports.push(OriginalPort {
                port: number,
                target_port: TargetPort::Number(app_port.into()),
            }),
            (None, Some(noted)) if noted.target_port == target => {
                if let Some(ours) = switched_target(old, number) {
                    port["targetPort"] = ours.clone();
                }
            }
            // A new target. The autoscaler knows whether the pods serve it, and switches it then;
            // until then callers reach it as they would without Lull.
            (None, Some(noted)) => noted.target_port = target,
        }
    }
    original
}

/// The Service as the user has it, without anything of Lull.
fn give_back(service: &mut Value, original: &Original, selector: &Labels) {
    for port in tcp_ports(service) {
        let Some((number, target)) = number_and_target(port) else {
            continue;
        };
        if let Some(app_port) = served(&target) {
            port["targetPort"] = match original.target(number) {
                Some(TargetPort::Name(name)) => json!(name),
                Some(TargetPort::Number(number)) => json!(number),
                None => json!(app_port),
            };
        }
    }
    if is_held(service) {
        service["spec"]["selector"] = json!(selector);
    }
    let annotations = service
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.remove(ORIGINAL_ANNOTATION);
    }
}

/// Writes Lull's note, also where a manifest that replaces everything has taken it away.
fn note(service: &mut Value, text: &str) {
    let Some(metadata) = service["metadata"].as_object_mut() else {
        return;
    };
    let annotations = metadata
        .entry("annotations")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(ORIGINAL_ANNOTATION.to_owned(), text.into());
    }
}

/// The ports that Lull may have switched.
fn tcp_ports(service: &mut Value) -> impl Iterator<Item = &mut Value> {
    let ports = service
        .pointer_mut("/spec/ports")
        .and_then(Value::as_array_mut);
    ports.into_iter().flatten().filter(|port| is_tcp(port))
}

fn is_tcp(port: &Value) -> bool {
    port["protocol"].as_str().unwrap_or("TCP") == "TCP"
}

fn port_number(port: &Value) -> Option<i32> {
    i32::try_from(port["port"].as_i64()?).ok()
}

/// A port's number, and its target, which is the number where none is named.
fn number_and_target(port: &Value) -> Option<(i32, TargetPort)> {
    let number = port_number(port)?;
    let target = match &port["targetPort"] {
        Value::Null => TargetPort::Number(number),
        target => serde_json::from_value(target.clone()).ok()?,
    };
    Some((number, target))
}

/// The app port behind one of Lull's named ports.
fn served(target: &TargetPort) -> Option<u16> {
    match target {
        TargetPort::Name(name) => app_port_of(name),
        TargetPort::Number(_) => None,
    }
}

/// The named port that stood at `number`, if Lull had switched it.
fn switched_target(old: &Value, number: i32) -> Option<&Value> {
    let ports = old["spec"]["ports"].as_array()?;
    let mut same = ports
        .iter()
        .filter(|port| is_tcp(port) && port_number(port) == Some(number));
    let target = &same.next()?["targetPort"];
    app_port_of(target.as_str()?).map(|_| target)
}

#[cfg(test)]
mod tests;
