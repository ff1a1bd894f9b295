//! Every change of a workload's replicas, by a watch.

use std::sync::Arc;

use kube::{Api, core::DynamicObject, runtime::watcher};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    Workload,
    timeline::{begins, follow},
};

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
    changes: Vec<i64>,
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
        begins(begun).await?;
        Ok(Self {
            seen,
            _tasks: tasks,
        })
    }

    /// Every change so far, oldest first.
    #[must_use]
    pub fn changes(&self) -> Vec<i64> {
        self.seen.lock().changes.clone()
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
            self.changes.push(replicas);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_there_is_at_the_beginning_is_no_change() {
        let mut seen = Seen::default();
        for replicas in [0, 0, 1, 3, 3] {
            let object = json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {},
                "spec": { "replicas": replicas },
            });
            seen.note(&serde_json::from_value(object).unwrap());
        }
        assert_eq!(seen.changes, [1, 3]);
    }
}
