//! What is changed in a public Service, as JSON patches, and how it is given back.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use lull_contract::{
    names::{HELD_LABEL, ORIGINAL_ANNOTATION, WORKLOAD_LABEL},
    original::{Original, OriginalPort, TargetPort},
    ports::{app_port_of, traffic_port_name},
};
use serde_json::{Value, json};

use super::{PlannedPort, PlannedService};

type Labels = BTreeMap<String, String>;

/// The user's own selector, also while the sentinel stands in its place.
///
/// Every evaluation asks this of every Service of its namespace, so nothing is copied that stands
/// there.
pub(crate) fn user_selector(service: &Service) -> Cow<'_, Labels> {
    match service.spec.as_ref().and_then(|s| s.selector.as_ref()) {
        Some(selector) if !selector.contains_key(HELD_LABEL) => Cow::Borrowed(selector),
        Some(_) => Cow::Owned(original(service).map(|o| o.selector).unwrap_or_default()),
        None => Cow::Owned(Labels::new()),
    }
}

fn original(service: &Service) -> Option<Original> {
    let annotations = service.metadata.annotations.as_ref()?;
    Original::parse(annotations.get(ORIGINAL_ANNOTATION)?)
}

fn is_ours(target: &IntOrString) -> bool {
    matches!(target, IntOrString::String(name) if app_port_of(name).is_some())
}

/// What the user wrote as target of `port`: what stands there, or what stood there before us.
pub(super) fn user_target(service: &Service, port: &ServicePort) -> IntOrString {
    let now = port
        .target_port
        .clone()
        .unwrap_or(IntOrString::Int(port.port));
    if !is_ours(&now) {
        return now;
    }
    let before = original(service).and_then(|o| o.target(port.port).cloned());
    before.map_or(now, |before| match before {
        TargetPort::Number(number) => IntOrString::Int(number),
        TargetPort::Name(name) => IntOrString::String(name),
    })
}

/// The same of a planned port, where the Service still has it.
pub(crate) fn planned_user_target(service: &Service, planned: &PlannedPort) -> Option<IntOrString> {
    let port = ports(service).get(planned.index)?;
    Some(user_target(service, port))
}

/// The spec of `service` as its user has it, also while it is switched and held.
fn user_spec(service: &Service) -> Option<ServiceSpec> {
    let mut spec = service.spec.clone()?;
    if spec.selector.is_some() {
        spec.selector = Some(user_selector(service).into_owned());
    }
    for port in spec.ports.iter_mut().flatten() {
        let target = user_target(service, port);
        port.target_port = Some(target);
    }
    Some(spec)
}

/// Whether plans are made from the same of both, a Service as it was and as it is. What Lull itself
/// changes in it is not among that, but for the note ([`is_noted`]), which one workload looks at.
pub(crate) fn is_planned_alike(a: &Service, b: &Service) -> bool {
    let ours = |service: &Service| {
        let labels = service.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(WORKLOAD_LABEL).cloned())
    };
    ours(a) == ours(b) && user_spec(a) == user_spec(b)
}

/// Whether `service` carries Lull's note of what was there.
pub(crate) fn is_noted(service: &Service) -> bool {
    original(service).is_some()
}

fn noted(target: IntOrString) -> TargetPort {
    match target {
        IntOrString::Int(number) => TargetPort::Number(number),
        IntOrString::String(name) => TargetPort::Name(name),
    }
}

/// The named port that `planned` is to target in `service`: that of its app port's number, but for one
/// that has the number of before in it. That one stays until things are `settled`, when all pods have
/// both.
pub(crate) fn target_name(service: &Service, planned: &PlannedPort, settled: bool) -> String {
    let port = ports(service).get(planned.index);
    let earlier = planned.earlier.iter().filter(|_| !settled);
    let mut names = earlier.map(|number| traffic_port_name(*number));
    names
        .find(|name| port.is_some_and(|port| targets(port, name)))
        .unwrap_or_else(|| traffic_port_name(planned.app_port))
}

fn targets(port: &ServicePort, name: &str) -> bool {
    matches!(&port.target_port, Some(IntOrString::String(target)) if target == name)
}

/// Whether every planned port of `service` is switched to its named port; `settled` as for
/// [`switch_patch`].
#[must_use]
pub fn is_switched(service: &Service, planned: &PlannedService, settled: bool) -> bool {
    let ports = ports(service);
    is_noted(service)
        && planned.ports.iter().all(|p| {
            let name = target_name(service, p, settled);
            ports.get(p.index).is_some_and(|port| targets(port, &name))
        })
}

/// Whether the sentinel stands in the place of the user's selector.
#[must_use]
pub fn is_held(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|s| s.contains_key(HELD_LABEL))
}

/// JSON patch that points the planned ports of `service` at the named ports and writes down what
/// was there; the patch fails if the Service has changed since it was read.
///
/// One that has an app port's earlier number is replaced when things are `settled`: every pod has the
/// new one, too, and no activator is among the endpoints.
#[must_use]
pub fn switch_patch(service: &Service, planned: &PlannedService, settled: bool) -> Value {
    let mut ops = guarded(service);
    let ports = ports(service);
    let original = Original {
        ports: planned
            .ports
            .iter()
            .filter_map(|p| ports.get(p.index))
            .map(|port| OriginalPort {
                port: port.port,
                target_port: noted(user_target(service, port)),
            })
            .collect(),
        selector: user_selector(service).into_owned(),
    };
    if service.metadata.annotations.is_none() {
        ops.push(json!({ "op": "add", "path": "/metadata/annotations", "value": {} }));
    }
    ops.push(json!({ "op": "add", "path": original_path(), "value": original.to_text() }));
    for port in &planned.ports {
        let path = format!("/spec/ports/{}/targetPort", port.index);
        let name = target_name(service, port, settled);
        ops.push(json!({ "op": "add", "path": path, "value": name }));
    }
    Value::Array(ops)
}

/// JSON patch that gives `service` back as the user had it; `None` where it is not ours.
#[must_use]
pub fn restore_patch(service: &Service) -> Option<Value> {
    let original = original(service)?;
    let mut ops = guarded(service);
    let ports = ports(service);
    for (index, port) in ports.iter().enumerate() {
        let ours = port.target_port.as_ref().is_some_and(is_ours);
        let before = original.target(port.port);
        if let (true, Some(before)) = (ours, before) {
            let path = format!("/spec/ports/{index}/targetPort");
            ops.push(json!({ "op": "add", "path": path, "value": before }));
        }
    }
    if is_held(service) {
        ops.push(json!({ "op": "add", "path": "/spec/selector", "value": original.selector }));
    }
    ops.push(json!({ "op": "remove", "path": original_path() }));
    Some(Value::Array(ops))
}

/// JSON patch that puts the sentinel in the place of the user's selector.
#[must_use]
pub fn hold_patch(service: &Service, uid: &str) -> Value {
    let mut ops = guarded(service);
    ops.push(json!({ "op": "add", "path": "/spec/selector", "value": { HELD_LABEL: uid } }));
    Value::Array(ops)
}

/// JSON patch that gives the user's selector back.
#[must_use]
pub fn release_patch(service: &Service) -> Value {
    let mut ops = guarded(service);
    let selector = user_selector(service);
    ops.push(json!({ "op": "add", "path": "/spec/selector", "value": selector }));
    Value::Array(ops)
}

fn ports(service: &Service) -> &[ServicePort] {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default()
}

fn guarded(service: &Service) -> Vec<Value> {
    let version = service
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default();
    vec![json!({ "op": "test", "path": "/metadata/resourceVersion", "value": version })]
}

fn original_path() -> String {
    format!(
        "/metadata/annotations/{}",
        ORIGINAL_ANNOTATION.replace('/', "~1")
    )
}
