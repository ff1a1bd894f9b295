//! Turns of API calls that nobody waits for: a few at a time, those of workloads that were called
//! lately first.
//!
//! When an activator goes, the endpoints of every workload are written anew. Whoever was called a
//! moment ago is the likeliest to be called again, so its dead address has to go first; and those
//! that nobody has called for hours must not wait for ever behind those that write all the time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

/// Nobody who comes so much later is served first, however lately it was called.
const PATIENCE: Duration = Duration::from_secs(10);
/// Half of [`PATIENCE`] is lost by a workload that was not called for so long: what lies minutes
/// back still differs from what lies hours back.
const HALF_LOST: Duration = Duration::from_secs(60);

/// A number of turns. Clones share it.
#[derive(Debug, Clone)]
pub struct Turns {
    queue: Arc<Mutex<Queue>>,
    /// Told when nobody waits and a turn is free again.
    freed: Arc<Notify>,
    start: Instant,
}

/// The right to make a call; given to the next one when it is dropped.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub struct Turn {
    turns: Turns,
}

/// When a waiting call is due, and its number: the smallest is next.
type Place = (Duration, u64);

#[derive(Debug)]
struct Queue {
    /// Turns that nobody has; none where somebody waits.
    free: usize,
    /// Number of the next one that waits.
    number: u64,
    waiting: BTreeMap<Place, oneshot::Sender<Turn>>,
}

/// A place in the queue, given up when dropped.
struct Waiting<'a> {
    turns: &'a Turns,
    place: Place,
}

/// When a call is due that queues at `now`, for a workload that was not called for `unused`.
fn due(now: Duration, unused: Duration) -> Duration {
    let unused = unused.as_secs_f64();
    now + PATIENCE.mul_f64(unused / (unused + HALF_LOST.as_secs_f64()))
}

// === impl Turns ===

impl Turns {
    /// So many at one time.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let queue = Queue {
            free: count,
            number: 0,
            waiting: BTreeMap::new(),
        };
        Self {
            queue: Arc::new(Mutex::new(queue)),
            freed: Arc::default(),
            start: Instant::now(),
        }
    }

    /// Whether who comes now has to wait.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.queue.lock().free == 0
    }

    /// Waits, `at_most` so long, until who came then would not have to.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub async fn calm(&self, at_most: Duration) {
        let calm = async {
            loop {
                // Before the look: a turn that is freed right after it is not missed.
                let freed = self.freed.notified();
                if !self.is_busy() {
                    return;
                }
                freed.await;
            }
        };
        // Where it is in vain, it was long enough.
        let _ = timeout(at_most, calm).await;
    }

    /// Waits for a turn for a workload that was not called for `unused`.
    ///
    /// # Cancel safety
    /// Safe: the place is given up, and a turn that was on its way goes to the next one.
    pub async fn take(&self, unused: Duration) -> Turn {
        let (place, turn_rx) = match self.queue(unused) {
            Ok(turn) => return turn,
            Err(queued) => queued,
        };
        let _waiting = Waiting { turns: self, place };
        // An error can't be: who waits stays in the queue until it gets its turn.
        turn_rx.await.unwrap_or_else(|_| self.turn())
    }

    /// A turn where one is free, else a place in the queue.
    fn queue(&self, unused: Duration) -> Result<Turn, (Place, oneshot::Receiver<Turn>)> {
        let mut queue = self.queue.lock();
        if queue.free > 0 {
            queue.free -= 1;
            return Ok(self.turn());
        }
        queue.number += 1;
        let place = (due(self.start.elapsed(), unused), queue.number);
        let (turn_tx, turn_rx) = oneshot::channel();
        queue.waiting.insert(place, turn_tx);
        Err((place, turn_rx))
    }

    fn turn(&self) -> Turn {
        Turn {
            turns: self.clone(),
        }
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.turns.queue.lock();
            let next = queue.waiting.pop_first();
            queue.free += usize::from(next.is_none());
            next
        };
        match next {
            // It comes back where nobody waits any more, and is dropped for the next one.
            Some((_, turn_tx)) => drop(turn_tx.send(self.turns.turn())),
            None => self.turns.freed.notify_waiters(),
        }
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let given_up = self.turns.queue.lock().waiting.remove(&self.place);
        drop(given_up);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_was_called_lately_is_due_first_and_nobody_waits_for_ever() {
        let (now, hour) = (SECOND * 100, SECOND * 3_600);
        let order = [Duration::ZERO, SECOND, SECOND * 60, hour, hour * 24];
        let dues = order.map(|unused| due(now, unused));
        assert!(dues.is_sorted_by(|a, b| a < b), "{dues:?}");
        let never = due(now, Duration::MAX);
        assert!(
            never <= due(now + PATIENCE, Duration::ZERO) && never > dues[4],
            "{never:?}"
        );
    }

    #[tokio::test]
    async fn a_turn_goes_to_whoever_was_called_last() {
        let turns = Turns::new(1);
        let held = turns.take(Duration::ZERO).await;
        let mut old = Box::pin(turns.take(SECOND * 3_600));
        let mut lately = Box::pin(turns.take(SECOND));
        assert!((&mut old).now_or_never().is_none());
        assert!((&mut lately).now_or_never().is_none());
        drop(held);
        assert!((&mut old).now_or_never().is_none());
        drop((&mut lately).now_or_never().expect("its turn"));
        assert!((&mut old).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_turn_of_somebody_who_waits_no_more_is_not_lost() {
        let turns = Turns::new(1);
        let held = turns.take(Duration::ZERO).await;
        let mut gone = Box::pin(turns.take(Duration::ZERO));
        let mut given = Box::pin(turns.take(SECOND));
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut given).now_or_never().is_none());
        drop(gone);
        drop(held);
        // It has been given its turn and goes before it has looked.
        drop(given);
        assert!(turns.take(SECOND).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_no_hurry_waits_for_a_free_turn_and_not_for_ever() {
        let turns = Turns::new(1);
        assert!(turns.calm(SECOND).now_or_never().is_some());
        let held = turns.take(Duration::ZERO).await;
        assert!(turns.is_busy());
        let mut calm = Box::pin(turns.calm(SECOND));
        assert!((&mut calm).now_or_never().is_none());
        drop(held);
        assert!((&mut calm).now_or_never().is_some());
        let _held = turns.take(Duration::ZERO).await;
        let begin = tokio::time::Instant::now();
        turns.calm(SECOND).await;
        assert!(begin.elapsed() >= SECOND);
    }
}
