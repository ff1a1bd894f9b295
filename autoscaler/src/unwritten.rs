//! What would be lost with this process: statuses that tell of wakes and are put off.
//!
//! ```text
//! tasks --owe--> Unwritten <--write_all-- SIGTERM, while the leases are still held
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::context::Context;

/// How long the leases are held for what is written last: who takes them over is waited for.
const AT_MOST: Duration = Duration::from_secs(2);

/// Statuses that tell of wakes and are put off. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Unwritten {
    count: watch::Sender<usize>,
    is_last_call: Arc<AtomicBool>,
}

/// One of them, until it is dropped: it is written, or not to be any more.
#[derive(Debug)]
pub struct Owed {
    all: Unwritten,
}

/// Has the tasks write, in their ordinary turns, what is put off; waits for it, 2 s at most.
pub async fn write_all(ctx: &Context) {
    if ctx.unwritten.call_in() == 0 {
        return;
    }
    ctx.mailboxes().wake(|_| true);
    let left = ctx.unwritten.written(AT_MOST).await;
    if left > 0 {
        tracing::warn!(left, "wakes are not in their workloads' statuses: no time");
    }
}

// === impl Unwritten ===

impl Unwritten {
    /// Takes note of another one.
    #[must_use]
    pub fn owe(&self) -> Owed {
        self.count.send_modify(|count| *count += 1);
        Owed { all: self.clone() }
    }

    /// Whether they are to be written now, since this process is about to end.
    #[must_use]
    pub fn is_last_call(&self) -> bool {
        self.is_last_call.load(Ordering::Relaxed)
    }

    /// From now on they are; how many there are.
    fn call_in(&self) -> usize {
        self.is_last_call.store(true, Ordering::Relaxed);
        *self.count.borrow()
    }

    /// Waits, `at_most` so long, until there is none; how many are left.
    async fn written(&self, at_most: Duration) -> usize {
        let mut count = self.count.subscribe();
        // Where it is in vain, it was long enough.
        let _ = timeout(at_most, count.wait_for(|count| *count == 0)).await;
        *self.count.borrow()
    }
}

// === impl Owed ===

impl Drop for Owed {
    fn drop(&mut self) {
        let count = &self.all.count;
        count.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_call_waits_until_all_is_written_and_not_for_ever() {
        let (unwritten, second) = (Unwritten::default(), Duration::from_secs(1));
        assert_eq!(unwritten.written(second).await, 0);
        let (one, two) = (unwritten.owe(), unwritten.owe());
        assert!(!unwritten.is_last_call());
        assert_eq!(unwritten.call_in(), 2);
        assert!(unwritten.is_last_call());
        let mut written = Box::pin(unwritten.written(second));
        assert!((&mut written).now_or_never().is_none());
        drop(one);
        assert!((&mut written).now_or_never().is_none());
        drop(two);
        assert_eq!((&mut written).now_or_never(), Some(0));
        let _left = unwritten.owe();
        assert_eq!(unwritten.written(second).await, 1);
    }
}
