//! The autoscaler ends right after every single write of enrol, switch, sleep, wake and leave in turn:
//! another replica goes on, no request fails and nothing is left behind.
//!
//! It takes autoscalers away all the time, so nothing else may run beside it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use lull_contract::{annotations::SCALE, names::HELD_LABEL};
use lull_e2e::{
    Agent, App, Original, Workload, agent::Run, all_answered, crashes::Crashes, eventually,
    in_namespace_for,
};
use sample_app::wire::{RunResult, RunSpec};

/// Longest time of this test: 21 crashes of some seconds, and a whole life between them.
const TEST: Duration = Duration::from_secs(900);
/// Longest time of one load; it is stopped before.
const LOAD: Duration = Duration::from_secs(600);
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
        all_back(&workload).await?;
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

/// New connections all the time; who calls a sleeper while no autoscaler is there waits for one.
async fn load<'a>(agent: &'a Agent, workload: &Workload) -> anyhow::Result<Run<'a>> {
    let spec = RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 20,
        rate: Some(50.0),
        seconds: Some(LOAD.as_secs_f64()),
        keep_alive: false,
        timeout_ms: 120_000,
        ..RunSpec::default()
    };
    agent.start(&spec).await
}

async fn ended(load: Run<'_>) -> anyhow::Result<RunResult> {
    let result = load.stop().await?;
    all_answered(&result)?;
    Ok(result)
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

/// Waits until every replica is ready, for whoever comes next.
async fn all_back(workload: &Workload) -> anyhow::Result<()> {
    let cluster = &workload.cluster;
    eventually("the autoscalers to be ready", PART, async || {
        let all = cluster.component_pods("autoscaler").await?.len();
        let ready = cluster.ready_names("autoscaler").await?.len();
        ensure!(ready > 1 && ready == all, "{ready} of {all} are ready");
        Ok(())
    })
    .await
}
