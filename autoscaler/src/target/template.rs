//! What of a pod template, and of how pods get a new one, Lull reads.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, PodTemplateSpec};
use lull_contract::{
    AppPort, AppProtocol, Quantity,
    names::{
        INJECTED_ANNOTATION, ISTIO_NATIVE_SIDECAR, NOT_APP_CONTAINERS, OS_LABEL,
        QUEUE_PROXY_CONTAINER, WAIT_FOR_DRAIN,
    },
    ports,
};
use lull_injection::{Record, resources::Resources};
use serde_json::Value;

use crate::{
    amounts::resources,
    mesh::PodIdentity,
    plan::{self, Needs, Rollout},
};

/// Kubernetes' `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// What of a pod template matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodTemplate {
    /// What a plan is made from.
    pub plan: plan::Template,
    /// App ports as the injected sidecar serves them; none without a sidecar.
    pub served: Vec<AppPort>,
    /// Record of what the webhook has added, where it has.
    pub injected: Option<String>,
    /// Who the pods are for a mesh.
    pub identity: PodIdentity,
}

// === impl PodTemplate ===

impl PodTemplate {
    /// `named` are the app ports that annotations name.
    pub(super) fn new(
        template: &PodTemplateSpec,
        named: Option<Vec<AppPort>>,
        (is_stateful, rollout): (bool, Rollout),
    ) -> Self {
        let metadata = template.metadata.as_ref();
        let spec = template.spec.as_ref();
        let containers = || spec.into_iter().flat_map(|spec| &spec.containers);
        let app = || containers().filter(|container| is_app(container));
        let sidecar = containers().find(|container| container.name == QUEUE_PROXY_CONTAINER);
        let doors = sidecar.map(served_ports).unwrap_or_default();
        let served: Vec<AppPort> = doors.iter().map(|(_, port)| *port).collect();
        let (traffic_ports, app_ports) = match sidecar {
            Some(_) => (
                doors.iter().map(|(door, _)| *door).collect(),
                served.clone(),
            ),
            None => {
                let app_ports = named.unwrap_or_else(|| declared_ports(app()));
                (would_be_doors(&app_ports, containers()), app_ports)
            }
        };
        let small = |name: &str, default| sidecar.and_then(|c| port_of(c, name)).unwrap_or(default);
        let named_ports = app()
            .flat_map(ports_of)
            .filter_map(|port| Some((port.name.clone()?, number_of(port)?)))
            .collect();
        let identity = PodIdentity::of(template);
        let annotations = metadata.and_then(|m| m.annotations.as_ref());
        let injected = annotations.and_then(|all| all.get(INJECTED_ANNOTATION).cloned());
        let record = injected.as_deref().and_then(Record::parse);
        let takes_native = record
            .as_ref()
            .is_some_and(|record| record.classic.is_none())
            && annotations.is_some_and(|all| !all.contains_key(ISTIO_NATIVE_SIDECAR));
        let hold = record.and_then(|record| Some(record.classic?.hold_secs));
        Self {
            plan: plan::Template {
                labels: metadata.and_then(|m| m.labels.clone()).unwrap_or_default(),
                named_ports,
                app_ports,
                traffic_ports,
                renumbered: identity.renumbered.clone(),
                admin_port: small("lull-admin", ports::ADMIN),
                report_port: small("lull-report", ports::REPORT),
                headless_sibling: is_stateful,
                host_network: spec.is_some_and(|spec| spec.host_network == Some(true)),
                windows: spec.is_some_and(is_for_windows),
                host_ports: app()
                    .flat_map(ports_of)
                    .filter(|port| port.host_port.is_some())
                    .filter_map(number_of)
                    .collect(),
                grace: spec.map_or(DEFAULT_GRACE, grace),
                takes_native,
                pre_stops: app()
                    .filter(|container| has_own_pre_stop(container, hold))
                    .map(|container| container.name.clone())
                    .collect(),
                rollout,
                needs: Needs {
                    app: app().map(|c| resources(c.resources.as_ref())).collect(),
                    init: spec.map(init_containers).unwrap_or_default(),
                    pod: resources(spec.and_then(|spec| spec.resources.as_ref())),
                    sidecar: sidecar.map(|c| resources(c.resources.as_ref())),
                },
            },
            served,
            identity,
            injected,
        }
    }
}

/// How pods of an object with this `spec` get a new template.
pub(super) fn rollout(spec: Option<&Value>) -> Rollout {
    let field = |pointer: &str| spec.and_then(|spec| spec.pointer(pointer));
    if field("/paused") == Some(&Value::Bool(true)) {
        return Rollout::Paused;
    }
    if field("/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete") {
        return Rollout::OnDelete;
    }
    let partition = field("/updateStrategy/rollingUpdate/partition").and_then(Value::as_u64);
    match partition.unwrap_or(0) {
        0 => Rollout::Automatic,
        first => Rollout::Partition(first),
    }
}

/// The webhook asks the same of the template.
fn is_for_windows(spec: &PodSpec) -> bool {
    let named = spec.os.as_ref().map(|os| os.name.as_str());
    let selected = spec.node_selector.as_ref();
    let selected = selected.and_then(|labels| labels.get(OS_LABEL));
    named.or_else(|| selected.map(String::as_str)) == Some("windows")
}

/// What each of the user's init containers asks for.
fn init_containers(spec: &PodSpec) -> Vec<Resources<Quantity>> {
    let containers = spec.init_containers.iter().flatten();
    let of_user = containers.filter(|container| is_app(container));
    of_user
        .map(|container| resources(container.resources.as_ref()))
        .collect()
}

fn grace(spec: &PodSpec) -> Duration {
    let seconds = spec.termination_grace_period_seconds;
    seconds.map_or(DEFAULT_GRACE, |seconds| {
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    })
}

fn is_app(container: &Container) -> bool {
    !NOT_APP_CONTAINERS.contains(&container.name.as_str())
}

/// Whether it has a preStop that is not ours, which calls the sidecar, or sleeps for `hold` seconds.
fn has_own_pre_stop(container: &Container, hold: Option<u32>) -> bool {
    let lifecycle = container.lifecycle.as_ref();
    let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
        return false;
    };
    let path = hook.http_get.as_ref().and_then(|get| get.path.as_deref());
    let slept = hook.sleep.as_ref().map(|sleep| sleep.seconds);
    path != Some(WAIT_FOR_DRAIN) && (slept.is_none() || slept != hold.map(i64::from))
}

fn ports_of(container: &Container) -> impl Iterator<Item = &ContainerPort> {
    container.ports.iter().flatten()
}

/// The number of a container's port called `name`.
fn port_of(container: &Container, name: &str) -> Option<u16> {
    let mut ports = ports_of(container).filter(|port| port.name.as_deref() == Some(name));
    ports.next().and_then(number_of)
}

fn number_of(port: &ContainerPort) -> Option<u16> {
    u16::try_from(port.container_port).ok()
}

/// What the webhook serves where no annotation names ports.
fn declared_ports<'a>(app: impl Iterator<Item = &'a Container>) -> Vec<AppPort> {
    let mut found: Vec<AppPort> = Vec::new();
    for port in app.flat_map(ports_of) {
        let name = port.name.as_deref().unwrap_or_default();
        let transport = port.protocol.as_deref().unwrap_or("TCP");
        let declared = number_of(port).and_then(|n| AppPort::declared(name, n, transport));
        if let Some(port) = declared
            && found.iter().all(|other| other.number != port.number)
        {
            found.push(port);
        }
    }
    found
}

/// Numbers that the webhook would most likely take: it avoids those that probes tell of too.
fn would_be_doors<'a>(
    app_ports: &[AppPort],
    containers: impl Iterator<Item = &'a Container>,
) -> Vec<u16> {
    let mut taken: BTreeSet<u16> = app_ports.iter().map(|port| port.number).collect();
    taken.extend(containers.flat_map(ports_of).filter_map(number_of));
    taken.extend(ports::SIDECAR_SMALL_PORTS);
    let free = (ports::QUEUE_PROXY_TRAFFIC_FIRST..=u16::MAX).filter(|port| !taken.contains(port));
    free.take(app_ports.len()).collect()
}

/// The sidecar's ports and what it serves by them: `QP_PORTS="8012=8080/http,8013=5432/tcp"`.
fn served_ports(sidecar: &Container) -> Vec<(u16, AppPort)> {
    let mut env = sidecar.env.iter().flatten();
    let ports = env.find(|variable| variable.name == "QP_PORTS");
    let value = ports.and_then(|ports| ports.value.as_deref());
    let items = value.unwrap_or_default().split(',');
    items.filter_map(served_port).collect()
}

fn served_port(item: &str) -> Option<(u16, AppPort)> {
    let (door, app) = item.split_once('=')?;
    let (number, protocol) = app.split_once('/')?;
    let protocol = if protocol == "tcp" {
        AppProtocol::Tcp
    } else {
        AppProtocol::Http
    };
    let number = number.parse().ok()?;
    Some((door.parse().ok()?, AppPort { number, protocol }))
}

#[cfg(test)]
mod tests {
    use lull_injection::Renumbered;
    use serde_json::json;

    use super::*;

    fn template(spec: &Value, named: Option<Vec<AppPort>>) -> plan::Template {
        let object = serde_json::from_value(json!({ "spec": spec })).unwrap();
        PodTemplate::new(&object, named, (false, Rollout::Automatic)).plan
    }

    #[test]
    fn without_a_sidecar_the_ports_are_those_that_it_would_serve() {
        let spec = json!({ "containers": [{ "name": "app", "ports": [
            { "containerPort": 8080 }, { "name": "tcp-db", "containerPort": 5432 },
            { "name": "dns", "containerPort": 53, "protocol": "UDP" }, { "containerPort": 8012 },
        ] }] });
        let declared = template(&spec, None);
        let numbers: Vec<u16> = declared.app_ports.iter().map(|port| port.number).collect();
        assert_eq!(numbers, [8080, 5432, 8012]);
        assert_eq!(declared.app_ports[1].protocol, AppProtocol::Tcp);
        assert_eq!(declared.traffic_ports, [8013, 8014, 8015]);
        let named = vec![AppPort {
            number: 7000,
            protocol: AppProtocol::Http,
        }];
        assert_eq!(template(&spec, Some(named.clone())).app_ports, named);
    }

    #[test]
    fn numbers_that_ports_had_are_read_from_the_record() {
        let record = json!({
            "version": "1", "image": "x", "imagePullPolicy": "Never",
            "sidecar": {
                "ports": [{ "number": 8081, "protocol": "http" }], "containerConcurrency": 0,
                "queueDepth": 0, "timeout": "300s", "ignore": { "paths": [], "userAgents": [] },
                "resources": {
                    "cpuRequest": "25m", "memoryRequest": "16Mi", "memoryLimit": "256Mi",
                },
            },
            "smallPorts": { "admin": 8022, "report": 9090, "metrics": 9091 },
            "renumbered": [{ "was": 8080, "is": 8081 }],
        });
        let object = json!({
            "metadata": { "annotations": { INJECTED_ANNOTATION: record.to_string() } },
            "spec": { "containers": [] },
        });
        let object = serde_json::from_value(object).unwrap();
        let template = PodTemplate::new(&object, None, (false, Rollout::Automatic));
        let (was, is) = (8080, 8081);
        assert_eq!(template.plan.renumbered, [Renumbered { was, is }]);
        assert_eq!(template.identity.renumbered, template.plan.renumbered);
    }

    #[test]
    fn a_pre_stop_that_lull_has_added_is_not_the_user_s() {
        let own = |seconds: i64, hold| {
            let hook = json!({ "preStop": { "sleep": { "seconds": seconds } } });
            let container = json!({ "name": "app", "lifecycle": hook });
            has_own_pre_stop(&serde_json::from_value(container).unwrap(), hold)
        };
        assert!(!own(12, Some(12)));
        assert!(own(5, Some(12)) && own(12, None));
        let with = |hook: &Value| {
            let container = json!({ "name": "app", "lifecycle": { "preStop": hook } });
            template(&json!({ "containers": [container] }), None).pre_stops
        };
        let ours = json!({ "httpGet": { "path": "/wait-for-drain", "port": 8022 } });
        assert!(with(&ours).is_empty());
        assert_eq!(with(&json!({ "sleep": { "seconds": 5 } })), ["app"]);
    }

    #[test]
    fn how_pods_get_a_new_template_is_read_from_the_spec() {
        let rows = [
            (json!({}), Rollout::Automatic),
            (json!({ "paused": true }), Rollout::Paused),
            (
                json!({ "updateStrategy": { "type": "OnDelete" } }),
                Rollout::OnDelete,
            ),
            (
                json!({ "updateStrategy": { "rollingUpdate": { "partition": 2 } } }),
                Rollout::Partition(2),
            ),
            (
                json!({ "updateStrategy": { "rollingUpdate": { "partition": 0 } } }),
                Rollout::Automatic,
            ),
        ];
        for (spec, expected) in rows {
            assert_eq!(rollout(Some(&spec)), expected, "{spec}");
        }
        assert_eq!(rollout(None), Rollout::Automatic);
    }
}
