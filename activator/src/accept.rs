//! A new connection: its first byte decides how it goes on.

use std::{sync::Arc, time::Duration};

use lull_contract::AppProtocol;
use tokio::net::TcpStream;

use crate::{
    directory::{Directory, Target},
    http::Proxies,
    metrics::Kind,
    splice::splice,
};

/// A caller that says nothing for so long wakes nobody and is closed.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);
/// On a TCP port the server may speak first: open for so long is a wish to be served.
const TCP_PATIENCE: Duration = Duration::from_millis(200);
/// First byte of a TLS record that carries a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// How HTTP/2 with prior knowledge begins; no HTTP/1 method does.
const H2_PREFACE: &[u8] = b"PRI";

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// Nothing came, or the caller left.
    Nothing,
    /// A TLS handshake.
    Tls,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// Anything else: HTTP/1, or rubbish that its parser refuses.
    Http1,
}

/// Serves one connection to `port` to its end.
pub async fn serve(stream: TcpStream, port: u16, directory: Arc<Directory>, proxies: Arc<Proxies>) {
    // A failure only means that small writes are put together.
    let _ = stream.set_nodelay(true);
    let Some(target) = directory.target(port) else {
        return;
    };
    let metrics = target.workload_metrics();
    if target.protocol == AppProtocol::Tcp {
        if tcp_wants_service(&stream).await {
            metrics.connected(Kind::Tcp);
            splice(stream, &target).await;
        }
        return;
    }
    match tokio::time::timeout(FIRST_BYTE_TIMEOUT, first(&stream))
        .await
        .unwrap_or(First::Nothing)
    {
        First::Nothing => metrics.connected(Kind::Silent),
        First::Tls => {
            metrics.connected(Kind::Tls);
            splice(stream, &target).await;
        }
        kind => {
            metrics.connected(Kind::Http);
            proxies.serve(stream, kind == First::H2c).await;
        }
    }
}

/// Looks at the first bytes without taking them.
async fn first(stream: &TcpStream) -> First {
    let mut bytes = [0; H2_PREFACE.len()];
    loop {
        match stream.peek(&mut bytes).await {
            Ok(0) | Err(_) => return First::Nothing,
            Ok(_) if bytes[0] == TLS_HANDSHAKE => return First::Tls,
            Ok(len) if bytes[..len] != H2_PREFACE[..len] => return First::Http1,
            Ok(len) if len == H2_PREFACE.len() => return First::H2c,
            // A part of what may become the preface: peek returns at once, so wait a little.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Whether a connection on a TCP port has sent something or stayed open for [`TCP_PATIENCE`].
async fn tcp_wants_service(stream: &TcpStream) -> bool {
    let mut byte = [0; 1];
    match tokio::time::timeout(TCP_PATIENCE, stream.peek(&mut byte)).await {
        Ok(Ok(len)) => len > 0,
        Ok(Err(_)) => false,
        Err(_) => true,
    }
}

// === impl Target ===

impl Target {
    /// Prometheus.
    #[must_use]
    pub fn workload_metrics(&self) -> crate::metrics::Metrics {
        self.workload.metrics()
    }
}
