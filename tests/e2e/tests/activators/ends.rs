//! Activators that end, in good order and without, and what they hold and share; and none at all.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use lull_contract::{names::HELD_LABEL, scaled_workload::State};
use lull_e2e::{
    Agent, App, Workload, activators, agent, all_answered, components, eventually,
    in_namespace_for, process,
};
use sample_app::wire::{AppStats, RunResult, RunSpec};

use crate::TURN;

/// Requests that a pod takes at once where 500 are poured out.
const LIMIT: u64 = 10;
/// Pods that they are poured into.
const PODS: usize = 5;
/// Fewest wakes while activators end.
const WAKES: u64 = 4;
/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);
/// Longest time from the end of a process to the failure of what it had.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Longest wait for a wake that nobody has asked for: 15 s without an activator, a pod, a busy machine.
const WOKEN: Duration = Duration::from_secs(90);
/// Longest time of this test: activators drain each time they go, and others may have their turn before.
const TEST: Duration = Duration::from_secs(1_200);

/// Always by way of the activators, however many pods there are.
fn always_proxied(name: &str) -> App {
    App::new(name).annotate("lull.dev/target-burst-capacity", "-1")
}

/// One after the other, since each disturbs all activators; together they fall asleep but once.
#[tokio::test]
async fn what_activators_hold_is_poured_evenly_and_survives_their_end() -> anyhow::Result<()> {
    in_namespace_for(TEST, "activators", async |namespace| {
        let (shop, steady, late) = (
            always_proxied("shop")
                .annotate("lull.dev/container-concurrency", &LIMIT.to_string())
                .annotate("lull.dev/max-scale", &PODS.to_string()),
            always_proxied("steady"),
            App::new("late").arg("--delay-listen=4s"),
        );
        let (first, second, idle) = (App::new("first"), App::new("second"), App::new("idle"));
        let (agent, shop, steady, late, first, second, idle) = tokio::try_join!(
            Box::pin(Agent::deploy(namespace)),
            shop.deploy_asleep(namespace),
            steady.deploy_asleep(namespace),
            late.deploy_asleep(namespace),
            first.deploy_asleep(namespace),
            second.deploy_asleep(namespace),
            Box::pin(idle.deploy_asleep(namespace)),
        )?;
        // A pod that ends still answers what comes in the first moment after sleep.
        tokio::try_join!(shop.pods_gone(), late.pods_gone())?;
        let _turn = TURN.lock().await;
        five_hundred_held_are_poured_evenly_and_within_the_limit(&agent, &shop).await?;
        killed_without_warning(&agent, &late).await?;
        ended_in_turn_and_rolled_out(&agent, &steady, [&first, &second]).await?;
        without_any_it_is_woken_and_sleeps_again_when_they_are_back(&agent, &idle).await
    })
    .await
}

/// Only what the killed one held fails, and at once.
async fn killed_without_warning(agent: &Agent, late: &Workload) -> anyhow::Result<()> {
    const CALLERS: u64 = 40;
    let ahead_us = agent.clock_ahead_us().await?;
    // Now: what is held is poured out some seconds after the first call.
    let victim = activators::ready(&late.cluster).await?;
    let victim = victim.first().context("no activator is ready")?;
    let pods = late.cluster.component_pods(activators::COMPONENT).await?;
    let before = components::restarts(&pods, victim)?;
    let run = agent
        .start(&RunSpec {
            url: late.url("/"),
            connections: 40,
            requests: Some(CALLERS),
            timeout_ms: 40_000,
            ..RunSpec::default()
        })
        .await?;
    eventually("all to be held", FOLLOW, async || {
        let held = activators::held(late).await?;
        ensure!(held == CALLERS, "{held} are held");
        Ok(())
    })
    .await?;
    process::kill(victim)?;
    let killed_us = sample_app::unix_us().cast_signed() + ahead_us;
    let result = run.finished().await?;
    eprintln!(
        "of {CALLERS} held, {} were held by the killed one",
        result.failed
    );
    ensure!(
        result.failed > 0 && result.ok > 0 && result.ok + result.failed == CALLERS,
        "held by two: {result:?}"
    );
    let last = result.last_failed_ms.unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "times of this century")]
    let after_ms = result.started_at_unix_ms as f64 + last - killed_us as f64 / 1e3;
    ensure!(
        after_ms < AT_ONCE.as_secs_f64() * 1e3,
        "the last failed {after_ms:.0} ms after the kill: {result:?}"
    );
    eventually("it to be ready again", FOLLOW, async || {
        let pods = late.cluster.component_pods(activators::COMPONENT).await?;
        components::is_restarted(&pods, (victim, before))
    })
    .await
}

/// Every activator in turn, and then all as a rollout does, while one workload is called by way of them all the
/// time and two are called, fall asleep and are called again; once more where the machine was too slow for some
/// wakes.
async fn ended_in_turn_and_rolled_out(
    agent: &Agent,
    steady: &Workload,
    cycled: [&Workload; 2],
) -> anyhow::Result<()> {
    let loads = Loads::start(agent, steady).await?;
    let (over, wakes) = (AtomicBool::new(false), AtomicU64::new(0));
    let ends = async {
        let cluster = &steady.cluster;
        while wakes.load(Ordering::Relaxed) < WAKES {
            for name in activators::ready(cluster).await? {
                components::end(cluster, activators::COMPONENT, &name).await?;
            }
            components::roll_out(cluster, activators::COMPONENT).await?;
        }
        over.store(true, Ordering::Relaxed);
        Ok(())
    };
    let [first, second] = cycled;
    let ((), first, second) = tokio::try_join!(
        ends,
        cycles(agent, first, (&over, &wakes)),
        cycles(agent, second, (&over, &wakes))
    )?;
    let sent = loads.stop().await? + first + second;
    let wakes = wakes.into_inner();
    eprintln!("{sent} requests, {wakes} wakes, 0 failed");
    Ok(())
}

/// Bursts from zero, with sleep between them, until `over`, which count as `wakes`; number of requests.
async fn cycles(
    agent: &Agent,
    app: &Workload,
    (over, wakes): (&AtomicBool, &AtomicU64),
) -> anyhow::Result<u64> {
    let mut sent = 0;
    let burst = RunSpec {
        url: app.url("/?sleep_ms=5"),
        connections: 50,
        requests: Some(1_500),
        ..RunSpec::default()
    };
    while !over.load(Ordering::Relaxed) {
        app.asleep().await?;
        let result = agent.run(&burst).await?;
        all_answered(&result)?;
        wakes.fetch_add(1, Ordering::Relaxed);
        sent += result.sent;
    }
    Ok(sent)
}

/// Waits until new connections reach activators and nothing else: from its pods' first readiness
/// until the activators have taken over, a workload that wakes is reached directly, too, and
/// connections that are kept stay there. Before that readiness all are held by activators, so only
/// answers that come while the Service selects no pod count.
async fn proxied_alone(agent: &Agent, app: &Workload) -> anyhow::Result<()> {
    let spec = RunSpec {
        url: app.url("/"),
        connections: 10,
        requests: Some(40),
        keep_alive: false,
        ..RunSpec::default()
    };
    eventually("activators alone to be reached", FOLLOW, async || {
        let service = app.service_json().await?;
        let result = agent.run(&spec).await?;
        all_answered(&result)?;
        let selector = &service["spec"]["selector"];
        let is_held = !selector[HELD_LABEL].is_null();
        ensure!(is_held, "the Service selects pods: {selector}");
        let direct = result.sent - result.via_activator;
        ensure!(direct == 0, "{direct} of {} went directly", result.sent);
        Ok(())
    })
    .await
}

/// Two loads on one workload: on kept connections, and each request on its own.
struct Loads<'a>([lull_e2e::agent::Run<'a>; 2]);

impl<'a> Loads<'a> {
    async fn start(agent: &'a Agent, app: &Workload) -> anyhow::Result<Self> {
        proxied_alone(agent, app).await?;
        let kept = RunSpec {
            url: app.url("/?sleep_ms=10"),
            connections: 20,
            // Stopped before.
            seconds: Some(TEST.as_secs_f64()),
            rate: Some(150.0),
            ..RunSpec::default()
        };
        let fresh = RunSpec {
            keep_alive: false,
            ..kept.clone()
        };
        let loads = Self([agent.start(&kept).await?, agent.start(&fresh).await?]);
        eventually("the loads to be under way", FOLLOW, async || {
            for run in &loads.0 {
                let ok = run.so_far().await?.ok;
                ensure!(ok >= 50, "{ok} answers");
            }
            Ok(())
        })
        .await?;
        Ok(loads)
    }

    /// Number of requests; all were answered, nearly all by way of an activator.
    async fn stop(self) -> anyhow::Result<u64> {
        let mut sent = 0;
        for run in self.0 {
            let result = run.stop().await?;
            all_answered(&result)?;
            ensure!(
                result.via_activator * 10 >= result.sent * 9,
                "not in Proxy mode: {result:?}"
            );
            sent += result.sent;
        }
        Ok(sent)
    }
}

async fn five_hundred_held_are_poured_evenly_and_within_the_limit(
    agent: &Agent,
    shop: &Workload,
) -> anyhow::Result<()> {
    let result = agent
        .run(&RunSpec {
            // Ten rounds of three seconds: pods that come up some seconds apart, as they do on a busy
            // machine, get as many.
            url: shop.url("/?sleep_ms=3000"),
            connections: 500,
            requests: Some(500),
            timeout_ms: 120_000,
            ..RunSpec::default()
        })
        .await?;
    all_answered(&result)?;
    for pod in shop.ready_pods().await? {
        let stats = shop.ask_pod(&pod, 8080, "GET", "stats").await?;
        let stats: AppStats = serde_json::from_str(&stats)?;
        ensure!(stats.max_in_flight <= LIMIT, "more than {LIMIT}: {stats:?}");
    }
    spread_evenly(&result, PODS)
}

/// No pod is more than 20 % away from the mean.
fn spread_evenly(result: &RunResult, pods: usize) -> anyhow::Result<()> {
    eprintln!(
        "500 held, answered {:?} ms, by pod {:?}",
        result.latency_ms, result.by_pod
    );
    ensure!(
        result.by_pod.len() == pods,
        "not {pods} pods: {:?}",
        result.by_pod
    );
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let mean = result.ok as f64 / pods as f64;
    for (pod, count) in &result.by_pod {
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        let away = (*count as f64 - mean).abs() / mean;
        ensure!(
            away <= 0.2,
            "{pod} is {:.0} % away: {:?}",
            away * 100.0,
            result.by_pod
        );
    }
    Ok(())
}

/// Activators are back when this returns, whatever came of it: every other test needs them.
async fn without_any_it_is_woken_and_sleeps_again_when_they_are_back(
    agent: &Agent,
    workload: &Workload,
) -> anyhow::Result<()> {
    let cluster = &workload.cluster;
    workload.asleep().await?;
    workload.pods_gone().await?;
    let there = activators::ready(cluster).await?.len();
    let without = without_any(agent, workload).await;
    let back = components::scale(cluster, activators::COMPONENT, there).await;
    without?;
    back?;
    workload.asleep().await?;
    workload.pods_gone().await?;
    let result = agent.run(&agent::fifty(workload)).await?;
    all_answered(&result)?;
    ensure!(result.via_activator > 0, "nothing was held: {result:?}");
    Ok(())
}

/// Takes all activators away and waits until `workload` answers by itself, and tells why.
async fn without_any(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    components::scale(&workload.cluster, activators::COMPONENT, 0).await?;
    eventually("a wake without an activator", WOKEN, async || {
        let status = workload.status().await?;
        let (state, reason) = (status.state, &status.reason);
        ensure!(
            state == State::Awake && reason.contains("no activator"),
            "{state}: {reason}"
        );
        let warned = status.conditions.iter().find(|c| c.type_ == "Warnings");
        let warned = warned.map(|condition| condition.reason.as_str());
        ensure!(warned == Some("NoActivator"), "warnings: {warned:?}");
        Ok(())
    })
    .await?;
    // The pod is known a moment before kube-proxy leads callers to it, who are led to nobody until then.
    agent.is_answered(&workload.url("/"), FOLLOW).await?;
    let result = agent.run(&agent::fifty(workload)).await?;
    all_answered(&result).context("without any activator")?;
    ensure!(result.via_activator == 0, "by what? {result:?}");
    Ok(())
}
