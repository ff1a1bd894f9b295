//! How soon a new process forwards.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    Child, Kind, Nginx, Protocol, Sample, bench::Bench, load::Connection, ports, progress,
    proxies::Setup,
};

/// Starts of each proxy.
const STARTS: usize = 20;
/// Longest wait for one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures the time from before `kinds` are started until the first request was answered through
/// each, milliseconds; the result is in their order.
///
/// # Errors
/// Where a process fails.
pub async fn start_ms(bench: &Bench, kinds: &[Kind]) -> anyhow::Result<Vec<Sample>> {
    let nginx = Nginx::start(bench.scratch.path(), Protocol::Http1).await?;
    let setup = Setup {
        bench,
        app: nginx.address,
        protocol: Protocol::Http1,
    };
    let mut samples = vec![Sample::default(); kinds.len()];
    for _ in 0..STARTS {
        for (kind, sample) in kinds.iter().zip(&mut samples) {
            sample.push(start_once(*kind, &setup).await?.as_secs_f64() * 1e3);
        }
    }
    for (kind, sample) in kinds.iter().zip(&samples) {
        let (name, median) = (kind.name(), sample.median());
        progress(format!("{name}: forwards {median:.2} ms after its start"));
    }
    Ok(samples)
}

async fn start_once(kind: Kind, setup: &Setup<'_>) -> anyhow::Result<Duration> {
    let address = ports::free()?;
    let command = kind.command(setup, address)?;
    let begun = Instant::now();
    let cores = setup.bench.cores;
    let mut child = cores.on_proxy_core(|| Child::spawn(kind.name(), command))?;
    // No pause: the proxy has the other core, and a pause would be a part of what is measured.
    while Connection::open(address)
        .and_then(|mut new| new.get())
        .is_err()
    {
        child.check()?;
        ensure!(begun.elapsed() < PATIENCE, "{} doesn't start", kind.name());
    }
    let taken = begun.elapsed();
    child.stop().await?;
    Ok(taken)
}
