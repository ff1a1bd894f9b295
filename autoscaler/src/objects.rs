//! The objects that Lull writes for a workload, as server-side apply takes them.

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Resource, ResourceExt};
use lull_contract::{
    names::{
        FIELD_MANAGER, MANAGED_BY, POD_LABEL, SLICE_MANAGED_BY_LABEL, WORKLOAD_LABEL,
        activator_slice, label_value, private_service,
    },
    ports::traffic_port_name,
    scaled_workload::ScaledWorkload,
};
use serde_json::{Value, json};

use crate::{
    plan::{self, PlannedService},
    pod::Pod,
};

/// Label by which Kubernetes tells whose slice it is.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Reference by which the garbage collector takes our objects away with the ScaledWorkload.
fn owner(workload: &ScaledWorkload) -> Value {
    json!(
        workload
            .controller_owner_ref(&())
            .map(|reference| vec![reference])
            .unwrap_or_default()
    )
}

fn metadata(workload: &ScaledWorkload, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": workload.namespace(),
        "labels": {
            WORKLOAD_LABEL: label_value(&workload.name_any()),
            "app.kubernetes.io/managed-by": FIELD_MANAGER,
        },
        "ownerReferences": owner(workload),
    })
}

/// The private Service: the public one's ports on the pods that carry our label.
#[must_use]
pub fn private(workload: &ScaledWorkload, public: &Service, planned: &PlannedService) -> Value {
    let name = workload.name_any();
    let ports: Vec<Value> = planned
        .ports
        .iter()
        .map(|port| {
            let mut value = json!({
                "port": port.port,
                "protocol": "TCP",
                "targetPort": traffic_port_name(port.app_port),
            });
            if let Some(name) = &port.name {
                value["name"] = json!(name);
            }
            if let Some(protocol) = &port.app_protocol {
                value["appProtocol"] = json!(protocol);
            }
            value
        })
        .collect();
    let mut selector = plan::user_selector(public);
    selector.insert(POD_LABEL.to_owned(), label_value(&name));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(workload, &private_service(&name)),
        "spec": { "selector": selector, "ports": ports, "type": "ClusterIP" },
    })
}

/// Whether the private Service `there` already says what `wanted` would make it say.
#[must_use]
pub fn private_is(there: &Service, wanted: &Value) -> bool {
    let Ok(wanted) = serde_json::from_value::<Service>(wanted.clone()) else {
        return false;
    };
    match (&there.spec, &wanted.spec) {
        (Some(there), Some(wanted)) => {
            there.selector == wanted.selector && there.ports == wanted.ports
        }
        _ => false,
    }
}

/// The slice that adds `activators` to the endpoints of `service`.
///
/// `targetRef` is what makes Istio see the endpoint's pod, and its identity, at all.
#[must_use]
pub fn slice(workload: &ScaledWorkload, service: &PlannedService, activators: &[&Pod]) -> Value {
    let mut meta = metadata(workload, &activator_slice(&service.name, false));
    meta["labels"][SERVICE_NAME_LABEL] = json!(service.name);
    meta["labels"][SLICE_MANAGED_BY_LABEL] = json!(MANAGED_BY);
    let ports: Vec<Value> = service
        .ports
        .iter()
        .filter_map(|port| {
            let ours = workload
                .spec
                .ports
                .iter()
                .find(|p| p.app_port == port.app_port)?;
            let mut value = json!({
                "name": port.name.clone().unwrap_or_default(),
                "port": ours.activator_port,
                "protocol": "TCP",
            });
            if let Some(protocol) = &port.app_protocol {
                value["appProtocol"] = json!(protocol);
            }
            Some(value)
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": "IPv4",
        "endpoints": activators.iter().filter_map(|pod| endpoint(pod)).collect::<Vec<_>>(),
        "ports": ports,
    })
}

fn endpoint(pod: &Pod) -> Option<Value> {
    let ip = pod.ip.as_ref()?;
    Some(json!({
        "addresses": [ip],
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "nodeName": pod.node,
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
    }))
}

/// Whether `slice` already says what `wanted` would make it say.
#[must_use]
pub fn slice_is(slice: &EndpointSlice, wanted: &Value) -> bool {
    let Ok(wanted) = serde_json::from_value::<EndpointSlice>(wanted.clone()) else {
        return false;
    };
    slice.endpoints == wanted.endpoints && slice.ports == wanted.ports
}

/// Ready addresses that Kubernetes itself lists in `slices`, which are those of one Service.
pub fn native_ready<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> impl Iterator<Item = &'a str> {
    slices
        .filter(|slice| {
            let by = slice.labels().get(SLICE_MANAGED_BY_LABEL);
            by.is_none_or(|by| by != MANAGED_BY)
        })
        .flat_map(|slice| slice.endpoints.iter())
        .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
        .flat_map(|e| e.addresses.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use lull_contract::names::{HELD_LABEL, ORIGINAL_ANNOTATION};

    use super::*;
    use crate::plan::PlannedPort;

    fn workload() -> ScaledWorkload {
        let spec = json!({
            "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u" },
            "podSelector": {}, "ports": [], "settings": lull_contract::Settings::default(),
            "originalReplicas": 1,
        });
        ScaledWorkload::new("shop", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn the_private_service_follows_the_public_one_also_while_it_is_held() {
        let public = |selector: Value| -> Service {
            let note = r#"{"ports":[],"selector":{"app":"shop"}}"#;
            serde_json::from_value(json!({
                "metadata": { "name": "shop", "annotations": { ORIGINAL_ANNOTATION: note } },
                "spec": { "selector": selector },
            }))
            .unwrap()
        };
        let planned = |port| PlannedService {
            name: "shop".into(),
            ports: vec![PlannedPort {
                index: 0,
                name: Some("http".into()),
                app_protocol: None,
                port,
                app_port: 8080,
            }],
        };
        let plain = private(&workload(), &public(json!({ "app": "shop" })), &planned(80));
        let there: Service = serde_json::from_value(plain.clone()).unwrap();
        assert!(private_is(&there, &plain));
        let held = public(json!({ HELD_LABEL: "uid" }));
        assert!(private_is(
            &there,
            &private(&workload(), &held, &planned(80))
        ));
        assert!(!private_is(
            &there,
            &private(&workload(), &held, &planned(81))
        ));
    }
}
