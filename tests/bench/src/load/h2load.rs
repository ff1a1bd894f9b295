//! h2load: h2c, as fast as it goes.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::Done;

/// Loads `address` over `connections` with so many `streams` on each for `time`.
///
/// # Errors
/// Where h2load fails, or any request did.
pub async fn h2load(
    address: SocketAddr,
    connections: u32,
    streams: u32,
    time: Duration,
) -> anyhow::Result<Done> {
    let (connections, streams) = (connections.to_string(), streams.to_string());
    let time = format!("{}s", time.as_secs());
    run(address, &["-c", &connections, "-m", &streams, "-D", &time]).await
}

/// Sends so many `requests` to `address`, one after the other on one connection.
///
/// # Errors
/// Where h2load fails, or any request did.
pub async fn h2load_one_by_one(address: SocketAddr, requests: u32) -> anyhow::Result<Done> {
    run(address, &["-n", &requests.to_string()]).await
}

async fn run(address: SocketAddr, args: &[&str]) -> anyhow::Result<Done> {
    let output = Command::new("h2load")
        .args(args)
        .arg(format!("http://{address}/"))
        .kill_on_drop(true)
        .output()
        .await
        .context("run h2load (make installs what is missing)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "h2load failed: {text}");
    done(&text)
}

fn done(text: &str) -> anyhow::Result<Done> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let counts = line("requests: ").with_context(|| format!("no count of requests: {text}"))?;
    let count = |what: &str| -> Option<f64> {
        let part = counts.split(", ").find_map(|part| part.strip_suffix(what));
        part?.trim().parse().ok()
    };
    for fault in [" failed", " errored", " timeout"] {
        ensure!(count(fault) == Some(0.0), "requests failed: {text}");
    }
    let time = line("finished in ").and_then(|rest| rest.split(", ").next());
    Ok(Done {
        requests: count(" succeeded").with_context(|| format!("none succeeded: {text}"))?,
        seconds: time
            .and_then(seconds)
            .with_context(|| format!("no time: {text}"))?,
    })
}

/// Reads `3.00s`, `500.00ms` or `12us`.
fn seconds(time: &str) -> Option<f64> {
    let units = [("us", 1e6), ("ms", 1e3), ("s", 1.0)];
    let (number, per_second) = units
        .iter()
        .find_map(|(unit, per_second)| Some((time.strip_suffix(unit)?, per_second)))?;
    Some(number.parse::<f64>().ok()? / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "starting benchmark...\n\nfinished in 3.00s, 21661.21 req/s, 21.9MB/s\n\
        requests: 64983 total, 65495 started, 64983 done, 64983 succeeded, 0 failed, 0 errored, 0 timeout\n";

    #[test]
    fn the_count_is_read() {
        let read = done(GOOD).unwrap();
        assert_eq!((read.requests, read.seconds), (64_983.0, 3.0));
    }

    #[test]
    fn times_have_units() {
        let read = ["3.00s", "500.00ms", "25us", "1h"].map(seconds);
        assert_eq!(read, [Some(3.0), Some(0.5), Some(25e-6), None]);
    }

    #[test]
    fn failed_requests_are_no_result() {
        assert!(done(&GOOD.replace("0 errored", "1 errored")).is_err());
        assert!(done("").is_err());
    }
}
