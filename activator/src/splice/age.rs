//! When a connection has been open for long enough.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::pump::Pump;

/// Nothing moved for so long: quiet.
const QUIET: Duration = Duration::from_secs(1);

/// The age of a connection that may not live for ever.
#[derive(Debug)]
pub(super) struct Age {
    /// Closed then, whatever happens.
    end: Instant,
    next: Pin<Box<Sleep>>,
    /// Moved until the last look.
    seen: Option<u64>,
}

/// How a connection has been too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Old {
    /// Its age was reached and nobody said anything.
    Quiet,
    /// Twice its age was reached.
    Busy,
}

// === impl Age ===

impl Age {
    pub(super) fn new(max: Duration) -> Self {
        let now = Instant::now();
        Self {
            end: now + max * 2,
            next: Box::pin(sleep_until(now + max)),
            seen: None,
        }
    }

    /// Ready when the connection is to be closed. It is polled whenever something moves, too.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, pump: &Pump) -> Poll<Old> {
        loop {
            ready!(self.next.as_mut().poll(cx));
            let moved = pump.moved();
            if self.seen == Some(moved) && pump.is_empty() {
                return Poll::Ready(Old::Quiet);
            }
            let now = Instant::now();
            if now >= self.end {
                return Poll::Ready(Old::Busy);
            }
            self.seen = Some(moved);
            self.next.as_mut().reset(self.end.min(now + QUIET));
        }
    }
}
