//! Bodies on their way: uploads note activity, answers hold what the request holds until they end.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::{activity::Idle, caller::Caller, metrics::Reason, request::Hold, upstream::Lease};

/// A request's body on its way to the app.
#[derive(Debug)]
pub(crate) struct Upload {
    /// `None` = no body, in a request that is sent a second time.
    inner: Option<Incoming>,
    idle: Option<Idle>,
    /// `None` = there was nothing to send from the start.
    going_on: Option<Arc<()>>,
    caller: Option<Arc<Caller>>,
}

/// Tells whether a body is still being sent.
#[derive(Debug)]
pub(crate) struct UploadWatch(Option<Weak<()>>);

/// An answer's body on its way to the caller.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Our own words, or nothing.
    Text(Full<Bytes>),
    /// The app's.
    App(Download),
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

// === impl Upload ===

impl Upload {
    /// `caller` is told when the body breaks.
    pub(crate) fn new(inner: Incoming, idle: Option<Idle>, caller: Option<&Arc<Caller>>) -> Self {
        let has_body = !inner.is_end_stream();
        Self {
            inner: Some(inner),
            idle,
            going_on: has_body.then(Arc::default),
            caller: caller.filter(|_| has_body).cloned(),
        }
    }

    /// A request without a body.
    pub(crate) fn none() -> Self {
        Self {
            inner: None,
            idle: None,
            going_on: None,
            caller: None,
        }
    }

    /// Hyper drops a body as soon as it has sent it.
    pub(crate) fn watch(&self) -> UploadWatch {
        UploadWatch(self.going_on.as_ref().map(Arc::downgrade))
    }
}

// === impl UploadWatch ===

impl UploadWatch {
    pub(crate) fn is_going_on(&self) -> bool {
        self.0.as_ref().is_some_and(|body| body.strong_count() > 0)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        if let Some(idle) = &self.idle {
            idle.note();
        }
        if let (Some(Err(_)), Some(caller)) = (&frame, &self.caller) {
            caller.note_broken_body();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::App(download) => download.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::App(download) => download.inner.size_hint(),
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
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
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
        Poll::Ready(frame.map(|frame| frame.map_err(Cut::App)))
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

    fn timed_out(&mut self) -> Cut {
        self.hold.rejected(Reason::Timeout);
        Cut::Timeout
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.finish();
        }
    }
}
