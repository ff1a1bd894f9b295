//! Which app ports Lull serves, and free numbers for the sidecar's own ports.

use std::collections::BTreeSet;

use lull_contract::{AppPort, names::ISTIO_EXCLUDE_INBOUND_PORTS, ports};
use lull_injection::{SmallPorts, shape};
use serde_json::Value;

/// The port of a pod that scrapers which go by annotations call.
const PROMETHEUS_PORT: &str = "prometheus.io/port";

/// Every port of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allocation {
    /// One for each app port, in the same order.
    pub(super) traffic: Vec<u16>,
    /// The others.
    pub(super) small: SmallPorts,
}

/// The ports that Lull serves: those that the user named, else the declared TCP ports.
pub(super) fn app_ports(
    named: Option<&[AppPort]>,
    template: &Value,
) -> Result<Vec<AppPort>, String> {
    if let Some(named) = named {
        return Ok(named.to_vec());
    }
    let mut found: Vec<AppPort> = Vec::new();
    for port in of_app(template).filter_map(declared) {
        if found.iter().all(|p| p.number != port.number) {
            found.push(port);
        }
    }
    if found.is_empty() {
        return Err(
            "no container declares a TCP port: set the annotation lull.dev/ports to the ports \
             that the app listens on, for instance lull.dev/ports: \"8080\""
                .to_owned(),
        );
    }
    Ok(found)
}

/// Names and numbers of the app's TCP ports that have a name.
pub(super) fn named(template: &Value) -> impl Iterator<Item = (&str, u16)> {
    of_app(template).filter_map(|port| {
        let name = port.get("name")?.as_str()?;
        Some((name, declared(port)?.number))
    })
}

/// All that the app's containers say of their ports.
fn of_app(template: &Value) -> impl Iterator<Item = &Value> {
    shape::app_containers(template).flat_map(|app| shape::list(app, "ports"))
}

fn declared(port: &Value) -> Option<AppPort> {
    let transport = port
        .get("protocol")
        .and_then(Value::as_str)
        .unwrap_or("TCP");
    let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
    let number = shape::port_number(port.get("containerPort"))?;
    AppPort::declared(name, number, transport)
}

/// Numbers for the sidecar that nothing in the template uses; `None` where none are left.
pub(super) fn allocate(app_ports: &[AppPort], template: &Value) -> Option<Allocation> {
    let mut taken: BTreeSet<u16> = app_ports.iter().map(|port| port.number).collect();
    for container in shape::containers(template).chain(shape::init_containers(template)) {
        taken.extend(used(container));
    }
    taken.extend(told_of(template));
    let mut take = |from: u16| {
        let free = (from..=u16::MAX).find(|port| !taken.contains(port))?;
        taken.insert(free);
        Some(free)
    };
    let small = SmallPorts {
        admin: take(ports::ADMIN)?,
        report: take(ports::REPORT)?,
        metrics: take(ports::METRICS)?,
    };
    // Traffic never sits on a number that means something else on other pods.
    taken.extend(ports::SIDECAR_SMALL_PORTS);
    let mut traffic = Vec::with_capacity(app_ports.len());
    for _ in app_ports {
        let free = (ports::QUEUE_PROXY_TRAFFIC_FIRST..=u16::MAX).find(|p| !taken.contains(p))?;
        taken.insert(free);
        traffic.push(free);
    }
    Some(Allocation { traffic, small })
}

/// Ports that the template's annotations tell of: those that the user keeps out of the mesh, and the one
/// that Prometheus calls. Something listens there, declared or not; and what the mesh lets pass at one of
/// the first kind would pass at ours.
fn told_of(template: &Value) -> impl Iterator<Item = u16> {
    let annotations = template.pointer("/metadata/annotations");
    let lists = [ISTIO_EXCLUDE_INBOUND_PORTS, PROMETHEUS_PORT]
        .into_iter()
        .filter_map(move |key| annotations?.get(key)?.as_str());
    let items = lists.flat_map(|list| list.split(','));
    items.filter_map(|port| port.trim().parse().ok())
}

/// Ports that a container declares, or that its probes show it listening on.
fn used(container: &Value) -> impl Iterator<Item = u16> {
    let probed = ["readinessProbe", "livenessProbe", "startupProbe"]
        .into_iter()
        .filter_map(|probe| container.get(probe))
        .flat_map(|probe| ["httpGet", "tcpSocket", "grpc"].map(|kind| probe.get(kind)))
        .filter_map(|action| shape::port_number(action?.get("port")));
    shape::list(container, "ports")
        .filter_map(|port| shape::port_number(port.get("containerPort")))
        .chain(probed)
}
