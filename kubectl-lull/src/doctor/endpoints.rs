//! The mesh, the endpoints of sleeping workloads, and what stands in the way of single ones.

use std::collections::BTreeSet;

use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::ResourceExt;
use lull_contract::{
    names::ISTIO_PROXY_CONTAINER,
    scaled_workload::{Mode, ScaledWorkload, State, is_odd},
};

use super::{Area, Finding, OptedIn, Seen, place, ready_addresses};
use crate::gather::COMPONENT_LABEL;

/// Kubernetes' label for the Service of a slice.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Findings about mesh, slices and workloads.
pub(super) fn find(seen: &Seen, findings: &mut Vec<Finding>) {
    mesh(seen, findings);
    let workloads = match &seen.workloads {
        Ok(workloads) => workloads.as_deref().unwrap_or_default(),
        // Said among what is installed.
        Err(_) => return,
    };
    slices(seen, workloads, findings);
    conditions(workloads, findings);
    forgotten(seen, workloads, findings);
}

fn mesh(seen: &Seen, findings: &mut Vec<Finding>) {
    match (&seen.knows_istio, &seen.has_istiod) {
        (Ok(false), _) => findings.push(Area::Mesh.good("there is no Istio, and none is needed")),
        (Ok(true), Ok(true)) => findings.push(Area::Mesh.good("Istio is there, and istiod ready")),
        (Ok(true), Ok(false)) => findings.push(Area::Mesh.warning(
            "the cluster knows WorkloadEntries, but no istiod is ready: unless it runs elsewhere, \
             callers in the mesh are not told of activators",
            "kubectl get pods -A -l app=istiod",
        )),
        (Err(why), _) | (_, Err(why)) => findings.push(Area::Mesh.unknown("Istio", why)),
    }
    let Ok(pods) = &seen.pods else {
        return;
    };
    let meshed: Vec<String> = pods
        .iter()
        .filter(|pod| has_istio(pod))
        .map(|pod| pod.name_any())
        .collect();
    if !meshed.is_empty() {
        findings.push(Area::Mesh.problem(
            format!(
                "Lull's own pods have Istio's container ({}): activators must see the mesh's TLS as \
                 it comes",
                meshed.join(", ")
            ),
            format!(
                "kubectl label namespace {} istio-injection=disabled --overwrite; then restart them",
                seen.namespace
            ),
        ));
    }
}

/// A native sidecar is among the init containers.
fn has_istio(pod: &Pod) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    containers.any(|container| container.name == ISTIO_PROXY_CONTAINER)
}

fn slices(seen: &Seen, workloads: &[ScaledWorkload], findings: &mut Vec<Finding>) {
    let slices = match &seen.slices {
        Ok(slices) => slices,
        Err(why) => return findings.push(Area::Slices.unknown("EndpointSlices", why)),
    };
    let before = findings.len();
    let activators = activators(seen);
    let mut asleep = 0;
    for workload in workloads {
        let status = workload.status.clone().unwrap_or_default();
        let has_activators = status.mode == Mode::Proxy && status.state == State::Asleep;
        asleep += usize::from(has_activators);
        if !has_activators {
            continue;
        }
        for service in &status.services {
            let (namespace, name) = place(workload);
            let own = slices
                .iter()
                .filter(|slice| is_of(slice, &namespace, service));
            let listed = ready_addresses(own);
            let what = format!("{namespace}/{name} sleeps, and its Service {service}");
            findings.extend(listed_wrongly(&what, &listed, activators.as_ref()));
        }
    }
    if findings.len() == before {
        findings.push(Area::Slices.good(format!(
            "every sleeping workload has activators in its endpoints ({asleep} asleep)"
        )));
    }
}

/// Addresses of the activators that run; `None` where they were not seen.
fn activators(seen: &Seen) -> Option<BTreeSet<&str>> {
    let pods = seen.pods.as_ref().ok()?.iter();
    let activators = pods.filter(|pod| {
        let component = pod.labels().get(COMPONENT_LABEL);
        component.is_some_and(|component| component == "activator")
    });
    let status = activators.filter_map(|pod| pod.status.as_ref());
    let addresses = status.flat_map(|status| {
        let all = status.pod_ips.iter().flatten();
        all.map(|ip| ip.ip.as_str())
    });
    Some(addresses.collect())
}

fn is_of(slice: &EndpointSlice, namespace: &str, service: &str) -> bool {
    let named = slice.labels().get(SERVICE_NAME_LABEL);
    slice.namespace().as_deref() == Some(namespace) && named.is_some_and(|named| named == service)
}

/// What is wrong with the activators that a sleeping workload's Service lists.
fn listed_wrongly(
    what: &str,
    listed: &BTreeSet<&str>,
    activators: Option<&BTreeSet<&str>>,
) -> Option<Finding> {
    let fix = "the autoscaler writes them: look at its shards above, and at its logs";
    if listed.is_empty() {
        let text = format!("{what} has no activator in its endpoints: callers are refused");
        return Some(Area::Slices.problem(text, fix));
    }
    let gone: Vec<&str> = listed.difference(activators?).copied().collect();
    if gone.is_empty() {
        return None;
    }
    let text = format!("{what} lists activators that are gone: {}", gone.join(", "));
    Some(if gone.len() == listed.len() {
        Area::Slices.problem(text, fix)
    } else {
        Area::Slices.warning(text, fix)
    })
}

fn conditions(workloads: &[ScaledWorkload], findings: &mut Vec<Finding>) {
    let before = findings.len();
    for workload in workloads {
        let status = workload.status.clone().unwrap_or_default();
        let (namespace, name) = place(workload);
        for condition in status.conditions.iter().filter(|one| is_odd(one)) {
            let reason = &condition.reason;
            let text = format!("{namespace}/{name}: {reason}: {}", condition.message);
            let fix = format!("docs/enrolment.md, {reason}");
            findings.push(Area::Workloads.warning(text, fix));
        }
    }
    if findings.len() == before {
        let count = workloads.len();
        findings
            .push(Area::Workloads.good(format!("nothing stands in a workload's way ({count})")));
    }
}

/// Workloads with the annotation that nobody has taken note of.
fn forgotten(seen: &Seen, workloads: &[ScaledWorkload], findings: &mut Vec<Finding>) {
    let opted_in = match &seen.opted_in {
        Ok(opted_in) => opted_in,
        Err(why) => return findings.push(Area::Workloads.unknown("annotated workloads", why)),
    };
    let known: BTreeSet<(String, String)> = workloads.iter().map(place).collect();
    let is_unknown = |one: &&OptedIn| !known.contains(&(one.namespace.clone(), one.id.clone()));
    for workload in opted_in.iter().filter(is_unknown) {
        findings.push(Area::Workloads.problem(
            format!(
                "{} asks to be run by Lull and has no ScaledWorkload",
                workload.text
            ),
            "wait a moment where it is new; then look at the autoscaler's logs",
        ));
    }
}
