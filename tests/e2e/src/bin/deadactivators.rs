//! An activator is lost while 1,000 workloads sleep: how soon its address leaves their endpoints, and
//! whether those that were called lately come first.
//!
//! Workloads are of a kind that nobody runs, and are called directly at their Services: this must run
//! on a node. What is measured begins when the API server is told that the pod is gone; how soon the
//! kubelet or a node's end tells of it is not Lull's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::ResourceExt as _;
use lull_e2e::{
    Cluster, Kind, activators, components, eventually, fleet, rollouts, say,
    sleepers::{self, Sleeper},
    spread::Spread,
    watches::{Departures, Wakes},
};

/// The promise of issue 7 for those that were called lately.
const LATELY: Duration = Duration::from_secs(2);
/// And for the others: writes a second from then on.
const RATE: f64 = 100.0;
/// Longest wait for the address to be gone everywhere.
const GONE: Duration = Duration::from_secs(120);
/// Wakes at one time.
const AT_ONCE: usize = 8;

/// Measures on the cluster of the current kubeconfig.
#[derive(Debug, Parser)]
struct Args {
    /// Sleeping workloads.
    #[arg(long, default_value_t = 1_000)]
    workloads: usize,
    /// How many of them are called before.
    #[arg(long, default_value_t = 100)]
    called: usize,
}

/// Times from the loss to the departure from one workload's endpoints, ms, in order.
#[derive(Debug, Default)]
struct Measured {
    called: Vec<f64>,
    others: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(
        (1..args.workloads).contains(&args.called),
        "--called {}: must be at least 1 and less than --workloads {}",
        args.called,
        args.workloads
    );
    let cluster = Cluster::connect().await?;
    rollouts::install(&cluster).await?;
    let sleepers = sleepers::deploy(&cluster, "dead", args.workloads).await?;
    say(format!("{} workloads are asleep", sleepers.len()));
    let (called, others) = divided(sleepers, args.called);
    let wakes = Wakes::start(&cluster, Kind::Rollout).await?;
    let calls = called.iter().map(|sleeper| sleeper.wake(&wakes));
    let calls = stream::iter(calls).buffer_unordered(AT_ONCE);
    let woken: Vec<Duration> = calls.try_collect().await?;
    fleet::all_asleep(&cluster, args.workloads).await?;
    say(format!("{} of them were called", woken.len()));
    let measured = Measured::of(&cluster, (&called, &others)).await?;
    say(measured.table());
    measured.check()
}

/// `count` of the sleepers, evenly from all of them, and the rest.
fn divided(sleepers: Vec<Sleeper>, count: usize) -> (Vec<Sleeper>, Vec<Sleeper>) {
    let all = sleepers.len();
    let is_called = |index: usize| (index + 1) * count / all > index * count / all;
    let (called, others): (Vec<_>, Vec<_>) = sleepers
        .into_iter()
        .enumerate()
        .partition(|(index, _)| is_called(*index));
    let bare = |numbered: Vec<(usize, Sleeper)>| numbered.into_iter().map(|(_, one)| one).collect();
    (bare(called), bare(others))
}

// === impl Measured ===

impl Measured {
    async fn of(
        cluster: &Cluster,
        (called, others): (&[Sleeper], &[Sleeper]),
    ) -> anyhow::Result<Self> {
        let pods = cluster.component_pods(activators::COMPONENT).await?;
        ensure!(pods.len() > 1, "one must be left: there are {}", pods.len());
        let victim = pods.first().context("there is no activator")?;
        let address = victim.status.as_ref().and_then(|s| s.pod_ip.clone());
        let address = address.context("it has no address")?;
        let departures = Departures::start(cluster, &address).await?;
        let (listed, all) = (departures.remaining(), called.len() + others.len());
        ensure!(listed >= all, "{address} is in {listed} of {all} slices");
        let lost = Instant::now();
        components::lose(cluster, &victim.name_any()).await?;
        eventually("the address to be gone", GONE, async || {
            let remaining = departures.remaining();
            ensure!(remaining == 0, "it is in {remaining} slices");
            Ok(())
        })
        .await?;
        let times = |sleepers: &[Sleeper]| -> anyhow::Result<Vec<f64>> {
            let left = |sleeper: &Sleeper| {
                let left = departures.left(&sleeper.workload);
                let left = left.context("a slice came with it late")?;
                Ok(sample_app::ms(left - lost))
            };
            let mut times: Vec<f64> = sleepers.iter().map(left).collect::<anyhow::Result<_>>()?;
            times.sort_by(f64::total_cmp);
            Ok(times)
        };
        Ok(Self {
            called: times(called)?,
            others: times(others)?,
        })
    }

    /// Of the others, those that it had left when it had left all that were called lately.
    fn before_the_last_called(&self) -> usize {
        let last = self.called.last().copied().unwrap_or_default();
        self.others.partition_point(|time| *time < last)
    }

    /// The worst of the others against the promised rate: how late it came, ms; negative is in time.
    fn late_ms(&self) -> f64 {
        let promised = |place: usize| {
            let place = f64::from(u32::try_from(place + 1).unwrap_or(u32::MAX));
            sample_app::ms(LATELY) + place / RATE * 1e3
        };
        let late = self.others.iter().enumerate();
        late.map(|(place, time)| time - promised(place))
            .fold(f64::NEG_INFINITY, f64::max)
    }

    fn table(&self) -> String {
        let row = |name: &str, times: &[f64]| {
            let Spread { p50, p99, max } = Spread::of(times.iter().copied());
            let count = times.len();
            format!("{name:<34}{count:>8}{p50:>10.0}{p99:>10.0}{max:>10.0}\n")
        };
        format!(
            "\nfrom the loss of an activator until its address is in no slice, ms\n\
             {:<34}{:>8}{:>10}{:>10}{:>10}\n{}{}\
             of the others, {} were written before the last that was called lately\n\
             the worst of the others came {:.0} ms before {} s and {RATE} a second from then on",
            "",
            "count",
            "p50",
            "p99",
            "max",
            row("called lately", &self.called),
            row("others", &self.others),
            self.before_the_last_called(),
            -self.late_ms(),
            LATELY.as_secs(),
        )
    }

    fn check(&self) -> anyhow::Result<()> {
        let last = self.called.last().copied().unwrap_or_default();
        ensure!(
            last <= sample_app::ms(LATELY),
            "the last that was called lately came after {last:.0} ms, {LATELY:?} are promised"
        );
        let early = self.before_the_last_called();
        ensure!(
            early * 2 < self.others.len(),
            "{early} others came before the last that was called lately: by chance"
        );
        let late = self.late_ms();
        ensure!(
            late <= 0.0,
            "{RATE} writes a second are promised: one came {late:.0} ms late"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_rate_are_checked() {
        let rows = [
            (vec![50.0, 90.0], vec![80.0, 300.0, 400.0], true),
            // One of three before the last that was called is few enough, two are not.
            (vec![50.0, 350.0], vec![80.0, 300.0, 400.0], false),
            (vec![50.0, 2_100.0], vec![2_200.0], false),
            (vec![50.0], vec![2_010.0], true),
            (vec![50.0], vec![2_005.0, 2_021.0], false),
        ];
        for (called, others, is_kept) in rows {
            let measured = Measured { called, others };
            let text = measured.table();
            assert_eq!(measured.check().is_ok(), is_kept, "{text}");
        }
    }
}
