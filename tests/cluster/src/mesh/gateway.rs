//! A gateway into the mesh: Istio's own chart for one, with the sidecars' image, which the injector
//! fills in. One Envoy with two doors, as a cluster has an ingress and a cluster-local gateway.

use std::fs;

use anyhow::Result;

use super::{LIMIT, Mesh, NAMESPACE, is_rolled_out};
use crate::exec::{checked, poll};
use crate::report::step;

/// Name of the release, and of the Deployment, Service and service account in it. The pods' label
/// `istio`, by which Gateways choose them, is the same without its beginning.
const NAME: &str = "istio-ingressgateway";
/// Values of the chart: one pod behind a ClusterIP. The doors' numbers need no rights, and are the same at
/// the Service and at the pod, so it doesn't matter which of them a Gateway's server means.
/// `scripts/cluster.sh` has the same on other clusters.
const VALUES: &str = include_str!("../../mesh/gateway.json");

/// Installs the gateway where it isn't there; istiod must be.
///
/// # Errors
/// When the chart can't be installed or the gateway isn't ready in time.
pub(super) fn ensure(mesh: &Mesh<'_>) -> Result<()> {
    let stamp = mesh.paths.file("istio-gateway.stamp");
    let wanted = format!("{}{VALUES}\n", mesh.stamp());
    let installed = fs::read_to_string(&stamp).unwrap_or_default();
    if installed == wanted && is_ready(mesh)? {
        return Ok(());
    }
    step("gateway", || install(mesh))?;
    Ok(fs::write(stamp, wanted)?)
}

fn install(mesh: &Mesh<'_>) -> Result<()> {
    let values_file = mesh.paths.file("istio-gateway.json");
    fs::write(&values_file, VALUES)?;
    let mut helm = mesh.helm(NAME);
    helm.arg(mesh.parts.source.join("manifests/charts/gateway"))
        .arg("--values")
        .arg(&values_file);
    checked(&mut helm)?;
    poll("the gateway", LIMIT, || Ok(is_ready(mesh)?.then_some(())))
}

fn is_ready(mesh: &Mesh<'_>) -> Result<bool> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}");
    Ok(is_rolled_out(&mesh.api.get(&path)?.body))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn each_door_is_the_same_at_the_service_and_at_the_pod() {
        let values: Value = serde_json::from_str(VALUES).unwrap();
        let ports = values["service"]["ports"].as_array().unwrap();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|port| port["port"] == port["targetPort"]));
    }
}
