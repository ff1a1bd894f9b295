//! Which WorkloadEntries of ours there are, once the cluster knows the kind.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kube::{Api, Client, ResourceExt, core::DeserializeGuard};
use lull_contract::names::WORKLOAD_LABEL;
use lull_process::readiness::Readiness;

use super::{
    API_VERSION, MeshMode, WorkloadEntry,
    kinds::{keep_asking, until_served},
};
use crate::{
    cache::{Cache, Writer},
    stores::{Guard, OnTouched, Teller, Touched, Watch, by_name, label},
};

/// What the API server calls them in paths.
pub(super) const PLURAL: &str = "workloadentries";

/// Our WorkloadEntries; none as long as the cluster doesn't know the kind, which may come and go.
#[derive(Debug, Clone)]
pub struct Entries {
    cache: Cache<WorkloadEntry>,
    is_known: Arc<AtomicBool>,
}

// === impl Entries ===

impl Entries {
    /// Starts to look for the kind, and to watch once it is there; `readiness` waits until it is
    /// certain that there is none, or the first list is complete. Nothing starts where `mode` says
    /// that there is no mesh.
    #[must_use]
    pub fn start(
        client: &Client,
        mode: MeshMode,
        (readiness, on_touched): (&Readiness, &OnTouched),
    ) -> Self {
        let writer = Writer::new(by_name::<WorkloadEntry>(workload_of));
        let entries = Self {
            cache: writer.cache(),
            is_known: Arc::default(),
        };
        if mode == MeshMode::None {
            return entries;
        }
        let pending = readiness.expect(PLURAL);
        let (client, is_known) = (client.clone(), Arc::clone(&entries.is_known));
        let teller = Teller::new(PLURAL, on_touched);
        tokio::spawn(async move {
            let kind = (API_VERSION, PLURAL);
            let pending = until_served(&client, kind, mode, pending).await;
            tell(&is_known, true);
            let api = Api::<DeserializeGuard<WorkloadEntry>>::all(client.clone());
            let ours = lull_kubernetes::watched().labels(WORKLOAD_LABEL);
            let watch = Watch {
                teller,
                pending,
                touched,
                is_vital: true,
                unplanned: None,
            };
            // Anybody may put our label on one of his own.
            let guard = Guard::default();
            let asked = keep_asking(&client, kind, |is_there| tell(&is_known, is_there));
            tokio::join!(watch.run_guarded((api, ours), writer, guard), asked);
        });
        entries
    }

    /// Whether entries can be written.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Every one.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<WorkloadEntry>> {
        self.cache.all()
    }

    /// Those of the workload whose name has this label value.
    #[must_use]
    pub fn of(&self, namespace: &str, label: &str) -> Vec<Arc<WorkloadEntry>> {
        self.cache.in_group(namespace, label)
    }
}

fn tell(is_known: &AtomicBool, is_there: bool) {
    if is_known.swap(is_there, Ordering::Relaxed) == is_there {
        return;
    }
    if is_there {
        tracing::info!("the cluster has a mesh: Istio is told of activators by WorkloadEntries");
    } else {
        tracing::warn!("the cluster has no WorkloadEntries any more: as without a mesh");
    }
}

/// [`WORKLOAD_LABEL`] of an entry.
fn workload_of(entry: &WorkloadEntry) -> Option<&str> {
    label(entry, WORKLOAD_LABEL)
}

fn touched(entry: &WorkloadEntry) -> Touched {
    let workload = workload_of(entry).unwrap_or_default();
    Touched::Label(entry.namespace().unwrap_or_default(), workload.to_owned())
}
