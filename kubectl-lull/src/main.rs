//! `kubectl lull`: what Lull does, to be looked at and asked for from the command line.
//!
//! ```text
//! cli.rs        arguments                          cluster.rs   access to the API server
//! name.rs       deploy/shop as it is typed (pure)  workload.rs  the same as an object
//! commands/     one file each: reads, then says    pages.rs     the autoscaler's own pages
//! doctor/       objects in, findings out (pure)    forward.rs   a port of one of its pods
//! gather.rs     what a plan is made from           rights.rs    the rights to read that
//! mesh.rs       the part of that which is Istio's  told.rs      what the autoscaler is told
//! progress.rs   what is waited for                 output.rs    text or JSON, and the exit code
//! components.rs Lull's own pods, for a plan        proxy.rs     the way to the API server (pure)
//! complete.rs   what may stand next (pure)         table.rs, style.rs, words.rs: how it looks (pure)
//! ```
//!
//! Whatever can't be read is named beside what could: a missing right is no reason to say nothing.

mod cli;
mod cluster;
mod commands;
mod complete;
mod components;
mod doctor;
mod forward;
mod gather;
mod mesh;
mod name;
mod output;
mod pages;
mod progress;
mod proxy;
mod rights;
mod style;
mod table;
mod told;
mod words;
mod workload;

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use clap::Parser;

use cli::{Args, Format};
use cluster::Cluster;
use commands::Asked;
use output::{Outcome, Output};
use style::Style;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let outcome = if error.use_stderr() {
                Outcome::Usage
            } else {
                Outcome::Done
            };
            // Where even the message can't be written, the exit code still says it.
            let _ = error.print();
            return outcome.into();
        }
    };
    match start(args) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            Outcome::Failed.into()
        }
    }
}

fn start(args: Args) -> anyhow::Result<Outcome> {
    let Some(command) = commands::without_cluster(args.command)? else {
        return Ok(Outcome::Done);
    };
    // An error says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let access = &args.access;
    let style = Style::for_stdout();
    let output = runtime.block_on(Box::pin(async {
        let cluster = Cluster::connect(access).await?;
        let asked = Asked {
            cluster: &cluster,
            style,
        };
        commands::run(command, asked).await
    }))?;
    print(&output, access.output)?;
    Ok(output.outcome)
}

fn print(output: &Output, format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Text => output.text.clone(),
        Format::Json => serde_json::to_string_pretty(&output.json)? + "\n",
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing the answer"),
    }
}
