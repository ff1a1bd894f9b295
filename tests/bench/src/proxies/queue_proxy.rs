//! Ours.

use std::{net::SocketAddr, process::Stdio};

use tokio::process::Command;

use super::Setup;

pub(super) fn command(setup: &Setup<'_>, listen: SocketAddr, limit: u32) -> Command {
    let (port, app) = (listen.port(), setup.app.port());
    let mut command = Command::new(&setup.bench.programs.queue_proxy);
    command
        .env_clear()
        .env("QP_PORTS", format!("{port}={app}/http"))
        .env("QP_POD_IP", setup.app.ip().to_string())
        .env("QP_POD_NAME", "bench")
        .env("QP_POD_NAMESPACE", "bench")
        .env("QP_CONTAINER_CONCURRENCY", limit.to_string())
        // An abstract name, which must differ from every other's on this machine.
        .env(
            "QP_DRAIN_SOCKET",
            format!("lull-bench-{}-{port}", std::process::id()),
        )
        .env("QP_LOG", "warn")
        .envs(["QP_ADMIN_PORT", "QP_REPORT_PORT", "QP_METRICS_PORT"].map(|key| (key, "0")))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
