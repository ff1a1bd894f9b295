//! Connections to one port of the app, kept and used again.
//!
//! hyper-util's pool keys connections by the request's authority, which here is whatever Host the
//! caller sent, so a caller could fill it. There is one address per pool: a list is all it takes.

use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, Response, Version, header, uri};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::Instant};

use crate::{body::Upload, error::Error};

/// An idle connection that is older is not used: many servers close after 60 s.
const MAX_IDLE: Duration = Duration::from_secs(55);
/// More idle connections than a burst leaves behind are closed.
const MAX_IDLE_CONNECTIONS: usize = 512;

type Http1 = http1::SendRequest<Upload>;
type Http2Connection = http2::Connection<TokioIo<TcpStream>, Upload, TokioExecutor>;

/// One port of the app.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    /// Idle connections; the one used last is at the back and used first.
    idle: Mutex<VecDeque<(Http1, Instant)>>,
    streams: Mutex<Vec<Http2>>,
    /// Held while an HTTP/2 connection is made, so that a burst shares one.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Http2 {
    sender: http2::SendRequest<Upload>,
    /// Requests on this connection.
    active: Arc<AtomicUsize>,
    /// How many the app allows; streams beyond it would wait in hyper, unseen.
    most: Arc<AtomicUsize>,
}

/// The connection (or stream) of one request; dropping it after the answer's end lets it be used
/// again, and before it, closes it.
#[derive(Debug)]
pub(crate) enum Lease {
    /// A connection of its own.
    Http1(Option<Http1>, Arc<Upstream>),
    /// A stream of a shared connection.
    Http2 {
        /// Only held.
        _count: StreamCount,
    },
}

/// Counts one stream while it lives.
#[derive(Debug)]
pub(crate) struct StreamCount(Arc<AtomicUsize>);

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Mutex::default(),
            streams: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
        }
    }

    /// A new connection to the app.
    ///
    /// # Errors
    /// Where the app refuses it, or can't be reached.
    pub(crate) async fn dial(&self) -> Result<TcpStream, Error> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| {
            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                Error::AppRefused(error)
            } else {
                Error::AppUnreachable(error)
            }
        })?;
        // A failure only means that small writes wait for each other.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Sends `request` in the version that it carries and waits for the head of the answer.
    ///
    /// # Errors
    /// Where the app can't be dialled or does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection, or resets the stream.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Error> {
        if request.version() == Version::HTTP_2 {
            self.send_http2(self.absolute(request)?).await
        } else {
            self.send_http1(request).await
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Error> {
        *request.version_mut() = Version::HTTP_11;
        // HTTP/1.0 callers may leave it out, but we speak 1.1, where it must be there.
        if !request.headers().contains_key(header::HOST)
            && let Ok(host) = HeaderValue::try_from(self.address.to_string())
        {
            request.headers_mut().insert(header::HOST, host);
        }
        while let Some(mut sender) = self.take_idle() {
            let copy = replay(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.lease(sender))),
                // The app may close an idle connection at the moment at which we use it.
                Err(mut failed) => match (failed.take_message(), copy) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(copy)) if is_broken(failed.error()) => {
                        request = copy;
                        break;
                    }
                    _ => return Err(Error::exchange(failed.into_error())),
                },
            }
        }
        let mut sender = self.connect_http1().await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(Error::exchange)?;
        Ok((response, self.lease(sender)))
    }

    async fn connect_http1(&self) -> Result<Http1, Error> {
        let stream = self.dial().await?;
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::AppFailed)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to the app ended");
            }
        });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<Http1> {
        let mut idle = self.idle.lock();
        while let Some((sender, since)) = idle.pop_back() {
            if since.elapsed() >= MAX_IDLE {
                // What lies before it is older still.
                idle.clear();
            } else if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn put_idle(&self, sender: Http1) {
        let mut idle = self.idle.lock();
        while idle.len() >= MAX_IDLE_CONNECTIONS
            || idle
                .front()
                .is_some_and(|(oldest, since)| oldest.is_closed() || since.elapsed() >= MAX_IDLE)
        {
            idle.pop_front();
        }
        idle.push_back((sender, Instant::now()));
    }

    fn lease(self: &Arc<Self>, sender: Http1) -> Lease {
        Lease::Http1(Some(sender), Arc::clone(self))
    }

    async fn send_http2(
        &self,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Error> {
        loop {
            let (mut connection, count) = self.stream().await?;
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease::Http2 { _count: count })),
                Err(mut failed) => match failed.take_message() {
                    // The app said goodbye before this request was sent.
                    Some(unsent) => {
                        request = unsent;
                        self.forget(&connection);
                    }
                    None => return Err(Error::AppFailed(failed.into_error())),
                },
            }
        }
    }

    /// A place on a connection that has one, or on a new one.
    async fn stream(&self) -> Result<(Http2, StreamCount), Error> {
        if let Some(found) = self.free_stream() {
            return Ok(found);
        }
        let _dialling = self.dialling.lock().await;
        if let Some(found) = self.free_stream() {
            return Ok(found);
        }
        let stream = self.dial().await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::AppFailed)?;
        let most = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let connection_task = drive(connection, Arc::clone(&most));
        tokio::spawn(connection_task);
        let connection = Http2 {
            sender,
            active: Arc::default(),
            most,
        };
        self.streams.lock().push(connection.clone());
        let count = StreamCount::new(&connection.active);
        Ok((connection, count))
    }

    fn free_stream(&self) -> Option<(Http2, StreamCount)> {
        let mut connections = self.streams.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        let free = connections.iter().find(|connection| {
            let most = connection.most.load(Ordering::Relaxed).max(1);
            connection.active.load(Ordering::Relaxed) < most
        })?;
        Some((free.clone(), StreamCount::new(&free.active)))
    }

    fn forget(&self, gone: &Http2) {
        self.streams
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.active, &gone.active));
    }

    /// HTTP/2 wants scheme and authority; the caller may have left either out.
    fn absolute(&self, mut request: Request<Upload>) -> Result<Request<Upload>, Error> {
        if request.uri().scheme().is_some() && request.uri().authority().is_some() {
            return Ok(request);
        }
        let host = request.headers().get(header::HOST);
        let authority = host
            .and_then(|host| uri::Authority::try_from(host.as_bytes()).ok())
            .map_or_else(|| self.address.to_string(), |host| host.to_string());
        let mut parts = request.uri().clone().into_parts();
        parts.scheme.get_or_insert(uri::Scheme::HTTP);
        if parts.authority.is_none() {
            let parsed = uri::Authority::try_from(authority);
            parts.authority = Some(parsed.map_err(|error| Error::Target(error.into()))?);
        }
        *request.uri_mut() =
            uri::Uri::from_parts(parts).map_err(|error| Error::Target(error.into()))?;
        Ok(request)
    }
}

/// Drives an HTTP/2 connection and keeps what the app allows: it says so when it likes.
async fn drive(connection: Http2Connection, most: Arc<AtomicUsize>) {
    let mut connection = std::pin::pin!(connection);
    let ended = std::future::poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        most.store(connection.current_max_send_streams(), Ordering::Relaxed);
        polled
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "connection to the app ended");
    }
}

/// A copy of `request` where sending it twice does no harm.
fn replay(request: &Request<Upload>) -> Option<Request<Upload>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Upload::none());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// The connection broke, as against an answer that is wrong.
fn is_broken(error: &hyper::Error) -> bool {
    !error.is_parse() && !error.is_user()
}

// === impl Lease ===

impl Drop for Lease {
    fn drop(&mut self) {
        let Self::Http1(sender, upstream) = self else {
            return;
        };
        let Some(mut sender) = sender.take().filter(|sender| !sender.is_closed()) else {
            return;
        };
        if sender.is_ready() {
            upstream.put_idle(sender);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let upstream = Arc::clone(upstream);
            runtime.spawn(async move {
                // An error: the answer was not read to its end, so the connection is closed.
                if sender.ready().await.is_ok() {
                    upstream.put_idle(sender);
                }
            });
        }
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
