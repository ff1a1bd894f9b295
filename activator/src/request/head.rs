//! The head of an HTTP/1 request: how long it may be, and how long its caller may take for it and
//! until it begins the next one.
//!
//! Pingora takes a MiB. It waits for each byte of a connection's first head for a minute, and for
//! those of later ones for ever; its timers could only bound a single read, too.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::IDLE;
use crate::connection::FIRST_BYTES;

/// Longest head of an HTTP/1 request, bytes; the queue-proxy takes no more either. What is not whole
/// is not held yet, and in no budget.
const MAX_HEAD: usize = 64 << 10;

/// Whether what is read belongs to the head of a request, which Pingora tells the request only.
#[derive(Debug, Default)]
pub(super) struct Head {
    is_whole: AtomicBool,
    /// Read while it was not. Without what came in one read with the request before, or while that was
    /// under way: Pingora keeps it and does not say so, and until more comes the caller counts as idle.
    bytes: AtomicUsize,
    /// Heads that have been whole.
    count: AtomicUsize,
}

/// What a caller has taken too long for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The rest of a head.
    Head,
    /// The beginning of one.
    Request,
}

/// A wait for a caller, different from any other on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    /// Heads that were whole before.
    after: usize,
    awaited: Late,
}

/// How long a wait may last.
#[derive(Debug, Default)]
struct Patience {
    wait: Option<Wait>,
    /// When it is over. One timer for all waits of a connection: to set it for later costs next to
    /// nothing, and what comes in one piece is not waited for.
    end: Option<Pin<Box<Sleep>>>,
}

// === impl Head ===

impl Head {
    /// It is whole, or that of the next request begins.
    pub(super) fn set_whole(&self, is_whole: bool) {
        self.is_whole.store(is_whole, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        if is_whole {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it is too long, with `more` bytes that were read now.
    pub(super) fn is_too_long(&self, more: usize) -> bool {
        let is_whole = self.is_whole.load(Ordering::Relaxed);
        !is_whole && self.bytes.fetch_add(more, Ordering::Relaxed) + more > MAX_HEAD
    }

    /// Returns when the caller has taken too long. What has changed is seen when it is polled, so it
    /// is polled after whoever reads the head, by the same task.
    pub(super) async fn late(&self) -> Late {
        let mut patience = Patience::default();
        poll_fn(|cx| patience.poll(cx, self.wait())).await
    }

    /// `None` while a request is under way.
    fn wait(&self) -> Option<Wait> {
        let is_whole = self.is_whole.load(Ordering::Relaxed);
        let awaited = match self.bytes.load(Ordering::Relaxed) {
            0 => Late::Request,
            _ => Late::Head,
        };
        let after = self.count.load(Ordering::Relaxed);
        (!is_whole).then_some(Wait { after, awaited })
    }
}

// === impl Late ===

impl Late {
    fn limit(self) -> Duration {
        match self {
            Self::Head => FIRST_BYTES,
            Self::Request => IDLE,
        }
    }
}

// === impl Patience ===

impl Patience {
    fn poll(&mut self, cx: &mut Context<'_>, wait: Option<Wait>) -> Poll<Late> {
        let Some(wait) = wait else {
            return Poll::Pending;
        };
        let limit = wait.awaited.limit();
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(limit)));
        if self.wait.replace(wait) != Some(wait) {
            end.as_mut().reset(Instant::now() + limit);
        }
        ready!(end.as_mut().poll(cx));
        Poll::Ready(wait.awaited)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::timeout;

    use super::*;

    /// Most of the time that a head has.
    const MOST: Duration = Duration::from_secs(4);
    const DAY: Duration = Duration::from_secs(86_400);

    fn next_request(head: &Head) {
        head.set_whole(true);
        head.set_whole(false);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_whatever_else_of_it_comes() {
        let (head, begin) = (Head::default(), Instant::now());
        let mut late = pin!(head.late());
        for _ in 0..4 {
            assert!(!head.is_too_long(1));
            let second = timeout(Duration::from_secs(1), late.as_mut()).await;
            assert!(second.is_err());
        }
        assert_eq!(late.await, Late::Head);
        assert_eq!(begin.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_own_time() {
        let (head, begin) = (Head::default(), Instant::now());
        let mut late = pin!(head.late());
        for _ in 0..3 {
            assert!(!head.is_too_long(1));
            assert!(timeout(MOST, late.as_mut()).await.is_err());
            next_request(&head);
        }
        assert!(!head.is_too_long(1));
        assert_eq!(late.await, Late::Head);
        assert_eq!(begin.elapsed().as_secs(), 3 * 4 + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_under_way_has_all_the_time() {
        let head = Head::default();
        let mut late = pin!(head.late());
        assert!(!head.is_too_long(1));
        assert!(timeout(MOST, late.as_mut()).await.is_err());
        head.set_whole(true);
        assert!(timeout(DAY, late.as_mut()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_stays_longer_than_envoys_hour_after_each_request() {
        let (head, begin) = (Head::default(), Instant::now());
        let mut late = pin!(head.late());
        for _ in 0..2 {
            next_request(&head);
            let hour = timeout(Duration::from_secs(3_600), late.as_mut()).await;
            assert!(hour.is_err());
        }
        next_request(&head);
        assert_eq!(late.await, Late::Request);
        assert_eq!(begin.elapsed().as_secs() / 60, 2 * 60 + 65);
    }
}
