//! Enrolment as a plan: a dry run shows it and changes nothing; what stands in the way is told and
//! goes away when it is put right.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lull_contract::{
    annotations::SCALE,
    names::WORKLOAD_LABEL,
    scaled_workload::{Mode, ScaledWorkloadStatus, State},
};
use lull_e2e::{App, Namespace, Original, Workload, cluster::has_code, eventually, in_namespace};
use serde_json::{Value, json};

/// Longest wait for a state that must come.
pub(crate) const FOLLOW: Duration = Duration::from_secs(120);
/// The shortest window goes with it all the time: it is a setting, and no dry run's business.
const WINDOW: &str = "lull.dev/window";

pub(crate) async fn status(workload: &Workload) -> anyhow::Result<ScaledWorkloadStatus> {
    let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
    scaled.status.context("no status")
}

/// Status, reason and message of a condition.
pub(crate) fn condition(
    status: &ScaledWorkloadStatus,
    kind: &str,
) -> anyhow::Result<(String, String, String)> {
    let mut all = status.conditions.iter();
    let found = all.find(|condition| condition.type_ == kind);
    let found = found.with_context(|| format!("no condition {kind} in {status:?}"))?;
    Ok((
        found.status.clone(),
        found.reason.clone(),
        found.message.clone(),
    ))
}

/// Waits for the plan; `expected` is its line.
async fn planned(workload: &Workload, expected: &str) -> anyhow::Result<ScaledWorkloadStatus> {
    eventually("the plan", FOLLOW, async || {
        let status = status(workload).await?;
        ensure!(
            (status.state, status.mode) == (State::Planned, Mode::Direct)
                && status.reason == expected,
            "{} {}: {}",
            status.state,
            status.mode,
            status.reason
        );
        Ok(status)
    })
    .await
}

/// What of the workload somebody must have written if it changes.
fn written(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "spec": object["spec"], "labels": metadata["labels"],
        "annotations": metadata["annotations"], "generation": metadata["generation"],
    })
}

#[tokio::test]
async fn a_dry_run_shows_the_plan_and_changes_nothing() -> anyhow::Result<()> {
    in_namespace("dry-run", async |namespace| {
        let workload = App::plain("shop").deploy(namespace).await?;
        workload.rolled_out().await?;
        let (original, service) = (
            Original::of(&workload).await?,
            workload.service_json().await?,
        );
        workload
            .annotate(&[(SCALE, Some("dry-run")), (WINDOW, Some("6s"))])
            .await?;
        let asked = written(&workload.object_json().await?);
        let line = "dry-run: would switch Service shop (80 -> 8080)";
        let status = planned(&workload, line).await?;
        let (is_enrolled, reason, steps) = condition(&status, "Enrolled")?;
        ensure!(
            (is_enrolled.as_str(), reason.as_str()) == ("False", "DryRun"),
            "{is_enrolled} {reason}"
        );
        ensure!(steps.contains("port 80 to lull-8080"), "{steps}");
        ensure!(condition(&status, "Warnings")?.0 == "False", "{status:?}");

        // It follows what is found.
        set_affinity(&workload, "ClientIP").await?;
        let warned = planned(&workload, &format!("{line}, 1 warning")).await?;
        let (is_warned, reason, _) = condition(&warned, "Warnings")?;
        ensure!(
            (is_warned.as_str(), reason.as_str()) == ("True", "SessionAffinity"),
            "{is_warned} {reason}"
        );
        set_affinity(&workload, "None").await?;
        planned(&workload, line).await?;

        let now = written(&workload.object_json().await?);
        ensure!(now == asked, "the workload is {now}, was {asked}");
        let now = workload.service_json().await?;
        ensure!(
            now["spec"] == service["spec"],
            "the Service is {}",
            now["spec"]
        );
        ensure!(
            now["metadata"]["annotations"] == service["metadata"]["annotations"],
            "{}",
            now["metadata"]
        );
        let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
        ensure!(scaled.spec.ports.is_empty(), "{:?}", scaled.spec.ports);

        workload.annotate(&[(SCALE, Some("true"))]).await?;
        workload.enrolled().await?;
        ensure!(original.is_changed(&workload).await?, "not switched");

        // The other way round it leaves first.
        workload.annotate(&[(SCALE, Some("dry-run"))]).await?;
        planned(&workload, line).await?;
        ensure!(!original.is_changed(&workload).await?, "not given back");
        workload.annotate(&[(SCALE, None), (WINDOW, None)]).await?;
        eventually("everything to be given back", FOLLOW, async || {
            original.given_back(&workload).await
        })
        .await
    })
    .await
}

async fn set_affinity(workload: &Workload, affinity: &str) -> anyhow::Result<()> {
    let Workload {
        namespace, name, ..
    } = workload;
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
    let mut spec = json!({ "sessionAffinity": affinity });
    if affinity == "None" {
        spec["sessionAffinityConfig"] = Value::Null;
    }
    let patch = json!({ "spec": spec });
    let kind = "application/merge-patch+json";
    workload.cluster.patch(&path, kind, &patch).await
}

#[tokio::test]
async fn a_network_policy_in_the_way_is_told_and_put_right() -> anyhow::Result<()> {
    in_namespace("policy", async |namespace| {
        let policies = format!(
            "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
            namespace.name
        );
        let web = json!({ "podSelector": { "matchLabels": { "app": "web" } } });
        let rule = json!({ "from": [web], "ports": [{ "port": 8080 }] });
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": "only-web" },
            "spec": { "podSelector": { "matchLabels": { "app": "shop" } }, "ingress": [rule] },
        });
        namespace.cluster.create(&policies, &policy).await?;
        let workload = App::new("shop").deploy(namespace).await?;
        let before = workload.service_json().await?;
        eventually("the policy to be told", FOLLOW, async || {
            let status = status(&workload).await?;
            let (is_enrolled, reason, message) = condition(&status, "Enrolled")?;
            ensure!(
                (is_enrolled.as_str(), reason.as_str()) == ("False", "PolicyBlocks")
                    && message.contains("NetworkPolicy only-web")
                    && message.contains("lull-8080")
                    && message.contains("lull.dev/accept-activator-source"),
                "{is_enrolled} {reason}: {message}"
            );
            for reason in ["PolicyBlocks", "PolicyNarrower"] {
                has_event(&workload, reason, "only-web").await?;
            }
            Ok(())
        })
        .await?;
        workload.rolled_out().await?;
        let now = workload.service_json().await?;
        ensure!(now["spec"] == before["spec"], "switched: {}", now["spec"]);

        let path = format!("{policies}/only-web");
        namespace.cluster.text("DELETE", &path, Vec::new()).await?;
        workload.enrolled().await?;
        let status = status(&workload).await?;
        let (is_enrolled, reason, message) = condition(&status, "Enrolled")?;
        ensure!(
            (is_enrolled.as_str(), reason.as_str()) == ("True", "Enrolled"),
            "{is_enrolled} {reason}: {message}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_app_that_listens_at_loopback_alone_is_told_and_put_right() -> anyhow::Result<()> {
    in_namespace("loopback", async |namespace| {
        // With a probe of its own it is as far from ready without Lull.
        let app = App::new("shop").arg("--loopback").without_readiness_probe();
        let workload = app.deploy(namespace).await?;
        eventually("the app's address to be told", FOLLOW, async || {
            let status = status(&workload).await?;
            // It had the sidecar from the beginning, and so may be enrolled by then.
            let (_, reason, message) = condition(&status, "Enrolled")?;
            ensure!(
                reason == "LoopbackOnly" && message.contains("8080 at 127.0.0.1 alone"),
                "{reason}: {message}"
            );
            Ok(())
        })
        .await?;
        workload
            .change_container(json!({ "args": ["serve"] }))
            .await?;
        workload.enrolled().await
    })
    .await
}

#[tokio::test]
async fn a_service_with_the_private_ones_name_is_left_alone_and_told() -> anyhow::Result<()> {
    in_namespace("name-taken", async |namespace| {
        let services = format!("/api/v1/namespaces/{}/services", namespace.name);
        let port = json!({ "name": "http", "port": 80, "targetPort": 8080 });
        let theirs = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "shop-lull" },
            "spec": { "selector": { "app": "other" }, "ports": [port] },
        });
        namespace.cluster.create(&services, &theirs).await?;
        let path = format!("{services}/shop-lull");
        let before = namespace.cluster.get(&path).await?;
        let workload = App::new("shop").deploy(namespace).await?;
        eventually("the name to be told", FOLLOW, async || {
            let status = status(&workload).await?;
            let (is_enrolled, reason, message) = condition(&status, "Enrolled")?;
            ensure!(
                (is_enrolled.as_str(), reason.as_str()) == ("False", "NameTaken")
                    && message.contains("Service shop-lull"),
                "{is_enrolled} {reason}: {message}"
            );
            has_event(&workload, "NameTaken", "shop-lull").await
        })
        .await?;
        workload.rolled_out().await?;
        let now = namespace.cluster.get(&path).await?;
        ensure!(now == before, "it is {now}, was {before}");

        namespace.cluster.text("DELETE", &path, Vec::new()).await?;
        workload.enrolled().await?;
        let private = namespace.cluster.get(&path).await?;
        let label = &private["metadata"]["labels"][WORKLOAD_LABEL];
        ensure!(label == "shop", "the private Service is {private}");
        Ok(())
    })
    .await
}

/// Kubernetes' admission policies.
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
/// And where they hold.
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// A policy, called as the namespace, by which no Service in it may be changed to a port of Lull's.
async fn refuse_named_ports(namespace: &Namespace) -> anyhow::Result<()> {
    let (cluster, name) = (&namespace.cluster, &namespace.name);
    let changed = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"],
        "resources": ["services"],
    });
    let wanted = "!object.spec.ports.exists(p, string(p.targetPort).startsWith('lull-'))";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": name },
        "spec": {
            "matchConstraints": { "resourceRules": [changed] },
            "validations": [{ "expression": wanted, "message": "no ports of Lull's" }],
        },
    });
    cluster.create(POLICIES, &policy).await?;
    let own = json!({ "matchLabels": { "kubernetes.io/metadata.name": name } });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": name },
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": own },
        },
    });
    cluster.create(BINDINGS, &binding).await
}

#[tokio::test]
async fn a_write_that_a_policy_refuses_is_told_and_made_once_it_may() -> anyhow::Result<()> {
    in_namespace("write-refused", async |namespace| {
        let (cluster, name) = (&namespace.cluster, &namespace.name);
        let workload = App::plain("shop").deploy(namespace).await?;
        let before = workload.service_json().await?;
        refuse_named_ports(namespace).await?;
        let try_it = format!("/api/v1/namespaces/{name}/services/shop?dryRun=All");
        let path = "/spec/ports/0/targetPort";
        let patch = json!([{ "op": "replace", "path": path, "value": "lull-1" }]);
        eventually("the policy to hold", FOLLOW, async || {
            let kind = "application/json-patch+json";
            let refused = cluster.patch(&try_it, kind, &patch).await;
            let is_so = refused.as_ref().is_err_and(|error| has_code(error, 422));
            ensure!(is_so, "{refused:?}");
            Ok(())
        })
        .await?;
        let on = [(SCALE, Some("true")), (WINDOW, Some("6s"))];
        workload.annotate(&on).await?;
        eventually("the refusal to be told", FOLLOW, async || {
            let events = events(&workload).await?;
            let is_it = |event: &Value| {
                let note = event["note"].as_str().unwrap_or_default();
                event["reason"] == "WriteRefused" && note.contains("no ports of Lull's")
            };
            ensure!(events.iter().any(is_it), "no Event WriteRefused");
            Ok(())
        })
        .await?;
        let now = workload.service_json().await?;
        ensure!(now["spec"] == before["spec"], "switched: {}", now["spec"]);

        for kind in [BINDINGS, POLICIES] {
            let path = format!("{kind}/{name}");
            cluster.text("DELETE", &path, Vec::new()).await?;
        }
        workload.enrolled().await
    })
    .await
}

/// The Events on the workload.
async fn events(workload: &Workload) -> anyhow::Result<Vec<Value>> {
    let path = format!(
        "/apis/events.k8s.io/v1/namespaces/{}/events",
        workload.namespace
    );
    let mut events = workload.cluster.get(&path).await?;
    let Value::Array(mut items) = events["items"].take() else {
        bail!("no list: {events}");
    };
    items.retain(|event| event["regarding"]["name"] == workload.name.as_str());
    Ok(items)
}

/// Fails unless there is an Event of this reason on the workload that is about `other` too.
pub(crate) async fn has_event(
    workload: &Workload,
    reason: &str,
    other: &str,
) -> anyhow::Result<()> {
    let events = events(workload).await?;
    let is_it = |event: &Value| event["reason"] == reason && event["related"]["name"] == other;
    ensure!(events.iter().any(is_it), "no Event {reason} about {other}");
    Ok(())
}
