//! HTTP/2: many requests share a connection, which a task of its own drives.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;

use super::{Upstream, copy_head};
use crate::{error::Error, headers, upload::Upload, wire::Wire};

/// What we take for "the app has not said it yet": as many streams as nobody allows.
const UNKNOWN_LIMIT: usize = 0x7fff_fff1;
/// Streams that a connection carries where the app does not say; what RFC 9113, 6.5.2, asks for at
/// least.
const ASSUMED_LIMIT: usize = 100;
/// So much of an answer waits in its stream while its caller does not read it. With half of it an app that
/// does not set `TCP_NODELAY` sent 1.5 MB/s: a window is one segment on loopback then, and the small rest
/// of its frames waits for an acknowledgement that the kernel delays.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Answers that their callers do not read stay in their streams, and must leave the connection's
/// window to all others: so many of them do. Half of it is also h2's measure for small frames that wait,
/// 256 bytes each; beyond, it ends the connection.
const CONNECTION_WINDOW: u32 = 1_024 * STREAM_WINDOW;
/// Streams of callers who left of which is known that their answers may still come. An answer in a
/// stream that is forgotten is a fault of the app's, but a harmless one: hyper ends the connection of all
/// after 1,024 of them in its life, if it is let.
const LEFT_STREAMS: usize = 1_024;
/// How often a new connection looks whether it has been told, and how many times at most.
const LIMIT_PAUSE: Duration = Duration::from_millis(1);
const LIMIT_PAUSES: u32 = 100;
/// How often a request is sent to an app that does not look at it.
const MAX_TRIES: u32 = 4;

type Connection = http2::Connection<TokioIo<Wire>, Upload, TokioExecutor>;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Pool {
    connections: Mutex<Vec<Shared>>,
    /// Held while a connection is made, so that a burst shares one.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    sender: http2::SendRequest<Upload>,
    /// Requests on this connection.
    active: Arc<AtomicUsize>,
    /// How many the app allows; streams beyond it would wait in hyper, unseen.
    most: Arc<AtomicUsize>,
}

/// Counts one stream while it lives.
#[derive(Debug)]
pub(crate) struct StreamCount(Arc<AtomicUsize>);

// === impl Upstream ===

impl Upstream {
    pub(super) async fn send_http2(
        &self,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, StreamCount), Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (mut connection, count) = self.stream().await?;
            let copy = replay(&request);
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, count)),
                Err(mut failed) => {
                    // The app said goodbye, or no, before it looked at this request.
                    let unseen = is_unseen(failed.error());
                    match failed.take_message().or_else(|| copy.filter(|_| unseen)) {
                        Some(again) if tries < MAX_TRIES => request = again,
                        _ if unseen => return Err(Error::Unseen(failed.into_error())),
                        _ => return Err(Error::AppFailed(failed.into_error())),
                    }
                    if !is_refusal(failed.error()) {
                        self.streams.forget(&connection);
                    }
                }
            }
        }
    }

    /// A place on a connection that has one, or on a new one.
    async fn stream(&self) -> Result<(Shared, StreamCount), Error> {
        if let Some(found) = self.streams.free() {
            return Ok(found);
        }
        let _dialling = self.streams.dialling.lock().await;
        if let Some(found) = self.streams.free() {
            return Ok(found);
        }
        let stream = self.dial().await?;
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .initial_max_send_streams(UNKNOWN_LIMIT)
            .max_header_list_size(headers::MAX_HEAD_LIST)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_reset_streams(LEFT_STREAMS)
            .max_local_error_reset_streams(None::<usize>)
            .handshake(TokioIo::new(Wire::new(stream)))
            .await
            .map_err(Error::AppFailed)?;
        learn_limit(&mut connection).await?;
        let most = Arc::new(AtomicUsize::new(limit(&connection)));
        tokio::spawn(drive(connection, Arc::clone(&most)));
        let connection = Shared {
            sender,
            active: Arc::default(),
            most,
        };
        self.streams.connections.lock().push(connection.clone());
        let count = StreamCount::new(&connection.active);
        Ok((connection, count))
    }
}

// === impl Pool ===

impl Pool {
    fn free(&self) -> Option<(Shared, StreamCount)> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        let free = connections.iter().find(|connection| {
            let most = connection.most.load(Ordering::Relaxed).max(1);
            connection.active.load(Ordering::Relaxed) < most
        })?;
        Some((free.clone(), StreamCount::new(&free.active)))
    }

    fn forget(&self, gone: &Shared) {
        self.connections
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.active, &gone.active));
    }
}

/// Waits until the app has said how many streams it allows: what is sent before may be refused.
///
/// # Errors
/// Where the app ends the connection instead, as one does that doesn't speak HTTP/2.
async fn learn_limit(connection: &mut Connection) -> Result<(), Error> {
    let mut pauses = 0;
    while connection.current_max_send_streams() == UNKNOWN_LIMIT && pauses < LIMIT_PAUSES {
        let looked = poll_fn(|cx| Poll::Ready(Pin::new(&mut *connection).poll(cx)));
        match looked.await {
            Poll::Ready(Ok(())) => {
                return Err(Error::AppUnreachable(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(Err(error)) => return Err(Error::AppFailed(error)),
            Poll::Pending => {}
        }
        // Hyper reads in a task of its own and has no event for it.
        tokio::time::sleep(LIMIT_PAUSE).await;
        pauses += 1;
    }
    // An app that is slow to say it takes what comes.
    Ok(())
}

fn limit(connection: &Connection) -> usize {
    match connection.current_max_send_streams() {
        UNKNOWN_LIMIT => ASSUMED_LIMIT,
        limit => limit,
    }
}

/// A copy of a request without a body. Of one with a body there is none, because the body may have
/// been sent.
fn replay(request: &Request<Upload>) -> Option<Request<Upload>> {
    request.body().is_end_stream().then(|| copy_head(request))
}

/// Whether the app has not looked at the request (RFC 9113, 8.7).
fn is_unseen(error: &hyper::Error) -> bool {
    is_refusal(error)
        || http2_error(error).is_some_and(|error| error.is_go_away() && error.is_remote())
}

fn is_refusal(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Drives a connection and keeps what the app allows: it says so when it likes.
async fn drive(connection: Connection, most: Arc<AtomicUsize>) {
    let mut connection = std::pin::pin!(connection);
    let ended = poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        most.store(limit(&connection), Ordering::Relaxed);
        polled
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "connection to the app ended");
    }
}

// === impl StreamCount ===

impl StreamCount {
    fn new(active: &Arc<AtomicUsize>) -> Self {
        active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(active))
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
