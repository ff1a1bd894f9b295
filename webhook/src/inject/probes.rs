//! The app's readiness and startup probes, translated for the queue-proxy, which asks the app itself.

use lull_contract::AppPort;
use serde::Serialize;
use serde_json::Value;

use super::shape;

/// One check of the app; without a path it is a TCP connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppProbe {
    port: u16,
    path: Option<String>,
    host: Option<String>,
    headers: Vec<(String, String)>,
    timeout_ms: u64,
}

/// The checks that the readiness probes of the app's containers amount to.
pub(super) fn app_probes(template: &Value, app_ports: &[AppPort]) -> Vec<AppProbe> {
    let probes = probes(template, "readinessProbe");
    distinct(probes.flat_map(|(container, probe)| {
        match translate(container, probe) {
            Some(asked) => vec![asked],
            // A command can't be run from here.
            None => connects(app_ports, probe),
        }
    }))
}

/// The checks that the startup probes amount to: pods are not ready before these have passed once. Those
/// that can't be made from here are left out.
pub(super) fn startup_probes(template: &Value) -> Vec<AppProbe> {
    let probes = probes(template, "startupProbe");
    distinct(probes.filter_map(|(container, probe)| translate(container, probe)))
}

/// The probes of this kind, with their containers.
fn probes<'a>(template: &'a Value, kind: &str) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    shape::app_containers(template).filter_map(move |container| {
        let probe = container.get(kind).filter(|probe| probe.is_object())?;
        Some((container, probe))
    })
}

fn distinct(probes: impl Iterator<Item = AppProbe>) -> Vec<AppProbe> {
    let mut found: Vec<AppProbe> = Vec::new();
    for probe in probes {
        if !found.contains(&probe) {
            found.push(probe);
        }
    }
    found
}

/// What of `probe` the queue-proxy can ask by itself.
fn translate(container: &Value, probe: &Value) -> Option<AppProbe> {
    if let Some(get) = probe.get("httpGet")
        && let Some(port) = resolve(container, get.get("port"))
    {
        // The queue-proxy has no TLS client; that the port takes connections is what it can see.
        if text(get, "scheme") == Some("HTTPS") {
            return Some(connect(port, probe));
        }
        let path = text(get, "path").filter(|path| !path.is_empty());
        return Some(AppProbe {
            path: Some(path.unwrap_or("/").to_owned()),
            host: text(get, "host").map(str::to_owned),
            headers: shape::list(get, "httpHeaders").filter_map(header).collect(),
            ..connect(port, probe)
        });
    }
    // There is no gRPC client either, but its port is known.
    let socket = probe.get("tcpSocket").or_else(|| probe.get("grpc"))?;
    let port = resolve(container, socket.get("port"))?;
    Some(connect(port, probe))
}

fn connects(app_ports: &[AppPort], probe: &Value) -> Vec<AppProbe> {
    let numbers = app_ports.iter().map(|port| port.number);
    numbers.map(|number| connect(number, probe)).collect()
}

/// A connect to `port`, for which there is as much time as for `probe`.
fn connect(port: u16, probe: &Value) -> AppProbe {
    let seconds = probe.get("timeoutSeconds").and_then(Value::as_u64);
    AppProbe {
        port,
        path: None,
        host: None,
        headers: Vec::new(),
        timeout_ms: seconds.filter(|s| *s > 0).unwrap_or(1).saturating_mul(1000),
    }
}

fn text<'a>(parent: &'a Value, key: &str) -> Option<&'a str> {
    parent.get(key)?.as_str()
}

fn header(header: &Value) -> Option<(String, String)> {
    Some((
        text(header, "name")?.to_owned(),
        text(header, "value")?.to_owned(),
    ))
}

/// A port's number, which may be given by a name of the same container.
fn resolve(container: &Value, port: Option<&Value>) -> Option<u16> {
    let Some(name) = port?.as_str() else {
        return shape::port_number(port);
    };
    shape::list(container, "ports")
        .find(|declared| text(declared, "name") == Some(name))
        .and_then(|declared| shape::port_number(declared.get("containerPort")))
}
