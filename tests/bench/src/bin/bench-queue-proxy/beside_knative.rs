//! The queue-proxy beside that of Knative Serving.

use lull_bench::{
    Bench, Bound, Kind, Protocol, Row, Sample,
    measure::{self, CONNECTIONS, State},
    sorted,
};

/// Columns of the table.
pub(crate) const COLUMNS: [&str; 2] = ["Lull's", "Knative's"];
/// The proxies of those columns.
const KINDS: [Kind; 2] = [Kind::QueueProxy, Kind::Knative];
/// One that both can carry.
const RATE: f64 = 5_000.0;

/// Measures both. Every figure is one of which less is better, and must be no more than Knative's.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let [ours, knative] = sorted(measure::cost(bench, Protocol::Http1, &KINDS).await?);
    let name = format!("CPU per request, HTTP/1.1, {CONNECTIONS} connections, µs");
    rows.push(row(name, ours.cpu_us, knative.cpu_us));
    let [ours, knative] = sorted(measure::cost(bench, Protocol::H2c, &KINDS).await?);
    let name = "CPU per request, h2c, µs".to_owned();
    rows.push(row(name, ours.cpu_us, knative.cpu_us));
    let [ours, knative] = sorted(measure::latency(bench, &KINDS, RATE).await?);
    let at = format!("added latency at {RATE:.0} requests/s");
    rows.push(row(format!("{at}, p50, µs"), ours.p50_us, knative.p50_us));
    rows.push(row(format!("{at}, p99, µs"), ours.p99_us, knative.p99_us));
    for (state, what) in [
        (State::Idle, "idle".to_owned()),
        (State::Busy, format!("{CONNECTIONS} busy connections")),
    ] {
        let [ours, knative] = sorted(measure::memory(bench, state, &KINDS).await?);
        rows.push(row(
            format!("memory, {what}, MiB RSS"),
            ours.rss,
            knative.rss,
        ));
    }
    let [ours, knative] = sorted(measure::start_ms(bench, &KINDS).await?);
    let name = "process start to first forwarded request, ms".to_owned();
    rows.push(row(name, ours, knative));
    Ok(rows)
}

fn row(figure: String, ours: Sample, knative: Sample) -> Row {
    Row {
        figure,
        bounds: vec![Bound::most(ours.over(&knative), "x Knative's", 1.0)],
        cells: vec![ours, knative],
    }
}
