//! `ui`: the status page, by port-forward to a replica of the autoscaler.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use kube::api::Portforwarder;
use serde_json::json;
use tokio::{
    io::{DuplexStream, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
};

use super::Asked;
use crate::{
    cli::UiArgs,
    cluster::Cluster,
    forward,
    output::{Outcome, Output},
    pages,
};

/// Connections at once: a browser opens about six, and each stream of events has one of its own.
const MAX_CONNECTIONS: usize = 64;
/// Longest time for a connection to a replica: there is another one.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to a replica, as long as it is wanted.
type Forwarded = (Portforwarder, DuplexStream);

/// The replica that serves the page, and where another one is found once it is gone.
#[derive(Debug)]
struct Served {
    cluster: Cluster,
    replica: Mutex<String>,
}

/// Forwards until Ctrl-C.
///
/// # Errors
/// Where no autoscaler is ready, or the port is taken.
pub(super) async fn run(asked: Asked<'_>, args: UiArgs) -> anyhow::Result<Output> {
    let cluster = asked.cluster;
    let replicas = pages::replicas(cluster).await?;
    let replica = replicas.first().context("no autoscaler is ready")?;
    // Only for this machine: the page has no users of its own.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    let url = format!("http://{}/", listener.local_addr()?);
    eprintln!("The status page is at {url} (from {replica}) until Ctrl-C.");
    let served = Arc::new(Served {
        cluster: cluster.clone(),
        replica: Mutex::new(replica.clone()),
    });
    tokio::select! {
        never = pass_all(&listener, &served) => never?,
        pressed = tokio::signal::ctrl_c() => pressed.context("waiting for Ctrl-C")?,
    }
    let replica = served.replica.lock().await.clone();
    let page = json!({ "url": url, "replica": replica });
    Output::new(&page, String::new(), Outcome::Done)
}

/// Takes connections and passes each on; ends only with an error.
async fn pass_all(listener: &TcpListener, served: &Arc<Served>) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (browser, _) = listener.accept().await.context("taking a connection")?;
        // Those that have ended are no longer counted.
        while connections.try_join_next().is_some() {}
        let served = Arc::clone(served);
        connections.spawn(async move {
            // One that fails is seen in the browser, which asks again.
            if let Err(error) = served.pass_on(browser).await {
                eprintln!("{error:#}");
            }
        });
    }
}

// === impl Served ===

impl Served {
    async fn pass_on(&self, mut browser: TcpStream) -> anyhow::Result<()> {
        let (forwarder, mut page) = self.reach().await?;
        // Either side may break at any time: a closed tab is no failure.
        let _ = copy_bidirectional(&mut browser, &mut page).await;
        forwarder.abort();
        Ok(())
    }

    /// A connection to the replica that has served so far; where that is gone, as after a rollout, to
    /// another one.
    async fn reach(&self) -> anyhow::Result<Forwarded> {
        let known = self.replica.lock().await.clone();
        let mut failed = match self.connect(&known).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        for replica in pages::replicas(&self.cluster).await? {
            if replica == known {
                continue;
            }
            match self.connect(&replica).await {
                Ok(connection) => {
                    eprintln!("The page is from {replica} by now.");
                    *self.replica.lock().await = replica;
                    return Ok(connection);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect(&self, replica: &str) -> anyhow::Result<Forwarded> {
        let pods = forward::pods(&self.cluster);
        let connecting = Box::pin(tokio::time::timeout(
            CONNECT,
            forward::connect(&pods, replica),
        ));
        let connected = connecting.await;
        connected.with_context(|| format!("{replica} does not answer in {CONNECT:?}"))?
    }
}
