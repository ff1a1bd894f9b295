//! The cold start table: wakes by Lull, and beside them the same app as a plain Deployment patched
//! 0 -> 1 and polled, and where it is asked for as a Service of Knative's, all measured by one agent.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::future::try_join_all;
use kube::ResourceExt as _;
use lull_contract::{names::HELD_LABEL, ports};
use lull_e2e::{
    Agent, App, Cluster, Namespace, Workload, activators, all_answered,
    coldstarts::{Phases, Pick, spread, wake_by_knative, wake_by_patch, wake_by_request},
    eventually,
    histogram::Histogram,
    in_namespace, in_namespace_for,
    knative::KnativeService,
    say,
    spread::Spread,
};
use sample_app::wire::RunSpec;
use serde_json::json;

/// Wakes in one namespace.
const BATCH: u32 = 25;
/// Workloads of each kind that take turns: falling asleep takes twenty seconds, a wake one.
const PAIRS: usize = 4;
/// Longest time of one namespace: 25 wakes of Lull's take about three minutes, but a revision of Knative's goes to
/// zero only 30 s after the activator is in the way.
const BATCH_TIME: Duration = Duration::from_secs(900);
/// Connections of the load under which memory is measured.
const CONNECTIONS: u32 = 300;
/// So many of the slowest patches of `/scale` are shown.
const SLOWEST: usize = 3;
/// Longest wait until all of them go by way of the activators.
const SWITCH: Duration = Duration::from_secs(30);

/// Measures cold starts on the cluster of the current kubeconfig.
#[derive(Debug, Parser)]
struct Args {
    /// Wakes of each kind.
    #[arg(long, default_value_t = 50)]
    wakes: u32,
    /// Also those of Knative Serving, which must be on the cluster.
    #[arg(long)]
    knative: bool,
}

/// What was measured, in order.
#[derive(Debug, Default)]
struct Starts {
    lull: Vec<Phases>,
    /// Empty where it wasn't asked for.
    knative: Vec<Phases>,
    plain: Vec<Phases>,
}

/// The same app in each way, all asleep.
struct Contenders {
    lull: Workload,
    knative: Option<KnativeService>,
    plain: Workload,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.wakes > 0, "--wakes 0: must be at least 1");
    let mut starts = Starts::default();
    let cluster = Cluster::connect().await?;
    let before = wakes_sent(&cluster).await?;
    for batch in batches(args.wakes) {
        in_namespace_for(BATCH_TIME, "coldstart", async |namespace| {
            measure(namespace, batch, args.knative, &mut starts).await
        })
        .await?;
    }
    say(table(&starts));
    in_namespace("load", async |namespace| memory_under_load(namespace).await).await?;
    let sent = wakes_sent(&cluster).await?.since(&before);
    say(format!(
        "first one held until the patch of /scale is sent, {} wakes: p50 at most {:.2} ms, p99 at most {:.2} ms",
        sent.count(),
        sent.quantile(0.5) * 1e3,
        sent.quantile(0.99) * 1e3,
    ));
    for line in slowest_sent(&cluster).await? {
        say(line);
    }
    Ok(())
}

/// What the autoscalers logged of the wakes whose patch took longest to be sent, the slowest first: up to
/// `told_ms` it was the autoscaler's time, what is more the activator's.
async fn slowest_sent(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut wakes = Vec::new();
    for pod in cluster.component_pods("autoscaler").await? {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log");
        let log = cluster.text("GET", &path, Vec::new()).await?;
        for line in log.lines() {
            wakes.extend(held_ms(line).map(|ms| (ms, line.to_owned())));
        }
    }
    wakes.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let lines = wakes.into_iter().map(|(_, line)| line);
    Ok(lines.take(SLOWEST).collect())
}

/// How long somebody had been held when a wake was sent, by the autoscaler's line about it.
fn held_ms(line: &str) -> Option<f64> {
    let (_, after) = line.split_once("held_ms")?;
    let number = after.trim_start_matches(['"', ':', '=']);
    let is_behind = |c: char| !c.is_ascii_digit() && c != '.';
    let end = number.find(is_behind).unwrap_or(number.len());
    number.get(..end)?.parse().ok()
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

/// None is so long that a namespace's time is over.
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
    with_knative: bool,
    starts: &mut Starts,
) -> anyhow::Result<()> {
    let agent = Agent::deploy(namespace).await?;
    let contenders = (1..=PAIRS).map(|number| deploy(namespace, number, with_knative));
    let contenders = try_join_all(contenders).await?;
    let ahead_us = agent.clock_ahead_us().await?;
    for (
        wake,
        Contenders {
            lull,
            knative,
            plain,
        },
    ) in (1..=wakes).zip(contenders.iter().cycle())
    {
        lull.asleep().await?;
        lull.pods_gone().await?;
        plain.pods_gone().await?;
        // They don't start at the same time: each has the machine for itself.
        let by_lull = wake_by_request(&agent, lull, ahead_us).await?;
        let by_patch = wake_by_patch(&agent, plain, ahead_us).await?;
        let mut line = format!(
            "wake {wake}/{wakes}: Lull {:.0} ms, plain {:.0} ms",
            by_lull.answered, by_patch.answered
        );
        starts.lull.push(by_lull);
        starts.plain.push(by_patch);
        if let Some(knative) = knative {
            knative.asleep().await?;
            let by_knative = wake_by_knative(&agent, knative, ahead_us).await?;
            // Writing to a String can't fail.
            let _ = write!(line, ", Knative {:.0} ms", by_knative.answered);
            starts.knative.push(by_knative);
        }
        say(line);
        plain.patch(&json!({ "spec": { "replicas": 0 } })).await?;
    }
    Ok(())
}

async fn deploy(
    namespace: &Namespace,
    number: usize,
    with_knative: bool,
) -> anyhow::Result<Contenders> {
    let lull = App::new(&format!("lull-{number}"));
    let plain = App::plain(&format!("plain-{number}")).replicas(0);
    let knative = if with_knative {
        Some(KnativeService::deploy(namespace, &format!("knative-{number}")).await?)
    } else {
        None
    };
    Ok(Contenders {
        lull: lull.deploy_asleep(namespace).await?,
        plain: plain.deploy(namespace).await?,
        knative,
    })
}

fn table(starts: &Starts) -> String {
    let rows: [(&str, Pick); 14] = [
        ("/scale patched", |p| p.patched),
        ("pod created", |p| p.created),
        ("pod scheduled", |p| p.scheduled),
        ("app listening", |p| p.app_listening),
        ("queue-proxy listening", |p| p.listening),
        ("app's container running", |p| p.running),
        ("pod's address told", |p| p.addressed),
        ("activator says answering", |p| p.answering),
        ("answered", |p| p.answered),
        ("address after listening", |p| p.addressed - p.listening),
        ("answered after listening", |p| p.answered - p.listening),
        ("answered after running", |p| p.answered - p.running),
        // Both listened and the address was told.
        ("answered after callable", |p| p.answered - p.callable()),
        ("answered after answering", |p| p.answered - p.answering),
    ];
    let mut columns = vec![("Lull", &starts.lull), ("plain", &starts.plain)];
    if !starts.knative.is_empty() {
        columns.push(("Knative", &starts.knative));
    }
    let mut text = format!(
        "\nCold start, ms from request sent (plain: patch sent) until seen; {} wakes each\n{:<26}",
        starts.lull.len(),
        "",
    );
    // Writing to a String can't fail.
    for (name, _) in &columns {
        for figure in ["p50", "p99", "max"] {
            let _ = write!(text, "{:>12}", format!("{name} {figure}"));
        }
    }
    for (name, of) in rows {
        let _ = write!(text, "\n{name:<26}");
        for (_, all) in &columns {
            let Spread { p50, p99, max } = spread(all, of);
            let _ = write!(text, "{p50:>12.1}{p99:>12.1}{max:>12.1}");
        }
    }
    let median = |all: &[Phases]| spread(all, |p| p.answered).p50;
    let plain = median(&starts.plain);
    for (name, all) in columns.iter().filter(|(name, _)| *name != "plain") {
        let _ = write!(text, "\n{name} adds {:.0} ms at p50", median(all) - plain);
    }
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
            app_listening: f64::NAN,
            listening: f64::NAN,
            addressed: 5.0,
            answering: f64::NAN,
            answered,
        }
    }

    fn starts(knative: Vec<Phases>) -> Starts {
        Starts {
            lull: [900.0, 700.0, 800.0].map(answered).to_vec(),
            plain: [600.0, 650.0, 500.0].map(answered).to_vec(),
            knative,
        }
    }

    #[test]
    fn the_table_shows_median_maximum_and_what_lull_adds() {
        let text = table(&starts(Vec::new()));
        assert!(text.ends_with("\nLull adds 200 ms at p50"), "{text}");
        let row = text
            .lines()
            .find(|line| line.starts_with("answered "))
            .unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            [
                "answered", "800.0", "900.0", "900.0", "600.0", "650.0", "650.0"
            ]
        );
    }

    #[test]
    fn knative_has_a_column_where_it_was_measured() {
        let text = table(&starts(vec![answered(1000.0)]));
        assert!(text.contains("Knative p99"), "{text}");
        assert!(text.ends_with("\nKnative adds 400 ms at p50"), "{text}");
    }

    #[test]
    fn a_line_of_either_format_says_how_long_somebody_was_held() {
        for (line, expected) in [
            (
                "INFO scaled workload=a/b from=0 to=1 held_ms=0.61 told_ms=0.2",
                Some(0.61),
            ),
            (
                r#"{"fields":{"from":0,"to":1,"held_ms":14.2,"told_ms":12.0}}"#,
                Some(14.2),
            ),
            ("INFO scaled workload=a/b from=1 to=0", None),
        ] {
            assert_eq!(held_ms(line), expected, "{line}");
        }
    }

    #[test]
    fn wakes_are_cut_into_batches() {
        assert_eq!(batches(50), [25, 25]);
        assert_eq!(batches(28), [25, 3]);
    }
}
