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
/// Answers in a row, each without the kind, by which one that was there is gone: an API server that has
/// just started may not know all of its kinds yet, and sleepers would be told of to others than before.
const GONE_AFTER: u32 = 2;

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

/// What the last answers have said of a kind that was there.
#[derive(Debug, Default)]
struct Answers {
    /// In a row, that it is not there.
    without: u32,
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
    let mut answers = Answers::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match is_served(client, api_version, plural).await {
            Ok(is_served) => answers.hear(is_served).into_iter().for_each(&tell),
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

// === impl Answers ===

impl Answers {
    /// Takes another one; what is certain by then, if anything.
    fn hear(&mut self, is_served: bool) -> Option<bool> {
        if is_served {
            self.without = 0;
            return Some(true);
        }
        self.without = self.without.saturating_add(1);
        (self.without >= GONE_AFTER).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_gone_by_two_answers_in_a_row_and_back_by_one() {
        let mut answers = Answers::default();
        for (is_served, expected) in [
            (true, Some(true)),
            (false, None),
            (true, Some(true)),
            (false, None),
            (false, Some(false)),
            (false, Some(false)),
            (true, Some(true)),
            (false, None),
        ] {
            assert_eq!(answers.hear(is_served), expected);
        }
    }
}
