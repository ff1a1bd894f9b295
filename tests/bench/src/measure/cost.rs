//! What a request costs where as many are sent as the proxy can take.

use std::{net::SocketAddr, time::Duration};

use super::CONNECTIONS;
use crate::{
    Kind, Nginx, Protocol, Proxy, Sample,
    bench::Bench,
    load::{self, Done},
    proxies::Setup,
};

/// Connections over which h2c is sent.
const H2C_CONNECTIONS: u32 = 16;
/// Requests at once on each of those.
const H2C_STREAMS: u32 = 32;
/// Pools fill and tables grow before anything is counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// What requests cost one proxy.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    /// CPU time of all its threads per request, microseconds.
    pub cpu_us: Sample,
    /// Requests per second.
    pub rate: Sample,
}

/// Measures `kinds`; the result is in their order.
///
/// # Errors
/// Where a process or a request fails.
pub async fn cost(bench: &Bench, protocol: Protocol, kinds: &[Kind]) -> anyhow::Result<Vec<Cost>> {
    let mut nginx = Nginx::start(bench.scratch.path(), protocol).await?;
    let setup = Setup {
        bench,
        app: nginx.address,
        protocol,
    };
    let mut costs = vec![Cost::default(); kinds.len()];
    for turn in bench.turns(kinds.len()) {
        let proxy = Proxy::start(kinds[turn.index], &setup).await?;
        saturate(proxy.address, protocol, WARM_UP).await?;
        let before = proxy.child().cpu()?;
        let done = saturate(proxy.address, protocol, bench.time).await?;
        let used = proxy.child().cpu()? - before;
        proxy.stop().await?;
        nginx.check()?;
        let (cpu_us, rate) = (
            used.as_secs_f64() * 1e6 / done.requests,
            done.requests / done.seconds,
        );
        let busy = used.as_secs_f64() / done.seconds * 100.0;
        turn.progress(
            kinds[turn.index].name(),
            format!("{cpu_us:.2} µs per request, {rate:.0} requests/s, its core {busy:.0} % busy"),
        );
        costs[turn.index].cpu_us.push(cpu_us);
        costs[turn.index].rate.push(rate);
    }
    Ok(costs)
}

async fn saturate(address: SocketAddr, protocol: Protocol, time: Duration) -> anyhow::Result<Done> {
    match protocol {
        Protocol::Http1 => load::wrk(address, CONNECTIONS, time).await,
        // What is done per connection is all that is left to compare.
        Protocol::Bytes => load::wrk_with(address, CONNECTIONS, time, "Connection: close").await,
        Protocol::H2c => load::h2load(address, H2C_CONNECTIONS, H2C_STREAMS, time).await,
    }
}
