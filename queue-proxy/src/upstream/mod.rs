//! Connections to one port of the app, kept and used again.
//!
//! hyper-util's pool keys connections by the request's authority, which here is whatever Host the
//! caller sent, so a caller could fill it. There is one address per pool: a list is all it takes.

mod http1;
mod http2;

use std::{io, net::SocketAddr, sync::Arc};

use http::{Request, Response, Version, header, uri};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use crate::{error::Error, upload::Upload};

pub(crate) use http1::Link;

/// One port of the app.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    links: http1::Pool,
    streams: http2::Pool,
}

/// The connection (or stream) of one request, until the answer has ended.
#[derive(Debug)]
pub(crate) enum Lease {
    /// A connection of its own; whoever reads the answer drives it.
    Http1(Link, Arc<Upstream>),
    /// A stream of a shared connection.
    Http2 {
        /// Only held.
        _count: http2::StreamCount,
    },
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            links: http1::Pool::default(),
            streams: http2::Pool::default(),
        }
    }

    /// A new connection to the app.
    ///
    /// # Errors
    /// Where the app refuses it, or can't be reached.
    pub(crate) async fn dial(&self) -> Result<TcpStream, Error> {
        let stream = connect(self.address).await.map_err(|error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                Error::AppRefused(error)
            } else {
                Error::AppUnreachable(error)
            }
        })?;
        // A failure only means that small writes wait for each other.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Sends `request`, which it takes, in the version that it carries and waits for the head of
    /// the answer.
    ///
    /// # Errors
    /// Where the app can't be dialled or does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection, or resets the stream.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: &mut Option<Request<Upload>>,
    ) -> Result<(Response<Incoming>, Lease), Error> {
        match request.take() {
            Some(http2) if http2.version() == Version::HTTP_2 => {
                let sending = Box::pin(self.send_http2(self.absolute(http2)?));
                let (response, count) = sending.await?;
                Ok((response, Lease::Http2 { _count: count }))
            }
            http1 => {
                *request = http1;
                let (response, link) = self.send_http1(request).await?;
                Ok((response, Lease::Http1(link, Arc::clone(self))))
            }
        }
    }

    /// Closes kept connections that the app has closed or that are too old, until the process ends.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(http1::SWEEP).await;
            self.links.sweep();
        }
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

/// A connection to a port of this pod.
///
/// # Errors
/// Where the kernel has none, or where it has connected us with ourselves: nobody listens there.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    if is_with_itself(&stream, address)? {
        // A close in good order would keep the port from the app for a minute.
        stream.set_zero_linger()?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Whether the port that the kernel took for our end is the one that we dialled. It may take it where
/// nobody listens and the port is among those for outgoing connections, and whoever dials himself gets
/// through (RFC 9293, 3.5, "simultaneous").
fn is_with_itself(stream: &TcpStream, dialled: SocketAddr) -> io::Result<bool> {
    let own = stream.local_addr()?;
    Ok(own.port() == dialled.port() && own.ip() == dialled.ip())
}

/// `request` without its body.
fn copy_head(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::none());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

// === impl Lease ===

impl Lease {
    /// The connection, where it is one of its own.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        match self {
            Self::Http1(link, _) => Some(link),
            Self::Http2 { .. } => None,
        }
    }

    /// The answer has been read to its end: the connection may serve the next request.
    pub(crate) fn finish(self) {
        if let Self::Http1(link, upstream) = self {
            upstream.keep(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn who_is_connected_with_himself_knows_it() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(own).await.unwrap();
        assert!(is_with_itself(&stream, own).unwrap());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = connect(address).await.unwrap();
        assert!(!is_with_itself(&stream, address).unwrap());
    }
}
