//! The autoscaler's replicas: who leads what, what happens when a leader dies, and what they do for
//! workloads that lose their sidecars while the webhook is away.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use lull_e2e::{
    Agent, App, Namespace, Workload,
    agent::Run,
    all_answered, autoscalers, eventually, in_namespace_for, plain, process,
    timeline::Observer,
    two_pods::{self, TwoPods},
};
use sample_app::wire::RunSpec;

/// The promise of issue 6: another one decides so long after the leader's crash.
const TAKEOVER: Duration = Duration::from_secs(3);
/// Longest time of the load, which is stopped before.
const LOAD: Duration = Duration::from_secs(400);
/// For a busy machine, on which a replica that waits for a lease is not always woken in time.
const LATE: Duration = Duration::from_millis(750);
/// Longest wait for what must be there before it.
const FOLLOW: Duration = Duration::from_secs(60);
/// Longest time of the test: pods linger each time they go.
const TEST: Duration = Duration::from_secs(900);
/// How much longer the namespace round the other one may last, which then goes by itself.
const ROUND: Duration = Duration::from_secs(120);

/// Those that the replicas decide about.
struct Decided {
    agent: Agent,
    /// In each shard one.
    one_of_each: Vec<Workload>,
    /// Has load while a leader is killed.
    busy: Workload,
}

/// Those whose templates are replaced while there is no webhook, as they are deployed.
struct Replaced {
    agent: Agent,
    awake: (App, Workload),
    asleep: (App, Workload),
}

/// Kills the replica that leads `workload`'s shard, and waits for one that leads it after that.
async fn replace_leader(workload: &Workload) -> anyhow::Result<()> {
    let leader = autoscalers::lease(workload).await?.holder_identity;
    let leader = leader.context("nobody leads")?;
    process::kill(&leader)?;
    let killed_at = Timestamp::now();
    let lease = eventually("a leader", FOLLOW, async || {
        let lease = autoscalers::lease(workload).await?;
        let renewed = lease.renew_time.as_ref().context("never renewed")?.0;
        ensure!(renewed > killed_at, "last renewed at {renewed}");
        Ok(lease)
    })
    .await?;
    let took = led_after(&lease, killed_at)?;
    ensure!(took <= TAKEOVER + LATE, "a leader only after {took:.2?}");
    eprintln!("the lease was renewed {took:.2?} after the kill");
    Ok(())
}

/// How long after `since` somebody took or renewed the lease, by its own times: what the test needs to see it
/// doesn't count.
fn led_after(lease: &LeaseSpec, since: Timestamp) -> anyhow::Result<Duration> {
    let times = [&lease.acquire_time, &lease.renew_time];
    let times = times.into_iter().flatten().map(|time| time.0);
    let first = times.filter(|time| *time > since).min();
    let first = first.context("nobody has renewed it since")?;
    Ok(first.duration_since(since).unsigned_abs())
}

/// One after the other, and nothing else beside them: a replica is killed, and the webhook taken away. Only what
/// they are done to is deployed at the same time, since that takes as long as either.
#[tokio::test]
async fn replicas_replace_each_other_and_go_on_without_the_webhook() -> anyhow::Result<()> {
    in_namespace_for(TEST + ROUND, "autoscalers", async |first| {
        in_namespace_for(TEST, "webhookless", async |second| {
            let (decided, replaced) = tokio::try_join!(
                Box::pin(Decided::deploy(first)),
                Box::pin(Replaced::deploy(second))
            )?;
            replicas_replace_each_other(&decided).await?;
            templates_without_a_sidecar_are_reached_and_injected_later(&replaced).await
        })
        .await
    })
    .await
}

// === impl Decided ===

impl Decided {
    /// Several replicas share the work; all are put to sleep, woken and put to sleep again by them.
    async fn deploy(namespace: &Namespace) -> anyhow::Result<Self> {
        let cluster = &namespace.cluster;
        let leaders = autoscalers::spread(cluster).await?;
        let replicas = BTreeSet::from_iter(leaders.values());
        ensure!(replicas.len() > 1, "one leads alone: {leaders:?}");
        let (shards, agent) = (
            autoscalers::shards(cluster).await?,
            Agent::deploy(namespace).await?,
        );
        let of_shard = |shard| autoscalers::name_in((shards, shard), &namespace.name, "shop");
        let apps: Vec<App> = shards
            .all()
            .map(|shard| App::new(&of_shard(shard)))
            .collect();
        let deployed = apps.iter().map(|app| app.deploy_asleep(namespace));
        let busy = two_pods::app("busy");
        let (one_of_each, busy) =
            tokio::try_join!(try_join_all(deployed), busy.deploy_asleep(namespace))?;
        wake_and_sleep(&agent, &one_of_each).await?;
        // A pod that ends still answers what comes in the first moment after sleep.
        busy.pods_gone().await?;
        Ok(Self {
            agent,
            one_of_each,
            busy,
        })
    }
}

// === impl Replaced ===

impl Replaced {
    async fn deploy(namespace: &Namespace) -> anyhow::Result<Self> {
        let agent = Agent::deploy(namespace).await?;
        let awake = App::new("awake").annotate("lull.dev/min-scale", "1");
        let (awake, asleep) = (
            awake.lingering(plain::LINGER),
            App::new("asleep").lingering(plain::LINGER),
        );
        let workloads = tokio::try_join!(awake.deploy(namespace), asleep.deploy_asleep(namespace))?;
        workloads.0.enrolled().await?;
        workloads.0.rolled_out().await?;
        workloads.1.pods_gone().await?;
        // Its manifest says so, as an old revision would.
        let asleep = asleep.replicas(0);
        Ok(Self {
            agent,
            awake: (awake, workloads.0),
            asleep: (asleep, workloads.1),
        })
    }
}

async fn replicas_replace_each_other(decided: &Decided) -> anyhow::Result<()> {
    let Decided {
        agent,
        one_of_each,
        busy,
    } = decided;
    another_leads_after_a_crash_and_no_count_moves(agent, busy, one_of_each).await?;
    let asleep = one_of_each.first().context("there is no shard")?;
    another_wakes_while_the_leader_stands_still(agent, asleep).await
}

/// Wakes one workload of each shard, and waits until all of them sleep again: only the leader of its
/// shard puts a workload to sleep.
async fn wake_and_sleep(agent: &Agent, one_of_each: &[Workload]) -> anyhow::Result<()> {
    for workload in one_of_each {
        let woken = agent.get(&workload.url("/")).await?;
        ensure!(woken.status == Some(200), "{}: {woken:?}", workload.name);
    }
    for slept in join_all(one_of_each.iter().map(Workload::asleep)).await {
        slept?;
    }
    Ok(())
}

/// The leader of `busy`'s shard is killed under load. The one that replaces it has decided by what it hears
/// itself once it has put a workload of that shard to sleep: until then the load goes on.
async fn another_leads_after_a_crash_and_no_count_moves(
    agent: &Agent,
    busy: &Workload,
    one_of_each: &[Workload],
) -> anyhow::Result<()> {
    let load = TwoPods::load(agent, busy, LOAD).await?;
    replace_leader(busy).await?;
    wake_and_sleep(agent, one_of_each).await?;
    load.stop().await?;
    busy.asleep().await.map(drop)
}

/// Any replica wakes: the one that leads `asleep`'s shard stands still, nobody else gets its lease, and a
/// call is answered all the same. Only then the lease moves.
async fn another_wakes_while_the_leader_stands_still(
    agent: &Agent,
    asleep: &Workload,
) -> anyhow::Result<()> {
    eventually("another replica", FOLLOW, async || {
        let ready = asleep.cluster.ready_names("autoscaler").await?;
        ensure!(ready.len() > 1, "ready are {ready:?}");
        asleep.is_asleep().await
    })
    .await?;
    // A pod that ends still answers what comes in the first moment after sleep.
    asleep.pods_gone().await?;
    let holder = async || {
        let lease = autoscalers::lease(asleep).await?;
        lease.holder_identity.context("nobody leads")
    };
    let observer = Observer::start(asleep).await?;
    let (leader, called_us) = (holder().await?, sample_app::unix_us());
    let paused = process::pause(&leader)?;
    let kept = autoscalers::keep_lease(asleep).await?;
    let answer = agent.get(&asleep.url("/")).await?;
    let now = holder().await?;
    ensure!(now == leader, "{leader} led, and {now} does");
    drop(kept);
    let freed_at = Timestamp::now();
    let lease = eventually("another leader", FOLLOW, async || {
        let lease = autoscalers::lease(asleep).await?;
        let now = lease.holder_identity.as_ref().context("nobody leads")?;
        ensure!(*now != leader, "{leader} leads");
        Ok(lease)
    })
    .await?;
    let moved = led_after(&lease, freed_at)?;
    ensure!(moved <= TAKEOVER + LATE, "it moved only after {moved:.2?}");
    drop(paused);
    let timeline = observer.caught_up(FOLLOW).await?;
    let woken_us = timeline.patched_us.context("nobody has scaled it")?;
    let after = Duration::from_micros(woken_us.saturating_sub(called_us));
    eprintln!(
        "the leader stood still: scaled {after:.2?} after that, answered after {:.0} ms; the lease moved \
         {moved:.2?} after the answer",
        answer.ms
    );
    Ok(())
}

async fn templates_without_a_sidecar_are_reached_and_injected_later(
    replaced: &Replaced,
) -> anyhow::Result<()> {
    let Replaced {
        agent,
        awake: (awake, of_awake),
        asleep: (asleep, of_asleep),
    } = replaced;
    let loads = plain::without_webhook(&of_awake.cluster, async || {
        let loads = replaced_under_load(agent, (awake, of_awake)).await?;
        replaced_asleep(agent, (asleep, of_asleep)).await?;
        Ok(loads)
    })
    .await?;
    of_awake.enrolled().await?;
    of_awake.runs(true).await?;
    for load in loads {
        let result = load.stop().await?;
        all_answered(&result)?;
        let sent = result.sent;
        eprintln!("{sent} requests without and with a sidecar, 0 failed");
    }
    of_asleep.enrolled().await
}

/// The template of `workload` is replaced under a load, which goes on.
async fn replaced_under_load<'a>(
    agent: &'a Agent,
    (app, workload): (&App, &Workload),
) -> anyhow::Result<[Run<'a>; 2]> {
    let spec = RunSpec {
        url: workload.url("/?sleep_ms=5"),
        connections: 10,
        rate: Some(50.0),
        seconds: Some(TEST.as_secs_f64()),
        ..RunSpec::default()
    };
    let loads = agent.start_kept_and_new(spec).await?;
    workload.replace_by(app).await?;
    plain::reached(workload).await?;
    Ok(loads)
}

/// The template of `workload`, which sleeps, is replaced: who calls at once is held, and let through to a
/// pod without a sidecar; whoever comes later reaches that directly.
async fn replaced_asleep(agent: &Agent, (app, workload): (&App, &Workload)) -> anyhow::Result<()> {
    workload.is_asleep().await?;
    workload.replace_by(app).await?;
    let once = RunSpec {
        url: workload.url("/"),
        requests: Some(1),
        timeout_ms: 60_000,
        ..RunSpec::default()
    };
    let held = agent.run(&once).await?;
    all_answered(&held).context("held without a webhook")?;
    ensure!(held.via_activator == 1, "by whom? {held:?}");
    plain::reached(workload).await?;
    let several = RunSpec {
        requests: Some(20),
        keep_alive: false,
        ..once
    };
    // The activators have just left the endpoints, which callers hear a moment later.
    eventually("pods alone to answer", plain::REACHED, async || {
        let result = agent.run(&several).await?;
        all_answered(&result)?;
        ensure!(result.via_activator == 0, "by what? {result:?}");
        Ok(())
    })
    .await
}
