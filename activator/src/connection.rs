//! What a new connection is: its first byte, or its port, decides.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use lull_contract::{AppProtocol, scaled_workload::WorkloadPort};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    directory::Wanted,
    hub::Hub,
    metrics::{Kind, Reason},
    request::Requests,
    splice,
    workload::Workload,
};

/// Longest time until a connection says something.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// A connection on a TCP port that has been open for so long is meant: its server may speak first.
const MEANT: Duration = Duration::from_millis(200);
/// Between two looks at a preface that comes in parts.
const PART_PAUSE: Duration = Duration::from_millis(2);
/// First byte of a TLS handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Takes connections in.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) hub: Arc<Hub>,
    pub(crate) requests: Requests,
}

/// Whom a port is for.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) workload: Arc<Workload>,
    pub(crate) port: WorkloadPort,
    /// Where we listen.
    pub(crate) address: SocketAddr,
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Tls,
    Http1,
    H2c,
}

// === impl Route ===

impl Route {
    pub(crate) fn new(wanted: &Wanted, address: SocketAddr) -> Self {
        Self {
            workload: Arc::clone(&wanted.workload),
            port: wanted.port.clone(),
            address,
        }
    }
}

// === impl Gate ===

impl Gate {
    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, route: Route) {
        // A failure only means that this socket waits for more bytes before it sends.
        let _ = stream.set_nodelay(true);
        let metrics = &self.hub.metrics;
        if route.port.protocol == AppProtocol::Tcp {
            // Who leaves at once is a check whether the port is open, and wakes nobody.
            if let Ok(Ok(0) | Err(_)) = timeout(MEANT, stream.peek(&mut [0])).await {
                return;
            }
            metrics.connected(Kind::Tcp);
            splice::serve(stream, &route, splice::Leaves::Broken).await;
            return;
        }
        match timeout(FIRST_BYTE, first_bytes(&stream)).await {
            Ok(Ok(Some(Speaks::Tls))) => {
                metrics.connected(Kind::Tls);
                splice::serve(stream, &route, splice::Leaves::Closed).await;
            }
            Ok(Ok(Some(Speaks::Http1))) => {
                metrics.connected(Kind::Http1);
                self.requests.serve_http1(stream, peer, route).await;
            }
            Ok(Ok(Some(Speaks::H2c))) => {
                metrics.connected(Kind::H2c);
                self.requests.serve_h2c(stream, peer, route).await;
            }
            Ok(Ok(None) | Err(_)) => {}
            Err(_) => metrics.rejected(Reason::Silent),
        }
    }
}

/// `None` where the caller left before it said anything.
async fn first_bytes(stream: &TcpStream) -> io::Result<Option<Speaks>> {
    let mut buffer = [0; H2_PREFACE.len()];
    loop {
        let length = stream.peek(&mut buffer).await?;
        let seen = buffer.get(..length).unwrap_or_default();
        match seen.first() {
            None => return Ok(None),
            Some(&TLS_HANDSHAKE) => return Ok(Some(Speaks::Tls)),
            Some(_) if seen == H2_PREFACE => return Ok(Some(Speaks::H2c)),
            Some(_) if !H2_PREFACE.starts_with(seen) => return Ok(Some(Speaks::Http1)),
            // Unread bytes are always ready: waiting for more would not wait.
            Some(_) => sleep(PART_PAUSE).await,
        }
    }
}
