//! The cold start table: wakes by Lull, and beside them the same app as a plain Deployment patched
//! 0 -> 1 and polled, both measured by one agent.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;
use kube::ResourceExt as _;
use lull_contract::{names::HELD_LABEL, ports};
use lull_e2e::{
    Agent, App, Cluster, Namespace, activators, all_answered,
    coldstarts::{Phases, Pick, spread, wake_by_patch, wake_by_request},
    eventually,
    histogram::Histogram,
    in_namespace, say,
    spread::Spread,
};
use sample_app::wire::RunSpec;
use serde_json::json;

/// Wakes in one namespace.
const BATCH: u32 = 25;
/// Workloads of each kind that take turns: falling asleep takes twenty seconds, a wake one.
const PAIRS: usize = 4;
/// Connections of the load under which memory is measured.
const CONNECTIONS: u32 = 300;
/// Longest wait until all of them go by way of the activators.
const SWITCH: Duration = Duration::from_secs(30);

/// Measures cold starts on the cluster of the current kubeconfig.
#[derive(Debug, Parser)]
struct Args {
    /// Wakes of each kind.
    #[arg(long, default_value_t = 50)]
    wakes: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.wakes > 0, "--wakes 0: must be at least 1");
    let (mut lull, mut plain) = (Vec::new(), Vec::new());
    let cluster = Cluster::connect().await?;
    let before = wakes_sent(&cluster).await?;
    for batch in batches(args.wakes) {
        in_namespace("coldstart", async |namespace| {
            measure(namespace, batch, &mut lull, &mut plain).await
        })
        .await?;
    }
    say(table(&lull, &plain));
    in_namespace("load", async |namespace| memory_under_load(namespace).await).await?;
    let sent = wakes_sent(&cluster).await?.since(&before);
    say(format!(
        "first one held until the patch of /scale is sent, {} wakes: p50 at most {:.2} ms, p99 at most {:.2} ms",
        sent.count(),
        sent.quantile(0.5) * 1e3,
        sent.quantile(0.99) * 1e3,
    ));
    Ok(())
}

/// Times from the first one held to the patch sent, of all autoscalers.
async fn wakes_sent(cluster: &Cluster) -> anyhow::Result<Histogram> {
    let mut all = Histogram::default();
    for pod in cluster.component_pods("autoscaler").await? {
        let text = cluster
            .page(&pod.name_any(), ports::METRICS, "metrics")
            .await?;
        all.add("lull_autoscaler_wake_sent_seconds", &text)?;
    }
    Ok(all)
}

/// Memory of the activators when they have nothing to do, and while [`CONNECTIONS`] go by way of them.
async fn memory_under_load(namespace: &Namespace) -> anyhow::Result<()> {
    let cluster = &namespace.cluster;
    let idle = activators::resident_mib(cluster).await?;
    let agent = Agent::deploy(namespace).await?;
    let always = App::new("always").annotate("lull.dev/target-burst-capacity", "-1");
    let workload = always.deploy(namespace).await?;
    workload.enrolled().await?;
    eventually("activators alone in the path", SWITCH, async || {
        let selector = workload.service_json().await?["spec"]["selector"].clone();
        ensure!(selector.get(HELD_LABEL).is_some(), "selector {selector}");
        Ok(())
    })
    .await?;
    let load = agent
        .start(&RunSpec {
            url: workload.url("/?sleep_ms=100"),
            connections: CONNECTIONS,
            seconds: Some(15.0),
            ..RunSpec::default()
        })
        .await?;
    let busy = eventually("the load at the activators", SWITCH, async || {
        let status = workload.scaled().await?.and_then(|scaled| scaled.status);
        let in_flight = status.context("no status")?.in_flight;
        ensure!(
            in_flight > u64::from(CONNECTIONS) / 2,
            "{in_flight} in flight"
        );
        activators::resident_mib(cluster).await
    })
    .await?;
    all_answered(&load.finished().await?)?;
    for (name, mib) in busy {
        let idle = idle.get(&name).copied().unwrap_or(f64::NAN);
        say(format!(
            "{name}: {idle:.1} MiB resident, {mib:.1} MiB while {CONNECTIONS} connections go by way of the activators"
        ));
    }
    Ok(())
}

/// A namespace lives 5 minutes at most; 25 wakes take about three.
fn batches(wakes: u32) -> Vec<u32> {
    let whole = wakes / BATCH;
    let mut batches = vec![BATCH; usize::try_from(whole).unwrap_or_default()];
    if !wakes.is_multiple_of(BATCH) {
        batches.push(wakes % BATCH);
    }
    batches
}

async fn measure(
    namespace: &Namespace,
    wakes: u32,
    lull: &mut Vec<Phases>,
    plain: &mut Vec<Phases>,
) -> anyhow::Result<()> {
    let agent = Agent::deploy(namespace).await?;
    let pairs = (1..=PAIRS).map(async |number| {
        let sleeper = App::new(&format!("lull-{number}"))
            .deploy_asleep(namespace)
            .await?;
        let plain = App::plain(&format!("plain-{number}")).replicas(0);
        anyhow::Ok((sleeper, plain.deploy(namespace).await?))
    });
    let pairs = futures::future::try_join_all(pairs).await?;
    let ahead_us = agent.clock_ahead_us().await?;
    for (wake, (sleeper, patched)) in (1..=wakes).zip(pairs.iter().cycle()) {
        sleeper.asleep().await?;
        sleeper.pods_gone().await?;
        patched.pods_gone().await?;
        let by_lull = wake_by_request(&agent, sleeper, ahead_us).await?;
        // The two don't start at the same time: each has the machine for itself.
        let by_patch = wake_by_patch(&agent, patched, ahead_us).await?;
        say(format!(
            "wake {wake}/{wakes}: Lull {:.0} ms, plain {:.0} ms",
            by_lull.answered, by_patch.answered
        ));
        lull.push(by_lull);
        plain.push(by_patch);
        patched.patch(&json!({ "spec": { "replicas": 0 } })).await?;
    }
    Ok(())
}

fn table(lull: &[Phases], plain: &[Phases]) -> String {
    let rows: [(&str, Pick); 8] = [
        ("/scale patched", |p| p.patched),
        ("pod created", |p| p.created),
        ("pod scheduled", |p| p.scheduled),
        ("app's container running", |p| p.running),
        ("queue-proxy listening", |p| p.listening),
        ("answered", |p| p.answered),
        ("answered after listening", |p| p.answered - p.listening),
        ("answered after running", |p| p.answered - p.running),
    ];
    let mut text = format!(
        "\nCold start, ms from request sent (Lull) or patch sent (plain) until seen; {} wakes each\n\
         {:<26}{:>12}{:>12}{:>12}{:>12}{:>12}\n",
        lull.len(),
        "",
        "Lull p50",
        "Lull p99",
        "Lull max",
        "plain p50",
        "plain max"
    );
    for (name, of) in rows {
        let Spread { p50, p99, max } = spread(lull, of);
        let plain = spread(plain, of);
        let (plain_p50, plain_max) = (plain.p50, plain.max);
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "{name:<26}{p50:>12.1}{p99:>12.1}{max:>12.1}{plain_p50:>12.1}{plain_max:>12.1}"
        );
    }
    let (lull, plain) = (
        spread(lull, |p| p.answered).p50,
        spread(plain, |p| p.answered).p50,
    );
    let _ = write!(text, "Lull adds {:.0} ms at p50", lull - plain);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answered: f64) -> Phases {
        Phases {
            patched: 1.0,
            created: 2.0,
            scheduled: 3.0,
            proxied: f64::NAN,
            running: 4.0,
            listening: f64::NAN,
            answered,
        }
    }

    #[test]
    fn the_table_shows_median_maximum_and_what_lull_adds() {
        let lull = [answered(900.0), answered(700.0), answered(800.0)];
        let plain = [answered(600.0), answered(650.0), answered(500.0)];
        let text = table(&lull, &plain);
        assert!(text.contains("Lull adds 200 ms"), "{text}");
        let row = text
            .lines()
            .find(|line| line.starts_with("answered "))
            .unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["answered", "800.0", "900.0", "900.0", "600.0", "650.0"]
        );
    }

    #[test]
    fn wakes_are_cut_into_batches() {
        assert_eq!(batches(50), [25, 25]);
        assert_eq!(batches(28), [25, 3]);
    }
}
