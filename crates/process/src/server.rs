//! A small HTTP/1.1 server for admin pages, reports and metrics.
//!
//! Not for traffic: an answer is mostly whole in memory and every connection gets the same handler.

mod impatient;

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use self::impatient::Impatient;

/// An answer, whole in memory.
pub type Answer = Response<Full<Bytes>>;

/// Whose address a connection comes from, without the form of IPv4 in IPv6; among the extensions of
/// each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Longest time for a request's head: these ports are called by machines of ours and kubelet.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted; the kernel's own bound, `net.core.somaxconn`, is the same.
const BACKLOG: u32 = 4096;
/// How long nothing of an answer may be taken: a page is read at once, or by nobody.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on all addresses (IPv6 and IPv4) where the kernel has IPv6, else on IPv4. What is
/// written to an accepted connection is sent at once (`TCP_NODELAY`).
///
/// # Errors
/// Where the port is taken or may not be opened.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match listen(SocketAddr::from(([0u16; 8], port))) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            listen(SocketAddr::from(([0u8; 4], port)))
        }
        other => other,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    socket.set_reuseaddr(true)?;
    // Linux hands it down to what is accepted, which saves each connection a call.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers requests on `listener` until `stop` is cancelled; what is being answered then goes on.
pub async fn serve<H, F, B>(listener: TcpListener, stop: CancellationToken, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serve_at_most(Semaphore::MAX_PERMITS, listener, stop, handler).await;
}

/// As [`serve`], for so many connections at one time: beyond, each is answered once, with 503 and
/// when to come again.
pub async fn serve_at_most<H, F, B>(
    connections: usize,
    listener: TcpListener,
    stop: CancellationToken,
    handler: H,
) where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let handler = Arc::new(handler);
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, Peer(peer.ip().to_canonical())),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tokio::spawn(converse((stream, peer), |_: Request<Incoming>| async {
                busy()
            }));
            continue;
        };
        let handler = Arc::clone(&handler);
        tokio::spawn(async move {
            converse((stream, peer), &*handler).await;
            drop(place);
        });
    }
}

/// Answers what comes on one connection.
async fn converse<H, F, B>((stream, peer): (TcpStream, Peer), handler: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let stream = Impatient::new(stream, STANDSTILL);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn busy() -> Answer {
    let mut answer = text(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many connections: come again\n",
    );
    for (name, value) in [(header::RETRY_AFTER, "1"), (header::CONNECTION, "close")] {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// A plain text answer.
#[must_use]
pub fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    answer(
        status,
        "text/plain; charset=utf-8",
        Bytes::from(body.into()),
    )
}

/// `value` as JSON; 500 where it can't be written.
#[must_use]
pub fn json<T: serde::Serialize>(value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", Bytes::from(body)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// All metrics of `registry` in Prometheus' OpenMetrics text.
#[must_use]
pub fn metrics(registry: &Registry) -> Answer {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, registry) {
        Ok(()) => answer(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Bytes::from(body),
        ),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_request_is_answered_and_the_server_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, stop.clone(), |request| async move {
            text(StatusCode::OK, request.uri().path().to_owned())
        }));
        let mut client = tokio::net::TcpStream::connect(addr).await.unwrap();
        client
            .write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("/x"),
            "{answer}"
        );
        stop.cancel();
        server.await.unwrap();
    }

    /// What comes back for a GET, as far as its head; the connection stays open where it may.
    async fn head(client: &mut TcpStream) -> String {
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn whoever_comes_beyond_the_bound_is_told_when_to_come_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        let answer = |request: Request<Incoming>| async move {
            let peer = request.extensions().get::<Peer>().copied();
            assert_eq!(peer, Some(Peer(IpAddr::from([127, 0, 0, 1]))));
            text(StatusCode::OK, "")
        };
        tokio::spawn(serve_at_most(1, listener, stop, answer));
        let mut first = TcpStream::connect(addr).await.unwrap();
        let served = head(&mut first).await;
        assert!(served.starts_with("HTTP/1.1 200"), "{served}");
        let mut second = TcpStream::connect(addr).await.unwrap();
        let refused = head(&mut second).await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(
            refused.contains("retry-after: 1") && refused.contains("connection: close"),
            "{refused}"
        );
        drop(first);
        // The server hears of it in a moment.
        let served_again = async {
            loop {
                let mut third = TcpStream::connect(addr).await.unwrap();
                if head(&mut third).await.starts_with("HTTP/1.1 200") {
                    return;
                }
            }
        };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, served_again).await.unwrap();
    }
}
