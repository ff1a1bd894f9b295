//! Assembly and life of the process.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use kube::Client;
use lull_process::{readiness::Readiness, server};
use prometheus_client::registry::Registry;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::Admin,
    config::Config,
    directory::{Directory, Shared},
    http::Proxies,
    listeners::Listeners,
    metrics::Metrics,
    report::Reporter,
    watch,
};

/// An activator whose small ports are open; nothing is known and no traffic port is open yet.
#[derive(Debug)]
pub struct Bound {
    /// Admin, report, metrics.
    pub addresses: [SocketAddr; 3],
    /// What is known: watches feed it, or tests.
    pub directory: Arc<Directory>,
    /// What is missing before it is ready.
    pub readiness: Readiness,
    config: Arc<Config>,
    proxies: Arc<Proxies>,
    connections: TaskTracker,
    /// Ends the small servers.
    servers: CancellationToken,
    /// Closes the traffic ports.
    listening: CancellationToken,
    draining: CancellationToken,
}

/// Opens the small ports and starts everything but the watches.
///
/// # Errors
/// Where a port is taken.
pub async fn build(config: Config) -> anyhow::Result<Bound> {
    let config = Arc::new(config);
    let mut registry = Registry::default();
    let bounds = (config.max_held_per_workload, config.max_held_total);
    let shared = Arc::new(Shared::new(Metrics::register(&mut registry), bounds));
    let directory = Arc::new(Directory::new(shared));
    let proxies = Arc::new(Proxies::new(&directory));
    let listeners = Listeners::new(Arc::clone(&directory), Arc::clone(&proxies));
    let reporter = Reporter::new(&config.pod_name, Arc::clone(&directory), listeners.bound());
    let connections = listeners.connections();
    let (servers, listening) = (CancellationToken::new(), CancellationToken::new());
    let (readiness, draining) = (Readiness::default(), CancellationToken::new());
    let admin = Admin {
        config: Arc::clone(&config),
        directory: Arc::clone(&directory),
        readiness: readiness.clone(),
        draining: draining.clone(),
    };

    let admin_port = server::bind(config.admin_port)
        .await
        .context("admin port")?;
    let report_port = server::bind(config.report_port)
        .await
        .context("report port")?;
    let metrics_port = server::bind(config.metrics_port)
        .await
        .context("metrics port")?;
    let addresses = [
        admin_port.local_addr()?,
        report_port.local_addr()?,
        metrics_port.local_addr()?,
    ];
    tokio::spawn(server::serve(admin_port, servers.clone(), move |r| {
        admin.clone().answer(r)
    }));
    tokio::spawn(reporter.clone().tell_again());
    tokio::spawn(server::serve(report_port, servers.clone(), move |r| {
        reporter.clone().answer(r)
    }));
    let registry = Arc::new(registry);
    tokio::spawn(server::serve(metrics_port, servers.clone(), move |_| {
        let registry = Arc::clone(&registry);
        async move { server::metrics(&registry) }
    }));
    tokio::spawn(listeners.run(listening.clone()));
    Ok(Bound {
        addresses,
        directory,
        readiness,
        config,
        proxies,
        connections,
        servers,
        listening,
        draining,
    })
}

// === impl Bound ===

impl Bound {
    /// Watches the cluster and serves until `stop`, then drains.
    pub async fn run(self, client: &Client, stop: CancellationToken) {
        watch::start(client, &self.directory, &self.readiness);
        stop.cancelled().await;
        self.drain().await;
    }

    /// Not ready at once; accepts until it is unlisted everywhere; then what is held or under way
    /// gets the rest of the grace period.
    pub async fn drain(self) {
        self.draining.cancel();
        self.proxies.drain();
        tokio::time::sleep(self.config.drain_min.0).await;
        self.listening.cancel();
        self.connections.close();
        let rest = self.config.drain_rest();
        if tokio::time::timeout(rest, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = self.connections.len(),
                "connections are cut: the grace period ends"
            );
        }
        self.servers.cancel();
    }
}
