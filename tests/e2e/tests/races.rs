//! Everything at once: workloads are switched, sleep and wake, come and leave while pods, Lull's
//! components and the control plane are replaced, killed and held, and every request is counted.
//!
//! It kills what other tests need, so nothing else may run beside it, and it works on the built-in
//! cluster alone. docs/races.md says what it does and how to run it.

use std::time::Duration;

use anyhow::Context as _;
use futures::{
    FutureExt as _,
    future::{LocalBoxFuture, join_all, try_join_all},
};
use lull_contract::scaled_workload::Mode;
use lull_e2e::{
    Agent, App, Namespace, Workload,
    chance::Chance,
    eventually, in_namespace_for,
    races::{Length, Race, Targets, disrupt, enrolments, is_switched, sleeps, switches},
    say,
};

/// Workloads that sleep and wake.
const SLEEPERS: usize = 3;
/// Longest time of what is before and after the races.
const AROUND: Duration = Duration::from_secs(600);
/// Longest wait for a mode before them.
const FOLLOW: Duration = Duration::from_secs(120);

/// What is raced with.
struct Workloads {
    switched: Vec<Workload>,
    sleepers: Vec<Workload>,
    served: Workload,
    proxied: Workload,
}

#[tokio::test]
async fn everything_at_once_loses_no_request() -> anyhow::Result<()> {
    let (length, seed) = (Length::from_env()?, Chance::seed_from_env()?);
    say(format!("E2E_SEED={seed}"));
    // Longer than lanes with a namespace of their own have, which then take it away.
    in_namespace_for(length.longest + 2 * AROUND, "races", async |namespace| {
        let outcome = raced(namespace, length, Chance::new(seed)).await;
        outcome.with_context(|| format!("E2E_SEED={seed} repeats the order"))
    })
    .await
}

async fn raced(namespace: &Namespace, length: Length, mut chance: Chance) -> anyhow::Result<()> {
    let agent = Agent::deploy(namespace).await?;
    let bursts = Agent::deploy_as("bursts", namespace).await?;
    let workloads = Workloads::deploy(namespace, length.switched).await?;
    let race = Race::new(length, length.switched + SLEEPERS + length.enrolled);
    let mut all: Vec<LocalBoxFuture<'_, anyhow::Result<()>>> = Vec::new();
    for workload in &workloads.switched {
        let lane = switches(&race, &agent, (workload, chance.split()));
        all.push(race.lane(lane).boxed_local());
    }
    for workload in &workloads.sleepers {
        let lane = sleeps(&race, &bursts, (workload, chance.split()));
        all.push(race.lane(lane).boxed_local());
    }
    for number in 0..length.enrolled {
        let lane = enrolled(&race, &bursts, (number, chance.split()));
        all.push(race.lane(lane).boxed_local());
    }
    let disruptions = disrupted(&race, &agent, (&workloads, chance.split()));
    all.push(race.beside(disruptions).boxed_local());
    let ended = join_all(all).await;
    say(race.table());
    ended.into_iter().collect::<anyhow::Result<()>>()?;
    race.check()
}

/// In a namespace of its own: nothing of Lull may be left in it each time.
async fn enrolled(
    race: &Race,
    agent: &Agent,
    (number, chance): (usize, Chance),
) -> anyhow::Result<()> {
    let limit = race.length.longest + AROUND;
    in_namespace_for(limit, "enrolled", async |own| {
        let app = App::plain(&format!("enrol-{number}")).replicas(2);
        let workload = app.lingering(race.length.linger()).deploy(own).await?;
        workload.rolled_out().await?;
        enrolments(race, agent, (&workload, chance)).await
    })
    .await
}

/// The two workloads whose pods are disrupted have a steady load, too.
async fn disrupted(
    race: &Race,
    agent: &Agent,
    (workloads, chance): (&Workloads, Chance),
) -> anyhow::Result<()> {
    let Workloads {
        served, proxied, ..
    } = workloads;
    let share = race.length.share();
    let of_served = race.steady(agent, (served, share)).await?;
    let of_proxied = race.steady(agent, (proxied, share)).await?;
    // What is set up can't wait for an API server that stands still.
    let enrolled = race.length.enrolled;
    race.all_steady(workloads.switched.len() + enrolled + 2)
        .await?;
    let outcome = disrupt(race, &Targets { served, proxied }, chance).await;
    of_served.stop().await?;
    of_proxied.stop().await?;
    outcome
}

// === impl Workloads ===

impl Workloads {
    async fn deploy(namespace: &Namespace, switched: usize) -> anyhow::Result<Self> {
        let two = |name: &str| {
            let app = App::new(name).replicas(2);
            app.annotate("lull.dev/min-scale", "2")
        };
        let always_proxied = two("proxied").annotate("lull.dev/target-burst-capacity", "-1");
        let workloads = Self {
            switched: several(namespace, switched, |number| {
                App::new(&format!("switch-{number}"))
            })
            .await?,
            sleepers: several(namespace, SLEEPERS, |number| {
                App::new(&format!("sleep-{number}"))
            })
            .await?,
            served: two("served").deploy(namespace).await?,
            proxied: always_proxied.deploy(namespace).await?,
        };
        for workload in workloads.of_lull() {
            workload.enrolled().await?;
        }
        let proxied = &workloads.proxied;
        eventually("proxied to be that", FOLLOW, async || {
            is_switched(proxied, Mode::Proxy).await
        })
        .await?;
        Ok(workloads)
    }

    /// Those that are Lull's from the beginning.
    fn of_lull(&self) -> impl Iterator<Item = &Workload> {
        let pairs = [&self.served, &self.proxied];
        self.switched.iter().chain(&self.sleepers).chain(pairs)
    }
}

async fn several(
    namespace: &Namespace,
    count: usize,
    app: impl Fn(usize) -> App,
) -> anyhow::Result<Vec<Workload>> {
    let apps: Vec<App> = (0..count).map(app).collect();
    try_join_all(apps.iter().map(|app| app.deploy(namespace))).await
}
