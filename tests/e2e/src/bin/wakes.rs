//! Fifty wakes a second, beside a loop that only patches `/scale`: both meet the same machine at the same time.
//!
//! The loop tells how long a patch takes there. It is slow, since what it asks of the API server is taken
//! from the wakes: as many patches as wakes are more than two processors have time for.
//!
//! Workloads are of a kind that nobody runs: no pod is started, all that counts is the way from a
//! caller's first byte to the watch event that shows replicas. Services are called directly, so this
//! must run where they can be reached: on a node.

use std::{
    collections::HashSet,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use jiff::Timestamp;
use kube::ResourceExt as _;
use lull_contract::ports;
use lull_e2e::{
    App, Cluster, Kind, Workload, counters, fleet,
    histogram::Histogram,
    processors::Processors,
    rollouts, say,
    sleepers::{self, Sleeper, heard, scale},
    spread::Spread,
    wake_parts::{self, Seen},
    watches::{Sleepers, Wakes},
};
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};

/// Workloads that are only patched; each is at zero again within milliseconds.
const PATCHED: usize = 100;
/// Between two rounds: what was put off has been written by then.
const REST: Duration = Duration::from_secs(75);
/// The promise of issue 6: p99 of a wake against that of a patch alone.
const RATIO: f64 = 3.0;

/// Measures wakes on the cluster of the current kubeconfig.
#[derive(Debug, Parser)]
struct Args {
    /// Sleeping workloads.
    #[arg(long, default_value_t = 1_000)]
    workloads: usize,
    /// Wakes a second; with commas between them, of one round after the other.
    #[arg(long, default_value = "50", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: Vec<u32>,
    /// Patches a second.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    patches: u32,
    /// Each for so many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// What is measured at a time.
#[derive(Debug, Clone, Copy)]
struct Round {
    workloads: usize,
    rate: u32,
    patches: u32,
    seconds: u32,
}

/// Everything that is used at once.
#[derive(Debug)]
struct Bench {
    sleepers: Vec<Sleeper>,
    patched: Vec<Workload>,
    asleep: Sleepers,
    wakes: Wakes,
    /// Places of those that are being woken.
    under_way: Mutex<HashSet<usize>>,
    woken: Mutex<Vec<Seen>>,
    scaled: Mutex<Vec<Seen>>,
    /// From a patch alone until it was answered, milliseconds.
    answered: Mutex<Vec<f64>>,
}

/// Times in milliseconds, and what went wrong.
#[derive(Debug, Default)]
struct Tally {
    took: Vec<f64>,
    failures: Vec<String>,
}

/// Calls of the API server so far.
#[derive(Debug, Clone, Default)]
struct Calls {
    /// Lull's calls for `/scale`.
    scale: f64,
    /// Of those, the ones that woke.
    woke: f64,
    /// And the ones that were refused, or not answered.
    refused: f64,
    /// What else Lull asks for, Events and watches left out.
    other: f64,
    /// Events of the newer API, which here nobody but Lull writes.
    events: f64,
    /// Processor time of the API server, seconds.
    api_server: f64,
    /// Waits of Lull's patches for their turns, seconds.
    turn: Histogram,
    /// From the first one held until Lull's patch is sent, its turn included, seconds.
    sent: Histogram,
    /// The same until the API server has answered it.
    written: Histogram,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.workloads > 0, "--workloads 0: must be at least 1");
    let cluster = Cluster::connect().await?;
    rollouts::install(&cluster).await?;
    let bench = Arc::new(Bench::set_up(&cluster, args.workloads).await?);
    let mut outcome = Ok(());
    for (number, rate) in args.rate.iter().enumerate() {
        if number > 0 {
            sleep(REST).await;
        }
        let round = Round {
            workloads: args.workloads,
            rate: *rate,
            patches: args.patches,
            seconds: args.seconds,
        };
        outcome = outcome.and(measure(&cluster, &bench, round).await);
    }
    outcome
}

/// One round, and what it has shown.
async fn measure(cluster: &Cluster, bench: &Arc<Bench>, round: Round) -> anyhow::Result<()> {
    bench.begin();
    let before = Calls::read(cluster).await?;
    let (idle, begun) = (Processors::read()?, Instant::now());
    let (wakes, patches) = drive(bench, round).await;
    let (busy, seconds) = (Processors::read()?, begun.elapsed().as_secs_f64());
    let calls = Calls::read(cluster).await?.since(&before);
    say(table(round, (&wakes, &patches), &calls));
    let Spread { p50, p99, max } = Spread::of(bench.answered.lock().iter().copied());
    say(format!(
        "a patch alone is answered: p50 {p50:.1}, p99 {p99:.1}, max {max:.1} ms"
    ));
    say(format!(
        "processors {:.0} % busy; for a second the API server took {:.2} s of them, \
         this program {:.2} s",
        busy.busy_since(&idle),
        calls.api_server / seconds,
        busy.own_since(&idle) / seconds,
    ));
    let lines = wake_parts::logged(cluster).await?;
    let parts = wake_parts::report(&bench.woken.lock(), &bench.scaled.lock(), &lines);
    say(parts);
    let failures: Vec<&String> = wakes.failures.iter().chain(&patches.failures).collect();
    ensure!(
        failures.is_empty(),
        "{} failed, at first: {}",
        failures.len(),
        failures[0]
    );
    let ratio = ratio(&wakes, &patches);
    ensure!(
        ratio <= RATIO,
        "a wake takes {ratio:.1} x a patch at p99, {RATIO} are promised"
    );
    Ok(())
}

/// Wakes and patches at the same time, each at its rate.
async fn drive(bench: &Arc<Bench>, round: Round) -> (Tally, Tally) {
    let wakes = async {
        let mut place = 0;
        paced(round.rate, round.seconds, |_| {
            let asleep = bench.next_asleep(place);
            place = asleep.map_or(place, |index| index + 1);
            Arc::clone(bench).wake(asleep)
        })
        .await
    };
    let patches = paced(round.patches, round.seconds, |turn| {
        Arc::clone(bench).patch(turn % bench.patched.len())
    });
    tokio::join!(wakes, patches)
}

/// Begins one after the other, `rate` a second, whatever became of the earlier ones.
async fn paced<F>(rate: u32, seconds: u32, mut begin: impl FnMut(usize) -> F) -> Tally
where
    F: Future<Output = anyhow::Result<f64>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut tick = interval(Duration::from_secs(1) / rate);
    for turn in 0..(rate * seconds) as usize {
        tick.tick().await;
        tasks.spawn(begin(turn));
    }
    Tally::of(tasks).await
}

// === impl Bench ===

impl Bench {
    async fn set_up(cluster: &Cluster, workloads: usize) -> anyhow::Result<Self> {
        let sleepers = sleepers::deploy(cluster, "wakes", workloads).await?;
        say(format!("{workloads} workloads are asleep"));
        let plain = |number: usize| {
            let app = App::plain(&format!("patched-{number}"));
            app.kind(Kind::Rollout).replicas(0)
        };
        let patched = fleet::deploy(cluster, "patches", PATCHED, plain).await?;
        Ok(Self {
            sleepers,
            patched,
            asleep: Sleepers::start(cluster).await?,
            wakes: Wakes::start(cluster, Kind::Rollout).await?,
            under_way: Mutex::default(),
            woken: Mutex::default(),
            scaled: Mutex::default(),
            answered: Mutex::default(),
        })
    }

    /// Forgets what an earlier round has shown.
    fn begin(&self) {
        self.woken.lock().clear();
        self.scaled.lock().clear();
        self.answered.lock().clear();
    }

    /// Takes the first workload from `place` on, and round, that is asleep. One whose wake is under way
    /// is not: its status may not say so yet.
    fn next_asleep(&self, place: usize) -> Option<usize> {
        let count = self.sleepers.len();
        let mut under_way = self.under_way.lock();
        let mut places = (0..count).map(|step| (place + step) % count);
        let next = places.find(|index| {
            !under_way.contains(index) && self.asleep.has(&self.sleepers[*index].workload)
        })?;
        under_way.insert(next);
        Some(next)
    }

    /// From a caller's connection to replicas seen, ms.
    async fn wake(self: Arc<Self>, asleep: Option<usize>) -> anyhow::Result<f64> {
        let index = asleep.context("nobody is asleep")?;
        let (sleeper, begun) = (&self.sleepers[index], Timestamp::now());
        let woken = sleeper.wake(&self.wakes).await;
        self.under_way.lock().remove(&index);
        let took = woken?;
        let seen = Seen::new(&sleeper.workload, begun, took);
        self.woken.lock().push(seen);
        Ok(sample_app::ms(took))
    }

    /// From a patch sent to replicas seen, ms.
    async fn patch(self: Arc<Self>, index: usize) -> anyhow::Result<f64> {
        let workload = &self.patched[index];
        let seen = self.wakes.next(workload);
        let (time, begun) = (Timestamp::now(), Instant::now());
        let answer = async { scale(workload, 1).await.map(|()| begun.elapsed()) };
        let (answered, at) = tokio::try_join!(answer, heard(seen))?;
        self.answered.lock().push(sample_app::ms(answered));
        let seen = Seen::new(workload, time, at - begun);
        self.scaled.lock().push(seen);
        scale(workload, 0).await?;
        Ok(sample_app::ms(at - begun))
    }
}

// === impl Tally ===

impl Tally {
    async fn of(mut tasks: JoinSet<anyhow::Result<f64>>) -> Self {
        let mut tally = Self::default();
        while let Some(ended) = tasks.join_next().await {
            match ended.map_err(anyhow::Error::from).flatten() {
                Ok(took) => tally.took.push(took),
                Err(error) => tally.failures.push(format!("{error:#}")),
            }
        }
        tally
    }

    fn spread(&self) -> Spread {
        Spread::of(self.took.iter().copied())
    }
}

// === impl Calls ===

impl Calls {
    async fn read(cluster: &Cluster) -> anyhow::Result<Self> {
        const CALLS: &str = "lull_autoscaler_api_calls_total";
        const SCALES: &str = "lull_autoscaler_scales_total";
        const TURN: &str = "lull_autoscaler_wake_turn_seconds";
        const SENT: &str = "lull_autoscaler_wake_sent_seconds";
        const WRITTEN: &str = "lull_autoscaler_wake_written_seconds";
        let server = cluster.text("GET", "/metrics", Vec::new()).await?;
        let written = |verb| {
            let events = ["group=\"events.k8s.io\"", "resource=\"events\"", verb];
            counters::sum(&server, "apiserver_request_total", &events)
        };
        let mut calls = Self {
            events: written("verb=\"POST\"") + written("verb=\"PATCH\""),
            api_server: counters::plain(&server, "process_cpu_seconds_total"),
            ..Self::default()
        };
        for pod in cluster.component_pods("autoscaler").await? {
            let name = pod.name_any();
            let page = cluster.page(&name, ports::METRICS, "metrics").await?;
            let scale = counters::sum(&page, CALLS, &["resource=\"targets/scale\""]);
            calls.scale += scale;
            calls.woke += counters::sum(&page, SCALES, &["direction=\"Wake\""]);
            let refused = ["resource=\"targets/scale\"", "done=\"No\""];
            calls.refused += counters::sum(&page, CALLS, &refused);
            calls.other += counters::sum(&page, CALLS, &[]) - scale;
            calls.turn.add(TURN, &page)?;
            calls.sent.add(SENT, &page)?;
            calls.written.add(WRITTEN, &page)?;
        }
        Ok(calls)
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            scale: self.scale - before.scale,
            woke: self.woke - before.woke,
            refused: self.refused - before.refused,
            other: self.other - before.other,
            events: self.events - before.events,
            api_server: self.api_server - before.api_server,
            turn: self.turn.since(&before.turn),
            sent: self.sent.since(&before.sent),
            written: self.written.since(&before.written),
        }
    }
}

fn ratio(wakes: &Tally, patches: &Tally) -> f64 {
    wakes.spread().p99 / patches.spread().p99
}

fn table(round: Round, (wakes, patches): (&Tally, &Tally), calls: &Calls) -> String {
    let mut text = format!(
        "\n{} wakes a second for {} s among {} workloads, beside {} patches of /scale a second\n\
         {:<34}{:>8}{:>8}{:>10}{:>10}{:>10}\n",
        round.rate,
        round.seconds,
        round.workloads,
        round.patches,
        "ms",
        "done",
        "failed",
        "p50",
        "p99",
        "max"
    );
    for (name, tally) in [
        ("first byte until replicas seen", wakes),
        ("patch sent until replicas seen", patches),
    ] {
        let Spread { p50, p99, max } = tally.spread();
        let (done, failed) = (tally.took.len(), tally.failures.len());
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "{name:<34}{done:>8}{failed:>8}{p50:>10.1}{p99:>10.1}{max:>10.1}"
        );
    }
    // Where a wake's time goes: until then Lull's, from then on the API server's.
    for (name, histogram) in [
        ("its wait for a turn", &calls.turn),
        ("first one held until patch sent", &calls.sent),
        ("first one held until it is answered", &calls.written),
    ] {
        let [p50, p99] = [0.5, 0.99].map(|share| histogram.quantile(share) * 1e3);
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name}: p50 {p50:.1}, p99 {p99:.1} ms at most");
    }
    let number = f64::from(u32::try_from(wakes.took.len()).unwrap_or(u32::MAX));
    let _ = write!(
        text,
        "p99 of a wake is {:.2} x that of a patch (at most {RATIO})\n\
         API calls of Lull for a wake and the way back: {:.2} of /scale, {:.2} others, \
         {:.2} Events\n\
         of those of /scale {:.2} woke and {:.2} were refused",
        ratio(wakes, patches),
        calls.scale / number,
        calls.other / number,
        calls.events / number,
        calls.woke / number,
        calls.refused / number,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_both_their_ratio_and_the_calls_of_a_wake() {
        let args = Args::parse_from(["wakes", "--rate", "20,50"]);
        assert_eq!(args.rate, [20, 50]);
        let round = Round {
            workloads: args.workloads,
            rate: args.rate[1],
            patches: args.patches,
            seconds: args.seconds,
        };
        let tally = |took: [f64; 2]| Tally {
            took: took.into(),
            failures: Vec::new(),
        };
        let histogram = |bound: &str| {
            let mut histogram = Histogram::default();
            let text = format!("x_bucket{{le=\"{bound}\"}} 2\n");
            histogram.add("x", &text).unwrap();
            histogram
        };
        let calls = Calls {
            scale: 2.0,
            woke: 3.0,
            refused: 1.0,
            other: 7.0,
            events: 4.0,
            api_server: 60.0,
            turn: histogram("0.0005"),
            sent: histogram("0.002"),
            written: histogram("0.0075"),
        };
        let text = table(round, (&tally([8.0, 10.0]), &tally([3.0, 4.0])), &calls);
        assert!(text.contains("is 2.50 x that"), "{text}");
        assert!(
            text.contains("1.00 of /scale, 3.50 others, 2.00 Events"),
            "{text}"
        );
        for found in [
            "turn: p50 0.5, p99 0.5",
            "sent: p50 2.0, p99 2.0",
            "answered: p50 7.5, p99 7.5",
            "1.50 woke and 0.50 were refused",
        ] {
            assert!(text.contains(found), "{text}");
        }
    }
}
