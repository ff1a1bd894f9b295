//! The activator beside HAProxy and Envoy, and what it must reach.

mod rows;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::ensure;
use clap::Parser;
use lull_bench::{Bench, Cores, Programs, Scratch, machine, say, table, until_interrupted};

use crate::rows::{COLUMNS, Group};

/// Measures the activator beside HAProxy and Envoy on loopback.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; each measures every proxy once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of each measurement, whole seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only these rows.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// The activator's binary (its example `standalone`).
    #[arg(long)]
    binary: PathBuf,
    /// Envoy's binary.
    #[arg(long)]
    envoy: PathBuf,
    /// Exit with 1 where a figure is missed.
    #[arg(long)]
    check: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    until_interrupted(run(Args::parse())).await
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    ensure!(args.rounds > 0, "--rounds 0: must be at least 1");
    ensure!(args.seconds > 0, "--seconds 0: must be at least 1");
    let bench = Bench {
        programs: Programs {
            ours: args.binary,
            envoy: args.envoy,
            knative: None,
        },
        scratch: Scratch::try_new()?,
        cores: Cores::divide()?,
        rounds: args.rounds,
        time: Duration::from_secs(args.seconds),
    };
    let facts = machine::facts(&bench).await?;
    let wanted: BTreeSet<Group> = match args.only.as_slice() {
        [] => Group::all().collect(),
        only => only.iter().copied().collect(),
    };
    let rows = rows::measure(&bench, &wanted).await?;
    say(format!("## activator\n\n{facts}\n"));
    say(table::markdown(&COLUMNS, &rows));
    let (reached, of) = table::verdict(&rows);
    say(format!("\n{reached} of {of} figures reached."));
    let missed = args.check && reached < of;
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
