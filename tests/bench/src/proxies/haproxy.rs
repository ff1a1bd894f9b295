//! HAProxy.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::process::Command;

use super::Setup;
use crate::Protocol;

pub(super) fn command(setup: &Setup<'_>, listen: SocketAddr) -> anyhow::Result<Command> {
    let path = setup
        .bench
        .scratch
        .path()
        .join(format!("haproxy-{}.cfg", listen.port()));
    std::fs::write(&path, configuration(setup, listen))
        .with_context(|| format!("write {}", path.display()))?;
    let mut command = Command::new("haproxy");
    command.arg("-q").arg("-db").arg("-f").arg(path);
    Ok(command)
}

fn configuration(setup: &Setup<'_>, listen: SocketAddr) -> String {
    let http = "http\n  timeout http-keep-alive 1h\n  option forwardfor\n  http-reuse always";
    let (mode, proto) = match setup.protocol {
        Protocol::Http1 => (http, ""),
        Protocol::H2c => (http, " proto h2"),
        Protocol::Bytes => ("tcp", ""),
    };
    format!(
        "global\n  nbthread 1\n  maxconn 11000\n  no strict-limits\n\
         defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 300s\n\
         listen bench\n  bind {listen}{proto}\n  server app {}{proto}\n",
        setup.app,
    )
}
