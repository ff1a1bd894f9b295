//! The user's tools go on working: whatever writes a manifest, no request is lost and nobody fights.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_contract::{
    annotations::SCALE,
    names::{HELD_LABEL, INJECTED_ANNOTATION, ORIGINAL_ANNOTATION},
    original::{Original, TargetPort},
};
use lull_e2e::{
    Agent, App, Namespace, Workload, agent::Run, all_answered, app::Port, eventually, gitops,
    history::History, in_namespace, leftovers, slices, writes::Writes,
};
use sample_app::wire::{Hello, RunSpec};
use serde_json::{Value, json};

/// Between two rounds of the GitOps controller: others take 10 s and more.
const EVERY: Duration = Duration::from_secs(2);
/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(120);
/// The sentinel and the user's selector, each written once in a sleep and a wake.
const SERVICE_CHANGES: usize = 2;

/// Constant load by new connections, for longer than any test takes.
async fn load<'a>(agent: &'a Agent, workload: &Workload) -> anyhow::Result<Run<'a>> {
    agent.is_answered(&workload.url("/"), FOLLOW).await?;
    let spec = RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 10,
        rate: Some(50.0),
        seconds: Some(470.0),
        keep_alive: false,
        ..RunSpec::default()
    };
    agent.start(&spec).await
}

/// Waits for more answers, so that what was just changed is behind the load.
async fn some_more(load: &Run<'_>) -> anyhow::Result<()> {
    let enough = load.so_far().await?.ok + 100;
    eventually("more of the load", FOLLOW, async || {
        let ok = load.so_far().await?.ok;
        ensure!(ok >= enough, "{ok} of {enough} answers");
        Ok(())
    })
    .await
}

/// With a hard limit burst capacity is always short: the sentinel stands wherever pods are.
fn bursting(name: &str) -> App {
    App::new(name)
        .annotate("lull.dev/container-concurrency", "10")
        .annotate("lull.dev/max-scale", "1")
}

async fn held(workload: &Workload) -> anyhow::Result<Value> {
    eventually("the sentinel selector", FOLLOW, async || {
        let service = workload.service_json().await?;
        let selector = &service["spec"]["selector"];
        ensure!(!selector[HELD_LABEL].is_null(), "{selector}");
        Ok(service)
    })
    .await
}

/// What follows once it sleeps: the sentinel goes with the pods.
async fn released(workload: &Workload) -> anyhow::Result<()> {
    eventually("the user's selector", FOLLOW, async || {
        let service = workload.service_json().await?;
        let selector = &service["spec"]["selector"];
        ensure!(selector[HELD_LABEL].is_null(), "{selector}");
        Ok(())
    })
    .await
}

async fn enrolled(app: &App, namespace: &Namespace) -> anyhow::Result<Workload> {
    let workload = app.deploy(namespace).await?;
    workload.enrolled().await?;
    workload.rolled_out().await?;
    Ok(workload)
}

/// Waits until the Service's first port targets `target`, and what Lull has noted of it.
pub(crate) async fn targets(workload: &Workload, target: &str) -> anyhow::Result<Original> {
    eventually("the Service's new target", FOLLOW, async || {
        let service = workload.service_json().await?;
        let now = &service["spec"]["ports"][0]["targetPort"];
        ensure!(now == target, "it is {now}");
        let note = service["metadata"]["annotations"][ORIGINAL_ANNOTATION].as_str();
        note.and_then(Original::parse).context("no note of Lull")
    })
    .await
}

#[tokio::test]
async fn manifests_that_are_applied_every_two_seconds_change_nothing() -> anyhow::Result<()> {
    in_namespace("gitops", async |namespace| {
        let (cluster, app) = (&namespace.cluster, bursting("shop"));
        let manifests = app.manifests(&namespace.name);
        let agent = Agent::deploy(namespace).await?;
        gitops::apply(cluster, &manifests).await?;
        let workload = Workload::new(namespace, "shop");
        workload.enrolled().await?;
        workload.asleep().await?;
        workload.pods_gone().await?;
        released(&workload).await?;

        let (service, object) = (
            Writes::of_service(&workload).await?,
            Writes::of_workload(&workload).await?,
        );
        let history = History::start(&workload).await?;
        let controller = gitops::Controller::start(cluster, manifests, EVERY);
        controller.a_round().await?;
        let replicas = workload.replicas().await?;
        ensure!(replicas == 0, "the manifest has woken it: {replicas}");
        let load = load(&agent, &workload).await?;
        let before = held(&workload).await?;
        controller.a_round().await?;
        let after = workload.service_json().await?;
        ensure!(after["spec"] == before["spec"], "held, then {after}");
        some_more(&load).await?;
        all_answered(&load.stop().await?)?;
        workload.asleep().await?;
        released(&workload).await?;
        let rounds = controller.a_round().await?;

        service_at_rest(&service)?;
        workload_at_rest(&object, &history)?;
        eprintln!(
            "{rounds} rounds: {} writes changed the Service, {} the Deployment or its status",
            service.states().len() - 1,
            object.states().len() - 1
        );
        Ok(())
    })
    .await
}

/// Each change of Lull is written once, and at most once more because its fields have two managers
/// by then; with the first round's that is all.
fn service_at_rest(writes: &Writes) -> anyhow::Result<()> {
    let states = writes.states();
    for state in &states {
        let target = &state.data["spec"]["ports"][0]["targetPort"];
        ensure!(target == "lull-8080", "for a moment it was {target}");
        let selector = state.data["spec"]["selector"].as_object();
        let keys = selector.map(serde_json::Map::len);
        ensure!(keys == Some(1), "for a moment it was {selector:?}");
        let annotations = state.metadata.annotations.as_ref();
        ensure!(
            annotations.is_some_and(|all| all.contains_key(ORIGINAL_ANNOTATION)),
            "for a moment the note was gone: {annotations:?}"
        );
    }
    let pairs = states.iter().zip(states.iter().skip(1));
    let changes = pairs.filter(|(one, next)| one.data["spec"] != next.data["spec"]);
    let (changes, all) = (changes.count(), states.len() - 1);
    ensure!(
        changes == SERVICE_CHANGES && all <= 2 * changes + 1,
        "{changes} writes changed its spec, {all} anything of it"
    );
    Ok(())
}

/// Nothing but the counts that Lull writes reaches the Deployment's spec.
fn workload_at_rest(writes: &Writes, history: &History) -> anyhow::Result<()> {
    let states = writes.states();
    let generation = |state: Option<&kube::core::DynamicObject>| {
        let generation = state.and_then(|state| state.metadata.generation);
        generation.context("no generation")
    };
    let changes = generation(states.last())? - generation(states.first())?;
    let counts = history.changes();
    ensure!(
        counts == [1, 0] && changes == 2,
        "{changes} generations, counts {counts:?}"
    );
    Ok(())
}

#[tokio::test]
async fn apply_and_replace_keep_what_the_mode_needs() -> anyhow::Result<()> {
    in_namespace("apply", async |namespace| {
        let (agent, app) = (Agent::deploy(namespace).await?, bursting("shop"));
        let workload = enrolled(&app, namespace).await?;
        let load = load(&agent, &workload).await?;
        let before = held(&workload).await?;
        let (services, manifest) = app.manifests(&namespace.name).swap_remove(0);
        let path = format!("{services}/shop");
        // As kubectl apply does it on the client.
        let merged = json!({ "spec": manifest["spec"] });
        let strategic = "application/strategic-merge-patch+json";
        namespace.cluster.patch(&path, strategic, &merged).await?;
        let applied = workload.service_json().await?;
        ensure!(applied["spec"] == before["spec"], "applied: {applied}");
        let body = serde_json::to_vec(&manifest)?;
        namespace.cluster.text("PUT", &path, body).await?;
        let replaced = workload.service_json().await?;
        for part in ["/spec", "/metadata/annotations"] {
            let (then, now) = (before.pointer(part), replaced.pointer(part));
            ensure!(then == now, "replaced: {replaced}");
        }
        some_more(&load).await?;
        all_answered(&load.stop().await?)
    })
    .await
}

#[tokio::test]
async fn another_target_and_another_selector_are_taken_over() -> anyhow::Result<()> {
    in_namespace("changed", async |namespace| {
        let second = Port {
            name: "second",
            container: 8081,
            service: 81,
            ..Port::http()
        };
        let app = App::new("shop").arg("--port=8080").arg("--port=8081");
        let app = app.ports([Port::http(), second]);
        let green = App::plain("green").ports([Port::http()]);
        let (agent, green) = (
            Agent::deploy(namespace).await?,
            green.deploy(namespace).await?,
        );
        let workload = enrolled(&app, namespace).await?;
        green.rolled_out().await?;
        let manifests = app.manifests(&namespace.name);
        let changed = |part: &str, value: Value| {
            let mut manifests = manifests.clone();
            if let Some(place) = manifests[0].1.pointer_mut(part) {
                *place = value;
            }
            manifests
        };
        let first = targets(&workload, "lull-8080").await?;
        ensure!(
            first.target(80) == Some(&TargetPort::Number(8080)),
            "{first:?}"
        );
        let load = load(&agent, &workload).await?;
        let controller = gitops::Controller::start(&namespace.cluster, manifests.clone(), EVERY);

        controller.change(changed("/spec/ports/0/targetPort", json!(8081)));
        let noted = targets(&workload, "lull-8081").await?;
        ensure!(
            noted.target(80) == Some(&TargetPort::Number(8081)),
            "{noted:?}"
        );
        answered_on(&agent, &workload, 8081).await?;
        some_more(&load).await?;

        controller.change(changed("/spec/selector/app", json!("green")));
        eventually("the Service to be the user's", FOLLOW, async || {
            let service = workload.service_json().await?;
            ensure!(!leftovers::has_traces(&service), "{service}");
            let target = &service["spec"]["ports"][0]["targetPort"];
            ensure!(*target == 8080, "it targets {target}");
            let backends = slices::backends(&workload).await?;
            ensure!(backends.activators.is_empty(), "{backends:?}");
            Ok(())
        })
        .await?;
        answered_by(&agent, &workload, &green).await?;
        some_more(&load).await?;

        controller.change(manifests.clone());
        let noted = targets(&workload, "lull-8080").await?;
        ensure!(noted == first, "{noted:?}, at first {first:?}");
        answered_by(&agent, &workload, &workload).await?;
        some_more(&load).await?;
        controller.a_round().await?;
        all_answered(&load.stop().await?)
    })
    .await
}

#[tokio::test]
async fn a_named_port_that_gets_another_number_loses_no_request() -> anyhow::Result<()> {
    in_namespace("renumbered", async |namespace| {
        let cluster = &namespace.cluster;
        let listening = |port: u16| {
            let named = Port {
                container: port,
                by_name: true,
                ..Port::http()
            };
            // While new pods start, the older ones are all there is.
            let app = App::new("shop").arg("--delay-listen=5s");
            let app = app.arg(&format!("--port={port}")).ports([named]);
            app.manifests(&namespace.name)
        };
        let agent = Agent::deploy(namespace).await?;
        gitops::apply(cluster, &listening(8080)).await?;
        let workload = Workload::new(namespace, "shop");
        workload.enrolled().await?;
        workload.rolled_out().await?;
        targets(&workload, "lull-8080").await?;
        let load = load(&agent, &workload).await?;
        some_more(&load).await?;

        for port in [8081, 8082] {
            gitops::apply(cluster, &listening(port)).await?;
            let noted = targets(&workload, &format!("lull-{port}")).await?;
            let name = TargetPort::Name("http".to_owned());
            ensure!(noted.target(80) == Some(&name), "{noted:?}");
            answered_on(&agent, &workload, port).await?;
            // The sidecar's port has two names now, and nobody minds.
            gitops::apply(cluster, &listening(port)).await?;
            some_more(&load).await?;
        }
        all_answered(&load.stop().await?)
    })
    .await
}

/// kube-proxy follows within a second or so.
pub(crate) async fn answered_on(
    agent: &Agent,
    workload: &Workload,
    port: u16,
) -> anyhow::Result<()> {
    eventually("an answer on the new port", FOLLOW, async || {
        let answer = agent.get(&workload.url("/")).await?;
        let hello: Hello = serde_json::from_str(&answer.body)?;
        ensure!(hello.port == port, "answered on {}", hello.port);
        Ok(())
    })
    .await
}

/// Waits until a ready pod of `by` answers whoever calls the Service of `workload`.
pub(crate) async fn answered_by(
    agent: &Agent,
    workload: &Workload,
    by: &Workload,
) -> anyhow::Result<()> {
    eventually("an answer of the new pods", FOLLOW, async || {
        let answer = agent.get(&workload.url("/")).await?;
        let pods = by.ready_pods().await?;
        let pod = answer.pod.context("it doesn't say which pod it is")?;
        ensure!(
            pods.contains(&pod),
            "answered by {pod}, not by one of {pods:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn scale_set_image_and_rollout_undo_work_as_ever() -> anyhow::Result<()> {
    in_namespace("rollouts-of-users", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        // Older than Lull: the first revision's template has no sidecar.
        let app = App::plain("shop").env("VERSION", "1");
        let workload = app.deploy(namespace).await?;
        workload.rolled_out().await?;
        let plain = workload.object_json().await?["spec"]["template"].clone();
        // What somebody else has scaled is kept for a window.
        let on = [(SCALE, Some("true")), ("lull.dev/window", Some("60s"))];
        workload.annotate(&on).await?;
        workload.enrolled().await?;
        workload.rolled_out().await?;
        let first = workload.object_json().await?["spec"]["template"].clone();
        // Callers of the plain pods are forgotten by then; see `Agent::reaches_alone`.
        let scout = Agent::deploy_as("scout", namespace).await?;
        scout.reaches_alone(&workload).await?;
        let load = load(&agent, &workload).await?;

        workload.scale(2).await?;
        slices_have(&workload, 2).await?;
        let version = json!({ "env": [{ "name": "VERSION", "value": "2" }] });
        workload.change_container(version).await?;
        workload.rolled_out().await?;
        undo_to(&workload, &first).await?;
        workload.rolled_out().await?;
        let now = workload.object_json().await?["spec"]["template"].clone();
        ensure!(now == first, "undone to {now}");
        some_more(&load).await?;
        // To the revision from before Lull: it is injected again, so nothing changes.
        undo_to(&workload, &plain).await?;
        let now = workload.object_json().await?["spec"]["template"].clone();
        ensure!(now == first, "undone to {now}");
        let record = &now["metadata"]["annotations"][INJECTED_ANNOTATION];
        ensure!(record.is_string(), "the record is {record}");
        some_more(&load).await?;
        all_answered(&load.stop().await?)
    })
    .await
}

async fn slices_have(workload: &Workload, pods: usize) -> anyhow::Result<()> {
    eventually("the scaled pods", FOLLOW, async || {
        slices::pods_only(workload, pods).await
    })
    .await
    .map(drop)
}

/// As `kubectl rollout undo` does it: the old ReplicaSet's template in the place of the new one.
async fn undo_to(workload: &Workload, template: &Value) -> anyhow::Result<()> {
    let (cluster, kind) = (&workload.cluster, workload.kind);
    let path = format!("{}/{}", kind.path(&workload.namespace), workload.name);
    let patch = json!([{ "op": "replace", "path": "/spec/template", "value": template }]);
    cluster
        .patch(&path, "application/json-patch+json", &patch)
        .await
}
