//! Which WorkloadEntries of ours there are, once the cluster knows the kind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kube::{Api, Client, ResourceExt, runtime::watcher};
use lull_contract::names::WORKLOAD_LABEL;
use lull_process::readiness::Readiness;

use super::{API_VERSION, WorkloadEntry};
use crate::{
    cache::{Cache, Keys, Writer},
    config::API_TIMEOUT,
    discovery::{Said, Search},
    stores::{OnTouched, Touched, Watch, bare, by_name, label},
};

/// What the API server calls them in paths.
const PLURAL: &str = "workloadentries";
/// Between two looks for a mesh on a cluster that has none: it is installed once.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Our WorkloadEntries; none as long as the cluster doesn't know the kind.
#[derive(Debug, Clone)]
pub struct Entries {
    cache: Cache<WorkloadEntry>,
    is_known: Arc<AtomicBool>,
}

/// Why it is not known which kinds there are.
#[derive(Debug, thiserror::Error)]
enum Unsaid {
    #[error("listing the kinds of {API_VERSION}: {0}")]
    Api(#[source] Box<kube::Error>),
    #[error(
        "listing the kinds of {API_VERSION}: the API server did not answer within {API_TIMEOUT:?}"
    )]
    Timeout,
}

// === impl Entries ===

impl Entries {
    /// Starts to look for the kind, and to watch once it is there; `readiness` waits until it is
    /// certain that there is none, or the first list is complete.
    #[must_use]
    pub fn start(client: &Client, readiness: &Readiness, on_touched: &OnTouched) -> Self {
        let keys: Keys<WorkloadEntry> = by_name(workload_of);
        let writer = Writer::new(keys);
        let entries = Self {
            cache: writer.cache(),
            is_known: Arc::default(),
        };
        let pending = readiness.expect(PLURAL);
        let (client, is_known) = (client.clone(), Arc::clone(&entries.is_known));
        let on_touched = Arc::clone(on_touched);
        tokio::spawn(async move {
            let search = Search::new(LOOK_EVERY, true);
            let ((), pending) = search.run(pending, || said(&client)).await;
            is_known.store(true, Ordering::Relaxed);
            tracing::info!(
                "the cluster has a mesh: Istio is told of activators by WorkloadEntries"
            );
            let api = Api::<WorkloadEntry>::all(client);
            let ours = watcher::Config::default().labels(WORKLOAD_LABEL);
            let watch = Watch {
                name: PLURAL.to_owned(),
                pending,
                keys,
                touched,
                on_touched,
                is_vital: true,
            };
            watch
                .run((api, ours), writer, bare::<WorkloadEntry>, || {})
                .await;
        });
        entries
    }

    /// Whether entries can be written.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Those of the workload whose name has this label value.
    #[must_use]
    pub fn of(&self, namespace: &str, label: &str) -> Vec<Arc<WorkloadEntry>> {
        self.cache.in_group(namespace, label)
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

/// What the API server says of the kind; that there is no mesh surprises nobody.
async fn said(client: &Client) -> Said<()> {
    match is_served(client).await {
        Ok(true) => Said::There(()),
        Ok(false) => Said::Missing(None),
        Err(error) => Said::Nothing(error.to_string()),
    }
}

/// Whether the API server has the kind in our version.
async fn is_served(client: &Client) -> Result<bool, Unsaid> {
    let asked = client.list_api_group_resources(API_VERSION);
    match tokio::time::timeout(API_TIMEOUT, asked).await {
        Ok(Ok(list)) => Ok(list.resources.iter().any(|kind| kind.name == PLURAL)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(false),
        Ok(Err(error)) => Err(Unsaid::Api(Box::new(error))),
        Err(_) => Err(Unsaid::Timeout),
    }
}
