//! Connections whose bytes are not looked at: TLS, and ports declared TCP.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{Interest, copy_bidirectional},
    net::TcpStream,
};

use crate::{
    directory::Target,
    metrics::Reason,
    workload::{NoSlot, Slot},
};

/// Longest wait for a pod to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a held caller is looked at: its bytes are not read, so only the kernel knows.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Holds the connection until a pod takes it, then passes bytes both ways, half-close kept.
pub async fn splice(mut caller: TcpStream, target: &Target) {
    let limit = target.workload.view().settings.connection_hold_timeout.0;
    let reached = tokio::select! {
        reached = reach(target, limit) => reached,
        () = left(&caller) => return,
    };
    match reached {
        Ok((mut pod, slot)) => {
            if let Err(error) = copy_bidirectional(&mut caller, &mut pod).await {
                tracing::debug!(%error, workload = target.workload.name, "spliced connection broke");
            }
            drop(slot);
        }
        Err(reason) => {
            let metrics = &target.workload_metrics();
            metrics.rejected(match reason {
                NoSlot::Full => Reason::HoldFull,
                NoSlot::Timeout => Reason::HoldTimeout,
            });
            tracing::debug!(%reason, workload = target.workload.name, "held connection closed");
        }
    }
}

/// A pod that has accepted; one that refuses is ejected and another is tried.
async fn reach(target: &Target, limit: Duration) -> Result<(TcpStream, Slot), NoSlot> {
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let slot = Arc::clone(&target.workload)
            .acquire(target.app_port, left)
            .await?;
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(slot.address)).await {
            Ok(Ok(stream)) => {
                // A failure only means that small writes are put together.
                let _ = stream.set_nodelay(true);
                return Ok((stream, slot));
            }
            _ => slot.eject(),
        }
    }
}

/// Returns when the caller has closed its side.
async fn left(caller: &TcpStream) {
    loop {
        match caller.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK_EVERY).await,
            _ => return,
        }
    }
}
