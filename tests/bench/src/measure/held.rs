//! Memory of an activator that holds for many workloads.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    Child, Nginx, Protocol, Sample,
    bench::Bench,
    load, ports,
    proxies::Setup,
    proxies::{ActivatorPorts, activator},
};

/// Workloads that sleep.
const WORKLOADS: u32 = 1_000;
/// Requests and connections that are held where descriptors allow so many.
const REQUESTS: usize = 5_000;
const CONNECTIONS: usize = 20_000;
/// Descriptors of the activator that are none of the callers': its ports, and some for itself.
const OTHER_DESCRIPTORS: usize = WORKLOADS as usize + 300;
/// Longest wait until all are held.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A whole ClientHello: TLS 1.3's cipher and no extension (RFC 8446, 4.1.2).
const HELLO: &[u8] = &{
    let mut hello = [0; 5 + 4 + 41];
    // Record: handshake, TLS 1.0, 45 bytes. Message: ClientHello, 41 bytes, TLS 1.2.
    let head = [0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    let mut at = 0;
    while at < head.len() {
        hello[at] = head[at];
        at += 1;
    }
    // The random and the empty session are zeros; one cipher, one compression (none).
    hello[11 + 32 + 1 + 1] = 2;
    hello[11 + 32 + 1 + 2] = 0x13;
    hello[11 + 32 + 1 + 3] = 0x01;
    hello[11 + 32 + 1 + 4] = 1;
    hello
};

/// Memory per caller that is held.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Requests that were held at once.
    pub requests: usize,
    /// Connections that were held at once.
    pub connections: usize,
    /// KiB of resident memory for each, beyond what the activator had before.
    pub kib_each: Sample,
    /// MiB of the activator with its open ports, before.
    pub before_mib: Sample,
}

/// Measures it.
///
/// # Errors
/// Where a process or a connection fails.
pub async fn held(bench: &Bench) -> anyhow::Result<Held> {
    let nginx = Nginx::start(bench.scratch.path(), Protocol::Http1).await?;
    let setup = Setup {
        bench,
        app: nginx.address,
        protocol: Protocol::Http1,
    };
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = usize::try_from(allowed)?.saturating_sub(OTHER_DESCRIPTORS);
    let wanted = REQUESTS + CONNECTIONS;
    let requests = (allowed * REQUESTS / wanted).min(REQUESTS);
    let connections = (allowed * CONNECTIONS / wanted).min(CONNECTIONS);
    let mut result = Held {
        requests,
        connections,
        ..Held::default()
    };
    for turn in bench.turns(1) {
        let places = ActivatorPorts::free(ports::free()?)?;
        let command = activator(&bench.programs.ours, &places, &setup, WORKLOADS);
        let mut child = bench
            .cores
            .on_proxy_core(|| Child::spawn("activator", command))?;
        load::first_answer(places.listen, Protocol::Http1, &mut child).await?;
        let asleep = asleep(places.admin).await?;
        let before = child.memory()?.resident_mib;
        let mut callers = Vec::with_capacity(requests + connections);
        for number in 0..requests + connections {
            let bytes = if number < requests {
                load::REQUEST
            } else {
                HELLO
            };
            let caller = call(asleep[number % asleep.len()], bytes);
            callers.push(caller.with_context(|| format!("caller {number}"))?);
            if number % 100 == 99 {
                // The accept queues are short of nobody.
                until_held(places.admin, number + 1).await?;
            }
        }
        until_held(places.admin, callers.len()).await?;
        let after = child.memory()?.resident_mib;
        let kib = (after - before) * 1024.0 / callers.len() as f64;
        turn.progress(
            "activator",
            format!("{before:.1} MiB before, {after:.1} MiB with all held: {kib:.1} KiB each"),
        );
        drop(callers);
        child.stop().await?;
        result.kib_each.push(kib);
        result.before_mib.push(before);
    }
    Ok(result)
}

/// Where the workloads that sleep are listened for.
async fn asleep(admin: SocketAddr) -> anyhow::Result<Vec<SocketAddr>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pages = pages(admin).await?;
        let open: Vec<SocketAddr> = pages
            .iter()
            .filter(|page| page["podsKnown"] == 0)
            .filter_map(|page| u16::try_from(page["ports"][0].as_u64()?).ok())
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .collect();
        if open.len() == WORKLOADS as usize {
            return Ok(open);
        }
        ensure!(Instant::now() < deadline, "{} ports are open", open.len());
        sleep(PAUSE).await;
    }
}

async fn until_held(admin: SocketAddr, wanted: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held: u64 = pages(admin)
            .await?
            .iter()
            .filter_map(|page| page["held"].as_u64())
            .sum();
        if held >= wanted as u64 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{held} of {wanted} are held");
        sleep(PAUSE).await;
    }
}

async fn pages(admin: SocketAddr) -> anyhow::Result<Vec<Value>> {
    let answer = load::fetch(admin, "/workloads").await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).context("read /workloads")
}

fn call(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(bytes)?;
    Ok(stream)
}
