//! What all workloads of this process share.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, metrics::Metrics};

/// Clock, bounds, counts and the edge.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    /// Runtime of the data plane, for probes and wakes that are started from the watches' thread.
    pub(crate) runtime: Handle,
    /// Cancelled at SIGTERM.
    pub(crate) draining: CancellationToken,
    start: Instant,
    held: AtomicUsize,
    edge: watch::Sender<u64>,
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct Owned(AbortHandle);

// === impl Hub ===

impl Hub {
    pub(crate) fn new(config: Config, metrics: Metrics, runtime: Handle) -> Self {
        Self {
            config,
            metrics,
            runtime,
            draining: CancellationToken::new(),
            start: Instant::now(),
            held: AtomicUsize::new(0),
            edge: watch::channel(0).0,
        }
    }

    /// Microseconds since the process started.
    pub(crate) fn now_us(&self) -> u64 {
        micros(self.start.elapsed())
    }

    /// Tells the autoscaler to look at once.
    pub(crate) fn raise_edge(&self) {
        self.edge.send_modify(|edge| *edge += 1);
    }

    pub(crate) fn edge(&self) -> watch::Receiver<u64> {
        self.edge.subscribe()
    }

    /// Held in all.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn add_held(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sub_held(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
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

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
