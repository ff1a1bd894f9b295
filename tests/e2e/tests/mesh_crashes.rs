//! The autoscaler ends right after every write that tells Istio of a workload, in turn, and after those
//! around it: entries of activators, slices that Istio doesn't read, and the DestinationRule of a connect
//! timeout. Another replica goes on, no request fails and nothing is left behind.
//!
//! What it writes without a mesh, too, is crashes.rs's. Autoscalers are away all the time, so nothing
//! else may run beside this.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_contract::{annotations::SCALE, scaled_workload::Mode};
use lull_e2e::{
    Agent, App, Original, Workload,
    crashes::{Crashes, all_back, ended, load},
    eventually, in_mesh_for, mesh, plain,
    races::is_switched,
};

/// Longest time of this test: 22 crashes, and pods that wait for their Envoys.
const TEST: Duration = Duration::from_secs(2_400);
/// Longest wait for the crashes of one part of the life, and for what follows them. Who leads anew while it falls
/// asleep has to hear everybody for a window before it begins again, and takes activators out until then.
const PART: Duration = Duration::from_secs(300);

// Writes by their names in the autoscaler's code, as in crashes.rs.

const ENROL: [&str; 3] = ["SwitchService", "Awake", "WriteRule"];
/// Of two entries the first is there, and the second is the next leader's.
const SLEEP: [&str; 5] = [
    "WriteSlice",
    "WriteEntry",
    "FallingAsleep",
    "WriteScale",
    "Asleep",
];
/// Any replica may write it; what its leader writes next has a wake of its own.
const WAKE: [&str; 1] = ["WriteScale"];
/// The same of the entries that go.
const CALM: [&str; 4] = ["Settling", "DeleteEntry", "DeleteSlice", "Awake"];
const NO_TIMEOUT: [&str; 1] = ["DeleteRule"];
/// It leaves in its sleep, so it is woken first. All at once: who leads next tells at once that it leaves, before
/// a test could ask for more.
const LEAVE: [&str; 8] = [
    "WriteScale",
    "Leaving",
    "DeleteEntry",
    "DeleteSlice",
    "RestoreService",
    "Annotate",
    "DeleteWorkload",
    "DropFinalizer",
];

/// By it Lull writes a DestinationRule, and holds callers as long.
const CONNECT_TIMEOUT: &str = "lull.dev/connect-timeout";
const ON: [(&str, Option<&str>); 4] = [
    (SCALE, Some("true")),
    ("lull.dev/window", Some("6s")),
    ("lull.dev/max-scale", Some("1")),
    (CONNECT_TIMEOUT, Some("60s")),
];

#[tokio::test]
async fn after_every_write_to_istio_another_replica_goes_on_and_no_request_fails()
-> anyhow::Result<()> {
    in_mesh_for(TEST, "crashes", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        // As in any rollout of plain pods: Envoys hear of an end after it.
        let app = App::plain("shop").lingering(plain::LINGER);
        let workload = app.deploy(namespace).await?;
        workload.rolled_out().await?;
        let original = Original::of(&workload).await?;
        let crashes = Crashes::start(&workload).await?;
        let parts = (&agent, &workload, &crashes);
        enrolled_and_asleep(parts).await?;
        woken_twice(parts).await?;
        left(parts).await?;
        eventually("everything to be given back", PART, async || {
            original.given_back(&workload).await
        })
        .await?;
        all_back(&namespace.cluster).await
    })
    .await
}

type Parts<'a> = (&'a Agent, &'a Workload, &'a Crashes);

async fn enrolled_and_asleep((agent, workload, crashes): Parts<'_>) -> anyhow::Result<()> {
    crashes.after(&ENROL).await?;
    workload.annotate(&ON).await?;
    workload.rolled_out().await?;
    agent.is_answered(&workload.url("/"), PART).await?;
    let load = load(agent, workload).await?;
    crashes.done(PART).await?;
    ended(load).await?;
    crashes.after(&SLEEP).await?;
    crashes.done(PART).await?;
    is_asleep(workload).await
}

async fn woken_twice((agent, workload, crashes): Parts<'_>) -> anyhow::Result<()> {
    crashes.after(&WAKE).await?;
    let first = load(agent, workload).await?;
    crashes.done(PART).await?;
    is_awake(workload).await?;
    let first = ended(first).await?;
    is_asleep(workload).await?;

    crashes.after(&CALM).await?;
    let second = load(agent, workload).await?;
    crashes.done(PART).await?;
    is_awake(workload).await?;
    crashes.after(&NO_TIMEOUT).await?;
    workload.annotate(&[(CONNECT_TIMEOUT, None)]).await?;
    crashes.done(PART).await?;
    let rules = mesh::connect_timeouts(workload).await?;
    ensure!(rules.is_empty(), "{rules:?}");
    let second = ended(second).await?;
    for woke in [&first, &second] {
        // Answers say nothing of activators here, which see connections alone.
        let first = woke.first_ok_ms.context("nobody was answered")?;
        ensure!(
            first > 3.0 * woke.latency_ms.p50,
            "nobody was held: {woke:?}"
        );
    }
    is_asleep(workload).await
}

/// It leaves in its sleep; callers come once it is being woken for that.
async fn left((agent, workload, crashes): Parts<'_>) -> anyhow::Result<()> {
    crashes.after(&LEAVE).await?;
    workload
        .annotate(&ON.map(|(key, _)| (key, None::<&str>)))
        .await?;
    eventually("the wake before it leaves", PART, async || {
        ensure!(workload.replicas().await? > 0, "it sleeps");
        Ok(())
    })
    .await?;
    let load = load(agent, workload).await?;
    let done = crashes.done(PART).await?;
    workload.rolled_out().await?;
    let result = ended(load).await?;
    eprintln!("{} crashes, {} answered at last", done.len(), result.ok);
    Ok(())
}

/// Waits until it sleeps, has no pods, and Istio has been told of the activators.
async fn is_asleep(workload: &Workload) -> anyhow::Result<()> {
    workload.asleep().await?;
    workload.pods_gone().await?;
    eventually("an entry for each activator", PART, async || {
        let entries = mesh::entries(workload).await?.len();
        let activators = workload.cluster.ready_names("activator").await?.len();
        ensure!(entries == activators, "{entries} for {activators}");
        Ok(())
    })
    .await
}

/// Waits until pods alone are its endpoints, for Kubernetes and for Istio.
async fn is_awake(workload: &Workload) -> anyhow::Result<()> {
    eventually("pods alone", PART, async || {
        is_switched(workload, Mode::Serve).await?;
        let entries = mesh::entries(workload).await?.len();
        ensure!(entries == 0, "{entries} entries");
        Ok(())
    })
    .await
}
