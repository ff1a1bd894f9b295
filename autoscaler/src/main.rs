//! Lull's autoscaler.

use std::process::ExitCode;

use anyhow::Context;
use autoscaler::{
    app, canary,
    config::{Args, Command},
    restore, uninstall,
};
use clap::Parser;
use lull_contract::scaled_workload;
use lull_process::{env::EXIT_USAGE, logging};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            // Where even the message can't be written, the exit code still says it.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    logging::init(&args.log, args.log_json);
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    if matches!(args.command, Some(Command::Crd)) {
        use std::io::Write;
        let crd = serde_json::to_string_pretty(&scaled_workload::crd()?)?;
        return writeln!(std::io::stdout(), "{crd}").context("writing the CRD");
    }
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider is there already");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args.command.clone() {
            Some(Command::Uninstall {
                webhook_configuration,
                timeout,
            }) => {
                let scope = uninstall::Scope {
                    targets: &args.targets.0,
                    namespaces: &args.namespaces.clone().beside(&args.namespace),
                };
                uninstall::run(scope, &webhook_configuration, timeout.0).await
            }
            Some(Command::Restore {
                webhook_configuration,
                timeout,
                dry_run,
            }) => {
                restore::run(&restore::Options {
                    targets: &args.targets.0,
                    namespace: &args.namespace,
                    webhook_configuration: &webhook_configuration,
                    timeout: timeout.0,
                    dry_run,
                })
                .await
            }
            Some(Command::Canary(canary)) => canary::run(&canary, &args.namespace).await,
            Some(Command::CanaryApp { port }) => canary::serve(port).await,
            _ => app::run(args).await,
        }
    })
}
