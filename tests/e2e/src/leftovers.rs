//! What Lull left behind where it should have left nothing.

use lull_contract::{annotations::PREFIX, names};
use serde_json::Value;

use crate::{Cluster, Kind};

/// Lists of kinds that Lull writes; one that the cluster doesn't know is no leftover.
const KINDS: [(&str, &str); 7] = [
    ("/api/v1", "services"),
    ("/api/v1", "configmaps"),
    ("/api/v1", "endpoints"),
    ("/apis/discovery.k8s.io/v1", "endpointslices"),
    ("/apis/lull.dev/v1alpha1", "scaledworkloads"),
    ("/apis/networking.istio.io/v1", "workloadentries"),
    ("/apis/networking.istio.io/v1", "destinationrules"),
];

/// Objects of Lull, and traces of it on others, in `namespace`, or in all where it is empty.
///
/// Pods are looked at for the label that the webhook adds, and templates and Services for
/// annotations and labels of ours; the user's own `lull.dev/` settings on a workload are his.
///
/// # Errors
/// Where something can't be listed.
pub async fn leftovers(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<String>> {
    let within = if namespace.is_empty() {
        String::new()
    } else {
        format!("/namespaces/{namespace}")
    };
    let mut found = Vec::new();
    for (group, kind) in KINDS {
        let labelled = format!(
            "{group}{within}/{kind}?labelSelector={}",
            names::WORKLOAD_LABEL
        );
        found.extend(listed(cluster, &labelled, kind, |_| true).await?);
    }
    let all = format!("/apis/lull.dev/v1alpha1{within}/scaledworkloads");
    found.extend(listed(cluster, &all, "scaledworkloads", |_| true).await?);
    let slices = format!("/apis/discovery.k8s.io/v1{within}/endpointslices");
    let ours = |item: &Value| {
        item["metadata"]["labels"][names::SLICE_MANAGED_BY_LABEL] == names::MANAGED_BY
    };
    found.extend(listed(cluster, &slices, "endpointslices", ours).await?);
    let pods = format!("/api/v1{within}/pods?labelSelector={}", names::POD_LABEL);
    found.extend(listed(cluster, &pods, "pods", |_| true).await?);
    let services = format!("/api/v1{within}/services");
    found.extend(listed(cluster, &services, "services", has_traces).await?);
    let injected = |item: &Value| template_has_traces(&item["spec"]["template"]);
    for kind in Kind::ALL {
        let plural = kind.plural();
        let workloads = format!("/apis/{}{within}/{plural}", kind.api_version());
        found.extend(listed(cluster, &workloads, plural, injected).await?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

async fn listed(
    cluster: &Cluster,
    path: &str,
    kind: &str,
    counts: impl Fn(&Value) -> bool,
) -> anyhow::Result<Vec<String>> {
    let list = cluster.get_if_there(path).await?.unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let name = |item: &Value| {
        let text = |key: &str| item["metadata"][key].as_str().unwrap_or("?").to_owned();
        format!("{kind} {}/{}", text("namespace"), text("name"))
    };
    Ok(items.iter().filter(|item| counts(item)).map(name).collect())
}

/// Whether an object carries a label or an annotation of Lull, or selects by one.
#[must_use]
pub fn has_traces(object: &Value) -> bool {
    let ours = |map: &Value| {
        map.as_object()
            .is_some_and(|map| map.keys().any(|key| key.starts_with(PREFIX)))
    };
    ours(&object["metadata"]["labels"])
        || ours(&object["metadata"]["annotations"])
        || ours(&object["spec"]["selector"])
}

fn template_has_traces(template: &Value) -> bool {
    let containers = template["spec"]["containers"].as_array();
    has_traces(template)
        || containers.is_some_and(|all| {
            all.iter()
                .any(|c| c["name"] == names::QUEUE_PROXY_CONTAINER)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_annotations_selectors_and_sidecars_are_traces() {
        assert!(has_traces(
            &json!({ "metadata": { "annotations": { "lull.dev/original": "{}" } } })
        ));
        assert!(has_traces(
            &json!({ "spec": { "selector": { "lull.dev/held": "x" } } })
        ));
        assert!(!has_traces(
            &json!({ "metadata": { "labels": { "app": "lull.dev" } } })
        ));
        let sidecar = json!({ "spec": { "containers": [{ "name": "lull-queue-proxy" }] } });
        assert!(template_has_traces(&sidecar));
    }
}
