//! The autoscaler ends right after every single write of enrol, switch, sleep, wake and leave in turn:
//! another replica goes on, no request fails and nothing is left behind.
//!
//! The same of a workload whose template loses its sidecar while there is no webhook: its callers are led
//! to plain pods, and back.
//!
//! Autoscalers are away all the time, so nothing else may run beside these.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lull_contract::{annotations::SCALE, names::HELD_LABEL};
use lull_e2e::{
    Agent, App, Namespace, Original, Workload,
    agent::Run,
    components,
    crashes::{Crashes, all_back, ended, load},
    eventually, in_namespace_for, plain, slices,
};

/// As [`COMPONENTS`](lull_e2e::cluster::COMPONENTS) has it.
const ACTIVATOR: &str = "activator";
/// Longest time of one test: up to 21 crashes of some seconds, and a whole life between them.
const TEST: Duration = Duration::from_secs(900);
/// Longest wait for the crashes of one part of the life, and for what follows them.
const PART: Duration = Duration::from_secs(120);

/// Writes in the order of a workload's life, by their names in the autoscaler's code: what a write is
/// for, or the state that a new status tells of. Reads, and a status that tells of no other state,
/// change nothing that another replica could stumble over.
const ENROL: [&str; 4] = [
    "WriteWorkload",
    "WritePrivateService",
    "SwitchService",
    "Awake",
];
const BURST: [&str; 3] = ["WriteSlice", "Bursting", "HoldSelector"];
const SLEEP: [&str; 4] = ["FallingAsleep", "WriteScale", "Asleep", "RestoreSelector"];
/// Any replica may write it. Where one that doesn't lead was quicker, the leader goes on within
/// milliseconds, before a test could ask for more: what it writes next has a wake of its own.
const WAKE: [&str; 1] = ["WriteScale"];
/// Only the leader tells of it. A status that is `Waking` is put off, and not written where a wake is
/// over before.
const WOKEN: [&str; 1] = ["Settling"];
const CALM: [&str; 3] = ["RestoreSelector", "DeleteSlice", "Awake"];
const LEAVE: [&str; 5] = [
    "Leaving",
    "RestoreService",
    "Annotate",
    "DeleteWorkload",
    "DropFinalizer",
];
/// The same of one that leaves with the sentinel in its Service and activators behind that.
const LEAVE_HELD: [&str; 5] = [
    "Leaving",
    "RestoreSelector",
    "DeleteSlice",
    "RestoreService",
    "Annotate",
];

/// Of one that is awake without the sentinel: activators are written in before its pods go.
const PLAIN_SLEEP: [&str; 4] = ["WriteSlice", "FallingAsleep", "WriteScale", "Asleep"];
/// And taken out when its pods are back.
const PLAIN_CALM: [&str; 3] = ["Settling", "DeleteSlice", "Awake"];

/// Of a sleeper whose template has lost the sidecar. Nobody calls it, so no follower wakes it before the
/// leader does.
const LOSE_ASLEEP: [&str; 2] = ["Enrolling", "WriteScale"];
/// Of one that is woken, and has no pod yet: those who are listed are kept right.
const LISTED: [&str; 1] = ["WriteSlice"];
/// Callers are led to its plain pods, and then the webhook is asked for the sidecar.
const PLAIN: [&str; 3] = ["RestoreService", "DeleteSlice", "Annotate"];
/// The same of one that is awake, with the sentinel on its Service.
const LOSE_HELD: [&str; 4] = [
    "Enrolling",
    "RestoreSelector",
    "RestoreService",
    "DeleteSlice",
];
/// The sidecar is back.
const AGAIN: [&str; 2] = ["SwitchService", "Awake"];

/// With a hard limit and this capacity the sentinel stands wherever pods are.
const ON: [(&str, Option<&str>); 5] = [
    (SCALE, Some("true")),
    ("lull.dev/window", Some("6s")),
    ("lull.dev/max-scale", Some("1")),
    ("lull.dev/container-concurrency", Some("10")),
    (BURST_CAPACITY, Some("200")),
];
const BURST_CAPACITY: &str = "lull.dev/target-burst-capacity";

#[tokio::test]
async fn after_every_write_another_replica_goes_on_and_no_request_fails() -> anyhow::Result<()> {
    in_namespace_for(TEST, "crashes", async |namespace| {
        let began = Instant::now();
        let agent = Agent::deploy(namespace).await?;
        let scout = Agent::deploy_as("scout", namespace).await?;
        let workload = App::plain("shop").deploy(namespace).await?;
        workload.rolled_out().await?;
        let original = Original::of(&workload).await?;
        let crashes = Crashes::start(&workload).await?;

        crashes.after(&[&ENROL[..], &BURST[..]].concat()).await?;
        workload.annotate(&ON).await?;
        workload.rolled_out().await?;
        scout.reaches_alone(&workload).await?;
        let first = load(&agent, &workload).await?;
        crashes.done(PART).await?;
        held(&workload).await?;
        let first = ended(first).await?;

        crashes.after(&SLEEP).await?;
        crashes.done(PART).await?;
        workload.asleep().await?;
        workload.pods_gone().await?;

        crashes.after(&WAKE).await?;
        let second = load(&agent, &workload).await?;
        crashes.done(PART).await?;
        held(&workload).await?;
        let second = ended(second).await?;
        workload.asleep().await?;
        workload.pods_gone().await?;

        crashes.after(&WOKEN).await?;
        let third = load(&agent, &workload).await?;
        crashes.done(PART).await?;
        held(&workload).await?;
        crashes.after(&CALM).await?;
        workload.annotate(&[(BURST_CAPACITY, Some("0"))]).await?;
        crashes.done(PART).await?;
        crashes.after(&LEAVE).await?;
        workload
            .annotate(&ON.map(|(key, _)| (key, None::<&str>)))
            .await?;
        let done = crashes.done(PART).await?;
        eventually("everything to be given back", PART, async || {
            original.given_back(&workload).await
        })
        .await?;
        let third = ended(third).await?;
        for woke in [&second, &third] {
            ensure!(woke.via_activator > 0, "nobody was held: {woke:?}");
        }
        all_back(&namespace.cluster).await?;
        original.given_back(&workload).await?;
        eprintln!(
            "{} crashes in {:.0?}, {} requests answered",
            done.len(),
            began.elapsed(),
            first.ok + second.ok + third.ok
        );
        Ok(())
    })
    .await
}

async fn held(workload: &Workload) -> anyhow::Result<()> {
    eventually("the sentinel selector", PART, async || {
        let service = workload.service_json().await?;
        let selector = &service["spec"]["selector"];
        ensure!(!selector[HELD_LABEL].is_null(), "{selector}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_plain_sleep_and_its_wake_go_on_after_every_crash() -> anyhow::Result<()> {
    in_namespace_for(TEST, "crashes-plain", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = App::new("shop").annotate("lull.dev/max-scale", "1");
        let workload = app.deploy_awake(namespace).await?;
        pod_alone(&workload).await?;
        let crashes = Crashes::start(&workload).await?;

        crashes.after(&PLAIN_SLEEP).await?;
        workload.annotate(&[("lull.dev/min-scale", None)]).await?;
        // Whoever leads next takes the activators out again until it has heard the pod for a window.
        crashes.done(2 * PART).await?;
        workload.asleep().await?;
        workload.pods_gone().await?;

        crashes.after(&PLAIN_CALM).await?;
        let load = load(&agent, &workload).await?;
        let done = crashes.done(PART).await?;
        pod_alone(&workload).await?;
        let result = ended(load).await?;
        ensure!(result.via_activator > 0, "nobody was held: {result:?}");
        eprintln!("{} crashes, {} requests answered", done.len(), result.ok);
        all_back(&namespace.cluster).await
    })
    .await
}

async fn pod_alone(workload: &Workload) -> anyhow::Result<()> {
    eventually("its pod alone behind the Service", PART, async || {
        slices::pods_only(workload, 1).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn what_leaves_while_it_is_held_is_given_back_after_every_crash() -> anyhow::Result<()> {
    in_namespace_for(TEST, "crashes-leave", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let scout = Agent::deploy_as("scout", namespace).await?;
        let workload = App::plain("shop").deploy(namespace).await?;
        workload.rolled_out().await?;
        let original = Original::of(&workload).await?;
        workload.annotate(&ON).await?;
        workload.enrolled().await?;
        scout.reaches_alone(&workload).await?;
        let load = load(&agent, &workload).await?;
        held(&workload).await?;

        let crashes = Crashes::start(&workload).await?;
        crashes.after(&LEAVE_HELD).await?;
        workload
            .annotate(&ON.map(|(key, _)| (key, None::<&str>)))
            .await?;
        let done = crashes.done(PART).await?;
        eventually("everything to be given back", PART, async || {
            original.given_back(&workload).await
        })
        .await?;
        let result = ended(load).await?;
        ensure!(result.via_activator > 0, "nobody was held: {result:?}");
        eprintln!("{} crashes, {} requests answered", done.len(), result.ok);
        all_back(&namespace.cluster).await
    })
    .await
}

#[tokio::test]
async fn a_sleeper_that_loses_its_sidecar_is_reached_after_every_crash() -> anyhow::Result<()> {
    in_namespace_for(TEST, "crashes-asleep", async |namespace| {
        let cluster = &namespace.cluster;
        let app = App::new("shop").annotate("lull.dev/max-scale", "1");
        let app = app.lingering(plain::LINGER);
        let workload = app.deploy_asleep(namespace).await?;
        workload.pods_gone().await?;
        let there = cluster.ready_names(ACTIVATOR).await?.len();
        let parts = (namespace, &workload);
        let outcome = Box::pin(lose_asleep(app, parts, there + 1)).await;
        let back = components::scale(cluster, ACTIVATOR, there).await;
        outcome?;
        back?;
        all_back(cluster).await
    })
    .await
}

/// There are `more` activators once it is woken, so that one of them has to be listed.
async fn lose_asleep(
    app: App,
    (namespace, workload): (&Namespace, &Workload),
    more: usize,
) -> anyhow::Result<()> {
    let cluster = &namespace.cluster;
    let agent = Agent::deploy(namespace).await?;
    let crashes = Crashes::start(workload).await?;
    // Its manifest says so, as an old revision would; and an activator is there sooner than its app.
    let bare = app.replicas(0).arg("--delay-listen=40s");
    let load = plain::without_webhook(cluster, async || {
        crashes.after(&LOSE_ASLEEP).await?;
        workload.replace_by(&bare).await?;
        crashes.done(PART).await?;
        crashes.after(&LISTED).await?;
        let load = load(&agent, workload).await?;
        components::scale(cluster, ACTIVATOR, more).await?;
        crashes.done(PART).await?;
        crashes.after(&PLAIN).await?;
        crashes.done(PART).await?;
        plain::reached(workload).await?;
        crashes.after(&AGAIN).await?;
        Ok(load)
    })
    .await?;
    let held = again(&crashes, workload, load).await?;
    ensure!(held > 0, "nobody was held");
    Ok(())
}

#[tokio::test]
async fn a_held_workload_that_loses_its_sidecar_is_reached_after_every_crash() -> anyhow::Result<()>
{
    in_namespace_for(TEST, "crashes-held", async |namespace| {
        let cluster = &namespace.cluster;
        let agent = Agent::deploy(namespace).await?;
        let app = ON.iter().fold(App::plain("shop"), |app, (key, value)| {
            app.annotate(key, value.unwrap_or_default())
        });
        let app = app.lingering(plain::LINGER);
        let workload = app.deploy(namespace).await?;
        workload.enrolled().await?;
        let crashes = Crashes::start(&workload).await?;
        agent.is_answered(&workload.url("/"), PART).await?;
        let load = load(&agent, &workload).await?;
        held(&workload).await?;
        plain::without_webhook(cluster, async || {
            crashes.after(&LOSE_HELD).await?;
            workload.replace_by(&app).await?;
            crashes.done(PART).await?;
            plain::reached(&workload).await?;
            crashes.after(&AGAIN).await
        })
        .await?;
        again(&crashes, &workload, load).await?;
        all_back(cluster).await
    })
    .await
}

/// The webhook is back: waits until the sidecar is, too, and no request of `load` may have failed; how many
/// went by activators.
async fn again(crashes: &Crashes, workload: &Workload, load: Run<'_>) -> anyhow::Result<u64> {
    let done = crashes.done(PART).await?;
    workload.enrolled().await?;
    eventually("pods with the sidecar alone", PART, async || {
        workload.runs(true).await
    })
    .await?;
    let result = ended(load).await?;
    eprintln!("{} crashes, {} requests answered", done.len(), result.ok);
    Ok(result.via_activator)
}
