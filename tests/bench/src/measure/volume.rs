//! What it costs to pass on many bytes.

use std::time::Duration;

use anyhow::Context as _;

use crate::{Kind, Nginx, Protocol, Proxy, Sample, bench::Bench, load, proxies::Setup};

/// Downloads at once.
const CONNECTIONS: usize = 4;
const WARM_UP: Duration = Duration::from_millis(300);

/// Measures the CPU time of `kinds` per GiB, milliseconds, where they pass bytes from an app to its
/// callers; the result is in their order.
///
/// # Errors
/// Where a process or a download fails.
pub async fn volume(bench: &Bench, kinds: &[Kind]) -> anyhow::Result<Vec<Sample>> {
    let mut nginx = Nginx::start(bench.scratch.path(), Protocol::Bytes).await?;
    let setup = Setup {
        bench,
        app: nginx.address,
        protocol: Protocol::Bytes,
    };
    let mut costs = vec![Sample::default(); kinds.len()];
    for turn in bench.turns(kinds.len()) {
        let proxy = Proxy::start(kinds[turn.index], &setup).await?;
        load::download(proxy.address, CONNECTIONS, WARM_UP).context("warm-up")?;
        let before = proxy.child().cpu()?;
        let done = load::download(proxy.address, CONNECTIONS, bench.time)?;
        let used = proxy.child().cpu()? - before;
        proxy.stop().await?;
        nginx.check()?;
        let ms = used.as_secs_f64() * 1e3 / done.gib;
        let rate = done.gib / done.seconds;
        let busy = used.as_secs_f64() / done.seconds * 100.0;
        turn.progress(
            kinds[turn.index].name(),
            format!("{ms:.0} ms per GiB, {rate:.2} GiB/s, its core {busy:.0} % busy"),
        );
        costs[turn.index].push(ms);
    }
    Ok(costs)
}
