//! The counter that makes long polls return.

use tokio::sync::watch;

/// Grows each time the autoscaler should look at once.
#[derive(Debug, Clone)]
pub struct Edge(watch::Sender<u64>);

// === impl Edge ===

impl Edge {
    /// At 1, so that a reader that has seen nothing (0) gets its first answer at once.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(1))
    }

    /// Makes every waiting poll return.
    pub fn bump(&self) {
        self.0.send_modify(|edge| *edge += 1);
    }

    /// The counter now.
    #[must_use]
    pub fn now(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits until the counter is above `seen`.
    pub async fn above(&self, seen: u64) {
        // An error says that no sender is left, and `self` is one.
        let _ = self.0.subscribe().wait_for(|edge| *edge > seen).await;
    }
}

impl Default for Edge {
    fn default() -> Self {
        Self::new()
    }
}
