//! Which cores the proxy and everything else run on.

use anyhow::{Context as _, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One core for the proxy, the others for load and app.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    proxy: CpuSet,
    rest: CpuSet,
    count: u32,
}

// === impl Cores ===

impl Cores {
    /// Divides the cores that this process may use and moves the calling thread, and with it every
    /// child and thread that it starts later, to those for load and app.
    ///
    /// # Errors
    /// Where there are fewer than two.
    pub fn divide() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("read which cores may be used")?;
        let count = allowed.count();
        ensure!(
            count >= 2,
            "the bench needs 2 cores: one is for the proxy alone"
        );
        let last = (0..CpuSet::MAX_CPU)
            .rfind(|core| allowed.is_set(*core))
            .context("no core is allowed")?;
        let (mut proxy, mut rest) = (CpuSet::new(), allowed);
        proxy.set(last);
        rest.unset(last);
        sched_setaffinity(None, &rest).context("move to the cores for load")?;
        Ok(Self { proxy, rest, count })
    }

    /// Runs `start` on the proxy's core; what it starts stays there.
    ///
    /// # Errors
    /// Those of `start`, or where the thread can't be moved.
    pub fn on_proxy_core<T>(&self, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        // Children inherit it, which costs no `taskset` process in the start that is measured.
        sched_setaffinity(None, &self.proxy).context("move to the proxy's core")?;
        let started = start();
        sched_setaffinity(None, &self.rest).context("move back to the cores for load")?;
        started
    }

    /// Number of cores that this process may use.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }
}
