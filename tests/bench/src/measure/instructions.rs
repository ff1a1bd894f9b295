//! Instructions per request, counted by callgrind: what a busy machine does not change.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::{
    Child, Nginx, Protocol, Scratch,
    load::{self, Connection},
    ports, proxies,
};

/// Requests of the two runs. Their difference has no start, no warm-up and no end in it.
const REQUESTS: [u32; 2] = [500, 2_500];
/// Connections over which HTTP/1.1 is sent.
const CONNECTIONS: usize = 4;

/// What is sent, one request after the other, so that the work does not depend on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// HTTP/1.1 over four connections.
    Http1,
    /// The same with a limit of requests at once.
    Http1Limited,
    /// h2c over one connection.
    H2c,
}

// === impl Scenario ===

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http1Limited, Self::H2c];

    /// Its name in the file of what is committed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http1Limited => "http1-limit-100",
            Self::H2c => "h2c",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Http1 | Self::Http1Limited => Protocol::Http1,
            Self::H2c => Protocol::H2c,
        }
    }

    fn limit(self) -> u32 {
        match self {
            Self::Http1 | Self::H2c => 0,
            Self::Http1Limited => 100,
        }
    }

    async fn send(self, address: SocketAddr, requests: u32) -> anyhow::Result<()> {
        match self {
            Self::Http1 | Self::Http1Limited => one_by_one(address, requests),
            Self::H2c => load::h2load_one_by_one(address, requests).await.map(drop),
        }
    }
}

/// Instructions per request of the queue-proxy `binary`.
///
/// # Errors
/// Where a process or a request fails.
pub async fn instructions(
    binary: &Path,
    scratch: &Scratch,
    scenario: Scenario,
) -> anyhow::Result<u64> {
    let nginx = Nginx::start(scratch.path(), scenario.protocol()).await?;
    let [few, many] = REQUESTS;
    let mut totals = [0; REQUESTS.len()];
    for (requests, total) in REQUESTS.into_iter().zip(&mut totals) {
        *total = run(binary, scratch, nginx.address, scenario, requests).await?;
    }
    let [less, more] = totals;
    let more = more.checked_sub(less).context("more requests took less")?;
    Ok(more / u64::from(many - few))
}

/// Instructions of a whole run.
async fn run(
    binary: &Path,
    scratch: &Scratch,
    app: SocketAddr,
    scenario: Scenario,
    requests: u32,
) -> anyhow::Result<u64> {
    let address = ports::free()?;
    let counts = scratch.path().join(format!("callgrind-{}", address.port()));
    let valgrind = proxies::queue_proxy(&valgrind()?, address, app, scenario.limit());
    let mut child = Child::spawn("valgrind", under(valgrind, binary, &counts))?;
    load::first_answer(address, scenario.protocol(), &mut child).await?;
    scenario.send(address, requests).await?;
    child.terminate().await?;
    let text = std::fs::read_to_string(&counts).context("read callgrind's counts")?;
    total(&text).with_context(|| format!("no total in {}", counts.display()))
}

fn under(mut valgrind: Command, binary: &Path, counts: &Path) -> Command {
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(counts);
    valgrind
        .args(["--tool=callgrind", "-q"])
        .arg(out)
        .arg(binary);
    valgrind
}

/// Where valgrind is: the queue-proxy's environment has no PATH.
fn valgrind() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("valgrind"))
        .find(|file| file.is_file());
    match found {
        Some(file) => Ok(file),
        None => bail!("valgrind is missing (make instructions installs it)"),
    }
}

fn one_by_one(address: SocketAddr, requests: u32) -> anyhow::Result<()> {
    let mut connections = (0..CONNECTIONS)
        .map(|_| Connection::open(address))
        .collect::<Result<Vec<_>, _>>()?;
    for number in 0..requests as usize {
        connections[number % CONNECTIONS]
            .get()
            .with_context(|| format!("request {number}"))?;
    }
    Ok(())
}

/// The sum over all functions, from callgrind's file.
fn total(counts: &str) -> Option<u64> {
    let line = |name: &str| counts.lines().find_map(|line| line.strip_prefix(name));
    line("totals: ")
        .or_else(|| line("summary: "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read() {
        assert_eq!(
            total("# callgrind\nfn=(1)\n1 2\ntotals: 7034227\n"),
            Some(7_034_227)
        );
        assert_eq!(total("summary: 12\n"), Some(12));
        assert_eq!(total("fn=(1)\n"), None);
    }
}
