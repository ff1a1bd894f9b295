//! The app behind the proxies.

use std::{net::SocketAddr, path::Path};

use anyhow::Context as _;
use tokio::process::Command;

use crate::{Child, load, ports};

/// Path of an answer of 256 MiB.
pub const LARGE: &str = "/large";
/// Length of that answer, bytes.
const LARGE_BYTES: u64 = 256 << 20;

/// What caller, proxy and app speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 by prior knowledge.
    H2c,
    /// HTTP/1.1 between caller and app, of which the proxy knows nothing: it passes bytes.
    Bytes,
}

/// nginx, one process, that answers everything with 1 KiB.
#[derive(Debug)]
pub struct Nginx {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

// === impl Nginx ===

impl Nginx {
    /// Starts it on the cores for load and waits until it answers.
    ///
    /// # Errors
    /// Where it doesn't start.
    pub async fn start(scratch: &Path, protocol: Protocol) -> anyhow::Result<Self> {
        let address = ports::free()?;
        let config = scratch.join(format!("nginx-{}.conf", address.port()));
        let large = scratch.join(LARGE.trim_start_matches('/'));
        std::fs::File::create(&large)
            .and_then(|file| file.set_len(LARGE_BYTES))
            .with_context(|| format!("make {}", large.display()))?;
        std::fs::write(&config, configuration(scratch, address, protocol))
            .with_context(|| format!("write {}", config.display()))?;
        let mut command = Command::new("nginx");
        command.arg("-e").arg(scratch.join("nginx.log"));
        command.arg("-p").arg(scratch).arg("-c").arg(&config);
        let mut child = Child::spawn("nginx", command)?;
        load::first_answer(address, protocol, &mut child).await?;
        Ok(Self { address, child })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Where it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.child.check()
    }
}

fn configuration(scratch: &Path, address: SocketAddr, protocol: Protocol) -> String {
    let http2 = match protocol {
        Protocol::Http1 | Protocol::Bytes => "",
        Protocol::H2c => " http2",
    };
    let body = "0123456789abcdef".repeat(64);
    // Temporary files: Debian's default folders are root's.
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {};\n", scratch.join(kind).display()))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {};\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n{temp}  access_log off;\n  keepalive_timeout 1h;\n  \
         keepalive_requests 1000000000;\n  \
         server {{\n    listen {address}{http2} backlog=4096;\n    \
         location {LARGE} {{ root {root}; sendfile on; }}\n    \
         location / {{ default_type text/plain; return 200 \"{body}\"; }}\n  }}\n}}\n",
        scratch
            .join(format!("nginx-{}.pid", address.port()))
            .display(),
        root = scratch.display(),
    )
}
