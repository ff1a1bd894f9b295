//! A request's body on its way to the app.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, ext};
use tokio::sync::Notify;

use crate::{activity::Idle, caller::Caller, wire};

/// How long an app that knows nothing of expectations is waited for; so long curl waits, too.
const EXPECTATION: Duration = Duration::from_secs(1);
/// So much is read, bytes, of a body that nobody wants: more than is on its way before its caller can
/// know that.
const DISCARDED: usize = 1 << 20;

/// A request's body. Hyper drops it as soon as it has sent it.
pub(crate) struct Upload {
    /// `None` = no body, in a request that is sent a second time.
    inner: Option<Incoming>,
    idle: Option<Idle>,
    /// `None` = there was nothing to send from the start.
    going_on: Option<Arc<()>>,
    /// Told when the body breaks, or is given up; `None` once it has ended.
    caller: Option<Arc<Caller>>,
    /// Ends when the body may be asked for.
    gate: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    expectation: Option<Arc<Expectation>>,
}

/// Tells whether a body is still being sent.
#[derive(Debug)]
pub(crate) struct UploadWatch {
    body: Option<Weak<()>>,
    expectation: Option<Arc<Expectation>>,
}

/// The caller sends its body when it is asked to (RFC 9110, 10.1.1): by the app, not by us.
#[derive(Debug, Default)]
struct Expectation {
    asked: Notify,
    is_met: AtomicBool,
}

// === impl Upload ===

impl Upload {
    /// The body of `request`; `caller` is told when it breaks.
    pub(crate) fn wrap(
        request: Request<Incoming>,
        idle: Option<Idle>,
        caller: Option<&Arc<Caller>>,
    ) -> Request<Self> {
        let going_on: Option<Arc<()>> = (!request.body().is_end_stream()).then(Arc::default);
        let caller = caller.filter(|_| going_on.is_some()).cloned();
        let expects = going_on.is_some() && expects_continue(request.headers());
        let mut request = request.map(|inner| Self {
            inner: Some(inner),
            idle,
            going_on,
            caller,
            gate: None,
            expectation: None,
        });
        if expects {
            let expectation = Arc::<Expectation>::default();
            let asks = Arc::clone(&expectation);
            ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    asks.asked.notify_one();
                }
            });
            let upload = request.body_mut();
            upload.gate = Some(Box::pin(Arc::clone(&expectation).wait()));
            upload.expectation = Some(expectation);
        }
        request
    }

    /// A request without a body.
    pub(crate) fn none() -> Self {
        Self {
            inner: None,
            idle: None,
            going_on: None,
            caller: None,
            gate: None,
            expectation: None,
        }
    }

    /// Reads and forgets what a caller goes on to send that has not heard yet that it is refused.
    pub(crate) async fn discard(mut self) {
        let Some(mut inner) = self.inner.take() else {
            return;
        };
        let reading = async {
            let mut left = DISCARDED;
            while left > 0
                && let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut inner).poll_frame(cx)).await
            {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            }
        };
        // An error: who is still sending is told by a reset.
        let _ = tokio::time::timeout(wire::LINGER, reading).await;
    }

    /// A watch on whether this is still being sent.
    pub(crate) fn watch(&self) -> UploadWatch {
        UploadWatch {
            body: self.going_on.as_ref().map(Arc::downgrade),
            expectation: self.expectation.clone(),
        }
    }
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        // The first look makes hyper ask the caller for its body.
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        if let Some(idle) = &self.idle {
            idle.note();
        }
        if !matches!(frame, Some(Ok(_)))
            && let Some(caller) = self.caller.take()
            && frame.is_some()
        {
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

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(caller) = &self.caller
            && !self.is_end_stream()
        {
            caller.note_left_body();
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

// === impl Expectation ===

impl Expectation {
    async fn wait(self: Arc<Self>) {
        // An error: the app has said nothing, so that it may well wait for the body.
        let _ = tokio::time::timeout(EXPECTATION, self.asked.notified()).await;
        self.is_met.store(true, Ordering::Relaxed);
    }
}

// === impl UploadWatch ===

impl UploadWatch {
    /// Whether more of the body is to come. Not where nobody has asked for it: an app that answers
    /// before that does not want it.
    pub(crate) fn is_going_on(&self) -> bool {
        let wanted = self
            .expectation
            .as_ref()
            .is_none_or(|expectation| expectation.is_met.load(Ordering::Relaxed));
        wanted
            && self
                .body
                .as_ref()
                .is_some_and(|body| body.strong_count() > 0)
    }
}
