//! The app: answers requests, and can be slow to come up, never come up, or fall ill on demand.

mod handler;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use lull_contract::HumanDuration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// From the stop on, answers ask callers to close for so long; then idle connections are closed.
///
/// A server that closes them at once loses the requests that are on their way, in any rollout.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How the app behaves.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// HTTP port; may be given several times.
    #[arg(long = "port", default_values_t = [8080])]
    pub ports: Vec<u16>,
    /// A port on which the server speaks first (a greeting line) and then echoes.
    #[arg(long)]
    pub tcp_port: Option<u16>,
    /// Wait this long before listening.
    #[arg(long, default_value = "0s")]
    pub delay_listen: HumanDuration,
    /// Listen at 127.0.0.1 alone.
    #[arg(long)]
    pub loopback: bool,
    /// Never listen: stay until SIGTERM.
    #[arg(long)]
    pub never_listen: bool,
    /// Answer 503 on /healthz for this long after the start of listening.
    #[arg(long, default_value = "0s")]
    pub startup_ready_after: HumanDuration,
    /// Listen on IPv4 alone, as apps do that are told 0.0.0.0.
    #[arg(long)]
    pub ipv4_only: bool,
}

/// The state of one running app.
#[derive(Debug)]
pub struct App {
    pod: String,
    ready_at: Instant,
    live: AtomicBool,
    requests: AtomicU64,
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
    tasks: TaskTracker,
}

/// Counts one request as in flight until dropped.
struct InFlight<'a> {
    app: &'a App,
    /// In flight with this one.
    now: u64,
}

/// Runs the app until `stop` is cancelled and what is in flight has ended.
///
/// # Errors
/// Where a port can't be opened.
pub async fn run(args: ServeArgs, stop: CancellationToken) -> anyhow::Result<()> {
    if args.never_listen {
        tracing::info!("never listening, as asked");
        stop.cancelled().await;
        return Ok(());
    }
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = tokio::time::sleep(args.delay_listen.0) => {}
    }
    let place = match (args.loopback, args.ipv4_only) {
        (true, _) => Some(Ipv4Addr::LOCALHOST),
        (false, true) => Some(Ipv4Addr::UNSPECIFIED),
        (false, false) => None,
    };
    let mut listeners = Vec::new();
    for port in args.ports {
        listeners.push(listen(port, place).await?);
    }
    let tcp = match args.tcp_port {
        Some(port) => Some(listen(port, place).await?),
        None => None,
    };
    let app = App::new(pod_name(), args.startup_ready_after.0);
    tracing::info!(pod = app.pod, "listening");
    app.serve(listeners, tcp, stop).await;
    Ok(())
}

/// Listens at `place`; without one on every address of either family.
async fn listen(port: u16, place: Option<Ipv4Addr>) -> anyhow::Result<TcpListener> {
    let listener = match place {
        Some(address) => TcpListener::bind((address, port)).await,
        None => lull_process::server::bind(port).await,
    };
    listener.with_context(|| format!("listen on port {port}"))
}

/// `POD_NAME`, else the host's name, which Kubernetes makes the pod's.
fn pod_name() -> String {
    let named = |key| {
        std::env::var(key)
            .ok()
            .filter(|name: &String| !name.is_empty())
    };
    named("POD_NAME")
        .or_else(|| named("HOSTNAME"))
        .unwrap_or_else(|| "unknown".to_owned())
}

// === impl App ===

impl App {
    /// An app that is ready `ready_after` from now.
    #[must_use]
    pub fn new(pod: String, ready_after: Duration) -> Arc<Self> {
        Arc::new(Self {
            pod,
            ready_at: Instant::now() + ready_after,
            live: AtomicBool::new(true),
            requests: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            max_in_flight: AtomicU64::new(0),
            tasks: TaskTracker::new(),
        })
    }

    /// Serves HTTP on `listeners` and the greeting on `tcp` until `stop`; then lets what is in
    /// flight end.
    pub async fn serve(
        self: &Arc<Self>,
        listeners: Vec<TcpListener>,
        tcp: Option<TcpListener>,
        stop: CancellationToken,
    ) {
        for listener in listeners {
            let port = listener.local_addr().map_or(0, |addr| addr.port());
            let (app, stop) = (Arc::clone(self), stop.clone());
            self.tasks.spawn(async move {
                while let Some(stream) = accept(&listener, &stop).await {
                    app.tasks
                        .spawn(connection(Arc::clone(&app), port, stream, stop.clone()));
                }
            });
        }
        if let Some(listener) = tcp {
            let (app, stop) = (Arc::clone(self), stop.clone());
            self.tasks.spawn(async move {
                while let Some(stream) = accept(&listener, &stop).await {
                    let greeting = format!("hello from {}\n", app.pod);
                    app.tasks.spawn(greet(stream, greeting));
                }
            });
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn count(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_in_flight.fetch_max(now, Ordering::Relaxed);
        InFlight { app: self, now }
    }
}

// === impl InFlight ===

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.app.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.app.requests.fetch_add(1, Ordering::Relaxed);
    }
}

/// The next connection; none once `stop` is cancelled.
pub(crate) async fn accept(listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // A failure only means that this socket waits for more bytes before it sends.
                let _ = stream.set_nodelay(true);
                return Some(stream);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(app: Arc<App>, port: u16, stream: TcpStream, stop: CancellationToken) {
    let stopping = stop.clone();
    let service = service_fn(move |request| {
        let (app, closes) = (Arc::clone(&app), stopping.is_cancelled());
        handler::answer(app, port, closes, request)
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = after_last_answers(&stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn after_last_answers(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_ANSWERS).await;
}

async fn greet(mut stream: TcpStream, greeting: String) {
    if stream.write_all(greeting.as_bytes()).await.is_ok() {
        echo(stream).await;
    }
}

/// Sends back what comes until the other side is done.
async fn echo(stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let (mut from, mut to) = tokio::io::split(stream);
    // Either side going away ends it; there is nobody to tell.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}
