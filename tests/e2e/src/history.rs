//! Every change of a workload's replicas and who wrote it, by a watch.

use std::sync::Arc;

use anyhow::Context as _;
use kube::{Api, core::DynamicObject, runtime::watcher};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    Workload,
    timeline::{START, follow},
};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `spec.replicas` since then.
    pub replicas: i64,
    /// The field manager that wrote it.
    pub writer: String,
}

/// Watches one workload's replicas.
#[derive(Debug)]
pub struct History {
    seen: Arc<Mutex<Seen>>,
    /// Stops watching when dropped.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    last: Option<i64>,
    changes: Vec<Change>,
}

// === impl History ===

impl History {
    /// Starts watching; what the replicas are then is no change.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(workload: &Workload) -> anyhow::Result<Self> {
        let resource = workload.kind.resource();
        let client = workload.cluster.client.clone();
        let api: Api<DynamicObject> = Api::namespaced_with(client, &workload.namespace, &resource);
        let one = watcher::Config::default().fields(&format!("metadata.name={}", workload.name));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        let begun = follow(&mut tasks, api, one, move |object: &DynamicObject, _| {
            noted.lock().note(object);
        });
        tokio::time::timeout(START, begun)
            .await
            .context("the watch didn't begin")??;
        Ok(Self {
            seen,
            _tasks: tasks,
        })
    }

    /// Every change so far, oldest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.seen.lock().changes.clone()
    }

    /// The counts that `writer` has written so far, oldest first.
    #[must_use]
    pub fn written_by(&self, writer: &str) -> Vec<i64> {
        let changes = self.changes();
        let theirs = changes.iter().filter(|change| change.writer == writer);
        theirs.map(|change| change.replicas).collect()
    }
}

// === impl Seen ===

impl Seen {
    fn note(&mut self, object: &DynamicObject) {
        let Some(replicas) = object.data["spec"]["replicas"].as_i64() else {
            return;
        };
        let before = self.last.replace(replicas);
        if before.is_some_and(|before| before != replicas) {
            let writer = writer(object).to_owned();
            self.changes.push(Change { replicas, writer });
        }
    }
}

/// Who wrote the replicas last: whoever changes a field is its only manager.
fn writer(object: &DynamicObject) -> &str {
    let mut entries = object.metadata.managed_fields.iter().flatten();
    let entry = entries.find(|entry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| !fields.0["f:spec"]["f:replicas"].is_null())
    });
    let manager = entry.and_then(|entry| entry.manager.as_deref());
    manager.unwrap_or("nobody")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(replicas: i64, manager: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "managedFields": [
                { "manager": "kubectl", "fieldsV1": { "f:spec": { "f:template": {} } } },
                { "manager": manager, "fieldsV1": { "f:spec": { "f:replicas": {} } } },
            ] },
            "spec": { "replicas": replicas },
        }))
        .unwrap()
    }

    #[test]
    fn a_change_is_told_with_its_writer_and_the_beginning_is_none() {
        let mut seen = Seen::default();
        for (replicas, manager) in [(0, "x"), (0, "y"), (1, "lull"), (3, "hpa")] {
            seen.note(&object(replicas, manager));
        }
        let told: Vec<_> = seen
            .changes
            .iter()
            .map(|c| (c.replicas, &*c.writer))
            .collect();
        assert_eq!(told, [(1, "lull"), (3, "hpa")]);
    }
}
