//! Free ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;

/// Below the range from which Linux takes the ports of outgoing connections: a port found free by
/// binding port 0 could be one of those before the proxy that shall have it has started.
const RANGE: std::ops::Range<u16> = 12_000..32_000;
const TRIES: usize = 1_000;

/// A loopback address on which nobody listens.
///
/// # Errors
/// Where none was found.
pub fn free() -> anyhow::Result<SocketAddr> {
    (0..TRIES)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(RANGE))))
        .find(|address| {
            // The queue-proxy listens on all addresses, so all must be free.
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).is_ok()
        })
        .context("no port is free")
}
