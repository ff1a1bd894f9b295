//! Policies, and the labels that they look at.

use lull_e2e::{
    Namespace,
    book::{self, Page},
};
use serde_json::{Value, json};

/// Path of a namespace's policies on the API server.
pub(crate) fn policies_of(namespace: &str) -> String {
    format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
}

/// Adds a policy to the namespace, whichever it names itself.
pub(crate) async fn add(namespace: &Namespace, mut policy: Value) -> anyhow::Result<()> {
    policy["metadata"]["namespace"] = json!(namespace.name);
    let path = policies_of(&namespace.name);
    namespace.cluster.create(&path, &policy).await
}

/// Adds one that is made of its name and its spec.
pub(crate) async fn add_new(namespace: &Namespace, name: &str, spec: Value) -> anyhow::Result<()> {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name }, "spec": spec,
    });
    add(namespace, policy).await
}

/// The policy called `name` in the page on NetworkPolicies.
pub(crate) fn documented(name: &str) -> anyhow::Result<Value> {
    let page = Page::read(book::folder().join("network-policies.md"))?;
    for block in page.blocks() {
        // What is behind the language says who runs it.
        if block.info.split_whitespace().next() == Some("yaml") {
            let policy: Value = serde_saphyr::from_str(&block.text)?;
            if policy["metadata"]["name"] == name {
                return Ok(policy);
            }
        }
    }
    anyhow::bail!("the page has no policy {name}")
}

/// The pods of an app, as rules name them.
pub(crate) fn peer(app: &str) -> Value {
    json!({ "podSelector": { "matchLabels": { "app": app } } })
}

/// Sets a label of the namespace, or takes it away.
pub(crate) async fn label(
    namespace: &Namespace,
    key: &str,
    value: Option<&str>,
) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}", namespace.name);
    let patch = json!({ "metadata": { "labels": { key: value } } });
    let kind = "application/merge-patch+json";
    namespace.cluster.patch(&path, kind, &patch).await
}
