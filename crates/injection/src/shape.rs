//! Reading JSON that may be anything, and saying what of it is not understood.

use std::collections::BTreeMap;

use lull_contract::names::{self, INJECTED_ANNOTATION, NOT_APP_CONTAINERS, QUEUE_PROXY_CONTAINER};
use serde_json::Value;

/// The object's name; on creation with `generateName` there is none yet.
#[must_use]
pub fn name(object: &Value) -> Option<&str> {
    object
        .pointer("/metadata/name")?
        .as_str()
        .filter(|name| !name.is_empty())
}

/// The object's kind, which every object that is admitted names.
#[must_use]
pub fn kind(object: &Value) -> &str {
    let kind = object.get("kind").and_then(Value::as_str);
    kind.unwrap_or("object")
}

/// What Lull calls the workload, where it has a name.
#[must_use]
pub fn workload_id(object: &Value) -> Option<String> {
    name(object).map(|name| names::workload_id(kind(object), name))
}

/// The strings of a map of strings; anything else is no entry.
#[must_use]
pub fn string_map(map: Option<&Value>) -> BTreeMap<String, String> {
    map.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The elements of the list at `key`; none where it is absent or no list.
pub fn list<'a>(parent: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    parent
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The template's containers.
pub fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    template
        .get("spec")
        .into_iter()
        .flat_map(|spec| list(spec, "containers"))
}

/// The template's init containers, among them native sidecars.
pub fn init_containers(template: &Value) -> impl Iterator<Item = &Value> {
    template
        .get("spec")
        .into_iter()
        .flat_map(|spec| list(spec, "initContainers"))
}

/// The user's own containers.
pub fn app_containers(template: &Value) -> impl Iterator<Item = &Value> {
    containers(template).filter(|container| is_app(container))
}

/// Whether this is one of the user's own containers.
#[must_use]
pub fn is_app(container: &Value) -> bool {
    container_name(container).is_some_and(|name| !NOT_APP_CONTAINERS.contains(&name))
}

/// The container's name.
#[must_use]
pub fn container_name(container: &Value) -> Option<&str> {
    container.get("name")?.as_str()
}

/// A whole number that is a port.
#[must_use]
pub fn port_number(value: Option<&Value>) -> Option<u16> {
    let number = u16::try_from(value?.as_u64()?).ok()?;
    (number > 0).then_some(number)
}

/// Whether the template has our container and our record of it.
#[must_use]
pub fn is_injected(template: &Value) -> bool {
    template
        .pointer("/metadata/annotations")
        .is_some_and(|annotations| annotations.get(INJECTED_ANNOTATION).is_some())
        && containers(template).any(|c| container_name(c) == Some(QUEUE_PROXY_CONTAINER))
}

/// The template, if everything that we write to has the shape that Kubernetes gives it.
///
/// # Errors
/// What is not as it should be.
pub fn understood(template: Option<&Value>) -> Result<&Value, String> {
    let template = template.ok_or("spec.template is missing")?;
    let object_or_absent = |pointer: &str| match template.pointer(pointer) {
        Some(value) if !value.is_object() => {
            let path = pointer.replace('/', ".");
            Err(format!("spec.template{path} is not an object"))
        }
        _ => Ok(()),
    };
    for pointer in ["", "/metadata", "/metadata/labels", "/metadata/annotations"] {
        object_or_absent(pointer)?;
    }
    let containers = template
        .pointer("/spec/containers")
        .and_then(Value::as_array)
        .ok_or("spec.template.spec.containers is not a list")?;
    for container in containers {
        let name = container_name(container).ok_or("a container of spec.template has no name")?;
        if container
            .get("lifecycle")
            .is_some_and(|lifecycle| !lifecycle.is_object())
        {
            return Err(format!(
                "the lifecycle of container {name} is not an object"
            ));
        }
    }
    if !containers.iter().any(is_app) {
        return Err("spec.template has no container of the app".to_owned());
    }
    Ok(template)
}
