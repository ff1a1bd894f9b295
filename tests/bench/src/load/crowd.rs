//! Many connections that do nothing.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use tokio::time::{Duration, Instant, sleep};

use super::Connection;
use crate::Child;

/// Opened before the server is waited for: fewer than any server's accept queue holds.
const BATCH: usize = 250;
/// Longest wait for a server to accept a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Opens `size` connections to `server` at `address`, on which nothing is sent, or, with `used`,
/// one request each is answered before the next connection.
///
/// # Errors
/// Where one fails, or `server` doesn't accept them.
pub async fn crowd(
    address: SocketAddr,
    server: &Child,
    size: usize,
    used: bool,
) -> anyhow::Result<Vec<Connection>> {
    let before = server.descriptors()?;
    let mut open = Vec::with_capacity(size);
    while open.len() < size {
        for _ in 0..BATCH.min(size - open.len()) {
            let number = open.len();
            let mut connection = Connection::open(address)
                .with_context(|| format!("connection {number} (is `ulimit -n` too low?)"))?;
            if used {
                let got = connection.get();
                got.with_context(|| format!("request {number}"))?;
            }
            open.push(connection);
        }
        accepted(server, before + open.len()).await?;
    }
    Ok(open)
}

/// Waits until `server` has so many descriptors. It may close one or two of its own meanwhile.
async fn accepted(server: &Child, wanted: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while server.descriptors()? + 2 < wanted {
        ensure!(Instant::now() < deadline, "connections are not accepted");
        sleep(PAUSE).await;
    }
    Ok(())
}
