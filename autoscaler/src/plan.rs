//! Which Services a workload's traffic comes by, what has to be changed in them, and what stands
//! in the way. Pure: objects in, JSON patches out.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use lull_contract::{
    names::{HELD_LABEL, ORIGINAL_ANNOTATION, WORKLOAD_LABEL},
    ports::{app_port_of, traffic_port_name},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

type Labels = BTreeMap<String, String>;

/// What of a workload's pod template matters for its Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// Labels of the pods.
    pub labels: Labels,
    /// Named container ports.
    pub named_ports: Vec<(String, u16)>,
    /// App ports that Lull serves.
    pub app_ports: Vec<u16>,
    /// A headless Service beside the others gives the pods their names, as StatefulSets want it;
    /// connections by it go round the queue-proxy and are seen there.
    pub headless_sibling: bool,
}

/// A Service that carries the workload's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedService {
    /// Name of the Service.
    pub name: String,
    /// Its TCP ports.
    pub ports: Vec<PlannedPort>,
}

/// One TCP port of a planned Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPort {
    /// Place in `spec.ports`.
    pub index: usize,
    /// Name of the Service port.
    pub name: Option<String>,
    /// `appProtocol` of the Service port.
    pub app_protocol: Option<String>,
    /// Number of the Service port.
    pub port: i32,
    /// App port behind it.
    pub app_port: u16,
}

/// Why a workload can't be enrolled, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// A word for conditions and Events.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// What stood in a Service before Lull changed it (value of [`ORIGINAL_ANNOTATION`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    ports: Vec<OriginalPort>,
    selector: Labels,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OriginalPort {
    port: i32,
    target_port: IntOrString,
}

/// Every Service of the namespace that selects the template's pods, or all that stands in the way.
///
/// `others` are name (with kind) and template labels of the namespace's other workloads.
///
/// # Errors
/// The obstacles, in the order of the Services.
pub fn plan(
    template: &Template,
    services: &[&Service],
    others: &[(String, Labels)],
) -> Result<Vec<PlannedService>, Vec<Obstacle>> {
    let (mut planned, mut obstacles) = (Vec::new(), Vec::new());
    for service in services.iter().filter(|s| selects(s, &template.labels)) {
        if template.headless_sibling && is_headless(service) {
            continue;
        }
        match plan_service(template, service, others) {
            Ok(service) => planned.push(service),
            Err(obstacle) => obstacles.push(obstacle),
        }
    }
    if planned.is_empty() && obstacles.is_empty() {
        obstacles.push(Obstacle {
            reason: "NoService",
            message: "no Service of the namespace selects the workload's pods; create one, or \
                      remove lull.dev/scale"
                .to_owned(),
        });
    }
    planned.sort_by(|a, b| a.name.cmp(&b.name));
    if obstacles.is_empty() {
        Ok(planned)
    } else {
        Err(obstacles)
    }
}

/// The user's own selector, also while the sentinel stands in its place.
fn user_selector(service: &Service) -> Labels {
    let selector = service
        .spec
        .as_ref()
        .and_then(|s| s.selector.clone())
        .unwrap_or_default();
    if !selector.contains_key(HELD_LABEL) {
        return selector;
    }
    original(service).map(|o| o.selector).unwrap_or_default()
}

fn selects(service: &Service, labels: &Labels) -> bool {
    let ours = service
        .metadata
        .labels
        .as_ref()
        .is_some_and(|l| l.contains_key(WORKLOAD_LABEL));
    let selector = user_selector(service);
    !ours && !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn plan_service(
    template: &Template,
    service: &Service,
    others: &[(String, Labels)],
) -> Result<PlannedService, Obstacle> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let refuse = |reason, message: String| Err(Obstacle { reason, message });
    let Some(spec) = &service.spec else {
        return refuse("OddService", format!("Service {name} has no spec"));
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return refuse(
            "ExternalName",
            format!(
                "Service {name} is an ExternalName: it has no endpoints that could be switched"
            ),
        );
    }
    if is_headless(service) {
        return refuse(
            "Headless",
            format!(
                "Service {name} is headless: its callers go to pod addresses, past any activator; give it a ClusterIP"
            ),
        );
    }
    for (field, policy) in [
        ("internalTrafficPolicy", &spec.internal_traffic_policy),
        ("externalTrafficPolicy", &spec.external_traffic_policy),
    ] {
        if policy.as_deref() == Some("Local") {
            return refuse(
                "LocalTraffic",
                format!(
                    "Service {name} has {field}: Local: activators on other nodes would not be reached; use Cluster"
                ),
            );
        }
    }
    if let Some((other, _)) = others.iter().find(|(_, labels)| selects(service, labels)) {
        return refuse(
            "SharedService",
            format!(
                "Service {name} also selects the pods of {other}; give each workload a Service of its own"
            ),
        );
    }
    let ports = spec
        .ports
        .iter()
        .flatten()
        .enumerate()
        .filter(|(_, p)| is_tcp(p));
    let ports: Result<Vec<_>, _> = ports
        .map(|(index, port)| plan_port(template, service, (index, port)))
        .collect();
    Ok(PlannedService {
        name,
        ports: ports?,
    })
}

fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

fn plan_port(
    template: &Template,
    service: &Service,
    (index, port): (usize, &ServicePort),
) -> Result<PlannedPort, Obstacle> {
    let target = user_target(service, port);
    let number = match &target {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => app_port_of(name).or_else(|| {
            template
                .named_ports
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, p)| *p)
        }),
    };
    let service_name = service.metadata.name.as_deref().unwrap_or_default();
    let target = match target {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name,
    };
    let known = || {
        template
            .app_ports
            .iter()
            .map(u16::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    match number {
        Some(app_port) if template.app_ports.contains(&app_port) => Ok(PlannedPort {
            index,
            name: port.name.clone(),
            app_protocol: port.app_protocol.clone(),
            port: port.port,
            app_port,
        }),
        Some(other) => Err(Obstacle {
            reason: "UndeclaredPort",
            message: format!(
                "Service {service_name} port {} targets {target}, which Lull does not serve; set \
                 lull.dev/ports: \"{},{other}\"",
                port.port,
                known()
            ),
        }),
        None => Err(Obstacle {
            reason: "UnknownTargetPort",
            message: format!(
                "Service {service_name} port {} targets {target:?}, which no container declares; \
                 served are {}",
                port.port,
                known()
            ),
        }),
    }
}

fn original(service: &Service) -> Option<Original> {
    let text = service
        .metadata
        .annotations
        .as_ref()?
        .get(ORIGINAL_ANNOTATION)?;
    serde_json::from_str(text).ok()
}

fn is_ours(target: &IntOrString) -> bool {
    matches!(target, IntOrString::String(name) if app_port_of(name).is_some())
}

/// What the user wrote as target of `port`: what stands there, or what stood there before us.
fn user_target(service: &Service, port: &ServicePort) -> IntOrString {
    let now = port
        .target_port
        .clone()
        .unwrap_or(IntOrString::Int(port.port));
    if !is_ours(&now) {
        return now;
    }
    original(service)
        .and_then(|o| o.ports.into_iter().find(|p| p.port == port.port))
        .map_or(now, |p| p.target_port)
}

/// Whether every planned port of `service` is switched to its named port.
#[must_use]
pub fn is_switched(service: &Service, planned: &PlannedService) -> bool {
    let ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.as_deref())
        .unwrap_or_default();
    original(service).is_some()
        && planned.ports.iter().all(|p| {
            ports.get(p.index).is_some_and(|port| {
                port.target_port == Some(IntOrString::String(traffic_port_name(p.app_port)))
            })
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
#[must_use]
pub fn switch_patch(service: &Service, planned: &PlannedService) -> Value {
    let mut ops = guarded(service);
    let ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.as_deref())
        .unwrap_or_default();
    let original = Original {
        ports: planned
            .ports
            .iter()
            .filter_map(|p| ports.get(p.index))
            .map(|port| OriginalPort {
                port: port.port,
                target_port: user_target(service, port),
            })
            .collect(),
        selector: user_selector(service),
    };
    if service.metadata.annotations.is_none() {
        ops.push(json!({ "op": "add", "path": "/metadata/annotations", "value": {} }));
    }
    let text = serde_json::to_string(&original).unwrap_or_default();
    ops.push(json!({ "op": "add", "path": original_path(), "value": text }));
    for port in &planned.ports {
        let path = format!("/spec/ports/{}/targetPort", port.index);
        ops.push(json!({ "op": "add", "path": path, "value": traffic_port_name(port.app_port) }));
    }
    Value::Array(ops)
}

/// JSON patch that gives `service` back as the user had it; `None` where it is not ours.
#[must_use]
pub fn restore_patch(service: &Service) -> Option<Value> {
    let original = original(service)?;
    let mut ops = guarded(service);
    let ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.as_deref())
        .unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let ours = port.target_port.as_ref().is_some_and(is_ours);
        let before = original.ports.iter().find(|p| p.port == port.port);
        if let (true, Some(before)) = (ours, before) {
            let path = format!("/spec/ports/{index}/targetPort");
            ops.push(json!({ "op": "add", "path": path, "value": before.target_port }));
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

#[cfg(test)]
mod tests;
