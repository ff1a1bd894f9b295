//! The hard limit: so many requests in the app, so many waiting in order of arrival, no more.

mod depth;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

pub(crate) use depth::Depth;

/// Hands out slots, first come first served. Clones share the slots.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    /// `None` = no limit, which costs nothing.
    slots: Option<Arc<Slots>>,
}

#[derive(Debug)]
struct Slots {
    /// tokio's semaphore is fair: whoever waits longest gets the next slot.
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    depth: Depth,
    /// When the first request came.
    first: OnceLock<Instant>,
}

/// A slot in the app; dropping it gives it to the next in line.
#[derive(Debug)]
#[must_use = "dropping the permit gives the slot away"]
pub(crate) struct Permit {
    _slot: Option<OwnedSemaphorePermit>,
}

/// All slots are taken and as many requests wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueFull;

/// A place in the queue; dropping it frees the place, also when the caller leaves.
struct Place<'a>(&'a AtomicUsize);

// === impl Limiter ===

impl Limiter {
    /// `limit` slots (0 = no limit) and `depth` waiting places.
    pub(crate) fn new(limit: u32, depth: Depth) -> Self {
        let slots = (limit > 0).then(|| {
            Arc::new(Slots {
                free: Arc::new(Semaphore::new(wide(limit).min(Semaphore::MAX_PERMITS))),
                waiting: AtomicUsize::new(0),
                depth,
                first: OnceLock::new(),
            })
        });
        Self { slots }
    }

    /// Waits for a slot, from `now` on.
    ///
    /// # Errors
    /// [`QueueFull`] at once where no waiting place is free.
    ///
    /// # Cancel safety
    /// Dropping the future frees the waiting place, or the slot if it was just handed over.
    pub(crate) async fn acquire(&self, now: Instant) -> Result<Permit, QueueFull> {
        let Some(slots) = &self.slots else {
            return Ok(Permit { _slot: None });
        };
        let first = *slots.first.get_or_init(|| now);
        // tokio's semaphore lets nobody overtake those who wait: this fails while someone does.
        if let Ok(slot) = Arc::clone(&slots.free).try_acquire_owned() {
            return Ok(Permit { _slot: Some(slot) });
        }
        let depth = slots.depth.at(now.saturating_duration_since(first));
        let _place = Place::take(&slots.waiting, depth)?;
        let slot = Arc::clone(&slots.free)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        Ok(Permit { _slot: Some(slot) })
    }

    /// Whether there is a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.slots.is_some()
    }

    /// Requests that wait for a slot.
    pub(crate) fn queued(&self) -> usize {
        self.slots
            .as_ref()
            .map_or(0, |slots| slots.waiting.load(Ordering::Relaxed))
    }
}

// === impl Place ===

impl<'a> Place<'a> {
    /// One of `depth`; who waits already stays, also where they are more.
    fn take(waiting: &'a AtomicUsize, depth: usize) -> Result<Self, QueueFull> {
        waiting
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < depth).then_some(waiting + 1)
            })
            .map(|_| Self(waiting))
            .map_err(|_| QueueFull)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
