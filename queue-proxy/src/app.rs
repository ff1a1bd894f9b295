//! Assembly: opens every socket, then runs the two runtimes.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::net::UnixListener as StdUnixListener,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use lull_contract::AppProtocol;
use lull_process::server;
use lull_traces::{Exporter, Traces};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::AccessLog,
    admin::Pages,
    callers::Callers,
    config::Config,
    connection, control,
    drain::{Drain, Plan},
    limiter::{Depth, Limiter},
    metrics::Metrics,
    probe::{self, AppState},
    request::{Gateway, Port},
    traffic::Traffic,
    upstream::Upstream,
};

/// Left for the answers to those who wait for the drain, when its end is also ours.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Longest wait for what is in flight at the very end; the drain leaves 3 s of the grace period.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Where the kernel says how much memory the container may take; `max` where there is no limit
/// (<https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>).
const MEMORY_LIMIT: &str = "/sys/fs/cgroup/memory.max";

/// Why the queue-proxy can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A port can't be opened.
    #[error("port {0} can't be opened: {1}")]
    Listen(u16, #[source] io::Error),
    /// The control socket can't be opened.
    #[error("control socket {0:?} can't be opened (is another queue-proxy in this pod?): {1}")]
    Control(String, #[source] io::Error),
    /// A thread can't be had.
    #[error("a thread can't be started: {0}")]
    Thread(#[source] io::Error),
    /// The second thread ended by itself, which it must not.
    #[error("the admin thread ended")]
    AdminEnded,
}

/// Where an assembled queue-proxy listens.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// Traffic, in the order of the configuration.
    pub traffic: Vec<SocketAddr>,
    /// `/ready` and its kind.
    pub admin: SocketAddr,
    /// The autoscaler's report.
    pub report: SocketAddr,
    /// Prometheus' text.
    pub metrics: SocketAddr,
}

/// A queue-proxy whose sockets are open: callers can connect, nobody answers before
/// [`Bound::run`].
#[derive(Debug)]
pub struct Bound {
    addresses: Addresses,
    traffic: Vec<(TcpListener, AppProtocol, Arc<Port>)>,
    service: Service,
}

/// What the second thread runs. Sockets are std's until they meet the runtime that polls them.
#[derive(Debug)]
struct Service {
    admin: StdTcpListener,
    report: StdTcpListener,
    metrics: StdTcpListener,
    control: StdUnixListener,
    registry: Registry,
    gateway: Arc<Gateway>,
    exporter: Option<Exporter>,
}

/// Opens every socket that `config` names.
///
/// # Errors
/// Where one can't be opened.
pub async fn build(config: Config) -> Result<Bound, AppError> {
    if config.pod_ip.is_loopback() {
        tracing::warn!("QP_POD_IP is loopback: the app may trust callers from there");
    }
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let lost = metrics.access_log_dropped.clone();
    let (traces, exporter) = traces(&config);
    let gateway = Arc::new(Gateway {
        limiter: limiter(&config),
        traffic: Traffic::new(),
        callers: Callers::new(config.name_callers),
        access: if config.access_log {
            AccessLog::to(io::stdout(), lost).map_err(AppError::Thread)?
        } else {
            AccessLog::off(lost)
        },
        traces,
        metrics,
        drain: Drain::new(),
        config: Arc::new(config),
    });
    let config = &gateway.config;
    let mut addresses = Vec::new();
    let mut traffic = Vec::new();
    for port in &config.ports {
        let (listener, address) = listen(port.listen).await?;
        addresses.push(address);
        let app = SocketAddr::new(config.pod_ip, port.app);
        let port_state = Arc::new(Port {
            gateway: Arc::clone(&gateway),
            upstream: Arc::new(Upstream::new(app)),
        });
        traffic.push((listener, port.protocol, port_state));
    }
    let (admin, admin_address) = listen_std(config.admin_port).await?;
    let (report, report_address) = listen_std(config.report_port).await?;
    let (metrics, metrics_address) = listen_std(config.metrics_port).await?;
    let control = control::bind(&config.drain_socket)
        .map_err(|error| AppError::Control(config.drain_socket.clone(), error))?;
    Ok(Bound {
        addresses: Addresses {
            traffic: addresses,
            admin: admin_address,
            report: report_address,
            metrics: metrics_address,
        },
        traffic,
        service: Service {
            admin,
            report,
            metrics,
            control,
            registry,
            gateway,
            exporter,
        },
    })
}

fn limiter(config: &Config) -> Limiter {
    let (limit, depth) = (config.container_concurrency, config.queue_depth);
    Limiter::new(limit, Depth::of(limit, depth, memory_limit()))
}

/// How many bytes of memory this container may take; `None` = no limit, or nobody can say.
fn memory_limit() -> Option<u64> {
    let limit = std::fs::read_to_string(MEMORY_LIMIT).ok()?;
    limit.trim().parse().ok()
}

fn traces(config: &Config) -> (Traces, Option<Exporter>) {
    let endpoint = config.otlp_endpoint.as_ref().map(|it| it.as_str());
    let pod = [
        ("k8s.pod.name", config.pod_name.clone()),
        ("k8s.namespace.name", config.pod_namespace.clone()),
    ];
    lull_traces::traces(endpoint, "lull-queue-proxy", pod)
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), AppError> {
    let fault = |error| AppError::Listen(port, error);
    let listener = server::bind(port).await.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok((listener, address))
}

async fn listen_std(port: u16) -> Result<(StdTcpListener, SocketAddr), AppError> {
    let (listener, address) = listen(port).await?;
    let listener = listener
        .into_std()
        .map_err(|error| AppError::Listen(port, error))?;
    Ok((listener, address))
}

// === impl Bound ===

impl Bound {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves traffic on the current runtime and everything else on a thread of its own, until
    /// `shutdown` is cancelled and the drain, which begins then at the latest, is done.
    ///
    /// # Errors
    /// Where the second thread can't be started, or ends by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AppError> {
        let stop = CancellationToken::new();
        // Whoever drops this future stops the other thread, too.
        let _stop = stop.clone().drop_guard();
        let drain = self.service.gateway.drain.clone();
        let traffic = self.service.gateway.traffic.clone();
        for (listener, protocol, port) in self.traffic {
            tokio::spawn(Arc::clone(&port.upstream).sweep());
            tokio::spawn(connection::accept(listener, protocol, port, stop.clone()));
        }
        let admin_ended = CancellationToken::new();
        let thread = self.service.spawn(stop.clone(), admin_ended.clone())?;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = admin_ended.cancelled() => return Err(AppError::AdminEnded),
        }
        if !drain.is_done() {
            drain.begin();
            tokio::select! {
                () = drain.done() => tokio::time::sleep(LAST_ANSWERS).await,
                () = admin_ended.cancelled() => return Err(AppError::AdminEnded),
            }
        }
        // Late callers may still come between a drain's end and SIGTERM.
        let _ = tokio::time::timeout(LAST_REQUESTS, traffic.idle()).await;
        stop.cancel();
        // The thread saw `stop` and has nothing else to wait for.
        thread.join().map_err(|_| AppError::AdminEnded)
    }
}

// === impl Service ===

impl Service {
    fn spawn(
        self,
        stop: CancellationToken,
        ended: CancellationToken,
    ) -> Result<JoinHandle<()>, AppError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AppError::Thread)?;
        let work = move || {
            // Also when this thread panics: a proxy that nobody can ask is no use.
            let _ended = ended.drop_guard();
            if let Err(error) = runtime.block_on(self.run(stop)) {
                tracing::error!(%error, "admin sockets failed");
            }
        };
        std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(work)
            .map_err(AppError::Thread)
    }

    async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let gateway = self.gateway;
        let exporter = self.exporter;
        let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(stop.clone())));
        let starting = AppState::Down("it has not been asked yet".into());
        let (state_tx, state_rx) = watch::channel(starting);
        let pages = Arc::new(Pages {
            gateway: Arc::clone(&gateway),
            app: state_rx,
            registry: self.registry,
            boot: lull_process::boot_id(),
        });
        let plan = Plan::new(&gateway.config);
        let drain = gateway.drain.clone();
        tokio::spawn(drain.clone().run(plan, gateway.traffic.clone()));
        tokio::spawn(probe::run(Arc::clone(&gateway.config), state_tx));
        let control = UnixListener::from_std(self.control)?;
        tokio::spawn(control::serve(control, drain, stop.clone()));
        serve_pages(
            TcpListener::from_std(self.admin)?,
            &pages,
            &stop,
            Page::Admin,
        );
        serve_pages(
            TcpListener::from_std(self.report)?,
            &pages,
            &stop,
            Page::Report,
        );
        serve_pages(
            TcpListener::from_std(self.metrics)?,
            &pages,
            &stop,
            Page::Metrics,
        );
        stop.cancelled().await;
        if let Some(exporting) = exporting {
            // For the last spans. Its failure would be a panic, which has been logged.
            let _ = exporting.await;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Page {
    Admin,
    Report,
    Metrics,
}

fn serve_pages(listener: TcpListener, pages: &Arc<Pages>, stop: &CancellationToken, page: Page) {
    let pages = Arc::clone(pages);
    let serving = server::serve(listener, stop.clone(), move |request| {
        let pages = Arc::clone(&pages);
        async move {
            let (method, path) = (request.method(), request.uri().path());
            match page {
                Page::Admin => pages.admin(method, path).await,
                Page::Report => pages.report(method, path).await,
                Page::Metrics => pages.metrics(method, path),
            }
        }
    });
    tokio::spawn(serving);
}
