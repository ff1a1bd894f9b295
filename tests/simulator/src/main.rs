//! Runs every scenario and writes the table and the pictures.

use std::{fmt::Write as _, io::Write as _, path::PathBuf};

use anyhow::{Context as _, ensure};
use clap::Parser;
use lull_simulator::{Faults, all, plot, run, table};

/// Simulates the autoscaler's decisions.
#[derive(Debug, Parser)]
struct Args {
    /// Seed of traffic and of pod starts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the scenario of this name.
    #[arg(long)]
    only: Option<String>,
    /// Folder of the documentation, whose page and pictures are written.
    #[arg(long)]
    docs: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut scenarios = all();
    if let Some(only) = &args.only {
        let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
        ensure!(
            names.contains(&only.as_str()),
            "--only {only}: must be one of {}",
            names.join(", ")
        );
        scenarios.retain(|scenario| scenario.name == only);
    }
    let mut rows = String::from(table::HEAD);
    for scenario in &scenarios {
        let outcome = run(scenario, args.seed, Faults::default());
        writeln!(rows, "{}", table::row(scenario, &outcome))?;
        if let Some(docs) = &args.docs {
            let file = docs.join(format!("simulations/{}.svg", scenario.name));
            plot::draw(scenario, &outcome, &file)?;
        }
    }
    if let Some(docs) = &args.docs {
        let page = docs.join("simulations.md");
        let text = format!("{}{rows}", table::INTRODUCTION);
        std::fs::write(&page, text).with_context(|| format!("writing {page:?}"))?;
    }
    std::io::stdout().write_all(rows.as_bytes())?;
    Ok(())
}
