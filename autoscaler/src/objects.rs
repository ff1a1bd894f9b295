//! The objects that Lull writes for a workload, as server-side apply takes them.

mod private;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Resource, ResourceExt};
use lull_contract::{
    names::{
        FIELD_MANAGER, MANAGED_BY, MULTICLUSTER_SERVICE_LABEL, SLICE_MANAGED_BY_LABEL,
        WORKLOAD_LABEL, activator_slice, hidden_activator_slice, label_value,
    },
    scaled_workload::ScaledWorkload,
};
use serde_json::{Value, json};

use crate::{
    plan::{self, Family, PlannedService},
    pod::Pod,
};

pub use private::{private, private_is};

/// Label by which Kubernetes tells whose slice it is.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Who reads a slice of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Whoever reads slices.
    Everyone,
    /// The same without Istio, which is told by WorkloadEntries.
    AllButIstio,
}

/// Reference by which the garbage collector takes our objects away with the ScaledWorkload.
fn owner(workload: &ScaledWorkload) -> Value {
    json!(
        workload
            .controller_owner_ref(&())
            .map(|reference| vec![reference])
            .unwrap_or_default()
    )
}

/// Metadata of an object of ours called `name` that belongs to `workload`.
pub(crate) fn metadata(workload: &ScaledWorkload, name: &str) -> Value {
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

/// Whether it was Lull that wrote `slice`, for whichever workload.
#[must_use]
pub fn is_lulls(slice: &EndpointSlice) -> bool {
    let by = slice.labels().get(SLICE_MANAGED_BY_LABEL);
    by.is_some_and(|by| by == MANAGED_BY)
}

/// Names of all slices that Lull may write for `service`.
pub(crate) fn slice_names(service: &str) -> impl Iterator<Item = String> {
    Audience::ALL
        .into_iter()
        .flat_map(move |audience| Family::ALL.map(|family| audience.slice(service, family)))
}

/// Names of those of them that nobody is to read any more, where `audience` is told of the activators, in
/// the families that the Service has now.
pub(crate) fn old_slice_names(
    service: &PlannedService,
    audience: Audience,
) -> impl Iterator<Item = String> {
    let families = service.families.iter();
    let current: Vec<String> = families
        .map(|family| audience.slice(&service.name, *family))
        .collect();
    slice_names(&service.name).filter(move |name| !current.contains(name))
}

/// Whether an object of ours is for the workload of this name.
pub(crate) fn belongs_to(object: &impl Resource, workload: &str) -> bool {
    object.labels().get(WORKLOAD_LABEL) == Some(&label_value(workload))
}

/// The slice that adds `activators` to the endpoints of `service` for callers of one family.
///
/// `targetRef` is what makes Istio see the endpoint's pod, and its identity, at all.
#[must_use]
pub fn slice(
    workload: &ScaledWorkload,
    (service, family): (&PlannedService, Family),
    (audience, activators): (Audience, &[&Pod]),
) -> Value {
    let mut meta = metadata(workload, &audience.slice(&service.name, family));
    meta["labels"][SERVICE_NAME_LABEL] = json!(service.name);
    meta["labels"][SLICE_MANAGED_BY_LABEL] = json!(MANAGED_BY);
    if audience == Audience::AllButIstio {
        meta["labels"][MULTICLUSTER_SERVICE_LABEL] = json!(service.name);
    }
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
        "addressType": family.name(),
        "endpoints": activators.iter().filter_map(|pod| endpoint(pod, family)).collect::<Vec<_>>(),
        "ports": ports,
    })
}

fn endpoint(pod: &Pod, family: Family) -> Option<Value> {
    let address = pod.address(family)?;
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "nodeName": pod.node,
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
    });
    if let Some(zone) = pod.zone() {
        endpoint["zone"] = json!(zone);
    }
    Some(endpoint)
}

/// Whether `slice` already says what `wanted` would make it say.
#[must_use]
pub fn slice_is(slice: &EndpointSlice, wanted: &Value) -> bool {
    let Ok(wanted) = serde_json::from_value::<EndpointSlice>(wanted.clone()) else {
        return false;
    };
    slice.endpoints == wanted.endpoints && slice.ports == wanted.ports
}

/// Whether a slice of ours misleads whoever comes by it, `service` being the one behind which it stands and
/// `labels` those of the workload's pods.
///
/// One `is_spare` where the workload is awake, so that nobody is to come by activators, and its Service
/// is not among those that are looked after: nobody would refresh it. While the sentinel keeps pods
/// out of the Service, the slice is all there is.
pub(crate) fn misleads(
    service: Option<&Service>,
    labels: &BTreeMap<String, String>,
    is_spare: bool,
) -> bool {
    let Some(service) = service else {
        // The next one of its name may be for another app.
        return true;
    };
    !plan::selects(service, labels) || (is_spare && !plan::is_held(service))
}

/// Whether who is in `slice` is reached at a port. Pods that have none of the named ports that a Service
/// asks for are in slices of their own, which have no ports.
pub(crate) fn has_ports(slice: &EndpointSlice) -> bool {
    slice.ports.as_ref().is_some_and(|ports| !ports.is_empty())
}

/// Whether Kubernetes' own `slices` have a ready address at one of `ports`.
pub(crate) fn lead_to<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, ports: &[u16]) -> bool {
    let is_one = |number: i32| ports.iter().any(|port| i32::from(*port) == number);
    let leads = |slice: &&EndpointSlice| {
        let mut there = slice.ports.iter().flatten();
        there.any(|port| port.port.is_some_and(is_one))
    };
    native_ready(slices.filter(leads)).next().is_some()
}

/// Ready addresses that Kubernetes itself lists in `slices`, which are those of one Service.
pub fn native_ready<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> impl Iterator<Item = &'a str> {
    slices
        .filter(|slice| !is_lulls(slice))
        .flat_map(|slice| slice.endpoints.iter())
        .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
        .flat_map(|e| e.addresses.iter().map(String::as_str))
}

/// Whether callers of each of `families`, which are those of one Service, find a ready address in
/// Kubernetes' own `slices` of it.
///
/// A family has slices of its own, which may come later than those of the other one. One in which none of
/// `pods` that is ready has an address doesn't count: nobody is reached there with or without Lull. Without
/// families, one address of any will do.
pub(crate) fn are_served(
    families: &[Family],
    slices: &[&EndpointSlice],
    pods: &[Arc<Pod>],
) -> bool {
    let is_ready = |family: Option<Family>| {
        let is_of = |slice: &&EndpointSlice| {
            family.is_none_or(|family| slice.address_type == family.name())
        };
        let slices = slices.iter().copied().filter(is_of);
        native_ready(slices).next().is_some()
    };
    let mut expected = families.iter().copied().filter(|family| {
        let mut ready = pods.iter().filter(|pod| pod.is_ready);
        ready.any(|pod| pod.address(*family).is_some())
    });
    is_ready(None) && expected.all(|family| is_ready(Some(family)))
}

/// Addresses in `slice`, whatever is said of them.
pub(crate) fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = &str> {
    let endpoints = slice.endpoints.iter();
    endpoints.flat_map(|endpoint| endpoint.addresses.iter().map(String::as_str))
}

/// Whether one of `addresses` is that of one of `pods` that is ready.
pub(crate) fn is_any_ready<'a>(
    mut addresses: impl Iterator<Item = &'a str>,
    pods: &[Arc<Pod>],
) -> bool {
    addresses.any(|address| {
        let mut ready = pods.iter().filter(|pod| pod.is_ready);
        ready.any(|pod| pod.has_address(address))
    })
}

/// Whether Kubernetes' own slices among `slices` list, ready or not, what is none of `pods`.
pub(crate) fn list_others<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    pods: &[Arc<Pod>],
) -> bool {
    let mut listed = slices.filter(|slice| !is_lulls(slice)).flat_map(addresses);
    listed.any(|address| !pods.iter().any(|pod| pod.has_address(address)))
}

/// Whether Kubernetes' own `slices` list some of `pods` as ready.
pub(crate) fn lists_any<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    pods: &[Arc<Pod>],
) -> bool {
    let is_ours = |address: &str| pods.iter().any(|pod| pod.has_address(address));
    native_ready(slices).any(is_ours)
}

/// Whether Kubernetes' own `slices` of `service` still list some of `pods` as ready, though its selector is
/// the sentinel.
pub(crate) fn is_hold_unread<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    pods: &[Arc<Pod>],
) -> bool {
    plan::is_held(service) && lists_any(slices, pods)
}

// === impl Audience ===

impl Audience {
    /// Both.
    pub const ALL: [Self; 2] = [Self::AllButIstio, Self::Everyone];

    /// Name of the slice for `service`'s callers of `family`.
    #[must_use]
    pub fn slice(self, service: &str, family: Family) -> String {
        let is_ipv6 = family == Family::Ipv6;
        match self {
            Self::Everyone => activator_slice(service, is_ipv6),
            Self::AllButIstio => hidden_activator_slice(service, is_ipv6),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lull_contract::names::{HELD_LABEL, ORIGINAL_ANNOTATION};

    use super::*;
    use crate::plan::PlannedPort;

    pub(super) fn workload() -> ScaledWorkload {
        serde_json::from_value(json!({
            "metadata": { "name": "shop", "namespace": "team", "uid": "u-1" },
            "spec": {
                "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "d" },
                "podSelector": {},
                "ports": [{ "appPort": 8080, "protocol": "http", "activatorPort": 10_001 }],
                "settings": lull_contract::Settings::default(),
                "originalReplicas": 1,
            },
        }))
        .unwrap()
    }

    fn service() -> PlannedService {
        PlannedService {
            name: "web".to_owned(),
            families: Family::ALL.to_vec(),
            ports: vec![PlannedPort {
                index: 0,
                name: Some("http".to_owned()),
                app_protocol: None,
                port: 80,
                app_port: 8080,
                earlier: Vec::new(),
            }],
        }
    }

    /// The public Service with this selector, with Lull's note of what it was.
    fn public(selector: &Value) -> Service {
        let note = r#"{"ports":[],"selector":{"app":"shop"}}"#;
        serde_json::from_value(json!({
            "metadata": { "name": "web", "annotations": { ORIGINAL_ANNOTATION: note } },
            "spec": { "selector": selector },
        }))
        .unwrap()
    }

    #[test]
    fn a_slice_has_the_addresses_of_its_family() {
        let status =
            json!({ "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] });
        let metadata = json!({
            "name": "a", "namespace": "s", "uid": "u",
            "labels": { "topology.kubernetes.io/zone": "eu-1" },
        });
        let spec = json!({ "containers": [], "nodeName": "n1" });
        let pod = json!({ "metadata": metadata, "spec": spec, "status": status });
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        let activator = Pod::own(pod);
        for (family, name, address) in [
            (Family::Ipv4, "web-lull", "10.0.0.1"),
            (Family::Ipv6, "web-lull-ipv6", "fd00::1"),
        ] {
            let activators = [&activator];
            let listed = (Audience::Everyone, activators.as_slice());
            let slice = slice(&workload(), (&service(), family), listed);
            assert_eq!(slice["metadata"]["name"], name);
            assert_eq!(slice["addressType"], family.name());
            let endpoint = &slice["endpoints"][0];
            assert_eq!(endpoint["addresses"], json!([address]));
            let place = [&endpoint["nodeName"], &endpoint["zone"]];
            assert_eq!(place, [&json!("n1"), &json!("eu-1")]);
            serde_json::from_value::<EndpointSlice>(slice).unwrap();
        }
    }

    #[test]
    fn slices_of_the_other_readers_and_of_a_family_that_has_gone_are_old() {
        let old = |families: &[Family], audience| {
            let service = PlannedService {
                families: families.to_vec(),
                ..service()
            };
            Vec::from_iter(old_slice_names(&service, audience))
        };
        let hidden = ["web-lull-hidden", "web-lull-hidden-ipv6"];
        assert_eq!(old(&Family::ALL, Audience::Everyone), hidden);
        let open = old(&[Family::Ipv4], Audience::AllButIstio);
        let expected = BTreeSet::from(["web-lull", "web-lull-ipv6", "web-lull-hidden-ipv6"]);
        assert_eq!(
            open.iter().map(String::as_str).collect::<BTreeSet<_>>(),
            expected
        );
    }

    #[test]
    fn a_service_of_two_families_is_served_once_a_pod_is_ready_in_both() {
        let (ipv4, ipv6) = ("10.0.0.1", "fd00::1");
        let pod = |addresses: &[&str]| {
            let ips = addresses.iter().map(|ip| json!({ "ip": ip }));
            let ready = json!({ "type": "Ready", "status": "True" });
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
                "metadata": { "name": "p" },
                "status": {
                    "podIP": addresses[0],
                    "podIPs": ips.collect::<Vec<_>>(),
                    "conditions": [ready],
                },
            }))
            .unwrap();
            Arc::new(Pod::from(pod))
        };
        let native = |(family, address): (Family, Option<&str>)| -> EndpointSlice {
            let ready = json!({ "ready": true });
            let endpoints = address.map(|ip| json!({ "addresses": [ip], "conditions": ready }));
            serde_json::from_value(json!({
                "metadata": { "name": family.name() },
                "addressType": family.name(),
                "endpoints": Vec::from_iter(endpoints),
            }))
            .unwrap()
        };
        let both = &Family::ALL[..];
        let (one, two) = (vec![pod(&[ipv4])], vec![pod(&[ipv4, ipv6])]);
        // The Service's families, addresses in its slices, its pods, and whether it is served.
        let rows = [
            (both, [Some(ipv4), Some(ipv6)], &two, true),
            (both, [Some(ipv4), None], &two, false),
            (both, [None, Some(ipv6)], &two, false),
            (both, [None, None], &two, false),
            (both, [Some(ipv4), None], &one, true),
            (both, [None, None], &Vec::new(), false),
            (&[Family::Ipv6][..], [None, Some(ipv6)], &two, true),
            (&[][..], [None, Some(ipv6)], &two, true),
            (&[][..], [None, None], &two, false),
        ];
        for (families, addresses, pods, expected) in rows {
            let slices: Vec<_> = Family::ALL.into_iter().zip(addresses).map(native).collect();
            let slices: Vec<_> = slices.iter().collect();
            let found = are_served(families, &slices, pods);
            assert_eq!(found, expected, "{families:?} {addresses:?} {pods:?}");
        }
    }

    #[test]
    fn a_hold_is_unread_as_long_as_kubernetes_lists_pods_of_the_workload() {
        let slice = |ip: &str, is_ready: bool| -> EndpointSlice {
            let conditions = json!({ "ready": is_ready });
            serde_json::from_value(json!({
                "metadata": { "name": "shop-1" },
                "addressType": "IPv4",
                "endpoints": [{ "addresses": [ip], "conditions": conditions }],
            }))
            .unwrap()
        };
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": { "name": "shop-1", "namespace": "s", "uid": "u" },
            "status": { "podIP": "10.0.0.7" },
        }))
        .unwrap();
        let pods = [Arc::new(Pod::from(pod))];
        let is_unread = |service: &Service, slices: &[EndpointSlice]| {
            is_hold_unread(service, slices.iter(), &pods)
        };
        // One that is not held may be, as long as that can be seen to be read.
        let lists = |slices: &[EndpointSlice]| lists_any(slices.iter(), &pods);
        assert!(lists(&[slice("10.0.0.8", true), slice("10.0.0.7", true)]));
        assert!(!lists(&[slice("10.0.0.8", true), slice("10.0.0.7", false)]));
        assert!(!lists(&[]));
        let held = public(&json!({ HELD_LABEL: "u-1" }));
        let released = public(&json!({ "app": "shop" }));
        assert!(!is_unread(&released, &[slice("10.0.0.7", true)]));
        assert!(is_unread(&held, &[slice("10.0.0.7", true)]));
        assert!(!is_unread(&held, &[slice("10.0.0.7", false)]));
        // Somebody else's, by hand.
        assert!(!is_unread(&held, &[slice("10.0.0.8", true)]));
        assert!(!is_unread(&held, &[]));
    }

    #[test]
    fn slices_lead_to_sidecars_as_long_as_a_ready_pod_is_listed_at_a_port_of_theirs() {
        let slice = |by: &str, port: Option<u16>, is_ready: bool| -> EndpointSlice {
            let ports = port.map(|number| json!({ "name": "http", "port": number }));
            serde_json::from_value(json!({
                "metadata": { "name": "web-1", "labels": { SLICE_MANAGED_BY_LABEL: by } },
                "addressType": "IPv4",
                "endpoints": [{ "addresses": ["10.0.0.7"], "conditions": { "ready": is_ready } }],
                "ports": Vec::from_iter(ports),
            }))
            .unwrap()
        };
        let kubernetes = "endpointslice-controller.k8s.io";
        let stale = slice(kubernetes, Some(8012), true);
        let rows = [
            (vec![stale.clone()], true),
            (
                vec![slice(kubernetes, Some(8080), true), stale.clone()],
                true,
            ),
            (vec![slice(kubernetes, Some(8080), true)], false),
            (vec![slice(kubernetes, Some(8012), false)], false),
            (vec![slice(kubernetes, None, true)], false),
            (vec![slice(MANAGED_BY, Some(8012), true)], false),
        ];
        for (slices, expected) in rows {
            let leads = lead_to(slices.iter(), &[8012, 8013]);
            assert_eq!(leads, expected, "{slices:?}");
        }
        assert!(!lead_to([stale].iter(), &[]), "there is no sidecar");
    }

    #[test]
    fn activators_answer_where_one_that_is_ready_is_listed() {
        let activator = |ip: &str, is_ready: bool| {
            let is_ready = if is_ready { "True" } else { "False" };
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
                "metadata": { "name": "a", "namespace": "s", "uid": "u" },
                "status": {
                    "podIP": ip,
                    "conditions": [{ "type": "Ready", "status": is_ready }],
                },
            }))
            .unwrap();
            Arc::new(Pod::own(pod))
        };
        let (one, other) = (activator("10.0.0.1", true), activator("10.0.0.2", true));
        let ending = activator("10.0.0.2", false);
        let both = [Arc::clone(&one), other];
        let rest = [one, ending];
        // Who is listed, who is there, and whether anybody answers.
        let rows = [
            (&["10.0.0.1", "10.0.0.2"][..], &both, true),
            (&["10.0.0.2"][..], &both, true),
            (&["10.0.0.2"][..], &rest, false),
            (&["10.0.0.3"][..], &both, false),
            (&[][..], &both, false),
        ];
        for (listed, there, expected) in rows {
            let endpoints = listed.iter().map(|ip| json!({ "addresses": [ip] }));
            let slice: EndpointSlice = serde_json::from_value(json!({
                "metadata": { "name": "web-lull" },
                "addressType": "IPv4",
                "endpoints": Vec::from_iter(endpoints),
            }))
            .unwrap();
            let answers = is_any_ready(addresses(&slice), there);
            assert_eq!(answers, expected, "{listed:?} {there:?}");
        }
    }

    #[test]
    fn a_pod_without_the_sidecar_is_listed_until_it_has_gone() {
        let pod = json!({ "metadata": { "name": "p" }, "status": { "podIP": "10.0.0.1" } });
        let pods = [Arc::new(Pod::from(
            serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(pod).unwrap(),
        ))];
        let slice = |ips: &[&str], by: &str| -> EndpointSlice {
            let conditions = json!({ "ready": false, "terminating": true });
            let listed = ips
                .iter()
                .map(|ip| json!({ "addresses": [ip], "conditions": conditions }));
            serde_json::from_value(json!({
                "metadata": { "name": "web-x", "labels": { SLICE_MANAGED_BY_LABEL: by } },
                "addressType": "IPv4",
                "endpoints": Vec::from_iter(listed),
            }))
            .unwrap()
        };
        let kubernetes = "endpointslice-controller.k8s.io";
        for (ips, by, expected) in [
            (&["10.0.0.1", "10.0.0.2"][..], kubernetes, true),
            (&["10.0.0.1"][..], kubernetes, false),
            (&[][..], kubernetes, false),
            (&["10.0.0.3"][..], MANAGED_BY, false),
        ] {
            let listed = list_others([slice(ips, by)].iter(), &pods);
            assert_eq!(listed, expected, "{ips:?} {by}");
        }
    }

    #[test]
    fn a_slice_that_another_workload_has_taken_over_is_its_own() {
        let place = (&service(), Family::Ipv4);
        let slice = slice(&workload(), place, (Audience::Everyone, &[]));
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        assert!(belongs_to(&slice, "shop") && !belongs_to(&slice, "bank"));
        assert!(!belongs_to(&EndpointSlice::default(), "shop"));
    }

    #[test]
    fn a_slice_misleads_where_its_service_is_gone_or_leads_elsewhere_or_needs_none() {
        let labels = BTreeMap::from([("app".to_owned(), "shop".to_owned())]);
        let (ours, held) = (json!({ "app": "shop" }), json!({ HELD_LABEL: "uid" }));
        let (other, none) = (json!({ "app": "bank" }), json!({}));
        // The Service's selector, and what is to become of the slice: at other times, and where it is spare.
        let rows = [
            (None, [true, true]),
            (Some(other), [true, true]),
            (Some(none), [true, true]),
            (Some(ours), [false, true]),
            (Some(held), [false, false]),
        ];
        for (selector, expected) in rows {
            let service = selector.as_ref().map(public);
            let found = [false, true].map(|is_spare| misleads(service.as_ref(), &labels, is_spare));
            assert_eq!(found, expected, "{selector:?}");
        }
    }

    #[test]
    fn the_slice_that_istio_must_not_see_has_another_name_and_says_the_same() {
        let [hidden, open] = Audience::ALL
            .map(|audience| slice(&workload(), (&service(), Family::Ipv4), (audience, &[])));
        let label = |slice: &Value, key: &str| slice["metadata"]["labels"][key].clone();
        assert_eq!(label(&open, MULTICLUSTER_SERVICE_LABEL), Value::Null);
        assert_eq!(label(&hidden, MULTICLUSTER_SERVICE_LABEL), "web");
        for (slice, name) in [(&open, "web-lull"), (&hidden, "web-lull-hidden")] {
            assert_eq!(slice["metadata"]["name"], name);
            assert_eq!(label(slice, SERVICE_NAME_LABEL), "web");
            assert_eq!(slice["ports"][0]["port"], 10_001);
        }
    }
}
