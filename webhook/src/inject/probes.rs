//! The app's readiness probes, translated for the queue-proxy, which asks the app itself.

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
    let mut probes: Vec<AppProbe> = Vec::new();
    for container in shape::app_containers(template) {
        let Some(probe) = container.get("readinessProbe").filter(|p| p.is_object()) else {
            continue;
        };
        for translated in translate(container, probe, app_ports) {
            if !probes.contains(&translated) {
                probes.push(translated);
            }
        }
    }
    probes
}

fn translate(container: &Value, probe: &Value, app_ports: &[AppPort]) -> Vec<AppProbe> {
    let seconds = probe.get("timeoutSeconds").and_then(Value::as_u64);
    let timeout_ms = seconds.filter(|s| *s > 0).unwrap_or(1).saturating_mul(1000);
    let connect = |port| AppProbe {
        port,
        path: None,
        host: None,
        headers: Vec::new(),
        timeout_ms,
    };
    if let Some(get) = probe.get("httpGet")
        && let Some(port) = resolve(container, get.get("port"))
    {
        // The queue-proxy has no TLS client; that the port takes connections is what it can see.
        if text(get, "scheme") == Some("HTTPS") {
            return vec![connect(port)];
        }
        let path = text(get, "path").filter(|path| !path.is_empty());
        return vec![AppProbe {
            path: Some(path.unwrap_or("/").to_owned()),
            host: text(get, "host").map(str::to_owned),
            headers: shape::list(get, "httpHeaders").filter_map(header).collect(),
            ..connect(port)
        }];
    }
    if let Some(socket) = probe.get("tcpSocket")
        && let Some(port) = resolve(container, socket.get("port"))
    {
        return vec![connect(port)];
    }
    app_ports.iter().map(|port| connect(port.number)).collect()
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
