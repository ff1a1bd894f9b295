//! What is done to one workload, again and again, while it is called.

use std::time::Duration;

use anyhow::ensure;
use lull_contract::{
    annotations::SCALE,
    names::HELD_LABEL,
    scaled_workload::{Mode, State},
};
use sample_app::wire::RunSpec;
use tokio::time::sleep;

use super::{Act, Race, Shape};
use crate::{Agent, Original, Workload, chance::Chance, slices};

/// What the mode follows from: -1 is Proxy, 0 Serve.
const BURST_CAPACITY: &str = "lull.dev/target-burst-capacity";
/// Longest pause between two acts: long enough for every step of the one before to be over, or not.
const PAUSE: Duration = Duration::from_secs(4);
/// Given to Lull, with the shortest window.
const ON: [(&str, Option<&str>); 2] = [(SCALE, Some("true")), ("lull.dev/window", Some("6s"))];
/// Requests of one burst, and callers at once.
const BURST: (u64, u32) = (200, 20);

/// From Serve to Proxy mode and back under a steady load; now and then the other way is wanted before
/// the end is reached.
///
/// # Errors
/// Where a mode doesn't come.
pub async fn switches(
    race: &Race,
    agent: &Agent,
    (workload, mut chance): (&Workload, Chance),
) -> anyhow::Result<()> {
    let load = race.steady(agent, (workload, race.length.share())).await?;
    let outcome = switched(race, workload, &mut chance).await;
    load.stop().await?;
    outcome
}

async fn switched(race: &Race, workload: &Workload, chance: &mut Chance) -> anyhow::Result<()> {
    while race.goes_on(Act::Switch) {
        for (capacity, mode) in [("-1", Mode::Proxy), ("0", Mode::Serve)] {
            race.annotate(workload, &[(BURST_CAPACITY, Some(capacity))])
                .await?;
            if chance.one_in(5) {
                sleep(chance.up_to(2 * PAUSE)).await;
                race.did(Act::TurnBack);
                continue;
            }
            let what = format!("{} to be in {mode} mode", workload.name);
            race.until(&what, async || is_switched(workload, mode).await)
                .await?;
            race.did(Act::Switch);
            sleep(chance.up_to(PAUSE)).await;
        }
    }
    Ok(())
}

/// Fails unless the workload has come to its end in `mode`: the sentinel stands in the Service, or pods
/// alone are behind it.
///
/// # Errors
/// With how far it is.
pub async fn is_switched(workload: &Workload, mode: Mode) -> anyhow::Result<()> {
    let status = workload.status().await?;
    ensure!(status.mode == mode, "{}", workload.status_line().await);
    if mode == Mode::Serve {
        return slices::pods_only(workload, 1).await.map(drop);
    }
    let service = workload.service_json().await?;
    let selector = &service["spec"]["selector"];
    ensure!(!selector[HELD_LABEL].is_null(), "{selector}");
    Ok(())
}

/// Bursts from zero pods, or from a moment before.
///
/// # Errors
/// Where the workload doesn't fall asleep, or a burst doesn't end.
pub async fn sleeps(
    race: &Race,
    agent: &Agent,
    (workload, mut chance): (&Workload, Chance),
) -> anyhow::Result<()> {
    while race.goes_on(Act::SleepAndWake) {
        let act = if chance.one_in(4) {
            Act::CallInTime
        } else {
            Act::SleepAndWake
        };
        let what = format!("{} to be idle", workload.name);
        race.until(&what, async || is_idle(workload, act).await)
            .await?;
        // Pods that end still answer for a moment, then activators alone do.
        sleep(chance.up_to(PAUSE)).await;
        race.burst(agent, workload, &burst(workload, &mut chance))
            .await?;
        race.did(act);
    }
    Ok(())
}

async fn is_idle(workload: &Workload, act: Act) -> anyhow::Result<()> {
    let state = workload.status().await?.state;
    let is_falling = act == Act::CallInTime && state == State::FallingAsleep;
    if is_falling {
        return Ok(());
    }
    workload.is_asleep().await
}

/// On kept connections, on new ones, or as streams of HTTP/2.
fn burst(workload: &Workload, chance: &mut Chance) -> RunSpec {
    let (requests, connections) = BURST;
    RunSpec {
        url: workload.url("/?sleep_ms=5"),
        connections,
        requests: Some(requests),
        keep_alive: chance.one_in(2),
        h2c: chance.one_in(3),
        timeout_ms: u64::try_from(super::REQUEST.as_millis()).unwrap_or(u64::MAX),
        ..RunSpec::default()
    }
}

/// A plain workload is given to Lull and taken back under a steady load.
///
/// # Errors
/// Where it doesn't become Lull's, or not again what it was.
pub async fn enrolments(
    race: &Race,
    agent: &Agent,
    (workload, mut chance): (&Workload, Chance),
) -> anyhow::Result<()> {
    let what = format!("{} to be read", workload.name);
    let original = race
        .until(&what, async || Original::of(workload).await)
        .await?;
    let load = race
        .steady(agent, (workload, Shape::of_the_plain()))
        .await?;
    let outcome = enrolled(race, (workload, &original), &mut chance).await;
    load.stop().await?;
    outcome
}

async fn enrolled(
    race: &Race,
    (workload, original): (&Workload, &Original),
    chance: &mut Chance,
) -> anyhow::Result<()> {
    while race.goes_on(Act::Enrol) {
        race.annotate(workload, &ON).await?;
        let what = format!("{} to be Lull's", workload.name);
        race.until(&what, async || {
            workload.is_enrolled().await?;
            workload.is_rolled_out().await
        })
        .await?;
        race.did(Act::Enrol);
        sleep(chance.up_to(PAUSE)).await;
        race.annotate(workload, &ON.map(|(key, _)| (key, None::<&str>)))
            .await?;
        let what = format!("{} to be as it was", workload.name);
        race.until(&what, async || {
            workload.is_rolled_out().await?;
            original.given_back(workload).await
        })
        .await?;
        race.did(Act::Leave);
        sleep(chance.up_to(PAUSE)).await;
    }
    Ok(())
}
