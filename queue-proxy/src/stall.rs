//! Callers that stop reading.
//!
//! Hyper does not ask for more of an HTTP/2 answer while the caller gives no window, so that the
//! answer's own clock stands still. What such a stream holds is therefore kept where it can be taken
//! away. (Over HTTP/1 the kernel does it: `TCP_USER_TIMEOUT`.)

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use slab::Slab;
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
    answer: Answer,
    caller: Arc<Caller>,
    key: usize,
}

/// `None` = it has been taken away.
type Answer = Arc<Mutex<Option<Download>>>;

/// The answers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<Slab<Answer>>);

// === impl Watched ===

impl Watched {
    pub(crate) fn new(download: Download) -> Self {
        let caller = Arc::clone(download.caller());
        let answer = Arc::new(Mutex::new(Some(download)));
        let key = caller.answers.0.lock().insert(Arc::clone(&answer));
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
        self.caller.answers.0.lock().remove(self.key);
    }
}

// === impl Answers ===

impl Answers {
    /// Takes away what has not ended in time, for as long as the connection lives; `timeout` = the
    /// longest time of a request.
    pub(crate) async fn watch(&self, timeout: Duration) {
        loop {
            tokio::time::sleep(timeout.min(MAX_PAUSE)).await;
            self.take_late(Instant::now());
        }
    }

    fn take_late(&self, now: Instant) {
        // What an answer holds ends without a lock that its end may need.
        let running: Vec<_> = self.0.lock().iter().map(|(_, it)| Arc::clone(it)).collect();
        for answer in running {
            let late = answer
                .lock()
                .take_if(|download| download.deadline() + GRACE <= now);
            if let Some(mut download) = late {
                download.timed_out();
                tracing::debug!("an answer is taken from a caller that does not read it");
            }
        }
    }
}
