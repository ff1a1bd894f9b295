//! How much longer a request takes by way of a proxy.

use std::time::Instant;

use super::CONNECTIONS;
use crate::{Kind, Nginx, Protocol, Proxy, Sample, bench::Bench, load, proxies::Setup};

/// Latency at one rate.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    /// Median, microseconds.
    pub p50_us: Sample,
    /// What one in a hundred exceeds, microseconds.
    pub p99_us: Sample,
    /// The same in the middle tenth of a second ([`load::Paced::calm_p99`]), microseconds.
    pub calm_p99_us: Sample,
}

/// Measures what `kinds` add to requests sent straight to the app, at `rate` requests per second;
/// the result is in their order.
///
/// # Errors
/// Where a process or a request fails.
pub async fn latency(bench: &Bench, kinds: &[Kind], rate: f64) -> anyhow::Result<Vec<Latency>> {
    let mut nginx = Nginx::start(bench.scratch.path(), Protocol::Http1).await?;
    let setup = Setup {
        bench,
        app: nginx.address,
        protocol: Protocol::Http1,
    };
    // The last one is no proxy at all.
    let mut all = vec![Latency::default(); kinds.len() + 1];
    for turn in bench.turns(all.len()) {
        let kind = kinds.get(turn.index);
        let proxy = match kind {
            Some(kind) => Some(Proxy::start(*kind, &setup).await?),
            None => None,
        };
        let address = proxy.as_ref().map_or(nginx.address, |proxy| proxy.address);
        let begun = Instant::now();
        let taken = load::paced(address, CONNECTIONS, rate, bench.time)?;
        let mut busy = 0.0;
        if let Some(proxy) = proxy {
            busy = proxy.child().cpu()?.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
            proxy.stop().await?;
        }
        nginx.check()?;
        let (p50, p99) = (taken.all.quantile(0.5), taken.all.quantile(0.99));
        let calm = taken.calm_p99();
        let name = kind.map_or("direct", |kind| kind.name());
        turn.progress(
            name,
            format!("p50 {p50:.0} µs, p99 {p99:.0} µs, calm {calm:.0} µs, at {rate:.0} requests/s, its core {busy:.0} % busy"),
        );
        all[turn.index].p50_us.push(p50);
        all[turn.index].p99_us.push(p99);
        all[turn.index].calm_p99_us.push(calm);
    }
    let direct = all.pop().unwrap_or_default();
    let added = |through: Latency| Latency {
        p50_us: through.p50_us.minus(&direct.p50_us),
        p99_us: through.p99_us.minus(&direct.p99_us),
        calm_p99_us: through.calm_p99_us.minus(&direct.calm_p99_us),
    };
    Ok(all.into_iter().map(added).collect())
}
