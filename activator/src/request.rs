//! Plain HTTP: our accept loop hands connections to Pingora, which asks us about each request.

mod answer;
mod caller;
mod downstream;
mod forward;
mod head;
mod old;
mod streams;
mod told;
mod tries;
mod unclear;
mod upstream;

use std::{fmt, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::{
        Stream,
        http::{
            ServerSession,
            v2::server::{H2Options, default_h2_options},
        },
        raw_connect::ProxyDigest,
    },
    server::{ShutdownWatch, configuration::ServerConf},
};
use pingora_http::ResponseHeader;
use pingora_proxy::HttpProxy;
use tokio::{net::TcpStream, sync::watch, time::sleep};

use crate::{
    connection::{First, Route},
    hub::Hub,
    metrics::Reason,
};
use caller::Caller;
use forward::Forward;
use head::{Head, Late};
use streams::Streams;

/// Tries of one request. Only connects that failed and reused connections that had just closed are
/// tried again; what ends it is the hold timeout.
const MAX_TRIES: usize = 10_000;
/// Upstream connections kept for reuse, in all.
const POOL: usize = 4_096;
/// Requests at once on one HTTP/2 connection; the queue-proxy has the same, and says why.
const CALLER_STREAMS: u32 = 1_024;
/// Streams that are refused, or reset for a fault, in the life of a connection, before it is ended with all
/// that is in flight; as many as at the queue-proxy, which says why.
const CALLER_FAULTS: usize = 8_192;
/// What a caller may send on a stream before it is read, bytes. Whoever is held is not read: the
/// connection has room for the windows of all its streams, so that those that are let through go on.
const CALLER_WINDOW: u32 = 32 << 10;
/// Longest time between two requests, as the queue-proxy has it. Longer than Envoy's hour, so that it
/// is always the caller who closes an idle connection: if we did, a request could be on its way.
const IDLE: Duration = Duration::from_secs(65 * 60);
/// Longest time until the first request on an HTTP/2 connection that comes during a drain.
const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// Serves plain HTTP connections.
pub(crate) struct Requests {
    hub: Arc<Hub>,
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
    steers: Steers,
}

/// What a request tells the connection on which it came.
#[derive(Debug, Clone)]
enum Steers {
    /// How far it has been read.
    Http1(Arc<Head>),
    /// That it is under way, and when the connection is to end.
    H2(Arc<Streams>),
}

/// The proxy, for connections that are known to begin with HTTP/2's preface: Pingora would wait
/// for as many bytes as that on HTTP/1 connections, too, where a request may be shorter.
struct PriorKnowledge {
    proxy: Arc<HttpProxy<Forward>>,
    options: HttpServerOptions,
    h2: H2Options,
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
        let forward = Forward {
            hub: Arc::clone(&hub),
        };
        let mut proxy = HttpProxy::new(forward, Arc::new(conf));
        proxy.handle_init_modules();
        let proxy = Arc::new(proxy);
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        Self {
            hub,
            http1: Arc::clone(&proxy),
            h2c: Arc::new(PriorKnowledge {
                proxy,
                options,
                h2: h2_options(),
            }),
            draining,
        }
    }

    pub(crate) async fn serve_http1(&self, first: First, peer: SocketAddr, route: Route) {
        let head = Arc::<Head>::default();
        let steers = Steers::Http1(Arc::clone(&head));
        let socket = Arc::new(first.stream);
        let stream = wrap((Arc::clone(&socket), first.read), peer, route, steers);
        let late = tokio::select! {
            // Who is late is known once all that has come is read.
            biased;
            _ = self.http1.process_new(stream, &self.draining) => return,
            late = head.late() => late,
        };
        tracing::debug!(?late, "a connection is closed whose caller took too long");
        if late == Late::Head {
            self.hub.metrics.rejected(Reason::SlowHead);
            caller::refuse(&socket, "408 Request Timeout", Some(Reason::SlowHead));
        }
    }

    pub(crate) async fn serve_h2c(&self, first: First, peer: SocketAddr, route: Route) {
        let streams = Arc::<Streams>::default();
        let moves_on = streams.goodbye();
        let steers = Steers::H2(Arc::clone(&streams));
        let stream = wrap((Arc::new(first.stream), first.read), peer, route, steers);
        tokio::select! {
            _ = self.h2c.process_new(stream, &moves_on) => {}
            () = self.drain(&streams) => {}
            () = streams.idle() => {
                tracing::debug!("a connection is closed whose caller asks for nothing");
            }
        }
    }

    /// Says goodbye when a drain begins. Who connects during one, because it has not heard of that,
    /// is served all the same: its first answer moves it on.
    ///
    /// It does not end: the connection does.
    async fn drain(&self, streams: &Streams) {
        let mut draining = self.draining.clone();
        let has_begun = *draining.borrow();
        if has_begun {
            sleep(FIRST_REQUEST).await;
        } else {
            // Where the sender is gone, all of this is about to end.
            let _ = draining.wait_for(|draining| *draining).await;
        }
        streams.say_goodbye();
        pending::<()>().await;
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
fn wrap(
    (socket, read): (Arc<TcpStream>, Vec<u8>),
    peer: SocketAddr,
    route: Route,
    steers: Steers,
) -> Stream {
    let head = match &steers {
        Steers::Http1(head) => Some(Arc::clone(head)),
        Steers::H2(_) => None,
    };
    // A status code that is in range can't fail; without the header the connection has no route
    // and is answered with 500.
    let digest = ResponseHeader::build(200, None).ok().map(|header| {
        let connection = Connection {
            route,
            peer,
            socket: Arc::clone(&socket),
            steers,
        };
        ProxyDigest::new(Box::new(header), Some(Box::new(Arc::new(connection))))
    });
    Box::new(Caller::new(socket, read, head, digest))
}

// === impl Connection ===

impl Connection {
    /// Whether answers say how long they were held.
    fn says_timing(&self) -> bool {
        self.route.workload.spec().settings.server_timing
    }

    /// Namespace and name of whom it is for.
    fn workload(&self) -> String {
        let workload = &self.route.workload;
        format!("{}/{}", workload.namespace, workload.name)
    }

    /// Its caller had better open the next one elsewhere.
    fn move_on(&self) {
        if let Steers::H2(streams) = &self.steers {
            streams.say_goodbye();
        }
    }

    /// The head of a request has been read.
    fn begins(&self) {
        match &self.steers {
            Steers::Http1(head) => head.set_whole(true),
            Steers::H2(streams) => streams.begins(),
        }
    }

    /// A request that had begun is over; in HTTP/1 the next one may come.
    fn ended(&self) {
        match &self.steers {
            Steers::Http1(head) => head.set_whole(false),
            Steers::H2(streams) => streams.ended(),
        }
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

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }
}

fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(CALLER_STREAMS)
        .max_local_error_reset_streams(Some(CALLER_FAULTS))
        .initial_window_size(CALLER_WINDOW)
        .initial_connection_window_size(CALLER_STREAMS * CALLER_WINDOW);
    options
}
