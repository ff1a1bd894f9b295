//! `queue-proxy [serve]` runs the sidecar; `queue-proxy drain` is its pod's preStop;
//! `queue-proxy log-level [FILTER]` shows or changes what it logs.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use lull_process::{
    env::{EXIT_USAGE, ProcessEnv},
    logging, shutdown,
};
use queue_proxy::{
    app::AppError,
    config::{self, Config},
    control::{self, DrainEnd, LogLevelEnd},
};
use tokio::runtime;

/// Why the process ends other than by order.
#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error("the runtime can't be started: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("signals can't be caught: {0}")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    App(#[from] AppError),
    #[error("the drain can't be begun: {0}")]
    Drain(#[source] std::io::Error),
    #[error("the log filter can't be asked for: {0}")]
    LogLevel(#[source] std::io::Error),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (command, argument) = (arguments.next(), arguments.next());
    let result = match command.as_deref() {
        None | Some("serve") => match Config::read(&ProcessEnv) {
            Ok(config) => serve(config),
            Err(faults) => {
                eprintln!("{faults}");
                return ExitCode::from(EXIT_USAGE);
            }
        },
        Some("drain") => drain(),
        Some("log-level") => match log_level(argument.as_deref()) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Some(other) => {
            eprintln!("{other:?} is not a command: use serve (the default), drain or log-level");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("queue-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The data plane has this thread for itself.
fn serve(config: Config) -> Result<(), MainError> {
    logging::init(&config.log, config.log_json);
    current_thread()?.block_on(async {
        let stop = shutdown::on_signal().map_err(MainError::Signals)?;
        let settings = serde_json::to_string(&config).unwrap_or_default();
        let bound = queue_proxy::build(config).await?;
        let listens = serde_json::to_string(bound.addresses()).unwrap_or_default();
        tracing::info!(%listens, %settings, "queue-proxy starts");
        bound.run(stop).await?;
        tracing::info!("queue-proxy ends");
        Ok(())
    })
}

fn drain() -> Result<(), MainError> {
    let name = config::drain_socket(&ProcessEnv);
    let end = current_thread()?
        .block_on(control::drain(&name))
        .map_err(MainError::Drain)?;
    match end {
        DrainEnd::Done => {}
        DrainEnd::Gone => eprintln!("the queue-proxy ended before its drain was done"),
        DrainEnd::NotRunning => eprintln!("no queue-proxy listens on {name:?}: nothing to drain"),
    }
    Ok(())
}

fn log_level(filter: Option<&str>) -> Result<ExitCode, MainError> {
    let name = config::drain_socket(&ProcessEnv);
    let end = current_thread()?
        .block_on(control::log_level(&name, filter))
        .map_err(MainError::LogLevel)?;
    match end {
        LogLevelEnd::Is(filter) => {
            writeln!(io::stdout(), "{filter}").map_err(MainError::LogLevel)?;
        }
        LogLevelEnd::Set => {}
        LogLevelEnd::Refused(why) => {
            eprintln!("{why}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
        LogLevelEnd::NotRunning => {
            eprintln!("no queue-proxy listens on {name:?}");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn current_thread() -> Result<runtime::Runtime, MainError> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MainError::Runtime)
}
