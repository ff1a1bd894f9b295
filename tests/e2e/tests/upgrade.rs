//! The chart is upgraded, and rolled back, under load: every component is replaced and new pods would
//! get another sidecar. Where `E2E_UPGRADE_FROM` is set what is there is an older version, which scripts have
//! installed: it is upgraded to this one, images and CRD, too, and not rolled back.
//!
//! It replaces what every other test needs, so nothing may run beside it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use lull_contract::names::QUEUE_PROXY_CONTAINER;
use lull_e2e::{
    Agent, App, Workload, agent::Run, all_answered, cluster::COMPONENTS, in_namespace_for, release,
};
use sample_app::wire::RunSpec;
use serde_json::{Value, json};

/// Longest time of this test: two rollouts of every component, each of which drains.
const TEST: Duration = Duration::from_secs(900);
/// What the sidecar of the next version asks for.
const MEMORY: &str = "24Mi";

#[tokio::test]
async fn an_upgrade_and_its_rollback_lose_nothing_and_leave_sidecars_as_they_are()
-> anyhow::Result<()> {
    in_namespace_for(TEST, "upgrade", async |namespace| {
        let cluster = &namespace.cluster;
        let agent = Agent::deploy(namespace).await?;
        let (warm, proxied, sleeper) = (
            App::new("warm").annotate("lull.dev/max-scale", "1"),
            App::new("proxied").annotate("lull.dev/target-burst-capacity", "-1"),
            App::new("sleeper"),
        );
        let (warm, proxied, sleeper) = tokio::try_join!(
            warm.deploy_asleep(namespace),
            proxied.deploy_asleep(namespace),
            sleeper.deploy_asleep(namespace)
        )?;
        let loads = [loads(&agent, &warm).await?, loads(&agent, &proxied).await?];
        let mut woken = upgraded(&agent, &warm, &sleeper).await?;
        let new = replaced_by_its_user(&warm).await?;
        if !is_from_older() {
            let back = release::helm(cluster, &["rollback", "lull"], &COMPONENTS);
            woken += while_replaced(&agent, &sleeper, back).await?;
        }
        ensure!(sidecar(&warm).await? == new, "the new sidecar was changed");
        for run in loads.into_iter().flatten() {
            let result = run.stop().await?;
            all_answered(&result)?;
            eprintln!("{} answered, {:?} ms", result.ok, result.latency_ms);
        }
        eprintln!("the sleeper was woken {woken} times");
        Ok(())
    })
    .await
}

/// Upgrades, while both have older sidecars, which the next version hears and leaves as they are; number of
/// wakes meanwhile.
async fn upgraded(agent: &Agent, warm: &Workload, sleeper: &Workload) -> anyhow::Result<u64> {
    let before = [sidecar(warm).await?, sidecar(sleeper).await?];
    let pods = warm.ready_pods().await?;
    let upgrade = upgrade();
    let upgrade: Vec<&str> = upgrade.iter().map(String::as_str).collect();
    let upgraded = release::helm(&warm.cluster, &upgrade, &COMPONENTS);
    let woken = while_replaced(agent, sleeper, upgraded).await?;
    // Whoever is not heard stays awake.
    slept_and_woken(agent, sleeper).await?;
    sleeper.asleep().await?;
    let after = [sidecar(warm).await?, sidecar(sleeper).await?];
    ensure!(before == after, "sidecars were {before:?}, are {after:?}");
    let now = warm.ready_pods().await?;
    ensure!(now == pods, "its pods were {pods:?}, are {now:?}");
    Ok(woken + 1)
}

/// The user's own next rollout brings the new sidecar, under load.
async fn replaced_by_its_user(warm: &Workload) -> anyhow::Result<Value> {
    let old = sidecar(warm).await?;
    let version = json!({ "env": [{ "name": "VERSION", "value": "2" }] });
    warm.change_container(version).await?;
    warm.rolled_out().await?;
    let new = sidecar(warm).await?;
    let asked = &new["resources"]["requests"]["memory"];
    ensure!(asked == MEMORY && new != old, "the new sidecar is {new}");
    let is_other = new["image"] != old["image"];
    ensure!(is_other == is_from_older(), "it was {old}, is {new}");
    Ok(new)
}

/// On kept connections, and each request on its own.
async fn loads<'a>(agent: &'a Agent, workload: &Workload) -> anyhow::Result<[Run<'a>; 2]> {
    let kept = RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 10,
        seconds: Some(TEST.as_secs_f64()),
        rate: Some(50.0),
        timeout_ms: 60_000,
        ..RunSpec::default()
    };
    agent.start_kept_and_new(kept).await
}

/// The queue-proxy as the workload's template has it.
async fn sidecar(workload: &Workload) -> anyhow::Result<Value> {
    let object = workload.object_json().await?;
    let containers = object["spec"]["template"]["spec"]["containers"].as_array();
    let mut containers = containers.context("no containers")?.iter();
    let sidecar = containers.find(|one| one["name"] == QUEUE_PROXY_CONTAINER);
    sidecar.cloned().context("no queue-proxy")
}

/// Whether what is there is another version than this one.
fn is_from_older() -> bool {
    std::env::var_os("E2E_UPGRADE_FROM").is_some_and(|commit| !commit.is_empty())
}

/// This chart with this version's images, another template for every component and another sidecar.
fn upgrade() -> [String; 7] {
    // As scripts/cluster.sh installs it.
    let tag = std::env::var("IMAGE_TAG").ok();
    let tag = tag.filter(|tag| !tag.is_empty());
    let tag = tag.unwrap_or_else(|| "dev".to_owned());
    [
        "upgrade".to_owned(),
        "lull".to_owned(),
        release::chart(),
        // Over those of this chart, not over those of the one that is there.
        "--reset-then-reuse-values".to_owned(),
        format!("--set=settings.sidecar-memory-request={MEMORY}"),
        "--set=pods.annotations.lull-e2e=next".to_owned(),
        format!("--set=image.tag={tag}"),
    ]
}

/// Bursts from zero until `replaced` is over; number of bursts.
async fn while_replaced(
    agent: &Agent,
    sleeper: &Workload,
    replaced: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<u64> {
    let over = AtomicBool::new(false);
    let replaced = async {
        let outcome = replaced.await;
        over.store(true, Ordering::Relaxed);
        outcome
    };
    let bursts = async {
        let mut bursts = 0;
        while !over.load(Ordering::Relaxed) {
            slept_and_woken(agent, sleeper).await?;
            bursts += 1;
        }
        Ok(bursts)
    };
    let ((), bursts) = tokio::try_join!(replaced, bursts)?;
    Ok(bursts)
}

/// A burst from zero.
async fn slept_and_woken(agent: &Agent, sleeper: &Workload) -> anyhow::Result<()> {
    sleeper.asleep().await?;
    let burst = RunSpec {
        url: sleeper.url("/?sleep_ms=5"),
        connections: 20,
        requests: Some(300),
        ..RunSpec::default()
    };
    all_answered(&agent.run(&burst).await?)
}
