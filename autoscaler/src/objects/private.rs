//! The private Service of a workload: its pods alone, by every port that callers have, had or will have.
//!
//! Istio makes a pod's inbound listeners and clusters from the target ports of the Services that select it. A
//! target port that no Service has any more is forgotten at once, and a call that a caller's proxy still has at
//! it gets 503. So this Service has both, the sidecar's ports and those that the user's Services had, from before
//! these are switched until the sidecar is about to go. Only the pod's own proxy is told of it
//! (`docs/decisions/the-private-service.md`).

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use lull_contract::{
    names::{ISTIO_EXPORT_TO, POD_LABEL, label_value, private_service},
    scaled_workload::ScaledWorkload,
};
use serde_json::{Value, json};

use super::metadata;
use crate::plan::{self, PlannedPort, PlannedService};

/// Value of [`ISTIO_EXPORT_TO`] for a Service that nobody is told of but the proxies of its own pods.
const NOBODY: &str = "~";
/// Longest name of a Service port.
const MAX_PORT_NAME: usize = 63;
/// Numbers by which Istio takes a port for TCP whose name says nothing, instead of looking at what comes first
/// (`wellKnownPorts` of its `pkg/config/kube/conversion.go`).
const TCP_BY_NUMBER: [i32; 4] = [25, 53, 3306, 27_017];

/// The private Service of `workload` behind its public `services`, without which there is none; `settled` as
/// for [`plan::switch_patch`].
///
/// It has the ports of the first one, by their numbers, names and protocols, and one more for every target of
/// any of them, ours or the user's, that those don't have.
#[must_use]
pub fn private(
    workload: &ScaledWorkload,
    services: &[(Arc<Service>, &PlannedService)],
    settled: bool,
) -> Option<Value> {
    let name = workload.name_any();
    let (first, _) = services.first()?;
    let mut selector = plan::user_selector(first).into_owned();
    selector.insert(POD_LABEL.to_owned(), label_value(&name));
    let mut metadata = metadata(workload, &private_service(&name));
    metadata["annotations"] = json!({ ISTIO_EXPORT_TO: NOBODY });
    Some(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": { "selector": selector, "ports": ports(services, settled), "type": "ClusterIP" },
    }))
}

/// Whether the private Service `there` already says what `wanted` would make it say.
#[must_use]
pub fn private_is(there: &Service, wanted: &Value) -> bool {
    let Ok(wanted) = serde_json::from_value::<Service>(wanted.clone()) else {
        return false;
    };
    let exported = |service: &Service| service.annotations().get(ISTIO_EXPORT_TO).cloned();
    match (&there.spec, &wanted.spec) {
        (Some(spec), Some(wanted_spec)) => {
            spec.selector == wanted_spec.selector
                && spec.ports == wanted_spec.ports
                && exported(there) == exported(&wanted)
        }
        _ => false,
    }
}

fn ports(services: &[(Arc<Service>, &PlannedService)], settled: bool) -> Vec<ServicePort> {
    let switched = |public: &Service, port: &PlannedPort| {
        IntOrString::String(plan::target_name(public, port, settled))
    };
    let mut ports: Vec<ServicePort> = services
        .first()
        .into_iter()
        .flat_map(|(public, planned)| planned.ports.iter().map(move |port| (public, port)))
        .map(|(public, port)| ServicePort {
            name: port.name.clone(),
            port: port.port,
            ..with_target(port, switched(public, port))
        })
        .collect();
    for (public, planned) in services {
        for port in &planned.ports {
            // By the number of before, where that is free: `istioctl analyze` warns of a target with two numbers.
            let ours = (port.port, switched(public, port));
            let users = plan::planned_user_target(public, port);
            let users = users.map(|target| (i32::from(port.app_port), target));
            for (number, target) in std::iter::once(ours).chain(users) {
                let is_it = |known: &ServicePort| known.target_port.as_ref() == Some(&target);
                if !ports.iter().any(is_it) {
                    ports.extend(one_more(&ports, port, (number, target)));
                }
            }
        }
    }
    if let [_, _, ..] = ports.as_slice() {
        // Of several ports each must have a name.
        for port in &mut ports {
            port.name.get_or_insert_with(|| OURS.to_owned());
        }
    }
    ports
}

/// What a port without a name is called among others, and what the names of those that are added have.
const OURS: &str = "lull";

/// A port like `port`, by a number and a name that none of `ports` has: the number `first`, or one after it, by
/// which Istio takes it for the same as by that of `port`.
fn one_more(
    ports: &[ServicePort],
    port: &PlannedPort,
    (first, target): (i32, IntOrString),
) -> Option<ServicePort> {
    let numbers = || (first..=i32::from(u16::MAX)).chain(1..first);
    let is_tcp = |number: i32| TCP_BY_NUMBER.contains(&number);
    let alike = numbers().filter(|number| is_tcp(*number) == is_tcp(port.port));
    let added = alike.chain(numbers()).find_map(|number| {
        let name = added_name(port.name.as_deref(), number);
        let is_free =
            |known: &ServicePort| known.port != number && known.name.as_ref() != Some(&name);
        ports.iter().all(is_free).then_some((number, name))
    });
    let (number, name) = added?;
    Some(ServicePort {
        name: Some(name),
        port: number,
        ..with_target(port, target)
    })
}

fn with_target(port: &PlannedPort, target: IntOrString) -> ServicePort {
    ServicePort {
        app_protocol: port.app_protocol.clone(),
        protocol: Some("TCP".to_owned()),
        target_port: Some(target),
        ..ServicePort::default()
    }
}

/// Begins like the name of the port that it stands beside, by which Istio knows the protocol.
fn added_name(name: Option<&str>, number: i32) -> String {
    let end = format!("{OURS}-{number}");
    let Some(name) = name else {
        return end;
    };
    let begin: String = name.chars().take(MAX_PORT_NAME - end.len() - 1).collect();
    format!("{begin}-{end}")
}

#[cfg(test)]
mod tests {
    use lull_contract::names::{HELD_LABEL, ORIGINAL_ANNOTATION};

    use super::{super::tests::workload, *};
    use crate::stores::bare;

    /// A public Service with these ports; where it is switched, by Lull's note of what it was.
    fn public(ports: &Value, note: Option<&Value>, selector: &Value) -> Arc<Service> {
        let annotations = note.map(|note| {
            let note = json!({ "ports": note, "selector": { "app": "shop" } });
            json!({ ORIGINAL_ANNOTATION: note.to_string() })
        });
        let public = json!({
            "metadata": { "name": "web", "annotations": annotations },
            "spec": { "selector": selector, "ports": ports },
        });
        Arc::new(serde_json::from_value(public).unwrap())
    }

    fn planned(ports: &[(Option<&str>, i32, u16)]) -> PlannedService {
        let ports = ports.iter().enumerate();
        PlannedService {
            name: "web".to_owned(),
            families: Vec::new(),
            ports: ports
                .map(|(index, (name, port, app_port))| PlannedPort {
                    index,
                    name: name.map(str::to_owned),
                    app_protocol: None,
                    port: *port,
                    app_port: *app_port,
                    earlier: Vec::new(),
                })
                .collect(),
        }
    }

    /// Name, number and target of each port.
    fn listed(services: &[(Arc<Service>, &PlannedService)]) -> Value {
        let private = private(&workload(), services, true).unwrap();
        let ports = private["spec"]["ports"].as_array().unwrap().iter();
        ports
            .map(|port| json!([port["name"], port["port"], port["targetPort"]]))
            .collect()
    }

    fn ours() -> Value {
        json!({ "app": "shop" })
    }

    #[test]
    fn it_has_the_sidecars_ports_and_the_users_own_before_and_after_these_are_switched() {
        let planned = planned(&[(Some("http"), 80, 8080)]);
        let before = json!([{ "name": "http", "port": 80, "targetPort": 8080 }]);
        let after = json!([{ "name": "http", "port": 80, "targetPort": "lull-8080" }]);
        let note = json!([{ "port": 80, "targetPort": 8080 }]);
        let expected = json!([["http", 80, "lull-8080"], ["http-lull-8080", 8080, 8080]]);
        for (ports, note) in [(&before, None), (&after, Some(&note))] {
            let service = public(ports, note, &ours());
            assert_eq!(listed(&[(service, &planned)]), expected, "{ports}");
        }
    }

    #[test]
    fn numbers_and_names_are_its_own_where_the_users_are_taken() {
        // No name, no target port, and the number is the app's.
        let nameless = (json!([{ "port": 8080 }]), planned(&[(None, 8080, 8080)]));
        let expected = json!([["lull", 8080, "lull-8080"], ["lull-8081", 8081, 8080]]);
        let service = public(&nameless.0, None, &ours());
        assert_eq!(listed(&[(service, &nameless.1)]), expected);

        let last = planned(&[(Some("http"), 80, 65_535), (Some("grpc"), 65_535, 9000)]);
        let ports = json!([
            { "name": "http", "port": 80, "targetPort": "web" },
            { "name": "grpc", "port": 65_535, "targetPort": 9000 },
        ]);
        let expected = json!([
            ["http", 80, "lull-65535"],
            ["grpc", 65_535, "lull-9000"],
            ["http-lull-1", 1, "web"],
            ["grpc-lull-9000", 9000, 9000],
        ]);
        assert_eq!(listed(&[(public(&ports, None, &ours()), &last)]), expected);
    }

    #[test]
    fn a_target_of_any_service_is_there_once() {
        let (web, admin) = (
            planned(&[(Some("http"), 80, 8080)]),
            planned(&[(Some("http"), 81, 8080), (Some("tcp"), 90, 9000)]),
        );
        let web_ports = json!([{ "name": "http", "port": 80, "targetPort": 8080 }]);
        let admin_ports = json!([
            { "name": "http", "port": 81, "targetPort": 8080 },
            { "name": "tcp", "port": 90, "targetPort": 9000 },
        ]);
        let services = [
            (public(&web_ports, None, &ours()), &web),
            (public(&admin_ports, None, &ours()), &admin),
        ];
        let expected = json!([
            ["http", 80, "lull-8080"],
            ["http-lull-8080", 8080, 8080],
            ["tcp-lull-90", 90, "lull-9000"],
            ["tcp-lull-9000", 9000, 9000],
        ]);
        assert_eq!(listed(&services), expected);
    }

    #[test]
    fn a_number_by_which_istio_knows_the_protocol_has_one_beside_it_by_which_it_knows_the_same() {
        let beside = |port: i32| {
            let ports = json!([{ "port": port, "targetPort": 3306 }]);
            let planned = planned(&[(None, port, 3306)]);
            let listed = listed(&[(public(&ports, None, &ours()), &planned)]);
            listed[1].clone()
        };
        assert_eq!(beside(3306), json!(["lull-27017", 27_017, 3306]));
        assert_eq!(beside(80), json!(["lull-3307", 3307, 3306]));
    }

    #[test]
    fn a_name_begins_with_the_users_and_fits() {
        let long = "grpc-".to_owned() + &"a".repeat(58);
        let name = added_name(Some(&long), 8080);
        assert!(name.starts_with("grpc-") && name.ends_with("-lull-8080"));
        assert_eq!(name.len(), MAX_PORT_NAME);
    }

    #[test]
    fn it_follows_the_public_one_also_while_it_is_held_and_only_its_own_pods_are_told() {
        let note = json!([{ "port": 80, "targetPort": 8080 }]);
        let ports = json!([{ "name": "http", "port": 80, "targetPort": "lull-8080" }]);
        let write = |selector: &Value, planned: &PlannedService| {
            let public = public(&ports, Some(&note), selector);
            private(&workload(), &[(public, planned)], true).unwrap()
        };
        let as_planned = planned(&[(Some("http"), 80, 8080)]);
        let plain = write(&ours(), &as_planned);
        let there: Service = serde_json::from_value(plain.clone()).unwrap();
        let mut there = bare(there);
        assert!(private_is(&there, &plain), "as the cache has it");
        let held = json!({ HELD_LABEL: "uid" });
        assert!(private_is(&there, &write(&held, &as_planned)));
        let other = planned(&[(Some("http"), 81, 8080)]);
        assert!(!private_is(&there, &write(&held, &other)));
        assert_eq!(there.annotations()[ISTIO_EXPORT_TO], "~");
        there.annotations_mut().clear();
        assert!(!private_is(&there, &plain), "an earlier release wrote it");
    }
}
