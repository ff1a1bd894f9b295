//! Ours.

use std::{net::SocketAddr, path::Path};

use tokio::process::Command;

/// Makes `program`, which runs the queue-proxy, run it at `listen` before `app` with a `limit` of
/// requests at once (0 = none).
#[must_use]
pub fn command(program: &Path, listen: SocketAddr, app: SocketAddr, limit: u32) -> Command {
    let (ip, port) = (app.ip(), listen.port());
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("QP_PORTS", format!("{port}={}/http", app.port()))
        .env("QP_POD_IP", ip.to_string())
        .env("QP_POD_NAME", "bench")
        .env("QP_POD_NAMESPACE", "bench")
        .env("QP_CONTAINER_CONCURRENCY", limit.to_string())
        // An abstract name, which must differ from every other's on this machine.
        .env(
            "QP_DRAIN_SOCKET",
            format!("lull-bench-{}-{port}", std::process::id()),
        )
        // It ends at once when it is told to.
        .env("QP_DRAIN_MIN", "0s")
        .env("QP_DRAIN_QUIET", "0s")
        .env("QP_LOG", "error")
        .envs(["QP_ADMIN_PORT", "QP_REPORT_PORT", "QP_METRICS_PORT"].map(|key| (key, "0")));
    command
}
