//! istiod is gone for a minute while a workload is enrolled, is in the middle of a burst, settles after
//! a wake, and leaves: side by side, since the minute is the same one. No request may fail.
//!
//! The phases that a workload stays in, or that callers wait for, are in `mesh_faults.rs`. istiod is
//! everybody's: nothing else can run beside this.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_contract::{
    annotations::SCALE,
    scaled_workload::{Mode, State},
};
use lull_e2e::{
    Agent, App, Workload, agent::Run, all_answered, eventually, in_mesh_for, istiod, mesh,
    races::is_switched,
};
use sample_app::wire::RunSpec;
use tokio::time::sleep;

/// Longest wait for what Istio, Kubernetes or Lull is about to do: a ReplicaSet that was refused tries
/// again after up to 41 s.
const FOLLOW: Duration = Duration::from_secs(120);
/// How long istiod is gone.
const ABSENCE: Duration = Duration::from_secs(60);
/// Longest time of a request: a wake in the mesh on a busy machine.
const PATIENCE_MS: u64 = 60_000;
/// Seconds that Envoys take to come back to an istiod that was away: they try again after up to 30.
const RETURN: u32 = 35;
const BURST_CAPACITY: &str = "lull.dev/target-burst-capacity";

/// Little, since four of them run at once; it ends when it is stopped.
fn load(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 4,
        rate: Some(10.0),
        seconds: Some(3_000.0),
        timeout_ms: PATIENCE_MS,
        ..RunSpec::default()
    }
}

/// The same on kept and on new connections, without waiting for an answer.
async fn called<'a>(agent: &'a Agent, workload: &Workload) -> anyhow::Result<[Run<'a>; 2]> {
    let kept = load(workload);
    let fresh = RunSpec {
        keep_alive: false,
        ..kept.clone()
    };
    Ok([agent.start(&kept).await?, agent.start(&fresh).await?])
}

/// Waits until Kubernetes and Istio have been told all of `mode`.
async fn comes_to(workload: &Workload, mode: Mode) -> anyhow::Result<()> {
    let what = format!("{} to be in {mode} mode", workload.name);
    eventually(&what, FOLLOW, async || {
        is_switched(workload, mode).await?;
        let entries = mesh::entries(workload).await?.len();
        let is_told = (entries > 0) == (mode == Mode::Proxy);
        ensure!(is_told, "{entries} entries in {mode} mode");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn istiod_is_gone_while_workloads_are_enrolled_burst_settle_and_leave() -> anyhow::Result<()>
{
    in_mesh_for(FOLLOW * 8, "phases", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        // Its plain pods go by a rollout, which without a preStop loses requests in a mesh, with or without Lull;
        // here until callers' Envoys have come back to istiod.
        let joins = App::plain("joins").lingering(RETURN);
        let joins = joins.deploy(namespace).await?;
        let bursts = App::new("bursts").deploy_awake(namespace).await?;
        let leaves = App::new("leaves").deploy_awake(namespace).await?;
        let settles = App::new("settles").deploy_awake(namespace).await?;
        joins.rolled_out().await?;
        bursts.annotate(&[(BURST_CAPACITY, Some("-1"))]).await?;
        comes_to(&bursts, Mode::Proxy).await?;
        settles.put_to_sleep().await?;
        let mut runs = Vec::new();
        for workload in [&joins, &bursts, &leaves] {
            let loads = agent.start_kept_and_new(load(workload)).await?;
            runs.push((workload, loads));
        }
        // Its first callers wake it.
        runs.push((&settles, called(&agent, &settles).await?));
        eventually("it to settle", FOLLOW, async || {
            let state = settles.status().await?.state;
            ensure!(state == State::Settling, "it is {state}");
            Ok(())
        })
        .await?;
        istiod::away(&namespace.cluster, ABSENCE, async || {
            // What each of these wants of istiod it can't have for a minute.
            let enrolled = [(SCALE, Some("true")), ("lull.dev/window", Some("6s"))];
            joins.annotate(&enrolled).await?;
            leaves.annotate(&[(SCALE, None)]).await?;
            sleep(ABSENCE / 4).await;
            bursts.annotate(&[(BURST_CAPACITY, Some("0"))]).await
        })
        .await?;
        eventually("it to be enrolled", FOLLOW, async || {
            joins.is_enrolled().await
        })
        .await?;
        comes_to(&bursts, Mode::Serve).await?;
        comes_to(&settles, Mode::Serve).await?;
        eventually("it to have left", FOLLOW, async || has_left(&leaves).await).await?;
        for (workload, loads) in runs {
            for run in loads {
                let result = run.stop().await?;
                all_answered(&result).with_context(|| workload.name.clone())?;
                eprintln!("{}: {} answered", workload.name, result.ok);
            }
        }
        Ok(())
    })
    .await
}

/// Fails unless nothing of Lull is left of it, its sidecar included.
async fn has_left(workload: &Workload) -> anyhow::Result<()> {
    let scaled = workload.scaled().await?;
    ensure!(scaled.is_none(), "{}", workload.status_line().await);
    workload.is_rolled_out().await.map(drop)
}
