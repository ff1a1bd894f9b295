//! Connections whose bytes are not ours to read: held as they are, then passed on unchanged.

use std::{io, time::Duration};

use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    connection::Route,
    hold::Ask,
    workload::{Hold, HoldError, Slot},
};

/// Longest time for a connect to a pod, which is mostly a hop or two away.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);

/// What says that a caller has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// It closed its side: no TLS or HTTP client waits for an answer after that.
    Closed,
    /// The connection broke: in other protocols a client may have said all that it has to say.
    Broken,
}

/// Holds `caller` until a pod takes it, then passes bytes both ways to the end.
pub(crate) async fn serve(caller: TcpStream, route: &Route, leaves: Leaves) {
    let app_port = route.port.app_port;
    let (namespace, name) = (&route.workload.namespace, &route.workload.name);
    let connected = tokio::select! {
        connected = connect(route) => connected,
        () = left(&caller, leaves) => {
            tracing::debug!(%namespace, %name, app_port, "caller left while it was held");
            return;
        }
    };
    let (slot, mut pod) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            tracing::debug!(%namespace, %name, app_port, ?error, "connection was not passed on");
            return;
        }
    };
    if let Err(error) = copy(caller, &mut pod).await {
        tracing::debug!(%namespace, %name, app_port, %error, "byte stream broke");
    }
    drop(slot);
}

async fn connect(route: &Route) -> Result<(Slot, TcpStream), HoldError> {
    let settings = &route.workload.spec().settings;
    let ask = Ask {
        app_port: route.port.app_port,
        takes_slot: false,
    };
    let mut hold = Hold::new(ask, Instant::now() + settings.connection_hold_timeout.0);
    loop {
        let slot = route.workload.slot(&mut hold).await?;
        match timeout(CONNECT, TcpStream::connect(slot.address)).await {
            Ok(Ok(pod)) => {
                slot.connected();
                return Ok((slot, pod));
            }
            Ok(Err(error)) => tracing::debug!(pod = %slot.address, %error, "connect failed"),
            Err(_) => tracing::debug!(pod = %slot.address, "connect took too long"),
        }
        slot.eject();
    }
}

/// Each side may end alone; a half that has ended is closed at the other side.
async fn copy(caller: TcpStream, pod: &mut TcpStream) -> io::Result<()> {
    // [`left`] has used up the readiness of the caller's socket: registered anew it is told again.
    let mut caller = TcpStream::from_std(caller.into_std()?)?;
    let _ = pod.set_nodelay(true);
    tokio::io::copy_bidirectional(&mut caller, pod).await?;
    Ok(())
}

/// Returns when the peer of `stream` has left; reads nothing.
///
/// Uses up readiness: `stream` must be registered anew before anything reads from it.
pub(crate) async fn left(stream: &TcpStream, leaves: Leaves) {
    let interest = match leaves {
        Leaves::Closed => Interest::READABLE,
        Leaves::Broken => Interest::ERROR,
    };
    loop {
        match stream.ready(interest).await {
            Ok(ready) if ready.is_read_closed() || ready.is_error() => return,
            Err(_) => return,
            Ok(_) => {}
        }
        // Bytes that wait to be read make it ready for good; after this only new events do.
        let _ = stream.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}
