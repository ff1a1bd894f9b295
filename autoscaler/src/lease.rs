//! Leadership by Leases: one for each shard, whose holder writes; all others watch and wake.
//!
//! [`shards`](crate::shards) says what to write and until when a shard is led; here it is written,
//! and told to everybody else. A write for a workload is cut off when its shard's lease ends, and a
//! lease is given up only when no such write is under way: an old leader writes nothing.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
};
use lull_contract::Shards;
use lull_process::readiness::Readiness;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{Notify, RwLock},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::Cache,
    context::Key,
    pod::Pod,
    shards::{HOLDS, Holders, Moment, Step, View},
};

/// How long a hand-over waits for the writes under way, while other leases have to be renewed.
const SETTLE: Duration = Duration::from_millis(200);

/// Which shards this replica leads. Clones share it.
#[derive(Debug, Clone)]
pub struct Leadership {
    start: Instant,
    shards: Shards,
    led: Arc<[Shard]>,
    holders: Arc<Mutex<Arc<Holders>>>,
    /// Told when leadership of a shard begins.
    pub began: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Milliseconds since `start` until which it is led; 0 = it isn't.
    until_ms: AtomicU64,
    /// How often leadership has begun.
    terms: AtomicU64,
    /// Read by each write under way.
    writes: RwLock<()>,
}

/// What taking part in the election needs.
#[expect(missing_debug_implementations, reason = "kube's Client has none")]
pub struct Election {
    /// The API server.
    pub client: Client,
    /// Where the Leases are.
    pub namespace: String,
    /// Name of this replica's pod.
    pub identity: String,
    /// All replicas.
    pub replicas: Cache<Pod>,
    /// Of this one: it takes nothing before it knows the cluster.
    pub readiness: Readiness,
    /// Told how many shards are held.
    pub held: Gauge,
}

// === impl Leadership ===

impl Leadership {
    /// Leading none of `shards` yet.
    #[must_use]
    pub fn new(shards: Shards) -> Self {
        Self {
            start: Instant::now(),
            shards,
            led: shards.all().map(|_| Shard::default()).collect(),
            holders: Arc::default(),
            began: Arc::default(),
        }
    }

    /// How the workloads are divided.
    #[must_use]
    pub fn shards(&self) -> Shards {
        self.shards
    }

    /// Number of the term in which this replica leads `key`'s shard and so may write, if it does.
    /// Between two terms another one may have led.
    #[must_use]
    pub fn term(&self, key: &Key) -> Option<u64> {
        let shard = self.shard_of(key);
        // In this order: the number is that of the term seen, or of a later one.
        (!self.left(shard).is_zero()).then(|| shard.terms.load(Ordering::Acquire))
    }

    /// Who holds which shard, this replica or another one, as it was seen last.
    #[must_use]
    pub fn holders(&self) -> Arc<Holders> {
        Arc::clone(&self.holders.lock())
    }

    /// Awaits `write` as the leader of `key`'s shard; `None` where this replica isn't, or not any
    /// more before the answer came.
    ///
    /// # Cancel safety
    /// As `write`'s own: what was sent may be done.
    pub async fn write<T>(&self, key: &Key, write: impl Future<Output = T>) -> Option<T> {
        let shard = self.shard_of(key);
        let _under_way = shard.writes.read().await;
        tokio::select! {
            // In this order: without the lease nothing is even sent.
            biased;
            () = self.end_of(shard) => None,
            answer = write => Some(answer),
        }
    }

    async fn end_of(&self, shard: &Shard) {
        loop {
            let left = self.left(shard);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn shard_of(&self, key: &Key) -> &Shard {
        &self.led[usize::from(self.shards.of(&key.namespace, &key.name))]
    }

    fn left(&self, shard: &Shard) -> Duration {
        let until = Duration::from_millis(shard.until_ms.load(Ordering::Acquire));
        until.saturating_sub(self.now())
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Tells everybody what `view` says is led, and who holds the rest.
    fn tell(&self, view: &View) {
        *self.holders.lock() = Arc::new(view.holders(self.now()));
        for (number, shard) in self.shards.all().zip(self.led.iter()) {
            let until = view.until(number);
            let (was, is) = (!self.left(shard).is_zero(), until > self.now());
            if is && !was {
                shard.terms.fetch_add(1, Ordering::Release);
                tracing::info!(shard = number, "this replica leads the shard now");
            }
            let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
            let before_ms = shard.until_ms.swap(until_ms, Ordering::AcqRel);
            if before_ms != 0 && until_ms == 0 {
                tracing::info!(
                    shard = number,
                    "this replica does not lead the shard any more"
                );
            }
            if is && !was {
                self.began.notify_one();
            }
        }
    }

    /// Takes, renews and hands over leases until `stop`, then gives them up at once.
    pub async fn run(self, election: Election, stop: CancellationToken) {
        let leases: Api<Lease> = Api::namespaced(election.client, &election.namespace);
        let mut view = View::new(election.identity, self.shards);
        while !stop.is_cancelled() {
            let began = self.now();
            let replicas = ready(&election.replicas);
            let steps = view.plan(&Moment {
                now: began,
                replicas: &replicas,
                is_ready: election.readiness.missing().is_empty(),
            });
            self.tell(&view);
            self.carry_out(&leases, &mut view, &steps).await;
            self.look(&leases, &mut view).await;
            let led = self.led.iter().filter(|shard| !self.left(shard).is_zero());
            let led = i64::try_from(led.count()).unwrap_or(i64::MAX);
            election.held.set(led);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(view.pause(began, self.now())) => {}
            }
        }
        self.end(&leases, &mut view).await;
        election.held.set(0);
    }

    /// All at once: each lease has its own time.
    async fn carry_out(&self, leases: &Api<Lease>, view: &mut View, steps: &[Step]) {
        let before = self.now();
        let writes = steps.iter().copied().map(|step| {
            let lease = view.lease(step, Timestamp::now());
            async move {
                let done = match step {
                    Step::Hold(_) => write(leases, &lease).await,
                    Step::GiveUp(shard) => {
                        self.settled(shard, SETTLE).await && write(leases, &lease).await
                    }
                };
                done.then_some(step)
            }
        });
        let mut writes: FuturesUnordered<_> = writes.collect();
        while let Some(done) = writes.next().await {
            if let Some(step) = done {
                view.wrote(step, before, self.now());
                self.tell(view);
            }
        }
    }

    async fn look(&self, leases: &Api<Lease>, view: &mut View) {
        match timeout(HOLDS, leases.list(&ListParams::default())).await {
            Ok(Ok(list)) => {
                view.see(list.items, self.now());
                self.tell(view);
            }
            Ok(Err(error)) => tracing::warn!(%error, "leases could not be listed"),
            Err(_) => tracing::warn!("leases: the API server did not answer in time"),
        }
    }

    /// Whether no write for `shard`, which isn't led any more, is under way; waits for it.
    async fn settled(&self, shard: u16, limit: Duration) -> bool {
        let Some(shard) = self.led.get(usize::from(shard)) else {
            return true;
        };
        timeout(limit, shard.writes.write()).await.is_ok()
    }

    /// Leads nothing any more, and says so in the leases.
    async fn end(&self, leases: &Api<Lease>, view: &mut View) {
        for shard in self.shards.all() {
            view.let_go(shard);
        }
        self.tell(view);
        join_all(self.shards.all().map(|shard| self.settled(shard, HOLDS))).await;
        self.look(leases, view).await;
        let ours = self.shards.all().filter(|shard| view.is_ours(*shard));
        let steps: Vec<Step> = ours.map(Step::GiveUp).collect();
        self.carry_out(leases, view, &steps).await;
    }
}

/// Names of the replicas that are ready.
fn ready(replicas: &Cache<Pod>) -> BTreeSet<String> {
    let pods = replicas.all();
    let ready = pods.iter().filter(|pod| pod.is_ready);
    ready.map(|pod| pod.name.clone()).collect()
}

/// Whether the lease is now as it was given.
async fn write(leases: &Api<Lease>, lease: &Lease) -> bool {
    let (name, params) = (lease.name_any(), PostParams::default());
    let write = async {
        match lease.resource_version() {
            None => leases.create(&params, lease).await,
            Some(_) => leases.replace(&name, &params, lease).await,
        }
    };
    match timeout(HOLDS, write).await {
        Ok(Ok(_)) => return true,
        // Somebody else was quicker: that is an answer, not a fault.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
        Ok(Err(error)) => tracing::warn!(%error, "lease {name} could not be written"),
        Err(_) => tracing::warn!("lease {name}: the API server did not answer in time"),
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        }
    }

    impl Leadership {
        /// Leads `shard` for `time`, as if its lease had been taken.
        pub(crate) fn lead(&self, shard: u16, time: Duration) {
            let until = self.now() + time;
            let until_ms = u64::try_from(until.as_millis()).unwrap();
            let shard = &self.led[usize::from(shard)];
            shard.until_ms.store(until_ms, Ordering::Release);
        }

        /// Knows of these, as if it had seen their leases.
        pub(crate) fn know(&self, holders: Holders) {
            *self.holders.lock() = Arc::new(holders);
        }
    }

    /// Leads every shard for `time`.
    fn lead(leadership: &Leadership, time: Duration) {
        for shard in leadership.shards().all() {
            leadership.lead(shard, time);
        }
    }

    #[tokio::test]
    async fn a_write_is_not_begun_without_the_lease_and_cut_off_with_it() {
        let (leadership, shop) = (Leadership::new("2".parse().unwrap()), key("shop"));
        let mut is_begun = false;
        let write = leadership.write(&shop, async { is_begun = true });
        assert_eq!(write.await, None);
        assert!(!is_begun);
        lead(&leadership, Duration::from_secs(60));
        assert_eq!(leadership.write(&shop, async { 1 }).await, Some(1));
        lead(&leadership, Duration::from_millis(20));
        let never = leadership.write(&shop, std::future::pending::<()>());
        assert_eq!(never.await, None);
        assert_eq!(leadership.term(&shop), None);
    }

    #[tokio::test]
    async fn a_shard_is_settled_once_no_write_is_under_way() {
        let leadership = Leadership::new("1".parse().unwrap());
        lead(&leadership, Duration::from_secs(60));
        let (answer_tx, answer_rx) = tokio::sync::oneshot::channel::<()>();
        let (writer, shop) = (leadership.clone(), key("shop"));
        let (sent_tx, sent_rx) = tokio::sync::oneshot::channel();
        let under_way = tokio::spawn(async move {
            let write = async {
                sent_tx.send(()).unwrap();
                answer_rx.await.unwrap();
            };
            writer.write(&shop, write).await
        });
        sent_rx.await.unwrap();
        assert!(!leadership.settled(0, Duration::from_millis(1)).await);
        answer_tx.send(()).unwrap();
        assert!(leadership.settled(0, Duration::from_secs(60)).await);
        assert_eq!(under_way.await.unwrap(), Some(()));
    }

    #[test]
    fn a_term_ends_with_the_lease_and_the_next_has_another_number() {
        let leadership = Leadership::new("1".parse().unwrap());
        let mut view = View::new("a".to_owned(), leadership.shards());
        assert_eq!(leadership.term(&key("shop")), None);
        let mut terms = Vec::new();
        for _ in 0..2 {
            let now = leadership.now();
            let alone = BTreeSet::new();
            view.see(Vec::new(), now);
            let steps = view.plan(&Moment {
                now: now + Duration::from_secs(1),
                replicas: &alone,
                is_ready: true,
            });
            assert_eq!(steps, [Step::Hold(0)]);
            view.wrote(steps[0], now, now);
            let mut lease = view.lease(steps[0], Timestamp::UNIX_EPOCH);
            lease.metadata.resource_version = Some("1".to_owned());
            view.see(vec![lease], now);
            leadership.tell(&view);
            terms.push(leadership.term(&key("shop")).unwrap());
            let holders = leadership.holders();
            assert_eq!(Vec::from_iter(holders.of("ns", "shop")), ["a"]);
            view.see(Vec::new(), now);
            leadership.tell(&view);
            assert_eq!(leadership.term(&key("shop")), None);
            assert_eq!(*leadership.holders(), Holders::default());
        }
        assert_eq!(terms, [1, 2]);
    }
}
