//! All of Lull is gone, for ten minutes: what is warm is called, rolled out, evicted, killed and scaled, and
//! so is a Deployment beside it that never knew Lull; then Lull is back, and everything heals.
//!
//! It takes what every other test needs, so nothing may run beside it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lull_contract::scaled_workload::State;
use lull_e2e::{
    Agent, App, Namespace, Workload, agent, all_answered,
    chance::Chance,
    command, components, eventually, in_namespace_for,
    races::{Act, Length, Race, evict_pod, kill_pod},
    rounds, say, slices,
};

/// The promise of issue 7: so long without any of Lull changes nothing for what is warm.
const GONE: Duration = Duration::from_secs(600);
/// The same where one run of all tests must have time for it.
const SHORT: Duration = Duration::from_secs(60);
/// Longest time of what is before and after, and of the last round of what is done meanwhile.
const AROUND: Duration = Duration::from_secs(900);
/// Longest wait for what Lull does when it is back: a leader, what it hears first, a rollout of pods that
/// linger, a propagation delay.
const HEAL: Duration = Duration::from_secs(180);
/// Pods of each workload that is called.
const PODS: usize = 2;
/// Seconds that pods without a sidecar still answer after they were told to end: callers hear of it later.
const LINGER: u32 = 15;

/// What there is when Lull goes.
struct Workloads {
    /// Lull's, and called all the time.
    warm: Workload,
    /// Never was, and has the same done to it.
    plain: Workload,
    /// Its whole template is written while there is no webhook.
    rewritten: Workload,
    asleep: Workload,
}

#[tokio::test]
async fn without_any_of_lull_what_is_warm_lives_on_like_a_plain_deployment_and_all_heals()
-> anyhow::Result<()> {
    let (gone, seed) = (gone(), Chance::seed_from_env()?);
    say(format!("E2E_SEED={seed}"));
    in_namespace_for(gone + AROUND, "gone", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workloads = Workloads::deploy(namespace).await?;
        let race = Race::new(Length::of_loads(gone), 0);
        let share = race.length.share();
        let of_warm = race.steady(&agent, (&workloads.warm, share)).await?;
        let of_plain = race.steady(&agent, (&workloads.plain, share)).await?;
        let lived = Box::pin(without_lull(&race, &workloads, Chance::new(seed))).await;
        let healed = match lived {
            Ok(()) => Box::pin(workloads.heal(&agent)).await,
            Err(error) => Err(error),
        };
        // Calls went on until everything was as before.
        of_warm.stop().await?;
        of_plain.stop().await?;
        say(race.table());
        healed.with_context(|| format!("E2E_SEED={seed} repeats which pods were hit"))?;
        race.check()
    })
    .await
}

fn gone() -> Duration {
    if rounds::is_full() { GONE } else { SHORT }
}

/// Lull is back when this has tried: every other test needs it.
async fn without_lull(race: &Race, workloads: &Workloads, chance: Chance) -> anyhow::Result<()> {
    let cluster = &workloads.warm.cluster;
    let counts = components::counts(cluster).await?;
    let away = async {
        components::vanish(cluster).await?;
        lived_on(race, workloads, chance).await?;
        let now = components::counts(cluster).await?;
        let is_gone = now.values().all(|ready| *ready == 0);
        ensure!(is_gone, "some of Lull was there: {now:?}");
        anyhow::Ok(())
    };
    let away = away.await;
    let back = components::come_back(cluster, &counts).await;
    away?;
    back
}

/// The same is done to both workloads, as often as there is time for, and once at least.
async fn lived_on(race: &Race, workloads: &Workloads, mut chance: Chance) -> anyhow::Result<()> {
    let (began, mut rounds) = (Instant::now(), 0_u32);
    let Workloads { warm, plain, .. } = workloads;
    workloads.rewrite().await?;
    let (mut of_warm, mut of_plain) = (chance.split(), chance.split());
    while rounds == 0 || began.elapsed() < race.length.longest {
        tokio::try_join!(
            Box::pin(everything(race, (warm, &mut of_warm))),
            Box::pin(everything(race, (plain, &mut of_plain)))
        )?;
        rounds += 1;
    }
    // What was made without a webhook is of the template that Lull has left.
    warm.runs(true).await?;
    plain.runs(false).await?;
    workloads.rewritten.runs(false).await?;
    let replicas = workloads.asleep.replicas().await?;
    ensure!(replicas == 0, "who has woken what slept? {replicas}");
    say(format!(
        "{rounds} rounds in {:.0?} without Lull",
        began.elapsed()
    ));
    Ok(())
}

/// What a workload's user, its nodes and its own faults do to it.
async fn everything(
    race: &Race,
    (workload, chance): (&Workload, &mut Chance),
) -> anyhow::Result<()> {
    restart(race, workload).await.context("rollout restart")?;
    race.did(Act::RollOut);
    let evicted = evict_pod(race, workload, chance).await;
    evicted.context("eviction")?;
    race.did(Act::EvictPod);
    let killed = kill_pod(race, (workload, true), chance).await;
    killed.context("kill -9")?;
    race.did(Act::KillPod);
    for count in [PODS + 1, PODS] {
        workload.scale(count).await?;
        let what = format!("{count} pods of {}", workload.name);
        race.until(&what, async || {
            workload.is_rolled_out().await?;
            let ready = workload.ready_pods().await?;
            ensure!(ready.len() == count, "ready are {ready:?}");
            Ok(())
        })
        .await?;
        race.did(Act::ScaleByHand);
    }
    Ok(())
}

async fn restart(race: &Race, workload: &Workload) -> anyhow::Result<()> {
    let before = workload.ready_pods().await?;
    let deployment = format!("deployment/{}", workload.name);
    let namespace = workload.namespace.as_str();
    command::kubectl(&["-n", namespace, "rollout", "restart", &deployment]).await?;
    let what = format!("the rollout of {}", workload.name);
    race.until(&what, async || {
        workload.is_rolled_out().await?;
        let now = workload.ready_pods().await?;
        let are_new = now.iter().all(|pod| !before.contains(pod));
        ensure!(are_new, "before {before:?}, now {now:?}");
        Ok(())
    })
    .await
}

// === impl Workloads ===

impl Workloads {
    async fn deploy(namespace: &Namespace) -> anyhow::Result<Self> {
        let pods = u32::try_from(PODS)?;
        let warm = App::new("warm").annotate("lull.dev/min-scale", &PODS.to_string());
        let warm = warm.replicas(pods);
        let plain = App::plain("plain").replicas(pods).lingering(LINGER);
        let (rewritten, asleep) = (rewritten(), App::new("asleep"));
        let (warm, plain, rewritten, asleep) = tokio::try_join!(
            warm.deploy(namespace),
            plain.deploy(namespace),
            rewritten.deploy(namespace),
            asleep.deploy_asleep(namespace),
        )?;
        for of_lull in [&warm, &rewritten] {
            of_lull.enrolled().await?;
        }
        for awake in [&warm, &plain, &rewritten] {
            awake.rolled_out().await?;
        }
        eventually("pods alone behind what is warm", HEAL, async || {
            slices::pods_only(&warm, PODS).await
        })
        .await?;
        asleep.pods_gone().await?;
        Ok(Self {
            warm,
            plain,
            rewritten,
            asleep,
        })
    }

    /// Writes a whole template without a sidecar, and waits for its pods.
    async fn rewrite(&self) -> anyhow::Result<()> {
        let app = rewritten().env("VERSION", "2");
        self.rewritten.replace_by(&app).await?;
        self.rewritten.rolled_out().await?;
        self.rewritten.runs(false).await
    }

    /// Waits until Lull has everything again as it had it, what lost its sidecar and what sleeps, too.
    async fn heal(&self, agent: &Agent) -> anyhow::Result<()> {
        let Self {
            warm,
            rewritten,
            asleep,
            ..
        } = self;
        let began = Instant::now();
        for (workload, pods) in [(rewritten, 1), (warm, PODS)] {
            let what = format!("{} to be Lull's again", workload.name);
            eventually(&what, HEAL, async || is_healed(workload, pods).await).await?;
        }
        let again = agent.run(&agent::fifty(rewritten)).await?;
        all_answered(&again).context("by what has its sidecar again")?;
        asleep_as_before(agent, asleep).await?;
        say(format!(
            "all healed {:.0?} after Lull's return",
            began.elapsed()
        ));
        Ok(())
    }
}

/// Awake by its manifest, too: its template may be written at any time.
fn rewritten() -> App {
    let app = App::new("rewritten").annotate("lull.dev/min-scale", "1");
    app.lingering(LINGER)
}

/// Fails unless Lull says that so many pods carry the workload, all of them with a sidecar, and is right.
async fn is_healed(workload: &Workload, pods: usize) -> anyhow::Result<()> {
    // The status is an old one until somebody leads, so it is not asked alone.
    workload.runs(true).await?;
    workload.is_enrolled().await?;
    let status = workload.status().await?;
    let (state, ready) = (status.state, status.ready);
    ensure!(
        state == State::Awake && usize::try_from(ready)? == pods,
        "{}",
        workload.status_line().await
    );
    slices::pods_only(workload, pods).await.map(drop)
}

/// A call wakes it, it falls asleep, and whoever comes then is held.
async fn asleep_as_before(agent: &Agent, asleep: &Workload) -> anyhow::Result<()> {
    eventually("the activators that are there now", HEAL, async || {
        let behind = slices::backends(asleep).await?;
        let is_so = !behind.activators.is_empty() && behind.unknown.is_empty();
        ensure!(is_so, "behind what sleeps are {behind:?}");
        Ok(())
    })
    .await?;
    // kube-proxy hears of them a moment later.
    agent.is_answered(&asleep.url("/"), HEAL).await?;
    asleep.asleep().await?;
    asleep.pods_gone().await?;
    let held = agent.run(&agent::fifty(asleep)).await?;
    all_answered(&held).context("by what slept all the time")?;
    ensure!(held.via_activator > 0, "nothing was held: {held:?}");
    asleep.asleep().await.map(drop)
}
