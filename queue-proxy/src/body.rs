//! Answers on their way to the caller: they hold what the request holds until they end.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::{
    activity::Idle, caller::Caller, metrics::Reason, request::Hold, stall::Watched, upstream::Lease,
};

/// An answer's body on its way to the caller.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Our own words, or nothing.
    Text(Full<Bytes>),
    /// The app's.
    App(Download),
    /// The app's, in a stream whose caller may stop reading.
    Watched(Watched),
}

/// The app's answer; until it is dropped the request is in flight.
///
/// Fields are dropped in this order: first the app's connection is let go, then the slot.
#[derive(Debug)]
pub(crate) struct Download {
    inner: Incoming,
    /// Dropped before the answer's end, it closes the app's connection or resets its stream.
    lease: Option<Lease>,
    hold: Hold,
    deadline: Instant,
    idle: Option<Idle>,
    /// Made when the app first lets us wait: most answers never need a timer.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Why it breaks off. Hyper writes what it has before it asks again, and would throw it away
    /// if it heard of this at once.
    cut: Option<Cut>,
}

/// Why an answer ends before its end. The server then resets the stream, so that nobody takes a
/// cut body for a whole one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    /// The app's connection broke.
    #[error("the app's answer broke off: {0}")]
    App(#[source] hyper::Error),
    /// The whole-request or idle timeout.
    #[error("the answer took too long")]
    Timeout,
}

// === impl Outgoing ===

impl Outgoing {
    pub(crate) fn text(text: Bytes) -> Self {
        Self::Text(Full::new(text))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Text(text) => Pin::new(text)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::App(download) => download.poll_next(cx),
            Self::Watched(watched) => watched.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::App(download) => download.is_end_stream(),
            Self::Watched(watched) => watched.look(Download::is_end_stream, false),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::App(download) => download.size_hint(),
            Self::Watched(watched) => watched.look(Download::size_hint, SizeHint::default()),
        }
    }
}

// === impl Download ===

impl Download {
    pub(crate) fn new(inner: Incoming, lease: Lease, hold: Hold, idle: Option<Idle>) -> Self {
        Self {
            inner,
            lease: Some(lease),
            deadline: hold.deadline(),
            hold,
            idle,
            sleep: None,
            cut: None,
        }
    }

    /// The same, or, where the caller may stop to read, one that a stalled caller can't keep.
    pub(crate) fn into_outgoing(self, may_stall: bool) -> Outgoing {
        if may_stall && !self.inner.is_end_stream() {
            Outgoing::Watched(Watched::new(self))
        } else {
            Outgoing::App(self)
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(cut) = self.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let link = self.lease.as_mut().and_then(Lease::link);
        let polled = match link {
            Some(link) => link.poll_frame(&mut self.inner, cx),
            None => Pin::new(&mut self.inner).poll_frame(cx),
        };
        let frame = match polled {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.poll_too_late(cx));
                return Poll::Ready(Some(Err(self.timed_out())));
            }
        };
        if let Some(idle) = &self.idle {
            idle.note();
        }
        // An app that never lets us wait must not outrun the deadline.
        if matches!(frame, Some(Ok(_))) && Instant::now() >= self.deadline {
            return Poll::Ready(Some(Err(self.timed_out())));
        }
        match &frame {
            Some(Ok(frame)) => self.hold.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) => self.hold.broke_off(),
            None => self.finish(),
        }
        match frame {
            Some(Err(error)) => {
                self.cut = Some(Cut::App(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame.map(|frame| frame.map_err(Cut::App))),
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    /// Ready when the answer may not go on.
    fn poll_too_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let at = self.next_deadline();
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            ready!(sleep.as_mut().poll(cx));
        }
    }

    fn next_deadline(&self) -> Instant {
        self.idle
            .as_ref()
            .map_or(self.deadline, |idle| idle.deadline().min(self.deadline))
    }

    pub(crate) fn timed_out(&mut self) -> Cut {
        self.hold.cut(Reason::Timeout);
        Cut::Timeout
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn caller(&self) -> &Arc<Caller> {
        self.hold.caller()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.finish();
        }
    }
}
