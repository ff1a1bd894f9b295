//! Idle time: how long no byte has moved in either direction.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Last time that a byte moved. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Idle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Microseconds after `start`.
    last_us: AtomicU64,
    limit: Duration,
}

/// A stream whose every byte, in or out, is noted.
#[derive(Debug)]
pub(crate) struct Noted<T> {
    inner: T,
    idle: Option<Idle>,
}

// === impl Idle ===

impl Idle {
    /// Starts the clock; more than `limit` without a byte is too long.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                start: Instant::now(),
                last_us: AtomicU64::new(0),
                limit,
            }),
        }
    }

    /// A byte moves.
    pub(crate) fn note(&self) {
        let now_us = u64::try_from(self.inner.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.inner.last_us.store(now_us, Ordering::Relaxed);
    }

    /// When it is too long, unless a byte moves before.
    pub(crate) fn deadline(&self) -> Instant {
        let last = Duration::from_micros(self.inner.last_us.load(Ordering::Relaxed));
        self.inner.start + last + self.inner.limit
    }

    /// The time allowed.
    pub(crate) fn limit(&self) -> Duration {
        self.inner.limit
    }

    /// Returns when no byte has moved for too long.
    pub(crate) async fn expired(&self) {
        while self.deadline() > Instant::now() {
            tokio::time::sleep_until(self.deadline()).await;
        }
    }
}

// === impl Noted ===

impl<T> Noted<T> {
    pub(crate) fn new(inner: T, idle: Option<Idle>) -> Self {
        Self { inner, idle }
    }

    fn note(&self, moved: bool) {
        if moved && let Some(idle) = &self.idle {
            idle.note();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.note(buf.filled().len() > before);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(matches!(polled, Poll::Ready(Ok(_))));
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(matches!(polled, Poll::Ready(Ok(_))));
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_byte_prolongs_the_time() {
        let idle = Idle::new(Duration::from_secs(5));
        let begin = Instant::now();
        let noting = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            idle.note();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = idle.expired() => {}
            () = noting => {}
        }
        assert_eq!(begin.elapsed().as_secs(), 8);
    }
}
