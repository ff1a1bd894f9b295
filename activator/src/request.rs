//! Plain HTTP: our accept loop hands connections to Pingora, which asks us about each request.

mod answer;
mod caller;
mod forward;

use std::{fmt, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::{Stream, http::ServerSession, raw_connect::ProxyDigest},
    server::{ShutdownWatch, configuration::ServerConf},
};
use pingora_http::ResponseHeader;
use pingora_proxy::HttpProxy;
use tokio::{net::TcpStream, sync::watch};

use crate::{
    connection::{First, Route},
    hub::Hub,
};
use caller::Caller;
use forward::Forward;

/// Tries of one request. Only connects that failed and reused connections that had just closed are
/// tried again; what ends it is the hold timeout.
const MAX_TRIES: usize = 10_000;
/// Upstream connections kept for reuse, in all.
const POOL: usize = 4_096;

/// Serves plain HTTP connections.
pub(crate) struct Requests {
    http1: Arc<HttpProxy<Forward>>,
    h2c: Arc<PriorKnowledge>,
    draining: ShutdownWatch,
}

/// A connection: what Pingora carries from the socket to each request on it.
#[derive(Debug)]
pub(crate) struct Connection {
    route: Route,
    peer: SocketAddr,
    /// To see that the caller has left; with HTTP/2 that is seen by stream.
    socket: Arc<TcpStream>,
}

/// The proxy, for connections that are known to begin with HTTP/2's preface: Pingora would wait
/// for as many bytes as that on HTTP/1 connections, too, where a request may be shorter.
struct PriorKnowledge {
    proxy: Arc<HttpProxy<Forward>>,
    options: HttpServerOptions,
}

// === impl Requests ===

impl Requests {
    /// `draining` becomes true when a drain begins.
    pub(crate) fn new(hub: Arc<Hub>, draining: watch::Receiver<bool>) -> Self {
        let conf = ServerConf {
            max_retries: MAX_TRIES,
            upstream_keepalive_pool_size: POOL,
            threads: 1,
            ..ServerConf::default()
        };
        let mut proxy = HttpProxy::new(Forward { hub }, Arc::new(conf));
        proxy.handle_init_modules();
        let proxy = Arc::new(proxy);
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        Self {
            http1: Arc::clone(&proxy),
            h2c: Arc::new(PriorKnowledge { proxy, options }),
            draining,
        }
    }

    pub(crate) async fn serve_http1(&self, first: First, peer: SocketAddr, route: Route) {
        let stream = wrap(first, peer, route);
        self.http1.process_new(stream, &self.draining).await;
    }

    pub(crate) async fn serve_h2c(&self, first: First, peer: SocketAddr, route: Route) {
        let stream = wrap(first, peer, route);
        self.h2c.process_new(stream, &self.draining).await;
    }

    /// Closes connections on which no request is under way.
    pub(crate) async fn close_idle(&self) {
        self.http1.http_cleanup().await;
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// Pingora has a place for what a CONNECT proxy in between told us: with none there, it is where
/// our own data travels with the connection.
fn wrap(first: First, peer: SocketAddr, route: Route) -> Stream {
    let socket = Arc::new(first.stream);
    // A status code that is in range can't fail; without the header the connection has no route
    // and is answered with 500.
    let digest = ResponseHeader::build(200, None).ok().map(|header| {
        let connection = Connection {
            route,
            peer,
            socket: Arc::clone(&socket),
        };
        ProxyDigest::new(Box::new(header), Some(Box::new(Arc::new(connection))))
    });
    Box::new(Caller::new(socket, first.read, digest))
}

// === impl Connection ===

impl Connection {
    /// Whether answers say how long they were held.
    fn says_timing(&self) -> bool {
        self.route.workload.spec().settings.server_timing
    }
}

// === impl PriorKnowledge ===

#[async_trait]
impl HttpServerApp for PriorKnowledge {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.proxy.process_new_http(session, shutdown).await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
