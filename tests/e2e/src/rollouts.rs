//! A workload of a kind that Kubernetes doesn't know: `Rollout`, as some of its controllers have it.
//!
//! The suite defines the kind and plays its controller: a ReplicaSet for each template, the newest
//! with the rollout's replicas, the older ones with none as soon as it is ready.

use std::{pin::pin, time::Duration};

use anyhow::ensure;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::{
    Api,
    core::DynamicObject,
    runtime::{WatchStreamExt as _, watcher},
};
use lull_contract::names::fnv1a;
use serde_json::{Map, Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::{Cluster, Kind, Namespace, cluster::has_code, eventually};

/// Where the API server has definitions of kinds.
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Name of ours.
const NAME: &str = "rollouts.e2e.lull.dev";
/// Content type of every patch here.
const MERGE: &str = "application/merge-patch+json";
/// Tells the pods of one template from those of another.
const TEMPLATE_LABEL: &str = "e2e.lull.dev/template";
/// Longest wait for the kind to be there, or gone.
const DEFINED: Duration = Duration::from_secs(60);
/// What failed is tried again after this at the latest.
const AGAIN: Duration = Duration::from_secs(1);

/// The controller of one namespace's rollouts, until it is dropped.
#[derive(Debug)]
pub struct Controller {
    _task: JoinSet<()>,
}

/// What a rollout needs now.
#[derive(Debug, PartialEq)]
struct Plan {
    /// The newest template's ReplicaSet, where there is none.
    create: Option<Value>,
    /// ReplicaSets by name, and replicas that they get.
    scale: Vec<(String, i64)>,
    status: Value,
}

/// Defines the kind and waits until the API server knows it; one that is there already is fine.
///
/// # Errors
/// Where the API server refuses or doesn't know it within a minute.
pub async fn install(cluster: &Cluster) -> anyhow::Result<()> {
    match cluster.create(DEFINITIONS, &definition()).await {
        Err(error) if !has_code(&error, 409) => return Err(error),
        _ => {}
    }
    eventually("the kind Rollout to be known", DEFINED, async || {
        let there = cluster.get(&format!("{DEFINITIONS}/{NAME}")).await?;
        let conditions = there["status"]["conditions"].as_array();
        let is_known = conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Established" && c["status"] == "True")
        });
        ensure!(is_known, "its status is {}", there["status"]);
        // It answers for it a moment later.
        let (version, plural) = (Kind::Rollout.api_version(), Kind::Rollout.plural());
        let all = format!("/apis/{version}/{plural}");
        cluster.get(&all).await.map(drop)
    })
    .await
}

/// Takes the kind away with every object of it, unless `E2E_KEEP` is set.
///
/// # Errors
/// Where that takes longer than a minute.
pub async fn remove(cluster: &Cluster) -> anyhow::Result<()> {
    if std::env::var_os("E2E_KEEP").is_some() {
        return Ok(());
    }
    let path = format!("{DEFINITIONS}/{NAME}");
    match cluster.text("DELETE", &path, Vec::new()).await {
        Err(error) if !has_code(&error, 404) => return Err(error),
        _ => {}
    }
    eventually("the kind Rollout to go", DEFINED, async || {
        let there = cluster.get_if_there(&path).await?;
        ensure!(there.is_none(), "it is still there");
        Ok(())
    })
    .await
}

fn definition() -> Value {
    let replicas = json!({ "type": "integer", "minimum": 0 });
    let part = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": { "replicas": replicas },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": NAME },
        "spec": {
            "group": "e2e.lull.dev",
            "scope": "Namespaced",
            "names": { "kind": "Rollout", "plural": "rollouts", "singular": "rollout" },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": { "spec": part, "status": part },
                } },
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
            }],
        },
    })
}

// === impl Controller ===

impl Controller {
    /// Looks after the rollouts of `namespace`.
    #[must_use]
    pub fn start(namespace: &Namespace) -> Self {
        let mut task = JoinSet::new();
        task.spawn(control(namespace.clone()));
        Self { _task: task }
    }
}

async fn control(namespace: Namespace) {
    let client = || namespace.cluster.client.clone();
    let resource = Kind::Rollout.resource();
    let rollouts: Api<DynamicObject> = Api::namespaced_with(client(), &namespace.name, &resource);
    let sets: Api<ReplicaSet> = Api::namespaced(client(), &namespace.name);
    let all = watcher::Config::default;
    let rollouts = watcher(rollouts, all()).default_backoff().map(drop);
    let sets = watcher(sets, all()).default_backoff().map(drop);
    let mut changes = pin!(stream::select(rollouts, sets));
    loop {
        // What changes is looked up: there are a handful of each.
        let _ = timeout(AGAIN, changes.next()).await;
        if let Err(error) = reconcile(&namespace).await {
            eprintln!("rollouts: {error:#}");
        }
    }
}

async fn reconcile(namespace: &Namespace) -> anyhow::Result<()> {
    let (cluster, within) = (&namespace.cluster, &namespace.name);
    let sets_path = format!("/apis/apps/v1/namespaces/{within}/replicasets");
    let rollouts_path = Kind::Rollout.path(within);
    let rollouts = cluster.get(&rollouts_path).await?;
    let sets = cluster.get(&sets_path).await?;
    for rollout in items(&rollouts) {
        let plan = plan(rollout, items(&sets));
        if let Some(set) = plan.create {
            cluster.create(&sets_path, &set).await?;
        }
        for (name, replicas) in plan.scale {
            let patch = json!({ "spec": { "replicas": replicas } });
            cluster
                .patch(&format!("{sets_path}/{name}"), MERGE, &patch)
                .await?;
        }
        if rollout["status"] != plan.status {
            let path = format!(
                "{rollouts_path}/{}/status",
                text(&rollout["metadata"]["name"])
            );
            cluster
                .patch(&path, MERGE, &json!({ "status": plan.status }))
                .await?;
        }
    }
    Ok(())
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plan(rollout: &Value, sets: &[Value]) -> Plan {
    let spec = &rollout["spec"];
    let wanted = count(&spec["replicas"]);
    let template = format!("{:016x}", fnv1a(spec["template"].to_string().as_bytes()));
    let newest = format!("{}-{template}", text(&rollout["metadata"]["name"]));
    let ours = || sets.iter().filter(move |set| is_owned(set, rollout));
    let is_newest = |set: &&Value| text(&set["metadata"]["name"]) == newest;
    let current = ours().find(is_newest);
    let status = |set: &Value, key: &str| count(&set["status"][key]);
    let ready = current.is_some_and(|set| status(set, "readyReplicas") >= wanted);
    let scale = ours().filter_map(|set| {
        let now = count(&set["spec"]["replicas"]);
        let then = match (is_newest(&set), ready) {
            (true, _) => wanted,
            (false, true) => 0,
            (false, false) => now,
        };
        (then != now).then(|| (text(&set["metadata"]["name"]).to_owned(), then))
    });
    let sum = |key: &str| -> i64 { ours().map(|set| status(set, key)).sum() };
    Plan {
        scale: scale.collect(),
        status: json!({
            "observedGeneration": rollout["metadata"]["generation"],
            "replicas": sum("replicas"),
            "readyReplicas": sum("readyReplicas"),
            "updatedReplicas": current.map_or(0, |set| status(set, "replicas")),
            "selector": selector(&spec["selector"]["matchLabels"]),
        }),
        create: match current {
            Some(_) => None,
            None => Some(replica_set(rollout, &newest, &template)),
        },
    }
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn is_owned(set: &Value, rollout: &Value) -> bool {
    let owners = set["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|all| {
        all.iter()
            .any(|owner| owner["uid"] == rollout["metadata"]["uid"])
    })
}

/// As a list of labels is written in one line.
fn selector(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let pairs: Vec<String> = labels
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    pairs.join(",")
}

fn replica_set(rollout: &Value, name: &str, template: &str) -> Value {
    let (metadata, spec) = (&rollout["metadata"], &rollout["spec"]);
    let labelled = |labels: &Value| -> Map<String, Value> {
        let mut labels = labels.as_object().cloned().unwrap_or_default();
        labels.insert(TEMPLATE_LABEL.to_owned(), json!(template));
        labels
    };
    let mut pod = spec["template"].clone();
    pod["metadata"]["labels"] = json!(labelled(&pod["metadata"]["labels"]));
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "ownerReferences": [{
                "apiVersion": Kind::Rollout.api_version(),
                "kind": Kind::Rollout.name(),
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": true,
            }],
        },
        "spec": {
            "replicas": spec["replicas"],
            "selector": { "matchLabels": labelled(&spec["selector"]["matchLabels"]) },
            "template": pod,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(version: &str) -> Value {
        json!({
            "metadata": { "name": "shop", "uid": "1", "generation": 7 },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "app": "shop" } },
                "template": { "metadata": { "labels": { "app": "shop" } }, "version": version },
            },
        })
    }

    /// What becomes of a ReplicaSet that was created, with `ready` of two pods.
    fn made(plan: Plan, ready: i64) -> Value {
        let mut set = plan.create.unwrap();
        set["status"] = json!({ "replicas": 2, "readyReplicas": ready });
        set
    }

    #[test]
    fn a_new_template_gets_a_set_of_its_own_and_the_old_one_goes_when_it_is_ready() {
        let old = made(plan(&rollout("1"), &[]), 2);
        let old_name = text(&old["metadata"]["name"]).to_owned();
        let rollout = rollout("2");
        let first = plan(&rollout, std::slice::from_ref(&old));
        assert!(first.scale.is_empty() && first.status["updatedReplicas"] == 0);
        let [half, whole] = [1, 2].map(|ready| made(plan(&rollout, &[]), ready));
        assert!(plan(&rollout, &[old.clone(), half]).scale.is_empty());
        let last = plan(&rollout, &[old, whole]);
        assert_eq!((last.create, last.scale), (None, vec![(old_name, 0)]));
        assert_eq!(last.status["selector"], "app=shop");
    }

    #[test]
    fn a_set_follows_the_replicas_of_its_rollout() {
        let mut rollout = rollout("1");
        let set = made(plan(&rollout, &[]), 2);
        rollout["spec"]["replicas"] = json!(0);
        let name = text(&set["metadata"]["name"]).to_owned();
        assert_eq!(plan(&rollout, &[set]).scale, [(name, 0)]);
    }
}
