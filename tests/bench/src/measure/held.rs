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

/// Workloads that sleep while many callers are held.
const WORKLOADS: u32 = 1_000;
/// Workloads of a large cluster.
pub const MANY: u32 = 5_000;
/// Requests and connections that are held where descriptors allow so many.
const REQUESTS: usize = 5_000;
const CONNECTIONS: usize = 20_000;
/// Descriptors of the activator that are none of the callers': its ports, and some for itself.
const OTHER_DESCRIPTORS: usize = WORKLOADS as usize + 300;
/// Longest wait until all are held.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// Until a poll that was just sent waits at the activator.
const POLL_WAITS: Duration = Duration::from_millis(300);

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

/// An activator with [`MANY`] workloads.
#[derive(Debug, Clone, Default)]
pub struct Many {
    /// Milliseconds from the process' start until all their ports are open.
    pub open_ms: Sample,
    /// MiB of resident memory then.
    pub mib: Sample,
    /// Milliseconds from a request for one of them until the autoscaler's poll has been answered.
    pub told_ms: Sample,
}

/// Measures an activator that listens for [`MANY`] workloads.
///
/// # Errors
/// Where a process or a connection fails.
pub async fn many(bench: &Bench) -> anyhow::Result<Many> {
    let nginx = Nginx::start(bench.scratch.path(), Protocol::Http1).await?;
    let setup = Setup {
        bench,
        app: nginx.address,
        protocol: Protocol::Http1,
    };
    let mut result = Many::default();
    for turn in bench.turns(1) {
        let places = ActivatorPorts::free(ports::free()?)?;
        let mut command = activator(&bench.programs.ours, &places, &setup, MANY);
        let report = ports::free()?;
        command.env("ACTIVATOR_REPORT_PORT", report.port().to_string());
        let begun = Instant::now();
        let mut child = bench
            .cores
            .on_proxy_core(|| Child::spawn("activator", command))?;
        load::first_answer(places.listen, Protocol::Http1, &mut child).await?;
        let asleep = asleep(places.admin, MANY).await?;
        let open_ms = begun.elapsed().as_secs_f64() * 1e3;
        let mib = child.memory()?.resident_mib;
        let first: Value = serde_json::from_str(body(&load::fetch(report, "/report").await?))?;
        let path = format!("/report?seen={}&wait_ms=10000", first["edge"]);
        let poll = tokio::spawn(async move { load::fetch(report, &path).await });
        sleep(POLL_WAITS).await;
        let called = Instant::now();
        let caller = call(asleep[0], load::REQUEST)?;
        poll.await??;
        let told_ms = called.elapsed().as_secs_f64() * 1e3;
        drop(caller);
        child.stop().await?;
        turn.progress(
            "activator",
            format!("{MANY} workloads: open after {open_ms:.0} ms, {mib:.1} MiB, told after {told_ms:.1} ms"),
        );
        result.open_ms.push(open_ms);
        result.mib.push(mib);
        result.told_ms.push(told_ms);
    }
    Ok(result)
}

/// Measures the memory of what is held.
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
        let asleep = asleep(places.admin, WORKLOADS).await?;
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
async fn asleep(admin: SocketAddr, wanted: u32) -> anyhow::Result<Vec<SocketAddr>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pages = pages(admin).await?;
        let open: Vec<SocketAddr> = pages
            .iter()
            .filter(|page| page["podsKnown"] == 0)
            .filter_map(|page| u16::try_from(page["ports"][0].as_u64()?).ok())
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .collect();
        if open.len() == wanted as usize {
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
    serde_json::from_str(body(&answer)).context("read /workloads")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn call(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(bytes)?;
    Ok(stream)
}
