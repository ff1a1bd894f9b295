//! Which Services carry a workload's traffic, and what of them can't be switched.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use lull_contract::{AppPort, AppProtocol, names::WORKLOAD_LABEL, ports::app_port_of};

use super::{
    Family, Finding, Labels, PlannedPort, PlannedService, Reason, Situation, Template,
    patch::{restore_patch, user_selector, user_target},
};

/// The Services that can be switched, by name, with what is found about each one that selects the
/// pods.
pub(super) fn find(situation: &Situation<'_>, findings: &mut Vec<Finding>) -> Vec<PlannedService> {
    let mut planned = Vec::new();
    let before = findings.len();
    let mut selecting: Vec<&Service> = situation
        .services
        .iter()
        .map(Arc::as_ref)
        .filter(|service| selects(service, &situation.template.labels))
        .collect();
    selecting.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for service in selecting {
        let Some(spec) = &service.spec else {
            continue;
        };
        if situation.template.headless_sibling && is_headless(spec) {
            continue;
        }
        let (ports, found) = plan_service(situation, service, spec);
        let is_refused = found.iter().any(Finding::is_refusal);
        findings.extend(found);
        // One that Lull has switched is not let down for what stands in the way by now.
        let is_kept = situation.is_enrolled && restore_patch(service).is_some();
        if (!is_refused || is_kept) && !ports.is_empty() {
            planned.push(PlannedService {
                name: name_of(service).to_owned(),
                families: families(spec),
                ports,
            });
        }
    }
    let is_refused = findings.iter().skip(before).any(Finding::is_refusal);
    if planned.is_empty() && !is_refused {
        findings.push(Finding::new(
            Reason::NoService,
            situation.workload,
            "is selected by no Service with an address and a TCP port in its namespace; create \
             one, or remove lull.dev/scale",
        ));
    }
    planned
}

/// Names of those of `services` that select pods of `template`.
#[must_use]
pub fn selecting(services: &[Arc<Service>], template: &Template) -> Vec<String> {
    let services = services.iter();
    let selecting = services.filter(|service| selects(service, &template.labels));
    selecting
        .filter_map(|service| service.metadata.name.clone())
        .collect()
}

/// Whether `service` is one of the user's and selects pods with these labels.
pub(crate) fn selects(service: &Service, labels: &Labels) -> bool {
    let ours = service
        .metadata
        .labels
        .as_ref()
        .is_some_and(|l| l.contains_key(WORKLOAD_LABEL));
    let selector = user_selector(service);
    !ours && !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn plan_service(
    situation: &Situation<'_>,
    service: &Service,
    spec: &ServiceSpec,
) -> (Vec<PlannedPort>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut found = |reason, message: &str| {
        let object = format!("Service {}", name_of(service));
        findings.push(Finding::new(reason, object, message));
    };
    if let Some((reason, message)) = addressless(spec) {
        // Nothing else about it matters.
        found(reason, message);
        return (Vec::new(), findings);
    }
    behaviour(spec, &mut found);
    let sharing = situation.others.iter();
    let sharing = sharing.filter(|other| selects(service, other.labels));
    if let Some((kind, name)) = sharing.map(|other| (other.kind, other.name)).min() {
        let message = format!(
            "also selects the pods of {kind} {name}; give each workload a Service of its own"
        );
        found(Reason::SharedService, &message);
    }
    let all = || spec.ports.iter().flatten().enumerate();
    let others: Vec<String> = all()
        .filter(|(_, port)| !is_tcp(port))
        .map(|(_, port)| {
            format!(
                "{} ({})",
                port.port,
                port.protocol.as_deref().unwrap_or("?")
            )
        })
        .collect();
    if !others.is_empty() {
        let message = format!(
            "has ports that are not TCP, which are left alone: {} neither wakes the workload nor \
             keeps it awake, and leads nowhere while it sleeps; set lull.dev/min-scale: \"1\" if \
             that matters",
            others.join(", ")
        );
        found(Reason::NotHeld, &message);
    }
    let mut ports = Vec::new();
    for (index, port) in all().filter(|(_, port)| is_tcp(port)) {
        match plan_port(situation.template, service, (index, port)) {
            Ok(planned) => {
                if let Some(message) = misread(situation, port, planned.app_port) {
                    found(Reason::NotHttp, &message);
                }
                ports.push(planned);
            }
            Err((reason, message)) => found(reason, &message),
        }
    }
    (ports, findings)
}

/// Why it has no endpoints of its own that could be switched, if so.
fn addressless(spec: &ServiceSpec) -> Option<(Reason, &'static str)> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some((
            Reason::ExternalName,
            "is an ExternalName: it has no endpoints that could be switched; give it a ClusterIP \
             or another selector",
        ));
    }
    is_headless(spec).then_some((
        Reason::Headless,
        "is headless: its callers go to pod addresses, past any activator; give it a ClusterIP",
    ))
}

/// What its way of choosing endpoints means for activators among them.
fn behaviour(spec: &ServiceSpec, found: &mut impl FnMut(Reason, &str)) {
    for (field, policy) in [
        ("internalTrafficPolicy", &spec.internal_traffic_policy),
        ("externalTrafficPolicy", &spec.external_traffic_policy),
    ] {
        if policy.as_deref() == Some("Local") {
            let message = format!(
                "has {field}: Local: activators on other nodes would not be reached; use Cluster"
            );
            found(Reason::LocalTraffic, &message);
        }
    }
    if spec.publish_not_ready_addresses == Some(true) {
        found(
            Reason::NotReadyAddresses,
            "has publishNotReadyAddresses: true: while the workload wakes, callers would be sent \
             to pods that don't listen yet; set it to false",
        );
    }
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        found(
            Reason::SessionAffinity,
            "has sessionAffinity: ClientIP: it keeps a client on one activator, which chooses any \
             pod; while activators are in the path (asleep, waking, short of capacity) a client is \
             not kept on one pod",
        );
    }
}

fn name_of(service: &Service) -> &str {
    service.metadata.name.as_deref().unwrap_or_default()
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

/// The API server writes them down; a Service without is of the days of IPv4.
fn families(spec: &ServiceSpec) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten();
    let families: Vec<Family> = named.filter_map(|name| Family::named(name)).collect();
    if families.is_empty() {
        vec![Family::Ipv4]
    } else {
        families
    }
}

fn plan_port(
    template: &Template,
    service: &Service,
    (index, port): (usize, &ServicePort),
) -> Result<PlannedPort, (Reason, String)> {
    let target = user_target(service, port);
    let number = match &target {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => app_port_of(name).or_else(|| template.port_named(name)),
    };
    let served = |number: u16| template.app_ports.iter().any(|port| port.number == number);
    match number {
        Some(app_port) if served(app_port) => Ok(PlannedPort {
            index,
            name: port.name.clone(),
            app_protocol: port.app_protocol.clone(),
            port: port.port,
            app_port,
            earlier: earlier_numbers(template, app_port),
        }),
        Some(other) => Err((
            Reason::UndeclaredPort,
            format!(
                "targets {} with its port {}, which Lull does not serve; set lull.dev/ports: \
                 \"{}\"",
                shown(&target),
                port.port,
                list(&template.app_ports, Some(other))
            ),
        )),
        None => Err((
            Reason::UnknownTargetPort,
            format!(
                "targets {:?} with its port {}, which no container declares; served are {}",
                shown(&target),
                port.port,
                list(&template.app_ports, None)
            ),
        )),
    }
}

fn earlier_numbers(template: &Template, app_port: u16) -> Vec<u16> {
    let renumbered = template.renumbered.iter();
    let of_it = renumbered.filter(|port| port.is == app_port);
    of_it.map(|port| port.was).collect()
}

/// What is with a port that its Service says speaks no HTTP, where Lull would read it so: its callers
/// would be answered by the sidecar, or wait for a server that should speak first. The user's own word
/// about the ports counts more.
fn misread(situation: &Situation<'_>, port: &ServicePort, app_port: u16) -> Option<String> {
    let said = port.app_protocol.as_deref().or(port.name.as_deref())?;
    let served = &situation.template.app_ports;
    let is_http =
        |served: &AppPort| served.number == app_port && served.protocol == AppProtocol::Http;
    let is_known = situation.is_enrolled || situation.asks.names_ports;
    if is_known || AppProtocol::named(said) == AppProtocol::Http || !served.iter().any(is_http) {
        return None;
    }
    let as_bytes = served.iter().map(|served| match served.number {
        number if number == app_port => AppPort {
            number,
            protocol: AppProtocol::Tcp,
        },
        _ => *served,
    });
    let as_bytes: Vec<AppPort> = as_bytes.collect();
    Some(format!(
        "says {said:?} of its port {}, and Lull would read HTTP there; set lull.dev/ports: \"{}\", or \
         \"{}\" where it is HTTP after all",
        port.port,
        list(&as_bytes, None),
        list(served, None)
    ))
}

fn shown(target: &IntOrString) -> String {
    match target {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

/// As the annotation `lull.dev/ports` is written.
fn list(ports: &[AppPort], more: Option<u16>) -> String {
    let known = ports.iter().map(|port| match port.protocol {
        AppProtocol::Http => port.number.to_string(),
        AppProtocol::Tcp => format!("{}/tcp", port.number),
    });
    let all: Vec<String> = known.chain(more.map(|port| port.to_string())).collect();
    all.join(",")
}

// === impl PlannedService ===

impl fmt::Display for PlannedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |port: &PlannedPort| format!("{} -> {}", port.port, port.app_port);
        let ports: Vec<String> = self.ports.iter().map(port).collect();
        write!(f, "Service {} ({})", self.name, ports.join(", "))
    }
}
