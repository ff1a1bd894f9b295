//! `sample-app serve` is the app that the tests put to sleep; `sample-app agent` is the load client
//! that runs beside it in the cluster, `sample-app get` one request by hand; `sample-app metrics-api`
//! is a metric to scale by.

use anyhow::Context as _;
use clap::Parser;
use lull_process::logging::{self, LogFilter};
use sample_app::{agent, metrics_api, serve};

/// Test app and load client of Lull's e2e suite.
#[derive(Debug, Parser)]
enum Command {
    /// Run the app.
    Serve(serve::ServeArgs),
    /// Run the load client.
    Agent(agent::AgentArgs),
    /// Send one request and say what came back.
    Get(agent::GetArgs),
    /// Run the external metrics API.
    MetricsApi(metrics_api::MetricsApiArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    logging::init(&LogFilter::info(), false);
    let stop = lull_process::shutdown::on_signal().context("install signal handlers")?;
    match Command::parse() {
        Command::Serve(args) => serve::run(args, stop).await,
        Command::Agent(args) => agent::run(&args, stop).await,
        Command::Get(args) => agent::get(&args).await,
        Command::MetricsApi(args) => metrics_api::run(&args, stop).await,
    }
}
