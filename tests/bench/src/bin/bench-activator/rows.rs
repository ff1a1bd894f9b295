//! The figures of the activator and what they must be (issue 5).

use std::collections::BTreeSet;

use clap::ValueEnum;
use lull_bench::{
    Bench, Bound, Kind, Limit, Protocol, Row, Sample,
    measure::{self, CONNECTIONS, Cost, State},
    progress, sorted,
};

/// Columns of the table.
pub(crate) const COLUMNS: [&str; 3] = ["activator", "HAProxy", "Envoy"];
/// The proxies of those columns.
const KINDS: [Kind; 3] = [Kind::Activator, Kind::Haproxy, Kind::Envoy];

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Group {
    /// CPU per request and requests per second over HTTP/1.1.
    Http1,
    /// CPU per request over h2c.
    H2c,
    /// Latency that is added.
    Latency,
    /// CPU per connection and per GiB where bytes are passed.
    Splice,
    /// Memory.
    Memory,
    /// Memory of what is held.
    Held,
    /// With many workloads.
    Many,
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
            Group::Splice => splice(bench).await?,
            Group::Memory => memory(bench).await?,
            Group::Held => held(bench).await?,
            Group::Many => many(bench).await?,
        });
    }
    Ok(rows)
}

async fn http1(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let [ours, haproxy, envoy] = sorted(measure::cost(bench, Protocol::Http1, &KINDS).await?);
    let (cpu, rate) = (&ours.cpu_us, &ours.rate);
    Ok(vec![
        Row {
            figure: format!("CPU per request, HTTP/1.1, {CONNECTIONS} connections, µs"),
            bounds: vec![Bound::most(cpu.over(&envoy.cpu_us), "x Envoy", 0.7)],
            cells: vec![cpu.clone(), haproxy.cpu_us, envoy.cpu_us],
        },
        Row {
            figure: format!("requests/s, one core, HTTP/1.1, {CONNECTIONS} connections"),
            bounds: vec![Bound {
                of: "x Envoy".to_owned(),
                value: rate.over(&envoy.rate),
                limit: Limit::Least(1.0),
            }],
            cells: vec![rate.clone(), haproxy.rate, envoy.rate],
        },
    ])
}

async fn h2c(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let [ours, haproxy, envoy] = sorted(measure::cost(bench, Protocol::H2c, &KINDS).await?);
    Ok(vec![Row {
        figure: "CPU per request, h2c, 16 connections x 32 streams, µs".to_owned(),
        bounds: Vec::new(),
        cells: vec![ours.cpu_us, haproxy.cpu_us, envoy.cpu_us],
    }])
}

/// At half of what Envoy can take: one rate for all, which all of them can carry.
async fn latency(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    progress("how much Envoy can take:");
    let [Cost { rate, .. }] = sorted(measure::cost(bench, Protocol::Http1, &[Kind::Envoy]).await?);
    let rate = (rate.median() / 2.0).round();
    let [ours, haproxy, envoy] = sorted(measure::latency(bench, &KINDS, rate).await?);
    let figure = |name: &str| {
        format!("added latency at {rate:.0} requests/s (half of Envoy's most), {name}, µs")
    };
    Ok(vec![
        Row {
            figure: figure("p50"),
            bounds: Vec::new(),
            cells: vec![ours.p50_us, haproxy.p50_us, envoy.p50_us],
        },
        Row {
            figure: figure("p99"),
            bounds: vec![Bound::most(
                ours.p99_us.minus(&envoy.p99_us),
                "µs over Envoy",
                0.0,
            )],
            cells: vec![ours.p99_us, haproxy.p99_us, envoy.p99_us],
        },
        Row {
            figure: "the same, p99 of the middle tenth of a second, µs".to_owned(),
            bounds: Vec::new(),
            cells: vec![ours.calm_p99_us, haproxy.calm_p99_us, envoy.calm_p99_us],
        },
    ])
}

async fn splice(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let [ours, haproxy, envoy] = sorted(measure::cost(bench, Protocol::Bytes, &KINDS).await?);
    let per_connection = Row {
        figure: "bytes: CPU per connection with one small request, µs".to_owned(),
        bounds: vec![Bound::most(
            ours.cpu_us.over(&haproxy.cpu_us),
            "x HAProxy",
            1.0,
        )],
        cells: vec![ours.cpu_us, haproxy.cpu_us, envoy.cpu_us],
    };
    let [ours, haproxy, envoy] = sorted(measure::volume(bench, &KINDS).await?);
    let per_gib = Row {
        figure: "bytes: CPU per GiB to callers, ms".to_owned(),
        bounds: vec![Bound::most(ours.over(&haproxy), "x HAProxy", 1.0)],
        cells: vec![ours, haproxy, envoy],
    };
    Ok(vec![per_connection, per_gib])
}

async fn memory(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (state, what) in [
        (State::Idle, "idle".to_owned()),
        (State::Busy, format!("{CONNECTIONS} busy connections")),
    ] {
        let [ours, haproxy, envoy] = sorted(measure::memory(bench, state, &KINDS).await?);
        rows.push(Row {
            figure: format!("memory without Kubernetes, {what}, MiB RSS"),
            bounds: Vec::new(),
            cells: vec![ours.rss, haproxy.rss, envoy.rss],
        });
    }
    Ok(rows)
}

async fn held(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let held = measure::held(bench).await?;
    let none = Sample::default;
    Ok(vec![
        Row {
            figure: "memory with 1,000 workloads' ports open, MiB RSS".to_owned(),
            bounds: Vec::new(),
            cells: vec![held.before_mib, none(), none()],
        },
        Row {
            figure: format!(
                "memory of {} held requests and {} held connections, KiB each",
                held.requests, held.connections
            ),
            bounds: vec![Bound::most(held.kib_each.clone(), "KiB", 32.0)],
            cells: vec![held.kib_each, none(), none()],
        },
    ])
}

async fn many(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let many = measure::many(bench).await?;
    let row = |figure: &str, value: Sample| Row {
        figure: format!("{} workloads without Kubernetes: {figure}", measure::MANY),
        bounds: Vec::new(),
        cells: vec![value, Sample::default(), Sample::default()],
    };
    Ok(vec![
        row("start until all ports are open, ms", many.open_ms),
        row("memory then, MiB RSS", many.mib),
        row(
            "first one held until the autoscaler has been told, ms",
            many.told_ms,
        ),
    ])
}
