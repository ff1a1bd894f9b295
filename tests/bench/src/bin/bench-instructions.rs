//! Instructions per request of the queue-proxy, against what is committed.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use lull_bench::{
    Scratch,
    baseline::{self, Counts, Verdict},
    measure::{Scenario, instructions},
    say, until_interrupted,
};

/// Counts the queue-proxy's instructions per request under callgrind.
#[derive(Debug, Parser)]
struct Args {
    /// The queue-proxy's binary.
    #[arg(long)]
    binary: PathBuf,
    /// File with the counts that are committed.
    #[arg(long)]
    baseline: PathBuf,
    /// Write that file instead of comparing with it.
    #[arg(long)]
    update: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    until_interrupted(run(Args::parse())).await
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let committed = if args.update {
        Counts::new()
    } else {
        baseline::read(&args.baseline)?
    };
    let scratch = Scratch::try_new()?;
    let mut counts = Counts::new();
    let mut worse = false;
    for scenario in Scenario::ALL {
        let now = instructions(&args.binary, &scratch, scenario).await?;
        let was = committed.get(scenario.name()).copied();
        let verdict = baseline::compare(now, was);
        worse |= matches!(verdict, Verdict::Worse | Verdict::Unknown);
        say(line(scenario.name(), now, was, verdict));
        counts.insert(scenario.name().to_owned(), now);
    }
    if args.update {
        baseline::write(&args.baseline, &counts)?;
        say(format!("written to {}", args.baseline.display()));
    } else if worse {
        say(
            "More instructions per request than committed. If the new cost is meant, run \
             `make instructions-update` and say in the commit what it buys.",
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn line(name: &str, now: u64, was: Option<u64>, verdict: Verdict) -> String {
    let Some(was) = was else {
        return format!("{name:<16} {now:>8} instructions per request");
    };
    let percent = (now as f64 / was as f64 - 1.0) * 100.0;
    let remark = match verdict {
        Verdict::Kept | Verdict::Unknown => "",
        Verdict::Better => ": better, keep it by `make instructions-update`",
        Verdict::Worse => ": WORSE",
    };
    format!("{name:<16} {now:>8} instructions per request, {percent:+.1} % of {was}{remark}")
}
