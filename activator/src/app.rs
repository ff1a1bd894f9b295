//! Assembly: opens our own ports, then runs the data plane here and everything else on a thread of
//! its own.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use lull_process::{readiness::Readiness, server};
use lull_traces::Exporter;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    runtime::{self, Handle},
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin::Pages,
    config::Config,
    connection::Gate,
    directory::Directory,
    hub::Hub,
    listen::Listeners,
    metrics::Metrics,
    pulse, records,
    report::Reporter,
    request::Requests,
    trace,
    watch::{self as watches, Guards, Peers},
};

/// What is left of the grace period when we give up: kubelet kills at its end.
const BEFORE_KILL: Duration = Duration::from_secs(5);

/// Why the activator can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A port can't be opened.
    #[error("port {0} can't be opened: {1}")]
    Listen(u16, #[source] io::Error),
    /// The second thread can't be had.
    #[error("the admin thread can't be started: {0}")]
    Thread(#[source] io::Error),
    /// The second thread ended by itself, which it must not.
    #[error("the admin thread ended")]
    AdminEnded,
}

/// Between two looks whether somebody still comes.
const LOOK_FOR_QUIET: Duration = Duration::from_millis(50);

/// Where an assembled activator listens, but for the workloads' ports.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `/ready` and its kind.
    pub admin: SocketAddr,
    /// The autoscaler's report.
    pub report: SocketAddr,
    /// Prometheus' text.
    pub metrics: SocketAddr,
}

/// An activator whose own ports are open.
#[derive(Debug)]
pub struct Bound {
    addresses: Addresses,
    hub: Arc<Hub>,
    directory: Directory,
    service: Service,
}

/// What the second thread runs. Sockets are std's until they meet the runtime that polls them.
#[derive(Debug)]
struct Service {
    admin: StdTcpListener,
    report: StdTcpListener,
    metrics: StdTcpListener,
    pages: Arc<Pages>,
    reporter: Arc<Reporter>,
    hub: Arc<Hub>,
    directory: Directory,
    exporter: Option<Exporter>,
    readiness: Readiness,
}

/// Opens our own ports; the current runtime becomes the data plane's.
///
/// # Errors
/// Where a port can't be opened.
pub async fn build(config: Config) -> Result<Bound, AppError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (traces, exporter) = trace::traces(&config);
    let hub = Arc::new(Hub::new(config, (metrics, traces), Handle::current()));
    let directory = Directory::new(Arc::clone(&hub));
    let readiness = Readiness::default();
    let (admin, admin_address) = listen(hub.config.admin_port).await?;
    let (report, report_address) = listen(hub.config.report_port).await?;
    let (metrics, metrics_address) = listen(hub.config.metrics_port).await?;
    Ok(Bound {
        addresses: Addresses {
            admin: admin_address,
            report: report_address,
            metrics: metrics_address,
        },
        service: Service {
            admin,
            report,
            metrics,
            pages: Arc::new(Pages {
                hub: Arc::clone(&hub),
                directory: directory.clone(),
                readiness: readiness.clone(),
                registry,
            }),
            reporter: Arc::new(Reporter {
                hub: Arc::clone(&hub),
                directory: directory.clone(),
                boot: lull_process::boot_id(),
            }),
            hub: Arc::clone(&hub),
            directory: directory.clone(),
            exporter,
            readiness,
        },
        hub,
        directory,
    })
}

async fn listen(port: u16) -> Result<(StdTcpListener, SocketAddr), AppError> {
    let fault = |error| AppError::Listen(port, error);
    let listener = server::bind(port).await.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok((listener.into_std().map_err(fault)?, address))
}

// === impl Bound ===

impl Bound {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What the watches feed; tests feed it by hand.
    #[must_use]
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Serves until `shutdown` is cancelled and the drain that begins then is done. Without
    /// `kubernetes` nobody but the caller feeds the directory.
    ///
    /// # Errors
    /// Where the second thread can't be started, or ends by itself.
    pub async fn run(
        self,
        shutdown: CancellationToken,
        kubernetes: Option<kube::Config>,
    ) -> Result<(), AppError> {
        self.hub.set_listed(kubernetes.is_none().then_some(0));
        let stop = CancellationToken::new();
        // Whoever drops this future stops the other thread, too.
        let _stop = stop.clone().drop_guard();
        let admin_ended = CancellationToken::new();
        let thread = self
            .service
            .spawn(kubernetes, stop.clone(), admin_ended.clone())?;
        let data = serve(self.hub, self.directory, shutdown);
        tokio::select! {
            () = data => {}
            () = admin_ended.cancelled() => return Err(AppError::AdminEnded),
        }
        stop.cancel();
        // The thread saw `stop` and has nothing else to wait for.
        thread.join().map_err(|_| AppError::AdminEnded)
    }
}

/// The data plane: until `shutdown`, and the drain after it.
async fn serve(hub: Arc<Hub>, directory: Directory, shutdown: CancellationToken) {
    let (draining_tx, draining_rx) = watch::channel(false);
    let gate = Arc::new(Gate {
        hub: Arc::clone(&hub),
        directory: directory.clone(),
        requests: Requests::new(Arc::clone(&hub), draining_rx),
    });
    let connections = TaskTracker::new();
    let close = CancellationToken::new();
    let listeners = Listeners::new(
        Arc::clone(&hub),
        directory,
        Arc::clone(&gate),
        connections.clone(),
    );
    let listening = tokio::spawn(listeners.run(close.clone()));
    let _pulse = hub.spawn(pulse::beat(Arc::clone(&hub)));

    shutdown.cancelled().await;
    let config = &hub.config;
    let drain = config.grace.0.saturating_sub(BEFORE_KILL);
    let (close_by, end) = (Instant::now() + drain * 2 / 3, Instant::now() + drain);
    hub.draining.cancel();
    draining_tx.send_replace(true);
    tracing::info!(held = hub.budget.held().count, "drain begins");
    sleep(config.drain_min.0).await;
    // Who is sent here after we have left every record is served all the same.
    while (hub.is_listed() || hub.quiet_for() < config.drain_quiet.0) && Instant::now() < close_by {
        sleep(LOOK_FOR_QUIET).await;
    }
    tracing::info!(listed = hub.is_listed(), "listeners close");
    close.cancel();
    if let Err(error) = listening.await {
        tracing::error!(%error, "listeners failed");
    }
    gate.requests.close_idle().await;
    connections.close();
    if timeout_at(end, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            held = hub.budget.held().count,
            "grace period is over: what is left is cut off"
        );
    }
}

// === impl Service ===

impl Service {
    fn spawn(
        self,
        kubernetes: Option<kube::Config>,
        stop: CancellationToken,
        ended: CancellationToken,
    ) -> Result<JoinHandle<()>, AppError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AppError::Thread)?;
        let work = move || {
            // Also when this thread panics: a proxy that hears of no changes is no use.
            let _ended = ended.drop_guard();
            if let Err(error) = runtime.block_on(self.run(kubernetes, stop)) {
                tracing::error!(%error, "admin sockets failed");
            }
        };
        std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(work)
            .map_err(AppError::Thread)
    }

    async fn run(
        mut self,
        kubernetes: Option<kube::Config>,
        stop: CancellationToken,
    ) -> Result<(), ServiceError> {
        let watches = kubernetes.map(|config| {
            let guards = Guards {
                workloads: self.readiness.expect("scaled-workloads"),
                pods: self.readiness.expect("pods"),
                activators: self.readiness.expect("activators"),
            };
            (config, guards)
        });
        self.serve_pages(&stop)?;
        let exporter = self.exporter.take();
        // Also where the watches end by themselves.
        let sent = stop.child_token();
        let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(sent.clone())));
        match watches {
            Some((config, guards)) => self.watch(config, guards, &stop).await?,
            None => stop.cancelled().await,
        }
        sent.cancel();
        if let Some(exporting) = exporting {
            // For the last spans. Its failure would be a panic, which has been logged.
            let _ = exporting.await;
        }
        Ok(())
    }

    /// Follows Kubernetes until `stop`.
    async fn watch(
        self,
        config: kube::Config,
        guards: Guards,
        stop: &CancellationToken,
    ) -> Result<(), ServiceError> {
        let client = lull_kubernetes::client(config)?;
        let peers = Peers {
            namespace: self.hub.config.namespace.clone(),
            labels: self.hub.config.peers.clone(),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watches::run(client.clone(), self.directory, peers, guards) => {}
            () = records::follow(client, &self.hub) => {}
        }
        Ok(())
    }

    fn serve_pages(&self, stop: &CancellationToken) -> Result<(), ServiceError> {
        let admin = TcpListener::from_std(self.admin.try_clone()?)?;
        let pages = Arc::clone(&self.pages);
        tokio::spawn(server::serve(admin, stop.clone(), move |request| {
            let pages = Arc::clone(&pages);
            async move { pages.admin(request.method(), request.uri().path()) }
        }));
        let metrics = TcpListener::from_std(self.metrics.try_clone()?)?;
        let pages = Arc::clone(&self.pages);
        tokio::spawn(server::serve(metrics, stop.clone(), move |request| {
            let pages = Arc::clone(&pages);
            async move { pages.metrics(request.method(), request.uri().path()) }
        }));
        let report = TcpListener::from_std(self.report.try_clone()?)?;
        let reporter = Arc::clone(&self.reporter);
        tokio::spawn(server::serve(report, stop.clone(), move |request| {
            let reporter = Arc::clone(&reporter);
            async move {
                let uri = request.uri();
                let query = uri.query().unwrap_or_default();
                reporter.answer(request.method(), uri.path(), query).await
            }
        }));
        Ok(())
    }
}

/// Why the second thread can't work.
#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error("sockets: {0}")]
    Sockets(#[from] io::Error),
    #[error("Kubernetes client: {0}")]
    Client(#[from] kube::Error),
}
