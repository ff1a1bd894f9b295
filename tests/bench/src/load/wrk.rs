//! wrk: HTTP/1.1, as fast as it goes.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::Done;

/// Loads `address` over `connections` for `time`.
///
/// # Errors
/// Where wrk fails, or any request did.
pub async fn wrk(address: SocketAddr, connections: u32, time: Duration) -> anyhow::Result<Done> {
    run(address, connections, time, &[]).await
}

/// The same with one more `header`.
///
/// # Errors
/// Where wrk fails, or any request did.
pub async fn wrk_with(
    address: SocketAddr,
    connections: u32,
    time: Duration,
    header: &str,
) -> anyhow::Result<Done> {
    run(address, connections, time, &["-H", header]).await
}

async fn run(
    address: SocketAddr,
    connections: u32,
    time: Duration,
    more: &[&str],
) -> anyhow::Result<Done> {
    let output = Command::new("wrk")
        .args(more)
        .args(["-t", "1", "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", time.as_secs())])
        .arg(format!("http://{address}/"))
        .kill_on_drop(true)
        .output()
        .await
        .context("run wrk (make bench installs what is missing)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {text}");
    done(&text)
}

fn done(text: &str) -> anyhow::Result<Done> {
    let failed = text.contains("Non-2xx") || text.contains("Socket errors");
    ensure!(!failed, "requests failed: {text}");
    let line = text.lines().find(|line| line.contains(" requests in "));
    line.and_then(|line| {
        let (requests, rest) = line.trim().split_once(" requests in ")?;
        let (seconds, _) = rest.split_once("s,")?;
        Some(Done {
            requests: requests.parse().ok()?,
            seconds: seconds.parse().ok()?,
        })
    })
    .with_context(|| format!("no count of requests: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Running 3s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n\
        \x20 65042 requests in 3.00s, 76.11MB read\nRequests/sec:  21661.21\n";

    #[test]
    fn the_count_is_read() {
        assert_eq!(
            (done(GOOD).unwrap().requests, done(GOOD).unwrap().seconds),
            (65_042.0, 3.0)
        );
    }

    #[test]
    fn failed_requests_are_no_result() {
        let text = format!("{GOOD}  Non-2xx or 3xx responses: 1\n");
        assert!(done(&text).is_err());
        assert!(done("").is_err());
    }
}
