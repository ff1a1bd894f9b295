//! Ours, as the example `standalone` of its crate runs it.

use std::{net::SocketAddr, path::Path};

use tokio::process::Command;

use super::Setup;
use crate::{Protocol, ports};

/// Where it listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For the workload that is awake.
    pub listen: SocketAddr,
    /// Pages, `/workloads` among them.
    pub admin: SocketAddr,
}

// === impl Ports ===

impl Ports {
    /// With a free port for the pages.
    ///
    /// # Errors
    /// Where none was found.
    pub fn free(listen: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            listen,
            admin: ports::free()?,
        })
    }
}

/// Makes `program` run it before the setup's app, with `asleep` workloads beside that one.
#[must_use]
pub fn command(program: &Path, ports: &Ports, setup: &Setup<'_>, asleep: u32) -> Command {
    let protocol = match setup.protocol {
        Protocol::Http1 | Protocol::H2c => "http",
        Protocol::Bytes => "tcp",
    };
    let mut command = Command::new(program);
    command
        .arg(ports.listen.port().to_string())
        .args([protocol, &setup.app.to_string(), &asleep.to_string()])
        .env_clear()
        .env("ACTIVATOR_POD_NAME", "bench")
        .env("ACTIVATOR_POD_IP", ports.listen.ip().to_string())
        .env("ACTIVATOR_ADMIN_PORT", ports.admin.port().to_string())
        .env("ACTIVATOR_LOG", "error")
        // It ends at once when it is told to.
        .env("ACTIVATOR_DRAIN_MIN", "0s")
        .env("ACTIVATOR_DRAIN_QUIET", "0s")
        .envs(["ACTIVATOR_REPORT_PORT", "ACTIVATOR_METRICS_PORT"].map(|key| (key, "0")));
    command
}
