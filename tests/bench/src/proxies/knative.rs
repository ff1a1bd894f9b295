//! The queue-proxy of Knative Serving, as its controller would tell it to run.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::process::Command;

use super::Setup;

/// Errors alone, as all the others say.
const LOGGING: &str =
    r#"{"level":"error","encoding":"json","outputPaths":["stdout"],"errorOutputPaths":["stderr"]}"#;

/// One core by the affinity that it inherits. Its pages are at fixed ports: one of it runs at a time.
pub(super) fn command(setup: &Setup<'_>, listen: SocketAddr) -> anyhow::Result<Command> {
    let program = setup.bench.programs.knative.as_ref();
    let mut command = Command::new(program.context("--knative names its binary")?);
    command
        .env_clear()
        .env("QUEUE_SERVING_PORT", listen.port().to_string())
        .env("USER_PORT", setup.app.port().to_string())
        .env("CONTAINER_CONCURRENCY", "0")
        .env("QUEUE_SERVING_TLS_PORT", "0")
        .env("REVISION_TIMEOUT_SECONDS", "300")
        .env("SERVING_POD_IP", setup.app.ip().to_string())
        .env("SERVING_LOGGING_CONFIG", LOGGING)
        .env("SERVING_LOGGING_LEVEL", "error")
        // As it is by default; ours counts requests, too.
        .env("SERVING_REQUEST_METRICS_BACKEND", "prometheus")
        .envs(
            ["NAMESPACE", "CONFIGURATION", "REVISION", "POD"]
                .map(|of| (format!("SERVING_{of}"), "bench")),
        );
    Ok(command)
}
