//! Sleeping workloads of a kind that nobody runs, called directly at their Services' addresses.
//!
//! No pod is ever started: a call is held until its caller goes away. Services must be reachable from
//! here, so this runs on a node.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{App, Cluster, Kind, Workload, fleet, watches::Wakes};

/// Longest wait for a wake.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a workload keeps its replicas once its caller has left. An activator tells that with the next
/// caller whom it holds, or a second later: one that is at zero sooner is woken once more, for nobody. A
/// status that only informs waits longer than this, so there still is one for both.
const LEFT: Duration = Duration::from_millis(1_200);
/// By then the autoscaler knows that a caller has left, also while it has many calls under way: one that
/// is woken once more has no controller, and so stays awake for ten minutes.
const TOLD: Duration = Duration::from_secs(3);

/// A workload that is mostly asleep.
#[derive(Debug)]
pub struct Sleeper {
    /// The workload.
    pub workload: Workload,
    /// Address and port of its Service.
    address: String,
}

/// Deploys `count` sleepers into namespaces called `<prefix>-0`, ... and waits until all are asleep;
/// the API server must know their kind ([`crate::rollouts::install`]).
///
/// # Errors
/// Where the API server refuses something, or they don't fall asleep within 20 minutes.
pub async fn deploy(cluster: &Cluster, prefix: &str, count: usize) -> anyhow::Result<Vec<Sleeper>> {
    let app = |number: usize| {
        let app = App::new(&format!("sleeper-{number}"));
        app.kind(Kind::Rollout).replicas(0)
    };
    let workloads = fleet::deploy(cluster, prefix, count, app).await?;
    fleet::all_asleep(cluster, count).await?;
    let mut sleepers = Vec::with_capacity(workloads.len());
    for workload in workloads {
        let service = workload.service_json().await?;
        let ip = service["spec"]["clusterIP"].as_str();
        let address = format!("{}:80", ip.context("a Service has no address")?);
        sleepers.push(Sleeper { workload, address });
    }
    Ok(sleepers)
}

/// Sets the replicas of a workload as any client would.
///
/// # Errors
/// Where the API server refuses.
pub async fn scale(workload: &Workload, replicas: u32) -> anyhow::Result<()> {
    let objects = workload.kind.path(&workload.namespace);
    let path = format!("{objects}/{}/scale", workload.name);
    let patch = json!({ "spec": { "replicas": replicas } });
    let cluster = &workload.cluster;
    cluster
        .patch(&path, "application/merge-patch+json", &patch)
        .await
}

/// Waits for the replicas that a watch is to show ([`Wakes::next`]).
///
/// # Errors
/// Where none are seen within 10 s.
pub async fn heard(seen: oneshot::Receiver<Instant>) -> anyhow::Result<Instant> {
    let seen = timeout(PATIENCE, seen).await;
    seen.with_context(|| format!("no replicas were seen in {PATIENCE:?}"))?
        .context("the watch has ended")
}

// === impl Sleeper ===

impl Sleeper {
    /// Calls it, waits until it has replicas, goes away and sets them to none; returns the time from
    /// the call to the watch event that showed them.
    ///
    /// # Errors
    /// Where it can't be called or doesn't wake.
    pub async fn wake(&self, wakes: &Wakes) -> anyhow::Result<Duration> {
        let Self { workload, address } = self;
        let seen = wakes.next(workload);
        let begun = Instant::now();
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
        let mut stream = connected
            .with_context(|| format!("{address} doesn't take connections from here"))?
            .with_context(|| format!("connect to {address}: this must run on a node"))?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: sleeper\r\n\r\n")
            .await?;
        let mut answer = [0; 256];
        let at = tokio::select! {
            at = heard(seen) => at?,
            read = stream.read(&mut answer) => {
                let text = String::from_utf8_lossy(&answer[..read?]).into_owned();
                bail!("{} was not held: {text:?}", workload.name)
            }
        };
        // The caller goes away, and the workload is asleep again.
        drop(stream);
        sleep(LEFT).await;
        // It is woken again as long as nobody has been told that the caller has left.
        loop {
            let again = wakes.next(workload);
            scale(workload, 0).await?;
            if timeout(TOLD, again).await.is_err() {
                break;
            }
        }
        Ok(at - begun)
    }
}
