//! Every state of one object, by a watch: each write that changed something makes one.

use std::sync::Arc;

use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
    runtime::watcher,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    Workload,
    timeline::{begins, follow},
};

/// Watches one object.
#[derive(Debug)]
pub struct Writes {
    seen: Arc<Mutex<Vec<DynamicObject>>>,
    /// Stops watching when dropped.
    _tasks: JoinSet<()>,
}

// === impl Writes ===

impl Writes {
    /// Starts watching the workload itself.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn of_workload(workload: &Workload) -> anyhow::Result<Self> {
        Self::start(workload, &workload.kind.resource()).await
    }

    /// Starts watching the workload's public Service.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn of_service(workload: &Workload) -> anyhow::Result<Self> {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            plural: "services".to_owned(),
        };
        Self::start(workload, &resource).await
    }

    async fn start(workload: &Workload, resource: &ApiResource) -> anyhow::Result<Self> {
        let client: Client = workload.cluster.client.clone();
        let api: Api<DynamicObject> = Api::namespaced_with(client, &workload.namespace, resource);
        let one = watcher::Config::default().fields(&format!("metadata.name={}", workload.name));
        let seen: Arc<Mutex<Vec<DynamicObject>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        let begun = follow(&mut tasks, api, one, move |object: &DynamicObject, _| {
            let mut seen = noted.lock();
            // A watch that begins anew lists what is there.
            let last = seen.last().map(|last| &last.metadata.resource_version);
            if last != Some(&object.metadata.resource_version) {
                seen.push(object.clone());
            }
        });
        begins(begun).await?;
        Ok(Self {
            seen,
            _tasks: tasks,
        })
    }

    /// Every state so far, oldest first; the first is that of the beginning.
    #[must_use]
    pub fn states(&self) -> Vec<DynamicObject> {
        self.seen.lock().clone()
    }
}
