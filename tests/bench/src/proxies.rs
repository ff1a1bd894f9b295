//! The proxies side by side, each told to do the same job: one core, keep-alive pools, no log,
//! `X-Forwarded-For` added, long timeouts.

mod activator;
mod envoy;
mod haproxy;
mod knative;
mod queue_proxy;

use std::net::SocketAddr;

use tokio::process::Command;

pub use activator::{Ports as ActivatorPorts, command as activator};
pub use queue_proxy::command as queue_proxy;

use crate::{Child, Protocol, bench::Bench, load, ports};

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours, without a limit.
    QueueProxy,
    /// Ours, with a limit of 100 requests at once.
    Limited,
    /// Ours, before one pod that is awake.
    Activator,
    /// HAProxy, one thread.
    Haproxy,
    /// Envoy, one worker.
    Envoy,
    /// Knative's queue-proxy, without a limit.
    Knative,
}

/// What a proxy needs to start.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The run.
    pub bench: &'a Bench,
    /// The app.
    pub app: SocketAddr,
    /// What caller and app speak, and the proxy, but for [`Protocol::Bytes`].
    pub protocol: Protocol,
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

// === impl Kind ===

impl Kind {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueProxy => "queue-proxy",
            Self::Limited => "queue-proxy, limit 100",
            Self::Activator => "activator",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Knative => "Knative's queue-proxy",
        }
    }

    pub(crate) fn command(self, setup: &Setup<'_>, listen: SocketAddr) -> anyhow::Result<Command> {
        let ours = &setup.bench.programs.ours;
        match self {
            Self::QueueProxy => Ok(queue_proxy(ours, listen, setup.app, 0)),
            Self::Limited => Ok(queue_proxy(ours, listen, setup.app, 100)),
            Self::Activator => {
                let ports = activator::Ports::free(listen)?;
                Ok(activator::command(ours, &ports, setup, 0))
            }
            Self::Haproxy => haproxy::command(setup, listen),
            Self::Envoy => envoy::command(setup, listen),
            Self::Knative => knative::command(setup, listen),
        }
    }
}

// === impl Proxy ===

impl Proxy {
    /// Starts it on the proxy's core and waits until it forwards.
    ///
    /// # Errors
    /// Where it doesn't start.
    pub async fn start(kind: Kind, setup: &Setup<'_>) -> anyhow::Result<Self> {
        let address = ports::free()?;
        let command = kind.command(setup, address)?;
        let mut child = setup
            .bench
            .cores
            .on_proxy_core(|| Child::spawn(kind.name(), command))?;
        load::first_answer(address, setup.protocol, &mut child).await?;
        Ok(Self { address, child })
    }

    /// Its process.
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Kills it.
    ///
    /// # Errors
    /// Where it has ended by itself, or can't be killed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.child.check()?;
        self.child.stop().await
    }
}
