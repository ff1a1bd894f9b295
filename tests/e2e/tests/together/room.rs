//! LimitRanges and ResourceQuotas that pods break only with the sidecar: told with the line to add, and
//! the workload is enrolled, or sleeps again, once that is there.

use anyhow::{Context as _, ensure};
use lull_e2e::{App, Workload, eventually, in_namespace};
use serde_json::{Value, json};

use crate::plan::{FOLLOW, condition, has_event, status};

/// Waits until the workload is, or isn't, enrolled for this reason, and the message has `part`.
async fn told(
    workload: &Workload,
    (enrolled, reason): (&str, &str),
    part: &str,
) -> anyhow::Result<()> {
    eventually(&format!("{reason} to be told"), FOLLOW, async || {
        let now = condition(&status(workload).await?, "Enrolled")?;
        let (is_enrolled, why, message) = &now;
        let is_told = (is_enrolled.as_str(), why.as_str()) == (enrolled, reason);
        ensure!(is_told && message.contains(part), "{now:?}");
        Ok(())
    })
    .await
}

/// What the Deployment's controller says of pods that it can't make.
async fn failure(workload: &Workload) -> anyhow::Result<String> {
    let object = workload.object_json().await?;
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let failure = conditions.find(|one| one["type"] == "ReplicaFailure");
    let message = failure.and_then(|one| one["message"].as_str());
    Ok(message.context("no ReplicaFailure")?.to_owned())
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

#[tokio::test]
async fn bounds_that_pods_break_with_the_sidecar_alone_are_told_and_put_right() -> anyhow::Result<()>
{
    in_namespace("room", async |namespace| {
        let of = |plural: &str| format!("/api/v1/namespaces/{}/{plural}", namespace.name);
        let most = json!({ "type": "Container", "max": { "memory": "128Mi" } });
        let small = object("LimitRange", "small", &json!({ "limits": [most] }));
        namespace.cluster.create(&of("limitranges"), &small).await?;
        let workload = App::new("shop").deploy(namespace).await?;
        let line = "lull.dev/sidecar-memory-limit: \"128Mi\"";
        told(&workload, ("False", "OutOfLimitRange"), line).await?;
        eventually("the Event", FOLLOW, async || {
            has_event(&workload, "OutOfLimitRange", "small").await
        })
        .await?;
        // That is what would have happened to a wake.
        eventually("pods to be refused", FOLLOW, async || {
            let failure = failure(&workload).await?;
            ensure!(failure.contains("128Mi"), "{failure}");
            Ok(())
        })
        .await?;
        let limit = ("lull.dev/sidecar-memory-limit", Some("128Mi"));
        workload.annotate(&[limit]).await?;
        workload.enrolled().await?;

        // One that comes later takes nothing back.
        let hard = json!({ "hard": { "limits.cpu": "4" } });
        let cpu = object("ResourceQuota", "cpu", &hard);
        namespace
            .cluster
            .create(&of("resourcequotas"), &cpu)
            .await?;
        let line = "lull.dev/sidecar-cpu-limit";
        told(&workload, ("True", "QuotaDemands"), line).await?;
        let path = format!("{}/cpu", of("resourcequotas"));
        namespace.cluster.text("DELETE", &path, Vec::new()).await?;
        told(&workload, ("True", "Enrolled"), "").await
    })
    .await
}
