//! When an open connection is not in use: nothing has moved on it for a while.
//!
//! Such a connection says nothing about demand. What it carries is counted where it ends: a pod's
//! queue-proxy has a request in flight while the app works on it in silence, and a byte stream for as
//! long as it is open. Counted here too, the idle connections of a caller's pool (Envoy keeps them for
//! an hour) would keep the workload awake.

use std::{pin::Pin, task::Context, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// Nothing moved for so long: at rest. By far enough for what was sent last to be in flight at the
/// pod, and for the autoscaler to have pulled that.
const STILL: Duration = Duration::from_secs(5);

/// Whether a connection is at rest.
#[derive(Debug)]
pub(super) struct Rest {
    /// When it is looked at next; none while it is at rest.
    next: Option<Pin<Box<Sleep>>>,
    /// Moved until the last look.
    seen: u64,
}

/// What has become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It came to rest.
    Rests,
    /// It is in use again.
    Moves,
}

// === impl Rest ===

impl Rest {
    /// In use from now on.
    pub(super) fn new() -> Self {
        Self {
            next: Some(Box::pin(sleep_until(Instant::now() + STILL))),
            seen: 0,
        }
    }

    /// What has changed, where bytes `moved` so far, and whether some are `under_way`. It is polled
    /// whenever something moves, too.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        moved: u64,
        under_way: bool,
    ) -> Option<Change> {
        let mut change = None;
        if self.next.is_none() {
            if moved == self.seen && !under_way {
                return None;
            }
            self.next = Some(Box::pin(sleep_until(Instant::now() + STILL)));
            self.seen = moved;
            change = Some(Change::Moves);
        }
        while let Some(next) = &mut self.next {
            if next.as_mut().poll(cx).is_pending() {
                return change;
            }
            if moved == self.seen && !under_way {
                self.next = None;
                return Some(Change::Rests);
            }
            self.seen = moved;
            next.as_mut().reset(Instant::now() + STILL);
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;

    /// What timers are exact to.
    const TICK: Duration = Duration::from_millis(1);

    /// Waits for the next change while nothing moves.
    async fn change(rest: &mut Rest, moved: u64, under_way: bool) -> Change {
        poll_fn(|cx| match rest.poll(cx, moved, under_way) {
            Some(change) => Poll::Ready(change),
            None => Poll::Pending,
        })
        .await
    }

    async fn now(rest: &mut Rest, moved: u64, under_way: bool) -> Option<Change> {
        poll_fn(|cx| Poll::Ready(rest.poll(cx, moved, under_way))).await
    }

    #[tokio::test(start_paused = true)]
    async fn it_rests_when_nothing_moves_and_is_in_use_with_the_next_byte() {
        let (mut rest, begin) = (Rest::new(), Instant::now());
        assert_eq!(change(&mut rest, 0, false).await, Change::Rests);
        assert_eq!(begin.elapsed().as_secs(), 5);
        assert_eq!(now(&mut rest, 0, false).await, None);
        assert_eq!(now(&mut rest, 1, false).await, Some(Change::Moves));
        assert_eq!(now(&mut rest, 1, false).await, None);
        assert_eq!(change(&mut rest, 1, false).await, Change::Rests);
        assert_eq!(begin.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_or_is_under_way_does_not_rest() {
        let mut rest = Rest::new();
        for moved in 1..4 {
            tokio::time::advance(STILL + TICK).await;
            assert_eq!(now(&mut rest, moved, false).await, None);
        }
        for _ in 0..3 {
            tokio::time::advance(STILL + TICK).await;
            assert_eq!(now(&mut rest, 3, true).await, None);
        }
        tokio::time::advance(STILL + TICK).await;
        assert_eq!(now(&mut rest, 3, false).await, Some(Change::Rests));
    }
}
