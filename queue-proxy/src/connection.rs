//! Accepts connections and finds out what they carry.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lull_contract::AppProtocol;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    body::Outgoing,
    caller::{self, Caller, Patience},
    first_bytes, headers,
    metrics::{Kind, Metrics, Reason},
    request::{self, Port},
    splice,
    wire::Wire,
};

/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest time from a connection's first byte to the third.
const FIRST_BYTES: Duration = caller::TICK;
/// How often a connection that is new in a drain is asked whether its first request has come.
const FIRST_REQUEST_PAUSE: Duration = Duration::from_millis(10);
/// A peer that vanished without a word would be in flight for ever.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// So long the kernel waits for a peer that does not acknowledge (`tcp_retries2`); where nothing is on
/// its way, for one that answers no keepalive, a little less.
const KERNELS_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How often the first bytes are looked at while there are too few.
const PEEK_PAUSE: Duration = Duration::from_millis(1);

/// Requests at once on one HTTP/2 connection. An Envoy sends all that has waited for a connection before
/// it has been told this number, and gets those above it back as refused; its own default is the same.
const MAX_STREAMS: u32 = 1_024;
/// Streams that are refused, or reset for a fault, in the life of a connection, before hyper ends it with
/// all that is in flight: what an Envoy has collected during a wake may be thousands, and it is sent before
/// the number above is known. (Hyper's 1,024 is a bound against floods, and so is this.)
const MAX_FAULTS: usize = 8_192;
/// So much of a request's body waits in an HTTP/2 stream while it is not read, as in HTTP/1.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bodies of requests that wait for a slot stay in their streams. If they could fill the connection's
/// window, the body of the request that has the slot could not come, and nobody would go on. Half of it is
/// also h2's measure for small frames that wait, 256 bytes each; beyond, it ends the connection.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

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
        // Boxed, so that a connection on which nothing has come takes little.
        Kind::Tcp | Kind::Tls => {
            Box::pin(splice::serve(stream, (kind, peer.ip()), &port)).await;
        }
        Kind::Http1 => Box::pin(serve_http1(stream, new_caller(peer, port))).await,
        Kind::H2c => Box::pin(serve_http2(stream, new_caller(peer, port))).await,
    }
}

fn new_caller(peer: SocketAddr, port: Arc<Port>) -> Arc<Caller> {
    Caller::new(port, peer.ip())
}

/// What the connection carries, by its first bytes, which stay where they are; `None` = it ended,
/// or began something and did not go on.
async fn peek(stream: &TcpStream) -> Option<Kind> {
    let mut deadline = None;
    loop {
        let mut bytes = [0; first_bytes::ENOUGH];
        let length = stream.peek(&mut bytes).await.ok()?;
        let seen = &bytes[..length];
        if seen.is_empty() {
            return None;
        }
        if let Some(kind) = first_bytes::kind(seen) {
            return Some(kind);
        }
        // One or two bytes arrived alone, which hardly ever happens. The socket stays readable,
        // so there is no event to wait for.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + FIRST_BYTES);
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(PEEK_PAUSE).await;
    }
}

/// After what time the kernel gives up a caller that takes nothing: one that does not read its answer
/// can't hold a slot for longer than a request, which may last for `timeout`. `None` = as it does by
/// itself, where that is sooner for a caller that has vanished: the option also stands in the place of
/// those limits.
fn user_timeout(timeout: Duration) -> Option<Duration> {
    (timeout <= KERNELS_TIMEOUT).then_some(timeout)
}

async fn serve_http1(stream: TcpStream, caller: Arc<Caller>) {
    let user_timeout = user_timeout(caller.port.gateway.config.timeout.0);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(user_timeout);
    let gateway = Arc::clone(&caller.port.gateway);
    let service = service(&caller);
    // Half-closed callers are taken for gone, as Envoy and nginx do: nothing else tells a caller
    // that left from one that waits, and who leaves must free the slot at once.
    let connection = http1::Builder::new()
        .max_buf_size(headers::MAX_HEAD)
        .preserve_header_case(true)
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(Wire::watched(stream, Arc::clone(&caller))),
            service,
        )
        .with_upgrades();
    tokio::pin!(connection);
    // While a drain goes on each answer tells its caller to close; who has not asked is only told
    // at the drain's end, when the process would otherwise end in the middle of the next request.
    tokio::select! {
        ended = &mut connection => return note_end(&gateway.metrics, ended),
        () = out_of_patience(&caller) => {
            if caller.is_busy() {
                // Its answer is cut, which may be all that tells it.
                caller.reset_at_end();
            }
            return;
        }
        () = goodbye(gateway.drain.done(), &caller) => {}
    }
    connection.as_mut().graceful_shutdown();
    note_end(&gateway.metrics, connection.await);
}

async fn serve_http2(stream: TcpStream, caller: Arc<Caller>) {
    let gateway = Arc::clone(&caller.port.gateway);
    let service = service(&caller);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(headers::MAX_HEAD_LIST)
        .max_concurrent_streams(MAX_STREAMS)
        .max_local_error_reset_streams(MAX_FAULTS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(Wire::new(stream)), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return note_end(&gateway.metrics, ended),
        () = out_of_patience(&caller) => {}
        () = goodbye(gateway.drain.begun(), &caller) => {}
        () = caller.answers.watch(gateway.config.timeout.0) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = &mut connection => note_end(&gateway.metrics, ended),
        () = left(&caller) => tracing::debug!("a connection is closed whose caller does not end it"),
    }
}

fn service(
    caller: &Arc<Caller>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Outgoing>,
    Error = h2::Error,
    Future: Send + 'static,
> + use<> {
    let caller = Arc::clone(caller);
    service_fn(move |request: Request<Incoming>| request::handle(caller.begin(), request))
}

/// Returns when the caller has taken too long for a head or for a whole request, or has not asked for
/// too long.
async fn out_of_patience(caller: &Caller) {
    let mut patience = Patience::new(caller.port.gateway.config.timeout.0);
    loop {
        tokio::time::sleep(caller::TICK).await;
        if !caller.may_stay(&mut patience) {
            tracing::debug!("a connection is closed that did nothing, or too slowly");
            return;
        }
    }
}

/// Returns when a caller that has been told to go has been quiet for a whole tick: what was answered before
/// has had that time to reach it. It may not have heard: hyper tells nobody who has not ended his preface,
/// and then waits for him.
async fn left(caller: &Caller) {
    let mut quiet = None;
    loop {
        tokio::time::sleep(caller::TICK).await;
        let now = (!caller.is_busy()).then(|| caller.requests());
        if now.is_some() && now == quiet {
            return;
        }
        quiet = now;
    }
}

/// Returns when `leaving` has. A connection that is new then gets its first request served before
/// it is told.
async fn goodbye(leaving: impl Future<Output = ()>, caller: &Caller) {
    leaving.await;
    while !caller.has_asked() {
        tokio::time::sleep(FIRST_REQUEST_PAUSE).await;
    }
}

fn note_end(metrics: &Metrics, ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        if error.is_parse() {
            // hyper has answered it, without our headers.
            metrics.rejected(Reason::BadRequest);
        }
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_vanished_is_given_up_in_time_however_long_a_request_may_take() {
        let of = |seconds| user_timeout(Duration::from_secs(seconds)).map(|it| it.as_secs());
        assert_eq!(of(5), Some(5));
        assert_eq!(of(300), Some(300));
        assert_eq!(of(86_400), None);
    }
}
