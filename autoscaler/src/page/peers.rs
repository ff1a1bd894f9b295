//! What other replicas lead, by their own word: so whoever is asked for the page shows every workload
//! live.
//!
//! ```text
//! Leases (who), pods (where) --> GET ...?led of each, once for all who look on --> Board, detail
//! ```
//!
//! Who is asked in this way tells what it leads and asks nobody for more, so nothing is asked in a
//! circle. One that does not answer costs the page what it would have told, and a moment every few
//! seconds: what it leads is shown by its status.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::StatusCode;
use lull_contract::view::{LED_QUERY, LIST_PATH, WorkloadDetail, WorkloadList};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{self, Semaphore},
    time::Instant,
};

use crate::{context::Context, pod::Pod, pull::PullError};

/// How old what was told may be when it is shown: a little less than the pause between two boards,
/// so that each has news.
const FRESH: Duration = Duration::from_millis(900);
/// Longest wait for an answer: whoever asks for the page waits for it, too.
const LIMIT: Duration = Duration::from_millis(800);
/// How long one that did not answer is not asked.
const REST: Duration = Duration::from_secs(5);
/// One that has not been asked for so long since then is gone, mostly: nothing is kept of it.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Answers under way at one time.
const AT_ONCE: usize = 4;
/// Longest list, bytes: a workload takes about 600 of it, and there are some ten thousand.
const MAX_LIST: usize = 16 << 20;
/// Longest detail, bytes: all that it has is bounded, and together mostly below 32 KiB.
const MAX_DETAIL: usize = 1 << 20;

/// The other replicas.
#[derive(Debug)]
pub(super) struct Peers {
    ctx: Arc<Context>,
    /// Name of this replica.
    own: String,
    /// Where all of them serve their page.
    port: u16,
    /// Who asks for it holds it, and whoever comes meanwhile waits for the same.
    told: sync::Mutex<Told>,
    turns: Semaphore,
    rests: Mutex<Rests>,
}

/// What was told last.
#[derive(Debug, Default)]
struct Told {
    /// When it was asked for.
    at: Option<Instant>,
    lists: Arc<Vec<WorkloadList>>,
}

/// Where a replica is asked.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    replica: String,
    ip: String,
}

/// Those that have not answered, by name, and when each may be asked again.
#[derive(Debug, Default)]
struct Rests(HashMap<String, Instant>);

/// Why there is nothing to be shown of a replica.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// It has not answered, or not as it should.
    #[error(transparent)]
    Pull(PullError),
    /// It has answered something else.
    #[error("the answer can't be read: {0}")]
    Malformed(#[source] serde_json::Error),
}

// === impl Peers ===

impl Peers {
    /// Of the replica `own`; each of the others is asked at `port` of its pod.
    pub(super) fn new(ctx: Arc<Context>, own: &str, port: u16) -> Self {
        Self {
            ctx,
            own: own.to_owned(),
            port,
            told: sync::Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            rests: Mutex::default(),
        }
    }

    /// What each of the others leads, where it answers; they are asked about once a second, however
    /// many want to know.
    ///
    /// # Cancel safety
    /// Safe: where nobody waits for the answers any more, nothing is told until they are asked again.
    pub(super) async fn led(&self) -> Arc<Vec<WorkloadList>> {
        let mut told = self.told.lock().await;
        if told.at.is_none_or(|at| at.elapsed() >= FRESH) {
            *told = Told {
                at: Some(Instant::now()),
                lists: Arc::default(),
            };
            told.lists = Arc::new(self.ask_all().await);
        }
        Arc::clone(&told.lists)
    }

    async fn ask_all(&self) -> Vec<WorkloadList> {
        let holders = self.ctx.leadership.holders();
        let places = self.places(&holders.names());
        let path = format!("{LIST_PATH}?{LED_QUERY}");
        let asked = places
            .iter()
            .map(|place| self.ask::<WorkloadList>(place, &path, MAX_LIST));
        let mut lists: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        for list in &mut lists {
            // One of an older version tells of all others, too.
            list.workloads.retain(|view| view.is_live);
        }
        lists
    }

    /// The workload as the replica has it that leads it; `None` where that is none of the others, or
    /// does not answer.
    pub(super) async fn detail(&self, namespace: &str, name: &str) -> Option<WorkloadDetail> {
        let holders = self.ctx.leadership.holders();
        let path = format!("{LIST_PATH}/{namespace}/{name}?{LED_QUERY}");
        for place in self.places(&holders.of(namespace, name)) {
            let detail: Option<WorkloadDetail> = self.ask(&place, &path, MAX_DETAIL).await;
            let led = detail.filter(|detail| {
                let view = &detail.workload;
                view.is_live && (view.namespace.as_str(), view.name.as_str()) == (namespace, name)
            });
            if led.is_some() {
                return led;
            }
        }
        None
    }

    fn places(&self, names: &BTreeSet<&str>) -> Vec<Place> {
        places(names, &self.own, &self.ctx.stores.autoscalers.all())
    }

    /// What the replica at `place` answers, in at most `max` bytes; `None` where it does not, or has no
    /// such page.
    async fn ask<T: DeserializeOwned>(&self, place: &Place, path: &str, max: usize) -> Option<T> {
        // They are never closed.
        let _turn = self.turns.acquire().await.ok()?;
        if self.rests.lock().has(&place.replica, Instant::now()) {
            return None;
        }
        let address = (place.ip.as_str(), self.port);
        let pulled = self.ctx.puller.get(address, path, (LIMIT, max)).await;
        let answer = match pulled {
            Ok(body) => read(&body).map(Some),
            // It leads the workload no more.
            Err(PullError::Status(StatusCode::NOT_FOUND)) => Ok(None),
            Err(error) => Err(NoAnswer::Pull(error)),
        };
        self.note(&place.replica, answer.as_ref().err());
        answer.ok().flatten()
    }

    /// Takes note of whether `replica` has answered, and tells of it where that is news.
    fn note(&self, replica: &str, error: Option<&NoAnswer>) {
        let mut rests = self.rests.lock();
        let Some(error) = error else {
            if rests.answered(replica) {
                tracing::info!(replica, "the other replica's page answers again");
            }
            return;
        };
        // It ends, mostly, and another one leads in a moment.
        if rests.failed(replica, Instant::now()) {
            tracing::info!(
                replica, %error,
                "the other replica's page does not answer: what it leads is shown here by its status"
            );
        }
    }
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, NoAnswer> {
    serde_json::from_slice(body).map_err(NoAnswer::Malformed)
}

/// Where those of `names` are asked that are other replicas than `own` and have an address.
fn places(names: &BTreeSet<&str>, own: &str, pods: &[Arc<Pod>]) -> Vec<Place> {
    let others = pods.iter().filter(|pod| pod.name != own);
    let others = others.filter(|pod| names.contains(pod.name.as_str()));
    let places = others.filter_map(|pod| {
        Some(Place {
            replica: pod.name.clone(),
            ip: pod.ip.clone()?,
        })
    });
    places.collect()
}

// === impl Rests ===

impl Rests {
    /// Whether `replica` is not asked at `now`.
    fn has(&self, replica: &str, now: Instant) -> bool {
        self.0.get(replica).is_some_and(|again| now < *again)
    }

    /// It has not answered at `now`; whether that is news.
    fn failed(&mut self, replica: &str, now: Instant) -> bool {
        self.0
            .retain(|_, again| now.duration_since(*again) < FORGOTTEN);
        self.0.insert(replica.to_owned(), now + REST).is_none()
    }

    /// It has answered; whether that is news.
    fn answered(&mut self, replica: &str) -> bool {
        self.0.remove(replica).is_some()
    }
}

#[cfg(test)]
mod tests;
