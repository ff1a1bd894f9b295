//! What all workloads of this process share.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use lull_traces::Traces;
use tokio::{runtime::Handle, sync::watch, task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    budget::{Amount, Budget},
    config::Config,
    metrics::Metrics,
    probe::Probes,
};

/// Clock, bounds, counts and the edge.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Traces,
    /// Runtime of the data plane, for probes and wakes that are started from the watches' thread.
    pub(crate) runtime: Handle,
    /// Cancelled at SIGTERM.
    pub(crate) draining: CancellationToken,
    /// What all workloads together may hold.
    pub(crate) budget: Budget,
    /// Of the pods of all workloads.
    pub(crate) probes: Probes,
    /// When somebody connected last, [`Hub::now_us`].
    last_connection_us: AtomicU64,
    /// Records that send callers here, [`UNKNOWN`] where that was not looked up.
    listed: AtomicUsize,
    start: Instant,
    edge: watch::Sender<u64>,
}

/// Nobody has looked yet.
const UNKNOWN: usize = usize::MAX;

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct Owned(AbortHandle);

// === impl Hub ===

impl Hub {
    pub(crate) fn new(
        config: Config,
        (metrics, traces): (Metrics, Traces),
        runtime: Handle,
    ) -> Self {
        let most = Amount {
            count: config.max_held_total,
            bytes: config.max_held_mib.saturating_mul(1 << 20),
        };
        metrics.may_hold(most);
        Self {
            config,
            metrics,
            traces,
            runtime,
            draining: CancellationToken::new(),
            budget: Budget::new(most),
            probes: Probes::default(),
            last_connection_us: AtomicU64::new(0),
            listed: AtomicUsize::new(0),
            start: Instant::now(),
            edge: watch::channel(0).0,
        }
    }

    /// Microseconds since the process started.
    pub(crate) fn now_us(&self) -> u64 {
        micros(self.start.elapsed())
    }

    /// Somebody has connected; when, [`Hub::now_us`].
    pub(crate) fn connected(&self) -> u64 {
        let now_us = self.now_us();
        self.last_connection_us.store(now_us, Ordering::Relaxed);
        now_us
    }

    /// For how long nobody has connected.
    pub(crate) fn quiet_for(&self) -> Duration {
        let last = self.last_connection_us.load(Ordering::Relaxed);
        Duration::from_micros(self.now_us().saturating_sub(last))
    }

    /// Whether some record may still send callers here.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed) > 0
    }

    /// That many records send callers here; `None` = nobody knows.
    pub(crate) fn set_listed(&self, records: Option<usize>) {
        let records = records.unwrap_or(UNKNOWN);
        let before = self.listed.swap(records, Ordering::Relaxed);
        if records == 0 && before > 0 {
            // The quiet begins when the last record has gone: callers hear of it later than we.
            self.connected();
        }
    }

    /// Tells the autoscaler to look at once.
    pub(crate) fn raise_edge(&self) {
        self.edge.send_modify(|edge| *edge += 1);
    }

    pub(crate) fn edge(&self) -> watch::Receiver<u64> {
        self.edge.subscribe()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Runs `work` on the data plane for as long as its owner lives.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Owned {
        Owned(self.runtime.spawn(work).abort_handle())
    }
}

// === impl Owned ===

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whole microseconds; more than fit are as many as fit.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
