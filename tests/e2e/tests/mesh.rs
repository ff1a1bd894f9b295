//! Inside an Istio mesh that requires mutual TLS: callers, policies and the app see no difference
//! between a workload that is awake and one that is woken by the request.

use std::time::Duration;

use anyhow::ensure;
use lull_contract::annotations::SCALE;
use lull_e2e::{
    Agent, App, Workload, all_answered, eventually, in_mesh, in_mesh_for, in_namespace, leftovers,
    mesh, rounds::rounds,
};
use sample_app::wire::{ProbeAnswer, ProbeSpec, RunSpec};

/// Longest wait for what Istio, Kubernetes or Lull is about to do.
const FOLLOW: Duration = Duration::from_secs(60);
/// Longest time until the first cycle can begin.
const SET_UP: Duration = Duration::from_secs(180);
/// Longest time of one cycle of sleep and wake, on a busy machine.
const CYCLE: Duration = Duration::from_secs(60);

/// One request; what became of it is in the answer.
async fn call(agent: &Agent, workload: &Workload) -> anyhow::Result<ProbeAnswer> {
    let spec = ProbeSpec {
        url: workload.url("/"),
        ..ProbeSpec::default()
    };
    agent.probe(&spec).await
}

fn load(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 10,
        seconds: Some(5.0),
        rate: Some(100.0),
        ..RunSpec::default()
    }
}

#[tokio::test]
async fn a_meshed_caller_reaches_a_workload_that_is_awake() -> anyhow::Result<()> {
    in_mesh("warm", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let result = agent.run(&load(&workload)).await?;
        all_answered(&result)?;
        let entries = mesh::entries(&workload).await?;
        ensure!(entries.is_empty(), "awake, and Istio has {entries:?}");
        eprintln!("{} answered, {:?} ms", result.ok, result.latency_ms);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_app_sees_who_called_awake_and_woken() -> anyhow::Result<()> {
    in_mesh("identity", async |namespace| {
        let agent = Agent::deploy_with_account("caller", namespace).await?;
        let caller = (&agent, namespace, "caller");
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        mesh::sees_caller(&workload, caller).await?;

        workload.put_to_sleep().await?;
        let entries = mesh::entries(&workload).await?;
        ensure!(!entries.is_empty(), "asleep, and Istio knows no activator");
        mesh::sees_caller(&workload, caller).await?;
        eventually("the activators to leave", FOLLOW, async || {
            let entries = mesh::entries(&workload).await?;
            ensure!(entries.is_empty(), "Istio has {} entries", entries.len());
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_policy_on_identities_holds_awake_and_woken() -> anyhow::Result<()> {
    in_mesh("policy", async |namespace| {
        let friend = Agent::deploy_with_account("friend", namespace).await?;
        let stranger = Agent::deploy_with_account("stranger", namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        stranger.is_answered(&workload.url("/"), FOLLOW).await?;
        mesh::allow_only(&workload, &mesh::principal(namespace, "friend")).await?;
        eventually("the policy to reach the pod", FOLLOW, async || {
            let answer = call(&stranger, &workload).await?;
            ensure!(answer.status == Some(403), "{answer:?}");
            Ok(())
        })
        .await?;
        friend.get(&workload.url("/")).await?;

        // Each of them wakes it once.
        workload.put_to_sleep().await?;
        let answer = call(&stranger, &workload).await?;
        ensure!(
            answer.status == Some(403),
            "woken by a stranger: {answer:?}"
        );
        workload.asleep().await?;
        workload.pods_gone().await?;
        friend.get(&workload.url("/")).await?;
        let answer = call(&stranger, &workload).await?;
        ensure!(answer.status == Some(403), "awake again: {answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cycles_of_sleep_and_wake_under_load_answer_every_request() -> anyhow::Result<()> {
    let cycles = rounds(10, 50);
    in_mesh_for(SET_UP + CYCLE * cycles, "cycles", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_asleep(namespace).await?;
        for cycle in 1..=cycles {
            // Odd cycles call while the old pod may still be going, even ones when it is gone.
            if cycle % 2 == 0 {
                workload.pods_gone().await?;
            }
            let result = agent.run(&load(&workload)).await?;
            all_answered(&result)?;
            let took = workload.asleep().await?;
            eprintln!(
                "cycle {cycle}: {} answered, {:?} ms, asleep after {took:.1?}",
                result.ok, result.latency_ms
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_caller_of_another_namespace_wakes_and_reaches_it() -> anyhow::Result<()> {
    in_mesh("callers", async |callers| {
        in_mesh("apps", async |apps| {
            let agent = Agent::deploy_with_account("caller", callers).await?;
            let workload = App::new("shop").deploy_asleep(apps).await?;
            workload.pods_gone().await?;
            mesh::sees_caller(&workload, (&agent, callers, "caller")).await?;
            all_answered(&agent.run(&load(&workload)).await?)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_caller_outside_the_mesh_is_refused_awake_and_woken() -> anyhow::Result<()> {
    in_namespace("outside", async |outside| {
        in_mesh("inside", async |inside| {
            let member = Agent::deploy(inside).await?;
            let outsider = Agent::deploy(outside).await?;
            let workload = App::new("shop").deploy_awake(inside).await?;
            member.is_answered(&workload.url("/"), FOLLOW).await?;
            let answer = call(&outsider, &workload).await?;
            ensure!(!answer.ok, "awake: {answer:?}");

            workload.put_to_sleep().await?;
            let answer = call(&outsider, &workload).await?;
            ensure!(!answer.ok, "woken: {answer:?}");
            member.get(&workload.url("/")).await.map(drop)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_workload_that_leaves_in_its_sleep_leaves_nothing_behind() -> anyhow::Result<()> {
    in_mesh("leave", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_asleep(namespace).await?;
        workload
            .annotate(&[(SCALE, None), ("lull.dev/window", None)])
            .await?;
        eventually("everything to be given back", FOLLOW, async || {
            let left = leftovers::leftovers(&namespace.cluster, &namespace.name).await?;
            ensure!(left.is_empty(), "left behind: {}", left.join(", "));
            Ok(())
        })
        .await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await
    })
    .await
}
