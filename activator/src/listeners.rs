//! One listener for each wanted port, opened and closed as ScaledWorkloads come and go.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use lull_process::server::bind;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{accept, directory::Directory, http::Proxies};

/// How long a port goes on after its workload left: endpoints are slow to be forgotten.
const STRAGGLERS: Duration = Duration::from_secs(30);
/// Between two tries to open a port, and looks at stragglers.
const RETRY: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Keeps listeners in step with the directory.
#[derive(Debug)]
pub struct Listeners {
    directory: Arc<Directory>,
    proxies: Arc<Proxies>,
    bound: Arc<RwLock<HashSet<u16>>>,
    connections: TaskTracker,
}

struct Open {
    stop: CancellationToken,
    unwanted_since: Option<Instant>,
}

// === impl Listeners ===

impl Listeners {
    /// No port open yet.
    #[must_use]
    pub fn new(directory: Arc<Directory>, proxies: Arc<Proxies>) -> Self {
        Self {
            directory,
            proxies,
            bound: Arc::default(),
            connections: TaskTracker::new(),
        }
    }

    /// Ports that are truly listened on.
    #[must_use]
    pub fn bound(&self) -> Arc<RwLock<HashSet<u16>>> {
        Arc::clone(&self.bound)
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> TaskTracker {
        self.connections.clone()
    }

    /// Opens and closes ports until `stop`, then closes all; connections go on.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.directory.changes();
        let mut open: HashMap<u16, Open> = HashMap::new();
        loop {
            self.keep(&mut open).await;
            tokio::select! {
                () = stop.cancelled() => break,
                // An error says that the directory is gone, and we hold it.
                _ = changes.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        for (port, listener) in open {
            listener.stop.cancel();
            self.bound.write().remove(&port);
        }
    }

    async fn keep(&self, open: &mut HashMap<u16, Open>) {
        let wanted: HashSet<u16> = self.directory.wanted_ports().into_iter().collect();
        let mut opened = false;
        for port in &wanted {
            if let Some(listener) = open.get_mut(port) {
                listener.unwanted_since = None;
                continue;
            }
            match bind(*port).await {
                Ok(listener) => {
                    let stop = CancellationToken::new();
                    self.spawn(listener, *port, stop.clone());
                    open.insert(
                        *port,
                        Open {
                            stop,
                            unwanted_since: None,
                        },
                    );
                    self.bound.write().insert(*port);
                    opened = true;
                }
                Err(error) => {
                    self.directory.shared().metrics.bind_failures.inc();
                    tracing::warn!(port, %error, "port can't be opened; tried again");
                }
            }
        }
        open.retain(|port, listener| {
            if wanted.contains(port) {
                return true;
            }
            let since = *listener.unwanted_since.get_or_insert_with(Instant::now);
            let keep = since.elapsed() < STRAGGLERS;
            if !keep {
                listener.stop.cancel();
                self.bound.write().remove(port);
            }
            keep
        });
        let count = i64::try_from(open.len()).unwrap_or(i64::MAX);
        self.directory.shared().metrics.listeners.set(count);
        if opened {
            // The autoscaler waits for this before it lists us.
            self.directory.shared().edge.bump();
        }
    }

    fn spawn(&self, listener: TcpListener, port: u16, stop: CancellationToken) {
        let (directory, proxies) = (Arc::clone(&self.directory), Arc::clone(&self.proxies));
        let connections = self.connections.clone();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        let (directory, proxies) = (Arc::clone(&directory), Arc::clone(&proxies));
                        connections.spawn(accept::serve(stream, port, directory, proxies));
                    }
                    Err(error) => {
                        tracing::warn!(port, %error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }
}
