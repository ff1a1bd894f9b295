//! Accepts connections and finds out what they carry.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lull_contract::AppProtocol;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{Kind, Reason},
    request::Port,
    splice,
};

/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest time from a connection's first byte to the end of its first request's head.
const FIRST_HEAD: Duration = Duration::from_secs(60);
/// Longest time between two requests. Longer than Envoy's hour, so that it is always the caller
/// who closes an idle connection: if we did, a request could be on its way.
const IDLE_CONNECTION: Duration = Duration::from_secs(65 * 60);
/// A peer that vanished without a word would be in flight for ever.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// First byte of a TLS record with a handshake, as a ClientHello is (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Beginning of HTTP/2's preface; no HTTP/1 method begins like this (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; 3] = b"PRI";
/// How often the first bytes are looked at while there are too few.
const PEEK_PAUSE: Duration = Duration::from_millis(1);

/// Accepts connections until `stop`.
pub(crate) async fn accept(
    listener: TcpListener,
    protocol: AppProtocol,
    port: Arc<Port>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(serve(stream, peer, protocol, Arc::clone(&port)));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, protocol: AppProtocol, port: Arc<Port>) {
    // Failures only mean that small writes wait for each other, or that a dead peer stays longer.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    let kind = match protocol {
        AppProtocol::Tcp => Kind::Tcp,
        AppProtocol::Http => match peek(&stream).await {
            Some(kind) => kind,
            None => return,
        },
    };
    port.gateway.metrics.connected(kind);
    match kind {
        Kind::Tcp | Kind::Tls => splice::serve(stream, &port).await,
        Kind::Http1 => serve_http1(stream, peer, port).await,
        Kind::H2c => serve_http2(stream, peer, port).await,
    }
}

/// What the connection carries, by its first bytes, which stay where they are; `None` = it ended,
/// or began something and did not go on.
async fn peek(stream: &TcpStream) -> Option<Kind> {
    let mut deadline = None;
    loop {
        let mut bytes = [0; HTTP2_PREFACE.len()];
        let length = stream.peek(&mut bytes).await.ok()?;
        let seen = &bytes[..length];
        match seen {
            [] => return None,
            [TLS_HANDSHAKE, ..] => return Some(Kind::Tls),
            _ if seen == HTTP2_PREFACE => return Some(Kind::H2c),
            _ if !HTTP2_PREFACE.starts_with(seen) => return Some(Kind::Http1),
            _ => {}
        }
        // One or two bytes arrived alone, which hardly ever happens. The socket stays readable,
        // so there is no event to wait for.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + FIRST_HEAD);
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(PEEK_PAUSE).await;
    }
}

async fn serve_http1(stream: TcpStream, peer: SocketAddr, port: Arc<Port>) {
    // A caller that does not read its answer can't hold a slot for longer than a request may last.
    let gateway = Arc::clone(&port.gateway);
    let user_timeout = gateway.config.timeout.0;
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(user_timeout));
    let first = Arc::new(Notify::new());
    let seen = Arc::clone(&first);
    let service = service_fn(move |request: Request<Incoming>| {
        seen.notify_one();
        let port = Arc::clone(&port);
        async move { Ok::<_, Infallible>(port.handle(peer.ip(), request).await) }
    });
    // Half-closed callers are taken for gone, as Envoy and nginx do: nothing else tells a caller
    // that left from one that waits, and who leaves must free the slot at once.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_CONNECTION)
        .preserve_header_case(true)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = first.notified() => None,
        () = tokio::time::sleep(FIRST_HEAD) => {
            tracing::debug!("no request came on a connection that had begun one");
            return;
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => connection.await,
    };
    if let Err(error) = ended {
        if error.is_parse() {
            // hyper has answered it, without our headers.
            gateway.metrics.rejected(Reason::BadRequest);
        }
        tracing::debug!(%error, "connection ended");
    }
}

async fn serve_http2(stream: TcpStream, peer: SocketAddr, port: Arc<Port>) {
    let drain = port.gateway.drain.clone();
    let first = Arc::new(Notify::new());
    let seen = Arc::clone(&first);
    let service = service_fn(move |request: Request<Incoming>| {
        seen.notify_one();
        let port = Arc::clone(&port);
        async move { Ok::<_, Infallible>(port.handle(peer.ip(), request).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A connection that is new while we drain gets its first request served before it is told.
    let goodbye = async {
        drain.begun().await;
        first.notified().await;
    };
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = goodbye => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
