//! The queue-proxy beside HAProxy and Envoy, and what it must reach; or beside Knative's.

mod beside_knative;
mod rows;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::ensure;
use clap::Parser;
use lull_bench::{Bench, Cores, Programs, Scratch, machine, say, table, until_interrupted};

use crate::rows::{COLUMNS, Group};

/// Measures the queue-proxy beside HAProxy and Envoy, or beside Knative's, on loopback.
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
    /// The queue-proxy's binary.
    #[arg(long)]
    binary: PathBuf,
    /// Envoy's binary.
    #[arg(long)]
    envoy: PathBuf,
    /// The binary of Knative's: ours is measured beside that one alone.
    #[arg(long, conflicts_with = "only")]
    knative: Option<PathBuf>,
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
            knative: args.knative,
        },
        scratch: Scratch::try_new()?,
        cores: Cores::divide()?,
        rounds: args.rounds,
        time: Duration::from_secs(args.seconds),
    };
    let facts = machine::facts(&bench).await?;
    if bench.programs.knative.is_some() {
        let rows = beside_knative::measure(&bench).await?;
        say(format!("## queue-proxy beside Knative's\n\n{facts}\n"));
        say(table::markdown(&beside_knative::COLUMNS, &rows));
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: BTreeSet<Group> = match args.only.as_slice() {
        [] => Group::all().collect(),
        only => only.iter().copied().collect(),
    };
    let rows = rows::measure(&bench, &wanted).await?;
    say(format!("## queue-proxy\n\n{facts}\n"));
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
