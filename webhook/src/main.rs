//! The webhook binary; see the library for what it does.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lull_process::{env::EXIT_USAGE, logging, shutdown};
use webhook::{app, config::Args};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to tell if even this can't be written.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    logging::init(&args.log, args.log_json);
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("tokio runtime")?;
    runtime.block_on(async {
        let stop = shutdown::on_signal().context("signal handlers")?;
        let client = lull_kubernetes::connect()
            .await
            .context("kubernetes client")?;
        app::run(args, &client, stop).await.map_err(Into::into)
    })
}
