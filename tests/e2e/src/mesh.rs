//! What Istio is told of a workload, and what a workload sees of its callers.

use anyhow::{Context as _, ensure};
use lull_contract::names;
use sample_app::wire::Hello;
use serde_json::{Value, json};

use crate::{Agent, Namespace, Workload, app::APP_LABEL};

/// Trust domain of a mesh that names no other.
const TRUST_DOMAIN: &str = "cluster.local";
/// Header in which a pod's Envoy says who called.
const CALLER_HEADER: &str = "x-forwarded-client-cert";

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

/// Fails unless the app sees that `agent`, who has `account` in `namespace`, called it.
///
/// # Errors
/// With what it saw.
pub async fn sees_caller(
    workload: &Workload,
    (agent, namespace, account): (&Agent, &Namespace, &str),
) -> anyhow::Result<()> {
    let answer = agent.get(&workload.url("/?headers")).await?;
    let hello: Hello = serde_json::from_str(&answer.body).context(answer.body.clone())?;
    let headers = hello.headers.context("no headers were told")?;
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
    let policy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": format!("{name}-callers") },
        "spec": {
            "selector": { "matchLabels": { APP_LABEL: name } },
            "action": "ALLOW",
            "rules": [{ "from": [{ "source": { "principals": [principal] } }] }],
        },
    });
    let path = format!("/apis/security.istio.io/v1/namespaces/{namespace}/authorizationpolicies");
    let cluster = &workload.cluster;
    cluster
        .text("POST", &path, serde_json::to_vec(&policy)?)
        .await
        .map(drop)
}
