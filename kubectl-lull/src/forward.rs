//! The status page's port of one of the autoscaler's pods, by port-forward.

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::Portforwarder};
use lull_contract::ports::STATUS_PAGE;
use tokio::io::DuplexStream;

use crate::cluster::Cluster;

/// Pods in Lull's own namespace.
pub(crate) fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client.clone(), &cluster.lull_namespace)
}

/// A connection to the page of `replica`; it lasts until the forwarder is told to stop.
///
/// # Errors
/// Where the pod is gone, or the user may not forward ports.
pub(crate) async fn connect(
    pods: &Api<Pod>,
    replica: &str,
) -> anyhow::Result<(Portforwarder, DuplexStream)> {
    let mut forwarder = pods
        .portforward(replica, &[STATUS_PAGE])
        .await
        .with_context(|| format!("forward a port to {replica}"))?;
    let stream = forwarder.take_stream(STATUS_PAGE);
    let stream = stream.context("a forwarder has a stream for its port")?;
    Ok((forwarder, stream))
}

/// What `replica` answers to a GET of `path`.
///
/// # Errors
/// As [`connect`], and where there is no whole answer.
pub(crate) async fn get(
    pods: &Api<Pod>,
    replica: &str,
    path: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (forwarder, stream) = connect(pods, replica).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer, or with the forwarder.
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    driver.abort();
    forwarder.abort();
    Ok((status, body))
}
