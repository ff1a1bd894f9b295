//! An answer that comes piece by piece: server-sent events, or messages of gRPC.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame};
use tokio::time::{Interval, interval};

/// Between two pieces.
const EVERY: Duration = Duration::from_millis(100);

/// One piece again and again, for a while, and then what ends it.
#[derive(Debug)]
pub(super) struct Pieces {
    piece: Bytes,
    ticks: Interval,
    left: u128,
    trailers: Option<HeaderMap>,
}

// === impl Pieces ===

impl Pieces {
    /// `piece` at once and until `lasts` is over, and `trailers` behind the last one.
    pub(super) fn new(lasts: Duration, piece: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self {
            piece,
            ticks: interval(EVERY),
            left: lasts.as_millis() / EVERY.as_millis() + 1,
            trailers,
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.left == 0 {
            let trailers = this.trailers.take();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        ready!(this.ticks.poll_tick(cx));
        this.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(this.piece.clone()))))
    }
}
