//! Memory in the states that a sidecar is in.

use std::time::Duration;

use super::CONNECTIONS;
use crate::{
    Kind, Nginx, Protocol, Proxy, Sample, bench::Bench, child::Memory, load, proxies::Setup,
};

/// Connections that do nothing.
pub const CROWD: usize = 10_000;
/// Time between two looks at a busy proxy.
const LOOK: Duration = Duration::from_millis(50);

/// What a proxy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// One request was served, to know that it is up.
    Idle,
    /// All that it can take, over [`CONNECTIONS`].
    Busy,
    /// [`CROWD`] connections on which nothing was ever sent.
    NeverUsed,
    /// [`CROWD`] connections on which one request was served.
    UsedOnce,
}

/// Memory over the rounds.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Resident set, MiB.
    pub rss: Sample,
    /// The same where shared pages count by their share, MiB.
    pub pss: Sample,
}

/// Measures `kinds` in `state`; the result is in their order.
///
/// # Errors
/// Where a process or a request fails.
pub async fn memory(bench: &Bench, state: State, kinds: &[Kind]) -> anyhow::Result<Vec<Usage>> {
    let mut nginx = Nginx::start(bench.scratch.path(), Protocol::Http1).await?;
    let setup = Setup {
        bench,
        app: nginx.address,
        protocol: Protocol::Http1,
    };
    let mut usages = vec![Usage::default(); kinds.len()];
    for turn in bench.turns(kinds.len()) {
        let proxy = Proxy::start(kinds[turn.index], &setup).await?;
        let used = in_state(bench, &proxy, state).await?;
        proxy.stop().await?;
        nginx.check()?;
        let (rss, pss) = (used.resident_mib, used.proportional_mib);
        turn.progress(
            kinds[turn.index].name(),
            format!("{state:?}: {rss:.1} MiB, {pss:.1} MiB by share"),
        );
        usages[turn.index].rss.push(rss);
        usages[turn.index].pss.push(pss);
    }
    Ok(usages)
}

async fn in_state(bench: &Bench, proxy: &Proxy, state: State) -> anyhow::Result<Memory> {
    let (address, child) = (proxy.address, proxy.child());
    match state {
        State::Idle => child.memory(),
        State::Busy => most_while_busy(bench, proxy).await,
        State::NeverUsed | State::UsedOnce => {
            let used = state == State::UsedOnce;
            let crowd = load::crowd(address, child, CROWD, used).await?;
            let memory = child.memory();
            drop(crowd);
            memory
        }
    }
}

async fn most_while_busy(bench: &Bench, proxy: &Proxy) -> anyhow::Result<Memory> {
    let mut most = proxy.child().memory()?;
    let load = load::wrk(proxy.address, CONNECTIONS, bench.time);
    tokio::pin!(load);
    loop {
        tokio::select! {
            done = &mut load => return done.map(|_| most),
            () = tokio::time::sleep(LOOK) => {
                let now = proxy.child().memory()?;
                if now.resident_mib > most.resident_mib {
                    most = now;
                }
            }
        }
    }
}
