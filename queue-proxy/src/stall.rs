//! Callers that stop reading.
//!
//! Hyper does not ask for more of an HTTP/2 answer while the caller gives no window, so that the
//! answer's own clock stands still. What such a stream holds is therefore kept where it can be taken
//! away. (Over HTTP/1 the kernel does it: `TCP_USER_TIMEOUT`.)

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    body::{Cut, Download},
    caller::Caller,
};

/// How long after its deadline an answer is taken away: one that is read ends by itself before.
const GRACE: Duration = Duration::from_millis(100);
/// Longest time between two looks at a connection's answers.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// An answer that can be taken away.
#[derive(Debug)]
pub(crate) struct Watched {
    answer: Arc<Mutex<Option<Download>>>,
    caller: Arc<Caller>,
    key: Key,
}

/// When an answer must have ended, and its number, which tells apart those of one moment.
type Key = (Instant, u64);

/// The answers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    running: BTreeMap<Key, Arc<Mutex<Option<Download>>>>,
}

// === impl Watched ===

impl Watched {
    pub(crate) fn new(download: Download) -> Self {
        let deadline = download.deadline();
        let caller = Arc::clone(download.caller());
        let answer = Arc::new(Mutex::new(Some(download)));
        let key = caller.answers.add(deadline, Arc::clone(&answer));
        Self {
            answer,
            caller,
            key,
        }
    }

    pub(crate) fn poll_next(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self.answer.lock() {
            Some(download) => download.poll_next(cx),
            None => Poll::Ready(Some(Err(Cut::Timeout))),
        }
    }

    /// What `ask` finds, or `taken` where the answer has been taken away.
    pub(crate) fn look<T>(&self, ask: impl FnOnce(&Download) -> T, taken: T) -> T {
        self.answer.lock().as_ref().map_or(taken, ask)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let running = self.caller.answers.inner.lock().running.remove(&self.key);
        // Only here, because what it holds may itself look at the caller.
        drop(running);
    }
}

// === impl Answers ===

impl Answers {
    fn add(&self, deadline: Instant, answer: Arc<Mutex<Option<Download>>>) -> Key {
        let mut inner = self.inner.lock();
        inner.next += 1;
        let key = (deadline, inner.next);
        inner.running.insert(key, answer);
        key
    }

    fn take_late(&self, now: Instant) -> Option<Arc<Mutex<Option<Download>>>> {
        let mut inner = self.inner.lock();
        let first = inner.running.first_entry()?;
        (first.key().0 + GRACE <= now).then(|| first.remove())
    }

    /// Takes away what has not ended in time, for as long as the connection lives; `timeout` = the
    /// longest time of a request.
    pub(crate) async fn watch(&self, timeout: Duration) {
        loop {
            tokio::time::sleep(timeout.min(MAX_PAUSE)).await;
            while let Some(answer) = self.take_late(Instant::now()) {
                let taken = answer.lock().take();
                if let Some(mut download) = taken {
                    download.timed_out();
                    tracing::debug!("an answer is taken from a caller that does not read it");
                }
            }
        }
    }
}
