//! `kubectl apply`, `kubectl apply --server-side` and `helm upgrade`, each again and again by a GitOps
//! controller: nobody fights, and what a manifest really changes is taken over.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;
use lull_contract::original::TargetPort;
use lull_e2e::{
    Agent, App, Namespace, Workload, all_answered,
    app::Port,
    eventually,
    gitops::{Applier, Controller, Manifests, Tool},
    history::History,
    in_namespace_for, leftovers, rounds, say, slices,
    writes::Writes,
};
use sample_app::wire::RunSpec;
use serde_json::{Value, json};

use crate::tools::{answered_by, answered_on, targets};

/// Between two rounds, and how long they go on: what issue 7 asks for.
const FULL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// The same where one run of all tests must have time for it: one sleep and what follows it.
const SHORT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// Longest time of the test.
const TEST: Duration = Duration::from_secs(900);
/// Longest wait for a state that must come, a round among it.
const FOLLOW: Duration = Duration::from_secs(90);
/// Writes that take fields over which Lull had written before: one for each of two kinds of them.
const TAKEN_OVER: usize = 2;

#[tokio::test]
async fn what_kubectl_and_helm_apply_again_and_again_changes_nothing_but_what_is_new()
-> anyhow::Result<()> {
    in_namespace_for(TEST, "reapplied", async |namespace| {
        let green = App::plain("green").ports([Port::http()]);
        let (agent, green) = (
            Agent::deploy(namespace).await?,
            green.deploy(namespace).await?,
        );
        green.rolled_out().await?;
        let all = Tool::ALL.map(|tool| Box::pin(reapplied(namespace, (&agent, &green), tool)));
        try_join_all(all).await?;
        Ok(())
    })
    .await
}

async fn reapplied(
    namespace: &Namespace,
    (agent, green): (&Agent, &Workload),
    tool: Tool,
) -> anyhow::Result<()> {
    let (every, length) = if rounds::is_full() { FULL } else { SHORT };
    let manifests = two_ports(tool.name()).manifests(&namespace.name);
    let applier = Applier::try_new(tool, namespace)?;
    applier.apply(&manifests).await?;
    let workload = Workload::new(namespace, tool.name());
    workload.enrolled().await?;
    workload.asleep().await?;
    workload.pods_gone().await?;
    let controller = Controller::start_by(applier, manifests.clone(), every);
    unchanged(&controller, (agent, &workload), length).await?;
    taken_over(&controller, (agent, &workload, green), &manifests).await
}

/// The app answers on both, so that the Service may target either.
fn two_ports(name: &str) -> App {
    let second = Port {
        name: "second",
        container: 8081,
        service: 81,
        ..Port::http()
    };
    let app = App::new(name).arg("--port=8080").arg("--port=8081");
    app.ports([Port::http(), second])
}

/// Sleeps and wakes while the same manifest is applied: what is written in between is written once.
async fn unchanged(
    controller: &Controller,
    (agent, workload): (&Agent, &Workload),
    length: Duration,
) -> anyhow::Result<()> {
    let (service, object) = (
        Writes::of_service(workload).await?,
        Writes::of_workload(workload).await?,
    );
    let history = History::start(workload).await?;
    let (began, mut cycles) = (Instant::now(), 0);
    while cycles == 0 || began.elapsed() < length {
        at_rest(controller, [&service, &object]).await?;
        all_answered(&agent.run(&burst(workload)).await?)?;
        workload.asleep().await?;
        workload.pods_gone().await?;
        cycles += 1;
    }
    let rounds = at_rest(controller, [&service, &object]).await?;
    let counts = history.changes();
    ensure!(
        counts == [1, 0].repeat(cycles),
        "{cycles} cycles: {counts:?}"
    );
    ensure!(
        generations(&object) == Some(2 * i64::try_from(cycles)?),
        "of the spec only the count was to change: {:?} generations in {cycles} cycles",
        generations(&object)
    );
    let (first, writes) = (service.states().swap_remove(0), service.states().len() - 1);
    let spec = &first.data["spec"];
    let is_same = service
        .states()
        .iter()
        .all(|state| state.data["spec"] == *spec);
    ensure!(
        is_same && writes <= TAKEN_OVER,
        "{writes} writes of the Service, its spec the same: {is_same}"
    );
    say(format!(
        "{}: {rounds} rounds in {:.0?}, {cycles} sleeps, {writes} writes of the Service, {} of the \
         Deployment and its status",
        workload.name,
        began.elapsed(),
        object.states().len() - 1
    ));
    Ok(())
}

/// What is there is asleep, so after a round that takes over what Lull has written nobody writes anything;
/// rounds so far.
async fn at_rest(controller: &Controller, all: [&Writes; 2]) -> anyhow::Result<u64> {
    controller.a_round().await?;
    let before = all.map(|writes| writes.states().len());
    let rounds = controller.a_round().await?;
    let after = all.map(|writes| writes.states().len());
    let last = all.map(|writes| writes.states().pop().map(|state| state.metadata));
    ensure!(
        before == after,
        "states of Service and Deployment: {before:?}, then {after:?}; the last are {last:?}"
    );
    Ok(rounds)
}

/// Changes of the spec since the watch began.
fn generations(writes: &Writes) -> Option<i64> {
    let states = writes.states();
    let (first, last) = (states.first()?, states.last()?);
    Some(last.metadata.generation? - first.metadata.generation?)
}

fn burst(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=5"),
        connections: 5,
        requests: Some(100),
        ..RunSpec::default()
    }
}

/// Another target and another selector, and back, under load.
async fn taken_over(
    controller: &Controller,
    (agent, workload, green): (&Agent, &Workload, &Workload),
    manifests: &Manifests,
) -> anyhow::Result<()> {
    let changed = |part: &str, value: Value| {
        let mut manifests = manifests.clone();
        if let Some(place) = manifests[0].1.pointer_mut(part) {
            *place = value;
        }
        manifests
    };
    let load = agent.start(&load(workload)).await?;
    eventually("it to be awake", FOLLOW, async || {
        slices::pods_only(workload, 1).await
    })
    .await?;

    controller.change(changed("/spec/ports/0/targetPort", json!(8081)));
    let noted = targets(workload, "lull-8081").await?;
    let number = noted.target(80);
    ensure!(number == Some(&TargetPort::Number(8081)), "{noted:?}");
    answered_on(agent, workload, 8081).await?;

    controller.change(changed("/spec/selector/app", json!("green")));
    eventually("the Service to be the user's", FOLLOW, async || {
        let service = workload.service_json().await?;
        ensure!(!leftovers::has_traces(&service), "{service}");
        let target = &service["spec"]["ports"][0]["targetPort"];
        ensure!(*target == 8080, "it targets {target}");
        Ok(())
    })
    .await?;
    answered_by(agent, workload, green).await?;

    controller.change(manifests.clone());
    targets(workload, "lull-8080").await?;
    answered_by(agent, workload, workload).await?;
    controller.a_round().await?;
    all_answered(&load.stop().await?)
}

/// By new connections, for longer than it takes.
fn load(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 5,
        rate: Some(20.0),
        seconds: Some(TEST.as_secs_f64()),
        keep_alive: false,
        ..RunSpec::default()
    }
}
