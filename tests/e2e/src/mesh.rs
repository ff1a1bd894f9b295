//! What Istio is told of a workload, and what a workload sees of its callers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, ensure};
use kube::{
    Resource as _, ResourceExt as _,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use lull_contract::{names, ports::traffic_port_name};
use sample_app::wire::{Hello, ProbeAnswer};
use serde_json::{Value, json};

use crate::{Agent, Cluster, Namespace, Workload, app::APP_LABEL, cluster::has_code};

/// Trust domain of a mesh that names no other.
const TRUST_DOMAIN: &str = "cluster.local";
/// Header in which a pod's Envoy says who called.
pub const CALLER_HEADER: &str = "x-forwarded-client-cert";
/// API group of what says who may call.
const SECURITY: &str = "security.istio.io";
/// Kind of what says who may call whom.
const POLICY: &str = "AuthorizationPolicy";
/// Where policies are for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";
/// Name of the policy that denies everything to everybody.
const DENIAL: &str = "lull-e2e-deny-all";

/// Who a service account of `namespace` is for the mesh, without a scheme.
#[must_use]
pub fn principal(namespace: &Namespace, account: &str) -> String {
    format!("{TRUST_DOMAIN}/ns/{}/sa/{account}", namespace.name)
}

/// Lull's WorkloadEntries for `workload`.
///
/// # Errors
/// Where they can't be listed.
pub async fn entries(workload: &Workload) -> anyhow::Result<Vec<Value>> {
    written(workload, "workloadentries").await
}

/// Fails unless each of Lull's WorkloadEntries for `workload` is where its activator's pod is, as far as
/// Kubernetes has written that on the pod.
///
/// # Errors
/// With the first that is not, or where entries or pods can't be listed.
pub async fn entries_are_placed(workload: &Workload) -> anyhow::Result<()> {
    let pods = workload.cluster.component_pods("activator").await?;
    for entry in entries(workload).await? {
        let spec = &entry["spec"];
        let address = spec["address"].as_str();
        let mut there = pods
            .iter()
            .filter(|pod| pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()) == address);
        let pod = there
            .next()
            .with_context(|| format!("no activator is at {address:?}"))?;
        let part = |label: &str| pod.labels().get(label).map_or("", String::as_str);
        let place = [part(names::REGION_LABEL), part(names::ZONE_LABEL)].join("/");
        let (place, locality) = (
            place.trim_end_matches('/'),
            spec["locality"].as_str().unwrap_or_default(),
        );
        ensure!(
            locality == place,
            "an entry is in {locality:?}, its activator in {place:?}"
        );
    }
    Ok(())
}

/// The activators in Lull's WorkloadEntries for `workload`, each with its port for `app_port`, in order.
///
/// # Errors
/// Where the entries can't be listed, or one says neither.
pub async fn activators(workload: &Workload, app_port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let key = traffic_port_name(app_port);
    let mut found = Vec::new();
    for entry in entries(workload).await? {
        let (address, port) = (&entry["spec"]["address"], &entry["spec"]["ports"][&key]);
        let address: IpAddr = address.as_str().unwrap_or_default().parse()?;
        let port = port.as_u64().context("an entry has no port")?;
        found.push(SocketAddr::new(address, u16::try_from(port)?));
    }
    found.sort_unstable();
    Ok(found)
}

/// Connect timeouts of Lull's DestinationRules for `workload`, as they write them.
///
/// # Errors
/// Where they can't be listed.
pub async fn connect_timeouts(workload: &Workload) -> anyhow::Result<Vec<String>> {
    let rules = written(workload, "destinationrules").await?;
    let timeout = |rule: &Value| {
        let pool = &rule["spec"]["trafficPolicy"]["connectionPool"];
        let timeout = pool["tcp"]["connectTimeout"].as_str();
        timeout.unwrap_or_default().to_owned()
    };
    Ok(rules.iter().map(timeout).collect())
}

/// How many of Lull's DestinationRules for `workload` have callers call its pods before activators.
///
/// # Errors
/// Where they can't be listed.
pub async fn pods_first(workload: &Workload) -> anyhow::Result<usize> {
    let rules = written(workload, "destinationrules").await?;
    let says = |rule: &&Value| {
        let balancer = &rule["spec"]["trafficPolicy"]["loadBalancer"];
        !balancer["localityLbSetting"]["failoverPriority"].is_null()
    };
    Ok(rules.iter().filter(says).count())
}

/// Lull's objects of a kind of Istio's for `workload`.
async fn written(workload: &Workload, plural: &str) -> anyhow::Result<Vec<Value>> {
    let Workload {
        namespace, name, ..
    } = workload;
    let selector = format!("{}={name}", names::WORKLOAD_LABEL);
    let path = format!(
        "/apis/networking.istio.io/v1/namespaces/{namespace}/{plural}?labelSelector={selector}"
    );
    let list = workload.cluster.get(&path).await?;
    let items = list["items"].as_array();
    Ok(items.context("the answer is no list")?.clone())
}

/// The headers of a request for `/?headers`, as the app tells them in its `answer`.
///
/// # Errors
/// Where it tells of none.
pub fn headers_told(answer: &ProbeAnswer) -> anyhow::Result<BTreeMap<String, String>> {
    let hello: Hello = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
    hello.headers.context("no headers were told")
}

/// Fails unless the app sees that `agent`, who has `account` in `namespace`, called it.
///
/// # Errors
/// With what it saw.
pub async fn sees_caller(
    workload: &Workload,
    (agent, namespace, account): (&Agent, &Namespace, &str),
) -> anyhow::Result<()> {
    let answer = agent.get(&workload.url("/?headers")).await?;
    let headers = headers_told(&answer)?;
    let seen = headers.get(CALLER_HEADER).cloned().unwrap_or_default();
    let wanted = format!("URI=spiffe://{}", principal(namespace, account));
    ensure!(
        seen.split([';', ',']).any(|part| part == wanted),
        "wanted {wanted}, the app saw {seen:?}"
    );
    Ok(())
}

/// Lets nobody but `principal` call `workload`.
///
/// # Errors
/// Where the API server refuses the policy.
pub async fn allow_only(workload: &Workload, principal: &str) -> anyhow::Result<()> {
    let Workload {
        namespace, name, ..
    } = workload;
    let spec = json!({
        "selector": { "matchLabels": { APP_LABEL: name } },
        "action": "ALLOW",
        "rules": [{ "from": [{ "source": { "principals": [principal] } }] }],
    });
    let callers = format!("{name}-callers");
    let policy = (namespace.as_str(), POLICY, callers.as_str());
    create(&workload.cluster, SECURITY, policy, &spec).await
}

/// Sets the mutual TLS that the pods of `namespace` take, such as `PERMISSIVE`.
///
/// # Errors
/// Where the API server refuses.
pub async fn mutual_tls(namespace: &Namespace, mode: &str) -> anyhow::Result<()> {
    let spec = json!({ "mtls": { "mode": mode } });
    let policy = (namespace.name.as_str(), "PeerAuthentication", "default");
    create(&namespace.cluster, SECURITY, policy, &spec).await
}

/// Takes mutual TLS from these `ports` of `workload`'s pods, and from no others.
///
/// # Errors
/// Where the API server refuses.
pub async fn plain_text_at(workload: &Workload, ports: &[u16]) -> anyhow::Result<()> {
    let modes: BTreeMap<String, Value> = ports
        .iter()
        .map(|port| (port.to_string(), json!({ "mode": "DISABLE" })))
        .collect();
    let (namespace, kind) = (workload.namespace.as_str(), "PeerAuthentication");
    let policy = json!({
        "apiVersion": format!("{SECURITY}/v1"),
        "kind": kind,
        "metadata": { "name": workload.name },
        "spec": {
            "selector": { "matchLabels": { APP_LABEL: workload.name } },
            "portLevelMtls": modes,
        },
    });
    let path = objects(SECURITY, (namespace, kind));
    let path = format!("{path}/{}?fieldManager=lull-e2e", workload.name);
    let applied = "application/apply-patch+yaml";
    workload.cluster.patch(&path, applied, &policy).await
}

/// Runs `during` while nobody in the mesh may be called, but by policies that allow it. That ends with it,
/// whatever came of it; a limit for its time must be its own.
///
/// # Errors
/// Those of `during`, or that the API server refuses the policy or its end.
pub async fn denied_to_all<T>(
    cluster: &Cluster,
    during: impl AsyncFnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    // Without a rule it allows nothing.
    let denial = (ROOT_NAMESPACE, POLICY, DENIAL);
    match create(cluster, SECURITY, denial, &json!({})).await {
        // A run that was killed has left it.
        Err(error) if !has_code(&error, 409) => return Err(error),
        _ => {}
    }
    let outcome = Box::pin(during()).await;
    let path = objects(SECURITY, (ROOT_NAMESPACE, POLICY)) + "/" + DENIAL;
    let gone = cluster.text("DELETE", &path, Vec::new()).await;
    outcome.and_then(|done| gone.map(|_| done))
}

/// The path of a kind's objects.
fn objects(group: &str, (namespace, kind): (&str, &str)) -> String {
    let kind = GroupVersionKind::gvk(group, "v1", kind);
    DynamicObject::url_path(&ApiResource::from_gvk(&kind), Some(namespace))
}

/// Creates an object of Istio's, of a kind of `group`.
///
/// # Errors
/// Where the API server refuses.
pub(crate) async fn create(
    cluster: &Cluster,
    group: &str,
    (namespace, kind, name): (&str, &str, &str),
    spec: &Value,
) -> anyhow::Result<()> {
    let object = json!({
        "apiVersion": format!("{group}/v1"),
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    });
    cluster
        .create(&objects(group, (namespace, kind)), &object)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_plurals_in_paths() {
        let rows = [
            (POLICY, "authorizationpolicies"),
            ("PeerAuthentication", "peerauthentications"),
            ("Gateway", "gateways"),
        ];
        for (kind, plural) in rows {
            let path = objects(SECURITY, ("ns", kind));
            assert!(path.ends_with(&format!("/ns/{plural}")), "{path}");
        }
    }
}
