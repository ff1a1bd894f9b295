//! The activator binary; see the library for what it does.

use std::process::ExitCode;

use activator::Config;
use anyhow::Context;
use lull_process::{
    env::{EXIT_USAGE, ProcessEnv},
    logging, shutdown,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

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
        .build()
        .context("tokio runtime")?;
    let result = runtime.block_on(serve(config));
    // What the drain has cut off is not waited for.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = shutdown::on_signal().context("signal handlers")?;
    let term = signal(SignalKind::terminate()).context("signal handlers")?;
    let int = signal(SignalKind::interrupt()).context("signal handlers")?;
    let kubernetes = kube::Config::infer().await.context("kubernetes config")?;
    tracing::info!(?config, "activator starts");
    let bound = activator::build(config).await?;
    tokio::select! {
        result = bound.run(stop, Some(kubernetes)) => {
            result?;
            tracing::info!("activator ends");
            Ok(())
        }
        () = second(term, int) => anyhow::bail!("second signal: aborted"),
    }
}

/// Returns at the second signal; the first begins the drain.
async fn second(mut term: Signal, mut int: Signal) {
    for _ in 0..2 {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}
