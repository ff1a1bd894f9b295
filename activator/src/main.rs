//! Lull's activator.

use std::process::ExitCode;

use activator::{app, config::Config};
use anyhow::Context;
use lull_process::{
    env::{EXIT_USAGE, ProcessEnv},
    logging, shutdown,
};

fn main() -> ExitCode {
    let config = match Config::read(&ProcessEnv) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    logging::init(&config.log, config.log_json);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = shutdown::on_signal().context("signal handlers")?;
        let client = kube::Client::try_default()
            .await
            .context("no access to a Kubernetes API server")?;
        let bound = app::build(config).await?;
        tracing::info!(addresses = ?bound.addresses, "activator is up");
        bound.run(&client, stop).await;
        Ok(())
    })
}
