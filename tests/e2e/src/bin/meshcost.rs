//! What a sleep and a wake cost in a mesh: istiod's pushes, and the phases of a cold start with what
//! Istio's own proxy adds to it, beside the same app as a plain Deployment and beside both outside.

use std::{fmt::Write as _, time::Duration};

use anyhow::ensure;
use clap::Parser;
use lull_e2e::{
    Agent, App, Namespace, Workload,
    coldstarts::{Phases, Pick, spread, wake_by_patch, wake_by_request},
    eventually, in_mesh_for, in_namespace_for,
    istiod::{self, KINDS, Pushes},
    mesh, say, slices,
};
use serde_json::json;

/// Longest wait for what Kubernetes, Istio or Lull is about to do.
const FOLLOW: Duration = Duration::from_secs(120);
/// Longest time of one turn of all: two starts, and falling asleep after the longest window here.
const TURN: Duration = Duration::from_secs(180);
/// Longest time until everything stands.
const SET_UP: Duration = Duration::from_secs(300);
/// Long enough for the pushes of a wake to end before those of the next sleep begin.
const WINDOW: &str = "30s";

/// Measures on the cluster of the current kubeconfig, on which Istio is.
#[derive(Debug, Parser)]
struct Args {
    /// Sleeps and wakes of each kind of which the pushes are counted.
    #[arg(long, default_value_t = 5)]
    cycles: u32,
    /// Cold starts of each kind.
    #[arg(long, default_value_t = 20)]
    wakes: u32,
}

/// What was pushed, by what was done; one for each time.
#[derive(Debug, Default)]
struct Costs {
    asleep: Vec<Pushes>,
    woken: Vec<Pushes>,
    plain_down: Vec<Pushes>,
    plain_up: Vec<Pushes>,
    /// Most Envoys that were connected.
    proxies: f64,
}

/// Cold starts of one place.
#[derive(Debug, Default)]
struct Starts {
    lull: Vec<Phases>,
    plain: Vec<Phases>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(
        args.cycles > 0 && args.wakes > 0,
        "--cycles and --wakes: must be at least 1"
    );
    let mut costs = Costs::default();
    in_mesh_for(SET_UP + TURN * args.cycles, "pushes", async |namespace| {
        count(namespace, args.cycles, &mut costs).await
    })
    .await?;
    say(pushes_table(&costs));

    let limit = SET_UP + TURN * args.wakes;
    let (mut meshed, mut outside) = (Starts::default(), Starts::default());
    in_mesh_for(limit, "coldstart", async |namespace| {
        start(namespace, args.wakes, &mut meshed).await
    })
    .await?;
    in_namespace_for(limit, "coldstart", async |namespace| {
        start(namespace, args.wakes, &mut outside).await
    })
    .await?;
    say(starts_table(&meshed, &outside));
    Ok(())
}

/// Counts what is pushed for `cycles` of sleep and wake, and for as many of a plain Deployment.
async fn count(namespace: &Namespace, cycles: u32, costs: &mut Costs) -> anyhow::Result<()> {
    let cluster = &namespace.cluster;
    let agent = Agent::deploy(namespace).await?;
    let app = App::new("shop").annotate("lull.dev/window", WINDOW);
    let workload = app.deploy_awake(namespace).await?;
    let plain = App::plain("plain").deploy(namespace).await?;
    agent.is_answered(&workload.url("/"), FOLLOW).await?;
    agent.is_answered(&plain.url("/"), FOLLOW).await?;
    workload.put_to_sleep().await?;
    scaled(&plain, 0).await?;
    for cycle in 1..=cycles {
        let before = istiod::settled(cluster).await?;
        agent.get(&workload.url("/")).await?;
        awake(&workload).await?;
        let woken = istiod::settled(cluster).await?;
        costs.proxies = costs.proxies.max(istiod::proxies(cluster).await?);
        // Its window is still open: nothing else is pushed before its end.
        workload.asleep().await?;
        workload.pods_gone().await?;
        let asleep = istiod::settled(cluster).await?;
        scaled(&plain, 1).await?;
        let up = istiod::settled(cluster).await?;
        scaled(&plain, 0).await?;
        let down = istiod::settled(cluster).await?;
        say(format!("cycle {cycle}/{cycles}"));
        costs.woken.push(woken.since(&before));
        costs.asleep.push(asleep.since(&woken));
        costs.plain_up.push(up.since(&asleep));
        costs.plain_down.push(down.since(&up));
    }
    Ok(())
}

/// Waits until pods alone are behind the Service, and Istio knows of nothing else.
async fn awake(workload: &Workload) -> anyhow::Result<()> {
    eventually("the activators to leave", FOLLOW, async || {
        slices::pods_only(workload, 1).await?;
        let entries = mesh::entries(workload).await?.len();
        ensure!(entries == 0, "Istio has {entries} of them");
        Ok(())
    })
    .await
}

/// Gives a plain Deployment its replicas and waits until they are ready, or gone.
async fn scaled(plain: &Workload, replicas: u32) -> anyhow::Result<()> {
    plain
        .patch(&json!({ "spec": { "replicas": replicas } }))
        .await?;
    if replicas == 0 {
        return plain.pods_gone().await;
    }
    plain.rolled_out().await.map(drop)
}

/// Measures `wakes` cold starts of each kind.
async fn start(namespace: &Namespace, wakes: u32, starts: &mut Starts) -> anyhow::Result<()> {
    let agent = Agent::deploy(namespace).await?;
    let sleeper = App::new("shop").deploy_awake(namespace).await?;
    let plain = App::plain("plain").deploy(namespace).await?;
    // In a mesh callers hear of a new Service a moment later: that is no part of a cold start.
    agent.is_answered(&sleeper.url("/"), FOLLOW).await?;
    agent.is_answered(&plain.url("/"), FOLLOW).await?;
    sleeper.put_to_sleep().await?;
    scaled(&plain, 0).await?;
    let ahead_us = agent.clock_ahead_us().await?;
    for wake in 1..=wakes {
        sleeper.asleep().await?;
        sleeper.pods_gone().await?;
        let by_lull = wake_by_request(&agent, &sleeper, ahead_us).await?;
        // The two don't start at the same time: each has the machine for itself.
        let by_patch = wake_by_patch(&agent, &plain, ahead_us).await?;
        say(format!(
            "wake {wake}/{wakes}: Lull {:.0} ms, plain {:.0} ms",
            by_lull.answered, by_patch.answered
        ));
        starts.lull.push(by_lull);
        starts.plain.push(by_patch);
        scaled(&plain, 0).await?;
    }
    Ok(())
}

fn pushes_table(costs: &Costs) -> String {
    let rows = [
        ("Lull, falls asleep", &costs.asleep),
        ("Lull, wakes", &costs.woken),
        ("plain, 1 -> 0", &costs.plain_down),
        ("plain, 0 -> 1", &costs.plain_up),
    ];
    let mut text = format!(
        "\nPushes of istiod to at most {:.0} Envoys, mean and most of {} times; a new pod's own first ones \
         count\n{:<22}",
        costs.proxies,
        costs.asleep.len(),
        ""
    );
    // Writing to a String can't fail.
    for kind in KINDS {
        let _ = write!(text, "{:>16}", kind.to_uppercase());
    }
    for (name, all) in rows {
        let _ = write!(text, "\n{name:<22}");
        for kind in KINDS {
            let (mean, most) = mean_and_most(all.iter().map(|pushes| pushes.of(kind)));
            let cell = format!("{mean:.1} / {most:.0}");
            let _ = write!(text, "{cell:>16}");
        }
    }
    text
}

/// NaN and 0 of nothing.
fn mean_and_most(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (sum, most, count) = values
        .fold((0.0_f64, 0.0_f64, 0.0_f64), |(sum, most, count), value| {
            (sum + value, most.max(value), count + 1.0)
        });
    (sum / count, most)
}

fn starts_table(meshed: &Starts, outside: &Starts) -> String {
    let rows: [(&str, Pick); 10] = [
        ("/scale patched", |p| p.patched),
        ("pod created", |p| p.created),
        ("pod scheduled", |p| p.scheduled),
        ("istio-proxy started", |p| p.proxied),
        ("app's container running", |p| p.running),
        ("queue-proxy listening", |p| p.listening),
        ("pod's address told", |p| p.addressed),
        ("answered", |p| p.answered),
        ("answered after running", |p| p.answered - p.running),
        ("answered after callable", |p| p.answered - p.callable()),
    ];
    let columns = [&meshed.lull, &meshed.plain, &outside.lull, &outside.plain];
    let titles = ["Lull, mesh", "plain, mesh", "Lull", "plain"];
    let mut text = format!(
        "\nCold start, ms from request sent (Lull) or patch sent (plain) until seen, p50 / max; {} of each\n\
         {:<26}",
        meshed.lull.len(),
        ""
    );
    // Writing to a String can't fail.
    for title in titles {
        let _ = write!(text, "{title:>18}");
    }
    for (name, of) in rows {
        let _ = write!(text, "\n{name:<26}");
        for column in columns {
            let values = spread(column, of);
            let _ = write!(text, "{:>18}", cell(values.p50, values.max));
        }
    }
    let [lull_mesh, plain_mesh, lull, plain] =
        columns.map(|column| spread(column, |p| p.answered).p50);
    let _ = write!(
        text,
        "\nat p50 the mesh adds {:.0} ms to a plain start and {:.0} ms to a wake; Lull adds {:.0} ms in \
         the mesh and {:.0} ms outside",
        plain_mesh - plain,
        lull_mesh - lull,
        lull_mesh - plain_mesh,
        lull - plain
    );
    text
}

/// Nothing where there is no such phase.
fn cell(p50: f64, max: f64) -> String {
    if p50.is_nan() {
        return String::new();
    }
    format!("{p50:.0} / {max:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answered: f64) -> Vec<Phases> {
        vec![Phases {
            patched: 1.0,
            created: 2.0,
            scheduled: 3.0,
            proxied: f64::NAN,
            running: 4.0,
            app_listening: f64::NAN,
            listening: f64::NAN,
            addressed: 4.0,
            answering: f64::NAN,
            answered,
        }]
    }

    #[test]
    fn the_table_says_what_the_mesh_and_what_lull_add() {
        let starts = |lull, plain| Starts {
            lull: answered(lull),
            plain: answered(plain),
        };
        let text = starts_table(&starts(3_000.0, 2_900.0), &starts(900.0, 850.0));
        let adds = "adds 2050 ms to a plain start and 2100 ms to a wake; Lull adds 100 ms in the mesh \
                    and 50 ms outside";
        assert!(text.contains(adds), "{text}");
        assert!(text.contains("patched") && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn pushes_are_shown_by_mean_and_most() {
        let times = [2.0, 4.0].map(|eds| Pushes([("eds", eds)].into()));
        let costs = Costs {
            asleep: times.to_vec(),
            ..Costs::default()
        };
        let text = pushes_table(&costs);
        let row = text.lines().find(|line| line.contains("falls asleep"));
        assert!(row.unwrap().contains("3.0 / 4"), "{text}");
    }
}
