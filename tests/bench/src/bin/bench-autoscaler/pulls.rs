//! Pulls over kept connections, each to an address of its own as pods have them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use autoscaler::pull::Puller;
use futures::{StreamExt as _, stream};
use lull_bench::child::{self, Memory};
use lull_contract::report::{MAX_QUEUE_PROXY_BYTES, QueueProxyReport};
use lull_process::server;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fleet::SELF;

/// Environment variable with the reporters' port.
pub(crate) const PORT: &str = "BENCH_REPORTERS_PORT";
/// Pulls under way at one time.
const AT_ONCE: usize = 64;
/// Times that each address is pulled from after the first.
const ROUNDS: usize = 10;
/// Longest wait for the reporters.
const START: Duration = Duration::from_secs(10);
const REPORT: &str = r#"{"v":1,"pod":"app-1","boot":4503599627370495,"now_us":60000000,"in_flight":3,"in_flight_us":180000000,"requests":4,"queued":1,"limit":10,"app_ready":true,"draining":false,"bypass":0}"#;

/// The address of a reporter: all of 127.0.0.0/8 is loopback.
fn address(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number)
}

/// Answers with a report on `count` addresses until it is ended.
pub(crate) async fn answer(count: usize) -> anyhow::Result<()> {
    let port: u16 = std::env::var(PORT)
        .with_context(|| PORT.to_owned())?
        .parse()?;
    let stop = CancellationToken::new();
    for number in 0..count {
        let address = SocketAddr::from((address(number), port));
        let listener = tokio::net::TcpListener::bind(address).await?;
        tokio::spawn(server::serve(listener, stop.clone(), |_| async {
            server::text(http::StatusCode::OK, REPORT)
        }));
    }
    std::future::pending().await
}

/// Pulls from `count` addresses again and again.
pub(crate) async fn measure(count: usize, port: u16) -> anyhow::Result<Value> {
    let last = SocketAddr::from((address(count - 1), port));
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(last).await.is_err() {
        ensure!(
            begun.elapsed() < START,
            "no reporter at {last} within {START:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let puller = Puller::new();
    let before = Memory::of(SELF)?.resident_mib;
    pull_all(&puller, count, port).await?;
    let kept = Memory::of(SELF)?.resident_mib - before;
    let (cpu, wall) = (child::cpu(SELF)?, Instant::now());
    for _ in 0..ROUNDS {
        pull_all(&puller, count, port).await?;
    }
    let (cpu, wall) = (child::cpu(SELF)? - cpu, wall.elapsed());
    let pulls = (count * ROUNDS) as f64;
    Ok(json!({
        "pulls_per_cpu_second": pulls / cpu.as_secs_f64(),
        "pulls_per_second": pulls / wall.as_secs_f64(),
        "kib_per_connection": kept * 1024.0 / count as f64,
    }))
}

async fn pull_all(puller: &Puller, count: usize, port: u16) -> anyhow::Result<()> {
    let limits = (Duration::from_secs(5), MAX_QUEUE_PROXY_BYTES);
    let mut pulls = stream::iter(0..count)
        .map(|number| async move {
            let ip = IpAddr::from(address(number)).to_string();
            let body = puller.get((&ip, port), "/report", limits).await?;
            QueueProxyReport::parse(&body)?;
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE);
    while let Some(pulled) = pulls.next().await {
        pulled?;
    }
    Ok(())
}
