//! Whether Istio is there as Lull needs it, and the activators outside of it.

use autoscaler::mesh::{MeshMode, SELECT_ENTRIES, ignores_entries};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use lull_contract::names::ISTIO_PROXY_CONTAINER;

use super::{Area, Finding, Seen};
use crate::gather::COMPONENT_LABEL;

/// Findings about Istio.
pub(super) fn find(seen: &Seen, findings: &mut Vec<Finding>) {
    findings.push(istio(seen));
    if matches!(seen.knows_istio, Ok(true)) && seen.mesh_mode != MeshMode::None {
        findings.extend(kinds(seen));
    }
    let Ok(pods) = &seen.pods else {
        return;
    };
    let meshed: Vec<String> = pods
        .iter()
        .filter(|pod| is_activator(pod) && has_istio(pod))
        .map(|pod| pod.name_any())
        .collect();
    if !meshed.is_empty() {
        findings.push(Area::Mesh.problem(
            format!(
                "activators have Istio's container ({}): they must see the mesh's TLS as it comes",
                meshed.join(", ")
            ),
            format!(
                "kubectl label namespace {} istio-injection=disabled --overwrite; then restart them",
                seen.namespace
            ),
        ));
    }
}

fn istio(seen: &Seen) -> Finding {
    let istiods = seen.istiods.as_ref();
    let has_istiod = istiods.map(|pods| pods.iter().any(is_ready));
    let is_deaf = istiods.is_ok_and(|pods| {
        let mut specs = pods.iter().filter_map(|pod| pod.spec.as_ref());
        specs.any(ignores_entries)
    });
    match (&seen.knows_istio, has_istiod) {
        (Ok(true), _) if seen.mesh_mode == MeshMode::None => Area::Mesh.warning(
            "Istio is there, and Lull is told to leave it alone (mesh.mode is none): workloads in the \
             mesh are treated as if they were outside of it",
            "helm upgrade with mesh.mode=auto, where a workload in the mesh is to sleep",
        ),
        // Istiods of before 1.22 have their kinds in other versions only.
        (Ok(false), Ok(true)) if seen.mesh_mode != MeshMode::None => Area::Mesh.problem(
            "an istiod runs, and the cluster doesn't know the WorkloadEntries of \
             networking.istio.io/v1 by which Istio is told of activators: Lull takes the cluster for \
             one without a mesh",
            "Istio 1.22 or later with its CRDs (chart istio/base): docs/istio.md",
        ),
        (Ok(true), _) if is_deaf => Area::Mesh.problem(
            format!(
                "istiod is told not to select WorkloadEntries by Services ({SELECT_ENTRIES} is false): \
                 callers in the mesh reach no workload that sleeps"
            ),
            format!("take {SELECT_ENTRIES} out of istiod's environment"),
        ),
        (Ok(false), _) if seen.mesh_mode == MeshMode::Istio => Area::Mesh.problem(
            "there is no Istio, and Lull is told to wait for it (mesh.mode is istio): nothing is enrolled",
            "install Istio's CRDs (chart istio/base), or helm upgrade with mesh.mode=auto",
        ),
        (Ok(false), _) => Area::Mesh.good("there is no Istio, and none is needed"),
        (Ok(true), Ok(true)) => Area::Mesh.good("Istio is there, and istiod ready"),
        (Ok(true), Ok(false)) => Area::Mesh.warning(
            "the cluster knows WorkloadEntries, but no istiod is ready: unless it runs elsewhere, \
             callers in the mesh are not told of activators",
            "kubectl get pods -A -l app=istiod",
        ),
        (Err(why), _) | (_, Err(why)) => Area::Mesh.unknown("Istio", why),
    }
}

fn is_ready(pod: &Pod) -> bool {
    autoscaler::pod::Pod::from(pod.clone()).is_ready
}

/// Kinds that the cluster lacks though it has WorkloadEntries.
fn kinds(seen: &Seen) -> Option<Finding> {
    match &seen.missing_kinds {
        Ok(missing) if missing.is_empty() => None,
        Ok(missing) => Some(Area::Mesh.warning(
            format!(
                "the cluster knows WorkloadEntries, but not {}: what they say of a workload is not seen, \
                 and with mesh.mode=istio nothing is enrolled",
                missing.join(", ")
            ),
            "install all of Istio's CRDs (chart istio/base)",
        )),
        Err(why) => Some(Area::Mesh.unknown("Istio's kinds", why)),
    }
}

/// The others may be in the mesh, too (`mesh.inject`).
fn is_activator(pod: &Pod) -> bool {
    pod.labels().get(COMPONENT_LABEL).map(String::as_str) == Some("activator")
}

/// A native sidecar is among the init containers.
fn has_istio(pod: &Pod) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    containers.any(|container| container.name == ISTIO_PROXY_CONTAINER)
}
