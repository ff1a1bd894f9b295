//! `wake`: pods now, as a request would ask for them.

use anyhow::bail;
use kube::api::{Patch, PatchParams};
use lull_contract::{
    Settings,
    scaled_workload::{ScaledWorkload, ScaledWorkloadStatus, State},
};
use serde_json::json;

use super::{
    Asked,
    wait::{Done, Look, as_millis, if_wanted},
};
use crate::{
    cli::WakeArgs,
    cluster::{CallError, call},
    output::Output,
    words::count,
    workload::Workload,
};

/// How often a count is written whose object changes under it.
const TRIES: u32 = 5;

/// Wakes the workload.
///
/// # Errors
/// Where Lull doesn't run it, the API server refuses, or no pod is ready in time.
pub(super) async fn run(asked: Asked<'_>, args: &WakeArgs) -> anyhow::Result<Output> {
    let cluster = asked.cluster;
    let workload = Workload::find(cluster, &args.which.workload).await?;
    let scaled = workload.run_by_lull(cluster).await?;
    if is_dry_run(&scaled) {
        bail!(
            "{} is only looked at (lull.dev/scale: \"dry-run\"): `kubectl lull on` lets Lull run it",
            workload.target
        );
    }
    let settings = &scaled.spec.settings;
    let pods = args.replicas.unwrap_or_else(|| pods_of_a_wake(settings));
    let was_asleep = workload.target.replicas == 0;
    if was_asleep {
        // Where somebody else was first, a request perhaps, it is awake by that.
        scale_from(&workload, 0, pods).await?;
    }
    let what = format!("{} to have a ready pod", workload.target);
    let took = if_wanted(args.wait, &what, async || {
        Ok(awake(workload.scaled(cluster).await?.as_ref()))
    })
    .await?;
    let result = match (was_asleep, took) {
        (false, _) => "is awake already".to_owned(),
        (true, None) => format!("is asked for {}", count(u64::from(pods), "pod")),
        (true, Some(_)) => "is awake".to_owned(),
    };
    let done = Done {
        workload: workload.target.to_string(),
        namespace: workload.target.namespace.clone(),
        result,
        notes: notes(was_asleep, settings),
        took_ms: took.filter(|_| was_asleep).map(as_millis),
    };
    done.output(asked.style)
}

fn notes(was_asleep: bool, settings: &Settings) -> Vec<String> {
    if !was_asleep {
        return vec!["nothing was changed".to_owned()];
    }
    let window = settings.window;
    vec![format!(
        "without traffic it sleeps again after {window}; lull.dev/min-scale keeps pods"
    )]
}

/// Pods that a first request would start.
fn pods_of_a_wake(settings: &Settings) -> u32 {
    settings.activation_scale.max(settings.min_scale).max(1)
}

/// Writes the count `to`, where it still is `from`: whoever changed it in the meantime has had a
/// reason. Returns whether it was written.
///
/// # Errors
/// Where the API server can't be asked or refuses.
pub(super) async fn scale_from(workload: &Workload, from: u32, to: u32) -> Result<bool, CallError> {
    let name = workload.target.name.as_str();
    let (look, write) = (
        format!("read the scale of {}", workload.target),
        format!("scale {} to {to}", workload.target),
    );
    let mut conflict = None;
    for _ in 0..TRIES {
        let scale = call(&look, workload.api.get_scale(name)).await?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        if i64::from(replicas) != i64::from(from) {
            return Ok(false);
        }
        let patch = json!({
            "metadata": { "resourceVersion": scale.metadata.resource_version },
            "spec": { "replicas": to },
        });
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        match call(&write, workload.api.patch_scale(name, &params, &patch)).await {
            // The object has changed, its status perhaps: the count is looked at anew.
            Err(error) if error.is(409) => conflict = Some(error),
            other => return other.map(|_| true),
        }
    }
    conflict.map_or(Ok(false), Err)
}

/// Whether Lull only says what it would do with it: then it doesn't count its pods.
fn is_dry_run(scaled: &ScaledWorkload) -> bool {
    let status = scaled.status.as_ref();
    status.is_some_and(|status| status.state == State::Planned)
}

/// Whether a pod takes traffic.
fn awake(scaled: Option<&ScaledWorkload>) -> Look {
    let status = scaled.and_then(|scaled| scaled.status.as_ref());
    let none = ScaledWorkloadStatus::default();
    let ScaledWorkloadStatus {
        state,
        ready,
        desired,
        reason,
        ..
    } = status.unwrap_or(&none);
    if *ready > 0 {
        return Look::There;
    }
    Look::NotYet(format!("{state}, {ready} of {desired} ready: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_starts_as_many_pods_as_a_request_would() {
        let rows = [(1, 0, 1), (3, 0, 3), (1, 2, 2), (0, 0, 1)];
        for (activation_scale, min_scale, expected) in rows {
            let settings = Settings {
                activation_scale,
                min_scale,
                ..Settings::default()
            };
            assert_eq!(pods_of_a_wake(&settings), expected);
        }
    }

    #[test]
    fn a_workload_without_a_status_is_not_awake() {
        assert_eq!(
            awake(None),
            Look::NotYet("Enrolling, 0 of 0 ready: ".to_owned())
        );
    }
}
