//! Byte streams: TLS that isn't ours to end, ports declared TCP, upgraded connections.

use std::net::IpAddr;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

use crate::{
    activity::{Idle, Noted},
    metrics::Kind,
    request::Port,
};

/// Passes bytes between `caller` and the app; counts as one in flight.
///
/// Takes no slot of the hard limit, which is about requests: these are not visible here, and
/// connections that sit in a pool would starve them.
pub(crate) async fn serve(caller: TcpStream, (kind, peer): (Kind, IpAddr), port: &Port) {
    let gateway = &port.gateway;
    let mut record = gateway.access.stream(kind, peer);
    let _ticket = gateway.traffic.enter(Instant::now(), true);
    match port.upstream.dial().await {
        Ok(app) => copy(caller, app, gateway.idle()).await,
        Err(error) => {
            gateway.metrics.rejected(error.reason());
            record.rejected(error.reason());
            tracing::debug!(%error, "connection was not passed on");
        }
    }
}

/// Passes bytes both ways until both sides have ended (each may end alone), one breaks, or no byte
/// has moved for too long.
pub(crate) async fn copy<A, B>(caller: A, mut app: B, idle: Option<Idle>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // Whatever moves, moves at the caller's side: noting there is enough.
    let mut caller = Noted::new(caller, idle.clone());
    let copying = tokio::io::copy_bidirectional(&mut caller, &mut app);
    let result = match idle {
        None => copying.await,
        Some(idle) => tokio::select! {
            result = copying => result,
            () = idle.expired() => {
                tracing::debug!("byte stream was idle for too long");
                return;
            }
        },
    };
    if let Err(error) = result {
        tracing::debug!(%error, "byte stream broke");
    }
}
