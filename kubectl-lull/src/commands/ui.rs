//! `ui`: the status page, by port-forward to a replica of the autoscaler.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::Asked;
use crate::{
    cli::UiArgs,
    forward,
    output::{Outcome, Output},
    pages,
};

/// Connections at once: a browser opens about six, and each stream of events has one of its own.
const MAX_CONNECTIONS: usize = 64;

/// Forwards until Ctrl-C.
///
/// # Errors
/// Where no autoscaler is ready, or the port is taken.
pub(super) async fn run(asked: Asked<'_>, args: UiArgs) -> anyhow::Result<Output> {
    let cluster = asked.cluster;
    let replicas = pages::replicas(cluster).await?;
    let replica = replicas.first().context("no autoscaler is ready")?;
    let pods = forward::pods(cluster);
    // Only for this machine: the page has no users of its own.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    let url = format!("http://{}/", listener.local_addr()?);
    eprintln!("The status page is at {url} (from {replica}) until Ctrl-C.");
    tokio::select! {
        never = pass_all(&listener, &pods, replica) => never?,
        pressed = tokio::signal::ctrl_c() => pressed.context("waiting for Ctrl-C")?,
    }
    let page = json!({ "url": url, "replica": replica });
    Output::new(&page, String::new(), Outcome::Done)
}

/// Takes connections and passes each on; ends only with an error.
async fn pass_all(listener: &TcpListener, pods: &Api<Pod>, replica: &str) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (browser, _) = listener.accept().await.context("taking a connection")?;
        // Those that have ended are no longer counted.
        while connections.try_join_next().is_some() {}
        let (pods, replica) = (pods.clone(), replica.to_owned());
        connections.spawn(async move {
            // One that fails is seen in the browser, which asks again.
            if let Err(error) = pass_on(browser, &pods, &replica).await {
                eprintln!("{error:#}");
            }
        });
    }
}

async fn pass_on(mut browser: TcpStream, pods: &Api<Pod>, replica: &str) -> anyhow::Result<()> {
    let (forwarder, mut page) = forward::connect(pods, replica).await?;
    // Either side may break at any time: a closed tab is no failure.
    let _ = copy_bidirectional(&mut browser, &mut page).await;
    forwarder.abort();
    Ok(())
}
