//! The autoscaler's decisions for thousands of workloads on one core, and its pulls.
//!
//! Each measurement is a process of its own, so that its memory is its own; this program starts
//! itself again for each.

mod fleet;
mod pulls;

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use lull_bench::{Bound, Child, Cores, Limit, Row, Sample, ports, progress, say, table};
use lull_contract::report::MAX_LATELY;
use serde_json::Value;
use tokio::process::Command;

/// Workloads of the columns.
const SIZES: [usize; 3] = [1_000, 3_000, 10_000];
/// Addresses that are pulled from.
const REPORTERS: usize = 2_000;

/// Measures the autoscaler's decisions and pulls.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; each measures everything once.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Ticks of two seconds in each round.
    #[arg(long, default_value_t = 30)]
    ticks: u32,
    /// Callers that each pod names, 8 at most.
    #[arg(long, default_value_t = 3)]
    callers: usize,
    /// Exit with 1 where a figure is missed.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What a child does.
#[derive(Debug, Subcommand)]
enum Role {
    /// Decides for so many workloads, without a network.
    #[command(hide = true)]
    Fleet {
        /// How many.
        workloads: usize,
        /// Ticks.
        ticks: u32,
        /// Callers of each pod.
        callers: usize,
    },
    /// Answers with reports on so many addresses.
    #[command(hide = true)]
    Reporters {
        /// How many.
        count: usize,
    },
    /// Pulls from them.
    #[command(hide = true)]
    Pulls {
        /// How many.
        count: usize,
        /// Their port.
        port: u16,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    let args = Args::parse();
    match args.role {
        Some(Role::Fleet {
            workloads,
            ticks,
            callers,
        }) => say(fleet::measure(workloads, ticks, callers)?.to_string()),
        Some(Role::Reporters { count }) => pulls::answer(count).await?,
        Some(Role::Pulls { count, port }) => say(pulls::measure(count, port).await?.to_string()),
        None => return lull_bench::until_interrupted(parent(args)).await,
    }
    Ok(std::process::ExitCode::SUCCESS)
}

async fn parent(args: Args) -> anyhow::Result<std::process::ExitCode> {
    ensure!(args.rounds > 0, "--rounds 0: must be at least 1");
    ensure!(args.ticks > 1, "--ticks {}: must be at least 2", args.ticks);
    let callers = args.callers;
    ensure!(
        callers <= MAX_LATELY,
        "--callers {callers}: must be at most {MAX_LATELY}"
    );
    let cores = Cores::divide()?;
    let mut fleets: [Fleet; SIZES.len()] = Default::default();
    let (mut per_second, mut per_connection) = (Sample::default(), Sample::default());
    for round in 1..=args.rounds {
        for (size, fleet) in SIZES.iter().zip(&mut fleets) {
            let role = format!("fleet {size} {} {callers}", args.ticks);
            let role: Vec<String> = role.split(' ').map(str::to_owned).collect();
            let value = cores.on_proxy_core(|| own(&role))?;
            let value = result(value).await?;
            fleet.push(&value)?;
            progress(format!("round {round}, {size} workloads: {value}"));
        }
        let value = pulled(&cores).await?;
        per_second.push(number(&value, "pulls_per_cpu_second")?);
        per_connection.push(number(&value, "kib_per_connection")?);
        progress(format!("round {round}, pulls: {value}"));
    }
    let rows = rows(&fleets, per_second, &per_connection);
    say(format!(
        "## autoscaler\n\n10 pods per workload, each with {callers} callers, pulled every second, \
         decided every 2 s, on one core.\n"
    ));
    say(table::markdown(&["1,000", "3,000", "10,000"], &rows));
    let (reached, of) = table::verdict(&rows);
    say(format!("\n{reached} of {of} figures reached."));
    let missed = args.check && reached < of;
    Ok(u8::from(missed).into())
}

/// What was measured of one size.
#[derive(Debug, Default)]
struct Fleet {
    tick_p99: Sample,
    tick_p50: Sample,
    report: Sample,
    decision: Sample,
    allocations: Sample,
    memory: Sample,
    workload: Sample,
}

// === impl Fleet ===

impl Fleet {
    fn push(&mut self, value: &Value) -> anyhow::Result<()> {
        self.tick_p99.push(number(value, "tick_p99_ms")?);
        self.tick_p50.push(number(value, "tick_p50_ms")?);
        self.report.push(number(value, "report_ns")?);
        self.decision.push(number(value, "decision_ns")?);
        self.allocations
            .push(number(value, "allocations_per_decision")?);
        self.memory.push(number(value, "resident_mib")?);
        self.workload.push(number(value, "kib_per_workload")?);
        Ok(())
    }
}

fn rows(fleets: &[Fleet; SIZES.len()], per_second: Sample, per_connection: &Sample) -> Vec<Row> {
    let [small, .., large] = fleets;
    let row = |figure: &str, cells: Vec<Sample>, bounds| Row {
        figure: figure.to_owned(),
        cells,
        bounds,
    };
    let each = |of: fn(&Fleet) -> &Sample| fleets.iter().map(|fleet| of(fleet).clone()).collect();
    // Beside the sizes: the last column.
    let alone = |value: &Sample| vec![Sample::default(), Sample::default(), value.clone()];
    let mut line = Sample::default();
    line.push(large.tick_p50.median() / small.tick_p50.median() * 1_000.0 / 10_000.0);
    vec![
        row(
            "tick, p99, ms",
            each(|fleet| &fleet.tick_p99),
            vec![Bound::most(large.tick_p99.clone(), "ms", 1_000.0)],
        ),
        row(
            "tick, p50, ms",
            each(|fleet| &fleet.tick_p50),
            vec![Bound::most(line, "x a straight line from 1,000", 1.5)],
        ),
        row(
            "report read and taken, ns",
            each(|fleet| &fleet.report),
            vec![],
        ),
        row("decision, ns", each(|fleet| &fleet.decision), vec![]),
        row(
            "allocations per decision",
            each(|fleet| &fleet.allocations),
            vec![Bound::most(large.allocations.clone(), "", 0.0)],
        ),
        row(
            "resident, MiB",
            each(|fleet| &fleet.memory),
            vec![Bound::most(large.memory.clone(), "MiB", 512.0)],
        ),
        row("KiB per workload", each(|fleet| &fleet.workload), vec![]),
        row(
            "pulls per CPU second",
            alone(&per_second),
            vec![Bound {
                of: "per s".to_owned(),
                value: per_second,
                limit: Limit::Least(5_000.0),
            }],
        ),
        row("KiB per kept connection", alone(per_connection), vec![]),
    ]
}

/// This program in another role.
fn own(role: &[String]) -> anyhow::Result<tokio::process::Child> {
    let program = std::env::current_exe().context("find this program")?;
    Command::new(program)
        .args(role)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {role:?}"))
}

/// What a child prints.
async fn result(child: tokio::process::Child) -> anyhow::Result<Value> {
    let limit = Duration::from_secs(600);
    let output = tokio::time::timeout(limit, child.wait_with_output())
        .await
        .with_context(|| format!("a child took more than {limit:?}"))??;
    ensure!(
        output.status.success(),
        "a child ended with {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).context("what a child printed")
}

/// A round of pulls: the puller on its core, reporters on the others.
async fn pulled(cores: &Cores) -> anyhow::Result<Value> {
    let port = ports::free()?.port();
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args(["reporters", &REPORTERS.to_string()]);
    command.env(pulls::PORT, port.to_string());
    let reporters = Child::spawn("reporters", command)?;
    let role = ["pulls", &REPORTERS.to_string(), &port.to_string()].map(str::to_owned);
    let puller = cores.on_proxy_core(|| own(&role))?;
    let value = result(puller).await;
    reporters.stop().await?;
    value
}

fn number(value: &Value, name: &str) -> anyhow::Result<f64> {
    let number = value.get(name).and_then(Value::as_f64);
    number.with_context(|| format!("no {name} in {value}"))
}
