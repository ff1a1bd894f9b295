//! Dashboard and alerts against a real Prometheus: every panel shows something, every rule is
//! evaluated. That each alert fires and clears is shown by `make chart`. With `E2E_PICTURES` pictures of the
//! panels go into that folder (make dashboard).

use std::{collections::BTreeSet, env, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Namespace, all_answered, dashboard, eventually, in_namespace,
    prometheus::Prometheus,
};
use sample_app::wire::RunSpec;

const RULES: &str = include_str!("../../../../charts/lull/rules/lull.yaml");
/// Longest wait until everything has been scraped twice.
const FOLLOW: Duration = Duration::from_secs(60);
/// What rates are over: everything that the test does.
const WINDOW: &str = "5m";
/// The same in pictures: as Grafana has it, some scrapes.
const PICTURES_WINDOW: &str = "10s";
/// What pictures show: asleep, a wake, load, asleep again.
const PICTURES_SPAN: Duration = Duration::from_secs(180);

#[tokio::test]
async fn every_panel_has_data_under_load_and_every_rule_is_evaluated() -> anyhow::Result<()> {
    in_namespace("dashboards", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let prometheus = Prometheus::start().await?;
        scrapes_every_pod(&prometheus, namespace).await?;
        panels_fill(&prometheus, &agent, namespace).await?;
        rules_are_evaluated(&prometheus).await?;
        prometheus.stop().await
    })
    .await
}

async fn scrapes_every_pod(prometheus: &Prometheus, namespace: &Namespace) -> anyhow::Result<()> {
    eventually("every pod to be scraped", FOLLOW, async || {
        let pods = prometheus.follow(namespace).await?;
        let up = prometheus.query("up == 1").await?.len();
        ensure!(pods > 0 && up >= pods, "{up} of {pods} pods are scraped");
        Ok(())
    })
    .await
}

/// A wake, and load beyond the hard limit of its only pod: callers wait at the activator and at the
/// pod for all of it.
async fn panels_fill(
    prometheus: &Prometheus,
    agent: &Agent,
    namespace: &Namespace,
) -> anyhow::Result<()> {
    let app = App::new("shop")
        .annotate("lull.dev/container-concurrency", "10")
        .annotate("lull.dev/max-scale", "1");
    let workload = app.deploy_asleep(namespace).await?;
    let load = agent
        .start(&RunSpec {
            url: workload.url("/?sleep_ms=100"),
            connections: 20,
            seconds: Some(120.0),
            ..RunSpec::default()
        })
        .await?;
    eventually("every panel to have data", FOLLOW, async || {
        prometheus.follow(namespace).await?;
        let missing = without_data(prometheus).await?;
        ensure!(missing.is_empty(), "nothing in {missing:#?}");
        Ok(())
    })
    .await?;
    let of_workload = format!(
        "lull_autoscaler_ready_pods{{namespace=\"{}\",workload=\"shop\"}}",
        namespace.name
    );
    // A scrape that takes too long leaves none until the next one.
    eventually("the workload's own pods", FOLLOW, async || {
        let ready = prometheus.query(&of_workload).await?;
        ensure!(
            ready.iter().any(|pods| *pods > 0.0),
            "{of_workload} is {ready:?}"
        );
        Ok(())
    })
    .await?;
    let Some(folder) = env::var_os("E2E_PICTURES").map(PathBuf::from) else {
        return all_answered(&load.stop().await?);
    };
    all_answered(&load.finished().await?)?;
    workload.asleep().await?;
    dashboard::draw(prometheus, PICTURES_WINDOW, PICTURES_SPAN, &folder).await
}

/// Queries that find no series with a number.
async fn without_data(prometheus: &Prometheus) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    for query in dashboard::queries(WINDOW)? {
        let values = prometheus.query(&query.promql).await;
        let values = values.with_context(|| query.panel.clone())?;
        if values.iter().all(|value| value.is_nan()) {
            missing.push(format!("{}: {}", query.panel, query.promql));
        }
    }
    Ok(missing)
}

async fn rules_are_evaluated(prometheus: &Prometheus) -> anyhow::Result<()> {
    let names = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: BTreeSet<&str> = names.collect();
    eventually("every rule to be evaluated", FOLLOW, async || {
        let rules = prometheus.rules().await?;
        let loaded: BTreeSet<&str> = rules.keys().map(String::as_str).collect();
        ensure!(loaded == names, "{loaded:?} are loaded of {names:?}");
        let mut failed = rules.iter().filter(|(_, health)| *health != "ok");
        ensure!(failed.next().is_none(), "{rules:?}");
        Ok(())
    })
    .await
}
