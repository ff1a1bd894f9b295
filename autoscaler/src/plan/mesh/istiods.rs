//! What istiod itself is told: by it callers in the mesh find activators, or don't.

use super::{Finding, Mesh, Reason, Situation};
use crate::mesh::{Istiod, MeshConfig, NATIVE_SIDECARS, SELECT_ENTRIES};

/// Findings about istiod, for a workload in the mesh; in no order.
pub(super) fn find(situation: &Situation<'_>, mesh: &Mesh<'_>, findings: &mut Vec<Finding>) {
    for istiod in &mesh.rules.istiods {
        if situation.template.takes_native {
            findings.extend(classic_proxy(mesh, istiod));
        }
        findings.extend(ignored_entries(mesh, istiod));
        findings.extend(other_clusters(mesh, istiod));
    }
    for config in &mesh.rules.configs {
        findings.extend(discovery(mesh, config));
    }
}

fn object_of(mesh: &Mesh<'_>, istiod: &Istiod) -> String {
    mesh.object("Deployment", (&istiod.namespace, &istiod.name))
}

fn ignored_entries(mesh: &Mesh<'_>, istiod: &Istiod) -> Option<Finding> {
    istiod.ignores_entries.then(|| {
        Finding::new(
            Reason::EntriesIgnored,
            object_of(mesh, istiod),
            format!(
                "is told by {SELECT_ENTRIES}=false not to select WorkloadEntries by Services: callers \
                 in the mesh would reach nothing while the workload sleeps; take the variable out of \
                 istiod's environment, or set it to \"true\""
            ),
        )
    })
}

fn classic_proxy(mesh: &Mesh<'_>, istiod: &Istiod) -> Option<Finding> {
    istiod.is_classic.then(|| {
        Finding::new(
            Reason::ClassicProxy,
            object_of(mesh, istiod),
            format!(
                "is told by {NATIVE_SIDECARS}=false to make istio-proxy an ordinary container, which \
                 ends together with the app's, and the template was made for one that ends last: \
                 requests that come while a pod goes may be lost; helm upgrade with \
                 mesh.nativeSidecars=false and roll the workload out, or write \
                 sidecar.istio.io/nativeSidecar into the template, \"false\" or \"true\""
            ),
        )
    })
}

/// Other clusters themselves can't be seen: their credentials are Secrets.
fn other_clusters(mesh: &Mesh<'_>, istiod: &Istiod) -> Option<Finding> {
    let cluster = istiod.cluster.as_ref()?;
    Some(Finding::new(
        Reason::OtherClusters,
        object_of(mesh, istiod),
        format!(
            "calls its cluster {cluster} (CLUSTER_ID), as one has to in a mesh of several clusters: \
             callers in other ones wake the workload only where their Envoys reach the activators' \
             pods; where this cluster is the only one, there is nothing to do"
        ),
    ))
}

fn discovery(mesh: &Mesh<'_>, config: &MeshConfig) -> Option<Finding> {
    let (namespace, selectors) = (mesh.namespace, config.selectors());
    (!config.discovers(namespace)).then(|| {
        Finding::new(
            Reason::DiscoverySelectors,
            mesh.object("ConfigMap", (&config.namespace, &config.name)),
            format!(
                "has istiod look only at namespaces with the labels {selectors} (discoverySelectors), \
                 and Lull may not read those of {namespace}: without them callers in the mesh know \
                 neither the Services nor the activators, and come in plain text; see that the \
                 namespace has them"
            ),
        )
    })
}
