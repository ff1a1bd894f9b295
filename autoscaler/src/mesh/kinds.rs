//! Whether the cluster knows the mesh's kinds, which may come after Lull.

use std::time::Duration;

use clap::ValueEnum;
use kube::Client;
use lull_process::readiness::Pending;
use serde::Serialize;

use crate::{
    config::API_TIMEOUT,
    discovery::{Said, Search},
};

/// Between two looks for a mesh on a cluster that has none, and whether one is still there: it is
/// installed once.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Whether Lull has to do with a mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeshMode {
    /// Where the cluster has one.
    #[default]
    Auto,
    /// There is one: nothing is enrolled before its kinds are known.
    Istio,
    /// Never; none of its kinds is asked for.
    None,
}

/// Why it is not known which kinds there are.
#[derive(Debug, thiserror::Error)]
enum Unsaid {
    #[error("listing the kinds of {0}: {1}")]
    Api(String, #[source] Box<kube::Error>),
    #[error("listing the kinds of {0}: the API server did not answer within {API_TIMEOUT:?}")]
    Timeout(String),
}

/// Returns when the cluster knows the kind called `plural` in `api_version`; `pending` comes back
/// unless it was let go before, because there was none and `mode` doesn't say that there is.
pub(super) async fn until_served(
    client: &Client,
    (api_version, plural): (&str, &str),
    mode: MeshMode,
    pending: Pending,
) -> Option<Pending> {
    let search = Search::new(LOOK_EVERY, true).needed(mode == MeshMode::Istio);
    let kind = (api_version, plural);
    let ((), pending) = search.run(pending, || said(client, kind, mode)).await;
    pending
}

/// Goes on to ask whether the cluster has the kind, whose CRD may go and come back, and tells. What the
/// API server does not say changes nothing.
pub(super) async fn keep_asking(
    client: &Client,
    (api_version, plural): (&str, &str),
    tell: impl Fn(bool),
) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match is_served(client, api_version, plural).await {
            Ok(is_served) => tell(is_served),
            Err(error) => tracing::debug!(%error, "can't tell whether a kind is still there"),
        }
    }
}

/// What the API server says of the kind.
async fn said(client: &Client, (api_version, plural): (&str, &str), mode: MeshMode) -> Said<()> {
    match is_served(client, api_version, plural).await {
        Ok(true) => Said::There(()),
        // That there is no mesh surprises nobody who has not said that there is one.
        Ok(false) => Said::Missing(
            (mode == MeshMode::Istio)
                .then(|| format!("the cluster doesn't know {plural} of {api_version}")),
        ),
        Err(error) => Said::Nothing(error.to_string()),
    }
}

/// Whether the API server has the kind in this version.
async fn is_served(client: &Client, api_version: &str, plural: &str) -> Result<bool, Unsaid> {
    let asked = client.list_api_group_resources(api_version);
    match tokio::time::timeout(API_TIMEOUT, asked).await {
        Ok(Ok(list)) => Ok(list.resources.iter().any(|kind| kind.name == plural)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(false),
        Ok(Err(error)) => Err(Unsaid::Api(api_version.to_owned(), Box::new(error))),
        Err(_) => Err(Unsaid::Timeout(api_version.to_owned())),
    }
}
