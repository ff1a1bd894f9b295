//! Lull's own pods as NetworkPolicies see them, read with the user's own rights.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use autoscaler::{plan::Components, pod::Pod};
use k8s_openapi::api::core::v1::{self as core, Namespace};
use kube::{Api, api::ListParams};

use crate::{
    cluster::{Cluster, call},
    gather::{COMPONENT_LABEL, LULL},
    rights::Reading,
};

/// Label that Kubernetes puts on every namespace.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Where Lull's own pods are, and with which labels.
pub(crate) async fn components(
    cluster: &Cluster,
    missing: &mut Vec<String>,
) -> anyhow::Result<Components> {
    let namespace = cluster.lull_namespace.clone();
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let by_name = BTreeMap::from([(NAMESPACE_NAME_LABEL.to_owned(), namespace.clone())]);
    let found = call("look at Lull's namespace", api.get_opt(&namespace)).await;
    let seen = match found {
        Ok(found) => found.and_then(|found| found.metadata.labels),
        Err(error) if error.is(403) => {
            let effect = "only its name is compared with NetworkPolicies";
            missing.push(Reading::LullNamespace.lacked(cluster, effect));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let pods = lull_pods(cluster, missing).await?;
    let of = |component: &str| -> Vec<Arc<Pod>> {
        let is_it = |pod: &&Arc<Pod>| {
            let named = pod.labels.get(COMPONENT_LABEL);
            named.is_some_and(|named| named == component)
        };
        pods.iter().filter(is_it).cloned().collect()
    };
    let charted = Components {
        namespace,
        namespace_labels: by_name,
        activators: labels("activator"),
        autoscalers: labels("autoscaler"),
        localities: BTreeSet::new(),
    };
    Ok(charted.as_seen(seen.as_ref(), &of("activator"), &of("autoscaler")))
}

/// Lull's own pods; none where the user may not list them.
async fn lull_pods(cluster: &Cluster, missing: &mut Vec<String>) -> anyhow::Result<Vec<Arc<Pod>>> {
    let (client, namespace) = (cluster.client.clone(), &cluster.lull_namespace);
    let api: Api<core::Pod> = Api::namespaced(client, namespace);
    let lull = ListParams::default().labels(LULL);
    match call("list Lull's pods", api.list(&lull)).await {
        Ok(list) => Ok(list.into_iter().map(Pod::own).map(Arc::new).collect()),
        Err(error) if error.is(403) => {
            let effect = "NetworkPolicies are compared with the chart's own labels";
            missing.push(Reading::LullPods.lacked(cluster, effect));
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Labels of a component's pods, as the chart sets them.
fn labels(component: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/part-of", "lull"),
        (COMPONENT_LABEL, component),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}
