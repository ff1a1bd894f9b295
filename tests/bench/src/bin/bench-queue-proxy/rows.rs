//! The figures of the queue-proxy and what they must be (issue 4).

use std::collections::BTreeSet;

use clap::ValueEnum;
use lull_bench::{
    Bench, Bound, Kind, Limit, Protocol, Row, Sample,
    measure::{self, CONNECTIONS, CROWD, Cost, State},
    progress, sorted,
};

/// Columns of the table.
pub(crate) const COLUMNS: [&str; 3] = ["queue-proxy", "HAProxy", "Envoy"];
/// The proxies of those columns.
const KINDS: [Kind; 3] = [Kind::QueueProxy, Kind::Haproxy, Kind::Envoy];
/// The same and ours with a limit, in one measurement, so that the two can be compared.
const WITH_LIMITED: [Kind; 4] = [Kind::QueueProxy, Kind::Limited, Kind::Haproxy, Kind::Envoy];

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Group {
    /// CPU per request and requests per second over HTTP/1.1, also with a limit.
    Http1,
    /// CPU per request over h2c.
    H2c,
    /// Latency that is added.
    Latency,
    /// Memory.
    Memory,
    /// Process start to first forwarded request.
    Start,
    /// Size of the binary.
    Size,
}

// === impl Group ===

impl Group {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied()
    }
}

/// Measures the `wanted` groups.
pub(crate) async fn measure(bench: &Bench, wanted: &BTreeSet<Group>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for group in wanted {
        rows.extend(match group {
            Group::Http1 => http1(bench).await?,
            Group::H2c => h2c(bench).await?,
            Group::Latency => latency(bench).await?,
            Group::Memory => memory(bench).await?,
            Group::Start => start(bench).await?,
            Group::Size => size(bench).await?,
        });
    }
    Ok(rows)
}

async fn http1(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let costs = measure::cost(bench, Protocol::Http1, &WITH_LIMITED).await?;
    let [ours, limited, haproxy, envoy] = sorted(costs);
    let (cpu, rate) = (&ours.cpu_us, &ours.rate);
    Ok(vec![
        Row {
            figure: format!("CPU per request, HTTP/1.1, {CONNECTIONS} connections, µs"),
            bounds: vec![
                Bound::most(cpu.over(&envoy.cpu_us), "x Envoy", 0.45),
                Bound::most(cpu.over(&haproxy.cpu_us), "x HAProxy", 1.5),
            ],
            cells: vec![cpu.clone(), haproxy.cpu_us, envoy.cpu_us],
        },
        Row {
            figure: "the same with a concurrency limit of 100, µs".to_owned(),
            bounds: vec![Bound::most(
                limited.cpu_us.over(cpu),
                "x ours without",
                1.05,
            )],
            cells: vec![limited.cpu_us, Sample::default(), Sample::default()],
        },
        Row {
            figure: format!("requests/s, one core, HTTP/1.1, {CONNECTIONS} connections"),
            bounds: vec![Bound {
                of: "x Envoy".to_owned(),
                value: rate.over(&envoy.rate),
                limit: Limit::Least(2.0),
            }],
            cells: vec![rate.clone(), haproxy.rate, envoy.rate],
        },
    ])
}

async fn h2c(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let [ours, haproxy, envoy] = sorted(measure::cost(bench, Protocol::H2c, &KINDS).await?);
    Ok(vec![Row {
        figure: "CPU per request, h2c, 16 connections x 32 streams, µs".to_owned(),
        bounds: vec![Bound::most(ours.cpu_us.over(&envoy.cpu_us), "x Envoy", 0.6)],
        cells: vec![ours.cpu_us, haproxy.cpu_us, envoy.cpu_us],
    }])
}

/// At half of what Envoy can take: one rate for all, which all of them can carry.
async fn latency(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    progress("how much Envoy can take:");
    let [Cost { rate, .. }] = sorted(measure::cost(bench, Protocol::Http1, &[Kind::Envoy]).await?);
    let rate = (rate.median() / 2.0).round();
    let [ours, haproxy, envoy] = sorted(measure::latency(bench, &KINDS, rate).await?);
    let row = |name: &str, ours: Sample, haproxy: Sample, envoy: Sample| Row {
        figure: format!("added latency at {rate:.0} requests/s (half of Envoy's most), {name}, µs"),
        // What the way without a proxy takes cancels out, and with it a round's hiccups there.
        bounds: vec![Bound::most(ours.minus(&envoy), "µs over Envoy", 0.0)],
        cells: vec![ours, haproxy, envoy],
    };
    Ok(vec![
        row("p50", ours.p50_us, haproxy.p50_us, envoy.p50_us),
        row("p99", ours.p99_us, haproxy.p99_us, envoy.p99_us),
        Row {
            figure: "the same, p99 of the middle tenth of a second, µs".to_owned(),
            bounds: Vec::new(),
            cells: vec![ours.calm_p99_us, haproxy.calm_p99_us, envoy.calm_p99_us],
        },
    ])
}

async fn memory(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (state, what, limit) in [
        (State::Idle, "idle".to_owned(), 5.0),
        (State::Busy, format!("{CONNECTIONS} busy connections"), 8.0),
        (
            State::NeverUsed,
            format!("{CROWD} connections never used"),
            60.0,
        ),
        (
            State::UsedOnce,
            format!("{CROWD} connections idle after a request"),
            160.0,
        ),
    ] {
        let [ours, haproxy, envoy] = sorted(measure::memory(bench, state, &KINDS).await?);
        rows.push(Row {
            figure: format!("memory, {what}, MiB RSS"),
            bounds: vec![Bound::most(ours.rss.clone(), "MiB", limit)],
            cells: vec![ours.rss, haproxy.rss, envoy.rss],
        });
        rows.push(Row {
            figure: format!("memory, {what}, MiB PSS"),
            bounds: Vec::new(),
            cells: vec![ours.pss, haproxy.pss, envoy.pss],
        });
    }
    Ok(rows)
}

async fn start(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let [ours, haproxy, envoy] = sorted(measure::start_ms(bench, &KINDS).await?);
    Ok(vec![Row {
        figure: "process start to first forwarded request, ms".to_owned(),
        bounds: vec![Bound::most(ours.clone(), "ms", 10.0)],
        cells: vec![ours, haproxy, envoy],
    }])
}

async fn size(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let ours = measure::shipped_mb(&bench.programs.ours, &bench.scratch).await?;
    let ours = Sample::from_iter([ours]);
    Ok(vec![Row {
        figure: "binary in its image, MB".to_owned(),
        bounds: vec![Bound::most(ours.clone(), "MB", 8.0)],
        cells: vec![ours, Sample::default(), Sample::default()],
    }])
}
