//! Opens and closes the workloads' ports as they come and go, each without touching the others.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lull_process::server;
use parking_lot::RwLock;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    connection::{Gate, Route},
    directory::{Directory, Wanted},
    hub::Hub,
    keepalive,
};

/// How long a port stays open after its workload has left, and after the last one who still came:
/// callers hear of it late.
const LINGER: Duration = Duration::from_secs(30);
/// But no longer than this: as long as a port rests before another workload gets it.
const LINGER_MOST: Duration = Duration::from_secs(15 * 60);
/// Between two looks at ports that can't be opened and at those that are to be closed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// All open ports.
#[derive(Debug)]
pub(crate) struct Listeners {
    hub: Arc<Hub>,
    directory: Directory,
    gate: Arc<Gate>,
    /// Runs one task per connection.
    connections: TaskTracker,
    open: HashMap<PortKey, Open>,
}

/// Ports are known by number; those that may be any (tests) by whom they are for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum PortKey {
    Number(u16),
    Any(String, String, u16),
}

#[derive(Debug)]
struct Open {
    port: Arc<Port>,
    /// Nobody wants it any more since then.
    unwanted_since: Option<Instant>,
    /// Closes the port when it is dropped.
    _close: DropGuard,
}

/// What is known of an open port to those who accept on it, too.
#[derive(Debug)]
struct Port {
    /// Whom new connections are for; another workload may take over the port while it is open.
    route: RwLock<Route>,
    /// When somebody came last, [`Hub::now_us`].
    came_us: AtomicU64,
}

// === impl Listeners ===

impl Listeners {
    pub(crate) fn new(
        hub: Arc<Hub>,
        directory: Directory,
        gate: Arc<Gate>,
        connections: TaskTracker,
    ) -> Self {
        Self {
            hub,
            directory,
            gate,
            connections,
            open: HashMap::new(),
        }
    }

    /// Follows the directory until `stop`, then closes every port.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.directory.changes();
        loop {
            changes.mark_unchanged();
            let again = self.reconcile().await;
            tokio::select! {
                () = stop.cancelled() => break,
                // The sender lives as long as the directory that we hold.
                _ = changes.changed() => {}
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
        for (_, open) in self.open.drain() {
            open.port.route.read().closes();
        }
        self.hub.metrics.listeners.set(0);
    }

    /// When it has to look again, where nothing changes.
    async fn reconcile(&mut self) -> Option<Duration> {
        let mut wanted: HashMap<PortKey, Wanted> = HashMap::new();
        for port in self.directory.wanted() {
            let key = PortKey::of(&port);
            let taken = wanted.contains_key(&key);
            // Two workloads with one number: who has it keeps it.
            if !taken || self.is_open_for(&key, &port) {
                wanted.insert(key, port);
            }
        }
        let all_open = self.open_wanted(&wanted).await;
        let none_unwanted = self.close_unwanted(&wanted);
        let none_left = self.forget_left();
        self.hub.metrics.listeners.set(self.open.len() as u64);
        match (all_open && none_unwanted, none_left) {
            (true, true) => None,
            // An idle connection may last.
            (true, false) => Some(LINGER),
            (false, _) => Some(LOOK_AGAIN),
        }
    }

    fn is_open_for(&self, key: &PortKey, port: &Wanted) -> bool {
        self.open
            .get(key)
            .is_some_and(|open| Arc::ptr_eq(&open.port.route.read().workload, &port.workload))
    }

    async fn open_wanted(&mut self, wanted: &HashMap<PortKey, Wanted>) -> bool {
        let mut all = true;
        let mut opened = false;
        for (key, port) in wanted {
            if let Some(open) = self.open.get_mut(key) {
                open.take_over(port);
                continue;
            }
            match self.open_port(port).await {
                Ok(open) => {
                    self.open.insert(key.clone(), open);
                    opened = true;
                }
                Err(error) => {
                    all = false;
                    self.hub.metrics.bind_failures.inc();
                    let (namespace, name) = (&port.workload.namespace, &port.workload.name);
                    let number = port.port.activator_port;
                    tracing::warn!(%namespace, %name, number, %error, "port can't be opened");
                }
            }
        }
        if opened {
            // The autoscaler waits for ports to be confirmed.
            self.hub.raise_edge();
        }
        all
    }

    async fn open_port(&self, wanted: &Wanted) -> std::io::Result<Open> {
        let listener = server::bind(wanted.port.activator_port).await?;
        // A failure only means that a caller who is gone stays longer.
        let _ = keepalive::ask(&listener);
        let address = listener.local_addr()?;
        let port = Arc::new(Port {
            route: RwLock::new(Route::new(wanted, address)),
            came_us: AtomicU64::new(0),
        });
        let close = CancellationToken::new();
        self.connections.spawn(accept(
            listener,
            Arc::clone(&port),
            Arc::clone(&self.gate),
            self.connections.clone(),
            close.clone(),
        ));
        wanted.workload.listens(wanted.port.app_port, address);
        let (namespace, name) = (&wanted.workload.namespace, &wanted.workload.name);
        tracing::debug!(%namespace, %name, app_port = wanted.port.app_port, %address, "port is open");
        Ok(Open {
            port,
            unwanted_since: None,
            _close: close.drop_guard(),
        })
    }

    /// False where one is left to be closed.
    fn close_unwanted(&mut self, wanted: &HashMap<PortKey, Wanted>) -> bool {
        let (now, now_us) = (Instant::now(), self.hub.now_us());
        self.open.retain(|key, open| {
            if wanted.contains_key(key) {
                return true;
            }
            let since = *open.unwanted_since.get_or_insert(now);
            let came_us = open.port.came_us.load(Ordering::Relaxed);
            let quiet = Duration::from_micros(now_us.saturating_sub(came_us));
            let stays = lingers(now.duration_since(since), quiet);
            if !stays {
                open.port.route.read().closes();
            }
            stays
        });
        self.open.values().all(|open| open.unwanted_since.is_none())
    }

    /// Forgets who has left, but for those whom somebody still means: who came by a port or a
    /// connection of theirs must hear of new pods. False where there are such.
    fn forget_left(&self) -> bool {
        let mut none_left = true;
        for workload in self.directory.left() {
            // The directory's, and the one here.
            match Arc::strong_count(&workload) <= 2 {
                true => self.directory.forget(&workload),
                false => none_left = false,
            }
        }
        none_left
    }
}

/// Whether a port stays open that has been `unwanted` for so long, and on which nobody has come for so
/// long.
fn lingers(unwanted: Duration, quiet: Duration) -> bool {
    unwanted < LINGER || (quiet < LINGER && unwanted < LINGER_MOST)
}

async fn accept(
    listener: TcpListener,
    port: Arc<Port>,
    gate: Arc<Gate>,
    connections: TaskTracker,
    close: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = close.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                port.came_us.store(gate.hub.connected(), Ordering::Relaxed);
                let (gate, route) = (Arc::clone(&gate), port.route.read().clone());
                connections.spawn(gate.serve(stream, peer, route));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

// === impl Open ===

impl Open {
    fn take_over(&mut self, wanted: &Wanted) {
        self.unwanted_since = None;
        let mut route = self.port.route.write();
        let same = Arc::ptr_eq(&route.workload, &wanted.workload) && route.port == wanted.port;
        if !same {
            let address: SocketAddr = route.address;
            route.closes();
            *route = Route::new(wanted, address);
            route.workload.listens(route.port.app_port, address);
        }
    }
}

// === impl PortKey ===

impl PortKey {
    fn of(wanted: &Wanted) -> Self {
        match wanted.port.activator_port {
            0 => Self::Any(
                wanted.workload.namespace.clone(),
                wanted.workload.name.clone(),
                wanted.port.app_port,
            ),
            number => Self::Number(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_lingers_while_somebody_comes_but_not_for_ever() {
        let seconds = Duration::from_secs;
        for (unwanted, quiet, stays) in [
            (0, 100, true),
            (29, 100, true),
            (30, 30, false),
            (300, 29, true),
            (15 * 60, 1, false),
        ] {
            assert_eq!(
                lingers(seconds(unwanted), seconds(quiet)),
                stays,
                "{unwanted} {quiet}"
            );
        }
    }
}
