//! One load: workers that share a counter of requests, each with a connection of its own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Connection, Effort, Target, Wanted},
    totals::Totals,
};
use crate::wire::{MAX_SECONDS, RunResult, RunSpec};

/// A message of gRPC that holds nothing: not compressed, of length 0.
const EMPTY_MESSAGE: &str = "\0\0\0\0\0";
/// What a call of gRPC says of itself.
const GRPC_HEADERS: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A load that runs or has run.
#[derive(Debug)]
pub(super) struct Run {
    spec: RunSpec,
    /// May be to come.
    started: Instant,
    stop: CancellationToken,
    /// Number of the next request.
    next: AtomicU64,
    totals: Mutex<Totals>,
    /// Time from start to end, once everything has ended.
    took: Mutex<Option<Duration>>,
}

// === impl Run ===

impl Run {
    /// Starts a checked load.
    pub(super) fn start(spec: RunSpec) -> Arc<Self> {
        let delay = Duration::from_millis(spec.delay_ms);
        let started_at_unix_ms = crate::unix_us() / 1000 + spec.delay_ms;
        let run = Arc::new(Self {
            spec,
            started: Instant::now() + delay,
            stop: CancellationToken::new(),
            next: AtomicU64::new(0),
            totals: Mutex::new(Totals::new(started_at_unix_ms)),
            took: Mutex::new(None),
        });
        tokio::spawn(Arc::clone(&run).drive());
        run
    }

    /// Sends nothing new; what is in flight ends and counts.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) fn is_done(&self) -> bool {
        self.took.lock().is_some()
    }

    pub(super) fn result(&self) -> RunResult {
        let took = *self.took.lock();
        self.totals.lock().result(
            took.is_some(),
            took.unwrap_or_else(|| self.started.elapsed()),
        )
    }

    async fn drive(self: Arc<Self>) {
        let headers = self.headers();
        let wanted = Wanted {
            url: &self.spec.url,
            method: if self.spec.grpc {
                "POST"
            } else {
                &self.spec.method
            },
            path: self.spec.path.as_deref(),
            headers: &headers,
            h2c: self.spec.h2c,
            close: !self.spec.keep_alive,
            body: if self.spec.grpc { EMPTY_MESSAGE } else { "" },
        };
        match Target::resolve(&wanted).await {
            Ok(target) => {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = sleep_until(self.started) => {}
                }
                let target = Arc::new(target);
                let mut workers = JoinSet::new();
                for _ in 0..self.spec.connections {
                    for slot in self.slots(&target).await {
                        workers.spawn(Arc::clone(&self).work(Arc::clone(&target), slot));
                    }
                }
                while workers.join_next().await.is_some() {}
            }
            // A run that can't begin must not look like one without failures.
            Err(text) => {
                let mut totals = self.totals.lock();
                totals.begun();
                totals.ended(
                    &Err(text),
                    &Effort::default(),
                    self.started.elapsed(),
                    Duration::ZERO,
                );
            }
        }
        *self.took.lock() = Some(self.started.elapsed());
    }

    /// The request headers; a caller's own are kept.
    fn headers(&self) -> BTreeMap<String, String> {
        let mut headers = self.spec.headers.clone();
        if self.spec.grpc {
            for (name, value) in GRPC_HEADERS {
                headers
                    .entry(name.to_owned())
                    .or_insert_with(|| value.to_owned());
            }
        }
        headers
    }

    /// One for each worker of a connection: its share of it, or none where it opens its own.
    async fn slots(&self, target: &Target) -> Vec<Option<Connection>> {
        if self.spec.streams == 1 {
            return vec![None];
        }
        let Ok(shares) = target.open_shared(self.spec.streams).await else {
            // Each worker tries by itself, and its failure counts.
            return (0..self.spec.streams).map(|_| None).collect();
        };
        self.totals.lock().opened();
        shares.into_iter().map(Some).collect()
    }

    async fn work(self: Arc<Self>, target: Arc<Target>, mut slot: Option<Connection>) {
        let limit = Duration::from_millis(self.spec.timeout_ms);
        while self.take_turn().await {
            self.totals.lock().begun();
            let begun = Instant::now();
            let mut effort = Effort::default();
            let outcome = timeout(limit, target.exchange(&mut slot, &mut effort)).await;
            effort.is_late = outcome.is_err();
            let outcome = outcome.unwrap_or_else(|_| {
                let waited_for = &effort.waits_for;
                Err(format!("no answer in {limit:?}, waited for {waited_for}"))
            });
            if !self.spec.keep_alive {
                slot = None;
            }
            let (at, took) = (self.started.elapsed(), begun.elapsed());
            self.totals.lock().ended(&outcome, &effort, at, took);
            if outcome.is_err() {
                // Refused connections come back at once; without a pause one worker would fail
                // thousands of times a second.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits for the time of the next request; false once there is none.
    async fn take_turn(&self) -> bool {
        let seconds = self.spec.seconds.unwrap_or(MAX_SECONDS).min(MAX_SECONDS);
        let end = self.started + Duration::from_secs_f64(seconds);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self
            .spec
            .requests
            .is_some_and(|requests| number >= requests)
        {
            return false;
        }
        if let Some(rate) = self.spec.rate {
            #[expect(clippy::cast_precision_loss, reason = "at most 5 million requests")]
            let due = self.started + Duration::from_secs_f64(number as f64 / rate);
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = sleep_until(due.min(end)) => {}
            }
        }
        !self.stop.is_cancelled() && Instant::now() < end
    }
}
