//! Workloads whose templates lose the sidecar while there is no webhook.

use std::time::Duration;

use anyhow::ensure;
use lull_contract::{names::ORIGINAL_ANNOTATION, scaled_workload::State};

use crate::{Cluster, Workload, components, eventually, slices};

/// Longest wait for plain pods that callers reach: a wake that nobody has asked for, a rollout, what
/// callers need to hear of both.
pub const REACHED: Duration = Duration::from_secs(90);
/// Seconds that a plain pod still answers after it was told to end: callers hear of it later.
pub const LINGER: u32 = 15;

/// As [`COMPONENTS`](crate::cluster::COMPONENTS) has it.
const WEBHOOK: &str = "webhook";

/// What comes of `during`, while which there is no webhook. It is back when this has tried: every other
/// test needs it.
///
/// # Errors
/// That of `during`, and where the webhook doesn't go or come.
pub async fn without_webhook<T>(
    cluster: &Cluster,
    during: impl AsyncFnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let there = cluster.ready_names(WEBHOOK).await?.len();
    let outcome = match components::scale(cluster, WEBHOOK, 0).await {
        Ok(()) => Box::pin(during()).await,
        Err(error) => Err(error),
    };
    let back = components::scale(cluster, WEBHOOK, there).await;
    let outcome = outcome?;
    back.map(|()| outcome)
}

/// Waits until plain pods alone answer for `workload`, by the Service as its user had it, and its status
/// tells why.
///
/// # Errors
/// After [`REACHED`].
pub async fn reached(workload: &Workload) -> anyhow::Result<()> {
    let what = format!("plain pods of {}", workload.name);
    eventually(&what, REACHED, async || {
        let service = workload.service_json().await?;
        let target = &service["spec"]["ports"][0]["targetPort"];
        let note = &service["metadata"]["annotations"][ORIGINAL_ANNOTATION];
        ensure!(*target == 8080 && note.is_null(), "to {target}, {note}");
        let status = workload.status().await?;
        let (state, reason) = (status.state, &status.reason);
        ensure!(
            state == State::Enrolling && reason.contains("lost the sidecar"),
            "{state}: {reason}"
        );
        ensure!(workload.is_rolled_out().await? > 0, "it sleeps");
        workload.runs(false).await?;
        slices::pods_only(workload, 1).await.map(drop)
    })
    .await
}
