//! The autoscaler's own pages, by way of the API server.

use std::time::Duration;

use autoscaler::pod::Pod;
use http::StatusCode;
use kube::api::ListParams;
use lull_contract::{
    ports::STATUS_PAGE,
    view::{LED_QUERY, LIST_PATH, WorkloadDetail, WorkloadList},
};
use serde::de::DeserializeOwned;

use crate::{
    cluster::{CallError, Cluster, call, call_within},
    forward, progress,
};

/// Labels of the autoscaler's pods, as the chart sets them.
const AUTOSCALERS: &str = "app.kubernetes.io/part-of=lull,app.kubernetes.io/component=autoscaler";
/// Longest time of one page: there is another replica.
const PAGE: Duration = Duration::from_secs(5);

/// Why a page can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPage {
    /// Nobody serves it.
    #[error("no autoscaler is ready in namespace {0}: kubectl lull doctor")]
    NotRunning(String),
    /// The pods can't be listed, or none of them answers.
    #[error("the autoscaler is not reached ({0})")]
    NotReached(String),
}

/// Names of the autoscaler's replicas that are ready.
///
/// # Errors
/// Where there is none, or they can't be listed.
pub(crate) async fn replicas(cluster: &Cluster) -> Result<Vec<String>, NoPage> {
    let pods = forward::pods(cluster);
    let params = ListParams::default().labels(AUTOSCALERS);
    let pods = call("look for the autoscaler", pods.list(&params)).await;
    let pods = pods.map_err(|error| NoPage::NotReached(error.line()))?;
    let ready: Vec<String> = pods
        .into_iter()
        .map(Pod::from)
        .filter(|pod| pod.is_ready)
        .map(|pod| pod.name)
        .collect();
    if ready.is_empty() {
        return Err(NoPage::NotRunning(cluster.lull_namespace.clone()));
    }
    Ok(ready)
}

/// Every workload of every namespace.
///
/// # Errors
/// Where no replica answers.
pub(crate) async fn list(cluster: &Cluster) -> Result<WorkloadList, NoPage> {
    let mut failed = "it has no list".to_owned();
    for replica in replicas(cluster).await? {
        match page(cluster, &replica, LIST_PATH).await {
            Ok(Some(list)) => return Ok(list),
            Ok(None) => {}
            Err(why) => failed = why,
        }
    }
    Err(NoPage::NotReached(failed))
}

/// What every replica that answers has to list by itself: what it leads, or everything where it is of a
/// version that can't tell one from the other.
///
/// # Errors
/// Where none of them answers.
pub(crate) async fn lists(cluster: &Cluster) -> Result<Vec<WorkloadList>, NoPage> {
    let (mut lists, mut failed) = (Vec::new(), "it has no list".to_owned());
    let path = format!("{LIST_PATH}?{LED_QUERY}");
    for replica in replicas(cluster).await? {
        match page(cluster, &replica, &path).await {
            Ok(Some(list)) => lists.push(list),
            Ok(None) => {}
            Err(why) => failed = why,
        }
    }
    if lists.is_empty() {
        return Err(NoPage::NotReached(failed));
    }
    Ok(lists)
}

/// The workload called `name` (a ScaledWorkload's name), by the replica that leads it where that
/// answers, whoever of them has asked it; `None` where no replica knows it.
///
/// # Errors
/// Where no replica answers.
pub(crate) async fn detail(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<Option<WorkloadDetail>, NoPage> {
    let path = format!("{LIST_PATH}/{namespace}/{name}");
    let (mut known, mut failed) = (None, None);
    for replica in replicas(cluster).await? {
        match page::<WorkloadDetail>(cluster, &replica, &path).await {
            Ok(Some(detail)) if detail.workload.is_live => return Ok(Some(detail)),
            Ok(Some(detail)) => known = Some(detail),
            Ok(None) => {}
            Err(why) => failed = Some(why),
        }
    }
    match (known, failed) {
        // One that did not answer may know it.
        (None, Some(why)) => Err(NoPage::NotReached(why)),
        (known, _) => Ok(known),
    }
}

/// A page of `replica`; `None` where it has no such page. Where the API server's proxy does not
/// reach the pod, as behind a NetworkPolicy, or the user may not use it, a port-forward may.
async fn page<T: DeserializeOwned>(
    cluster: &Cluster,
    replica: &str,
    path: &str,
) -> Result<Option<T>, String> {
    let by_proxy = match proxied(cluster, replica, path).await {
        Ok(page) => return Ok(Some(page)),
        Err(error) if error.is(404) => return Ok(None),
        Err(error) => error.line(),
    };
    let (pods, what) = (
        forward::pods(cluster),
        format!("ask {replica} by port-forward"),
    );
    let bounded = tokio::time::timeout(PAGE, forward::get(&pods, replica, path));
    let by_forward = match progress::during(&what, Box::pin(bounded)).await {
        Ok(Ok((StatusCode::NOT_FOUND, _))) => return Ok(None),
        Ok(Ok((StatusCode::OK, body))) => match serde_json::from_slice(&body) {
            Ok(page) => return Ok(Some(page)),
            Err(error) => error.to_string(),
        },
        Ok(Ok((status, _))) => status.to_string(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("no answer in {PAGE:?}"),
    };
    Err(format!("{by_proxy}; by port-forward: {by_forward}"))
}

async fn proxied<T: DeserializeOwned>(
    cluster: &Cluster,
    replica: &str,
    path: &str,
) -> Result<T, CallError> {
    let namespace = &cluster.lull_namespace;
    let proxy = format!("/api/v1/namespaces/{namespace}/pods/{replica}:{STATUS_PAGE}/proxy{path}");
    let what = format!("ask {replica}");
    let request = http::Request::get(proxy.as_str()).body(Vec::new());
    let request = request.map_err(|error| CallError::Failed {
        what: what.clone(),
        source: Box::new(kube::Error::HttpError(error)),
    })?;
    call_within(PAGE, &what, cluster.client.request::<T>(request)).await
}
