//! One file for each command: what it reads, what it does, and what it says.

mod doctor;
mod history;
mod list;
mod plan;
mod sleep;
mod switch;
mod ui;
mod wait;
mod wake;
mod why;

use std::io::Write;

use anyhow::Context;
use clap::CommandFactory;

use crate::{
    cli::{Args, Command},
    cluster::Cluster,
    complete,
    output::Output,
    style::Style,
};

/// What every command is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The cluster.
    pub(crate) cluster: &'a Cluster,
    /// How its text looks.
    pub(crate) style: Style,
}

/// Does what needs no cluster; else gives the command back.
///
/// # Errors
/// Where the answer can't be written.
pub(crate) fn without_cluster(command: Command) -> anyhow::Result<Option<Command>> {
    let text = match &command {
        Command::Completions => complete::SCRIPT.to_owned(),
        Command::Complete { words } => complete::answer(&Args::command(), words),
        _ => return Ok(Some(command)),
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.context("writing the answer").map(|()| None)
}

/// Does what was asked for.
///
/// # Errors
/// Why it could not be done.
pub(crate) async fn run(command: Command, asked: Asked<'_>) -> anyhow::Result<Output> {
    match command {
        Command::List(args) => Box::pin(list::run(asked, args)).await,
        Command::Plan(which) => Box::pin(plan::run(asked, &which)).await,
        Command::On(args) => Box::pin(switch::on(asked, &args)).await,
        Command::Off(args) => Box::pin(switch::off(asked, &args)).await,
        Command::Why(which) => Box::pin(why::run(asked, &which)).await,
        Command::Wake(args) => Box::pin(wake::run(asked, &args)).await,
        Command::Sleep(args) => Box::pin(sleep::run(asked, &args)).await,
        Command::History(which) => Box::pin(history::run(asked, &which)).await,
        Command::Doctor => Box::pin(doctor::run(asked)).await,
        Command::Ui(args) => Box::pin(ui::run(asked, args)).await,
        Command::Completions | Command::Complete { .. } => {
            anyhow::bail!("it needs no cluster, and is done before")
        }
    }
}
