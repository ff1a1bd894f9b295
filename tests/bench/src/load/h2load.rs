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
    let output = Command::new("h2load")
        .args(["-t", "1", "-c", &connections.to_string()])
        .args(["-m", &streams.to_string()])
        .args(["-D", &format!("{}s", time.as_secs())])
        .arg(format!("http://{address}/"))
        .kill_on_drop(true)
        .output()
        .await
        .context("run h2load (make bench installs what is missing)")?;
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
    let seconds = line("finished in ").and_then(|rest| rest.split_once("s,"));
    Ok(Done {
        requests: count(" succeeded").with_context(|| format!("none succeeded: {text}"))?,
        seconds: seconds
            .and_then(|(seconds, _)| seconds.parse().ok())
            .with_context(|| format!("no time: {text}"))?,
    })
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
    fn failed_requests_are_no_result() {
        assert!(done(&GOOD.replace("0 errored", "1 errored")).is_err());
        assert!(done("").is_err());
    }
}
