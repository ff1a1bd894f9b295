//! Whether the API server has time for what can wait.
//!
//! What only informs, and who is asked for names, goes after everything that callers depend on. That it has no
//! time for both is seen at this process's own writes: they are slow, and they are many. Where they are few,
//! later is no help.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::{pace::Pace, turns::Turns};

/// A write that takes longer than this has waited for others: one of an API server that has time takes
/// 5 to 20 ms.
const SLOW: Duration = Duration::from_millis(50);
/// Writes are many where it is no longer than this from one to the next: in a storm that the API server can't
/// carry there are still some of them a second.
const MANY: Duration = Duration::from_millis(500);
/// How often it is looked at whether writes are slow still.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is known of it. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Pressure {
    urgent: Turns,
    pace: Arc<Mutex<Pace>>,
    start: Instant,
}

// === impl Pressure ===

impl Pressure {
    /// Nothing known yet of the calls that take `urgent` turns.
    pub(crate) fn new(urgent: Turns) -> Self {
        Self {
            urgent,
            pace: Arc::default(),
            start: Instant::now(),
        }
    }

    /// Takes note of a write, in which nobody else has a say, that has been answered and took so long.
    pub(crate) fn answered(&self, took: Duration) {
        self.pace.lock().answered(took, self.start.elapsed());
    }

    /// How long such a write takes; zero where none was made lately.
    pub(crate) fn usual_write(&self) -> Duration {
        let usual = self.pace.lock().usual(self.start.elapsed());
        usual.unwrap_or_default()
    }

    /// Whether wakes wait for their turns, or for an API server that has many of them to write.
    pub(crate) fn is_high(&self) -> bool {
        self.urgent.is_busy() || self.is_slow()
    }

    /// Whether there are many writes, and each takes long.
    fn is_slow(&self) -> bool {
        let (now, pace) = (self.start.elapsed(), *self.pace.lock());
        let is_slow = pace.usual(now).is_some_and(|usual| usual > SLOW);
        is_slow && pace.gap(now) <= MANY
    }

    /// Waits, `at_most` so long, until it is not high.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(crate) async fn calm(&self, at_most: Duration) {
        let calm = async {
            loop {
                self.urgent.calm(at_most).await;
                if !self.is_high() {
                    return;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        // Where it is in vain, it was long enough.
        let _ = timeout(at_most, calm).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_can_wait_waits_while_writes_are_slow_and_not_for_ever() {
        let pressure = Pressure::new(Turns::new(1));
        assert!(pressure.calm(SECOND).now_or_never().is_some());
        pressure.answered(Duration::from_millis(8));
        assert!(!pressure.is_high());
        pressure.answered(Duration::from_secs(3));
        assert!(!pressure.is_high(), "slow, and not many");
        for _ in 0..60 {
            pressure.answered(Duration::from_millis(300));
        }
        assert!(pressure.is_high(), "{:?}", pressure.usual_write());
        let begin = tokio::time::Instant::now();
        pressure.calm(SECOND).await;
        assert!(begin.elapsed() >= SECOND);
        for _ in 0..20 {
            pressure.answered(Duration::from_millis(8));
        }
        assert!(pressure.calm(SECOND).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_high_while_a_wake_waits_for_its_turn() {
        let turns = Turns::new(1);
        let pressure = Pressure::new(turns.clone());
        let held = turns.take(Duration::ZERO).await;
        let mut calm = Box::pin(pressure.calm(SECOND));
        assert!((&mut calm).now_or_never().is_none());
        drop(held);
        calm.await;
        assert!(!pressure.is_high());
    }
}
