//! In a mesh that requires mutual TLS, what a sleeping workload may be asked at once, and how long its
//! wake may take.

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use lull_contract::annotations::CONNECT_TIMEOUT;
use lull_e2e::{
    Agent, App, Namespace, Workload, all_answered, app::Port, eventually, in_mesh, in_mesh_for,
    mesh, routes::connect_timeout,
};
use sample_app::wire::{AppStats, ProbeSpec, RunSpec};

/// Longest wait for what Istio, Kubernetes or Lull is about to do: a start of the slowest app.
const FOLLOW: Duration = Duration::from_secs(150);
/// Longest time of a test with the slowest app, which starts twice.
const SLOW_TEST: Duration = Duration::from_secs(900);
/// Longest time of a request.
const PATIENCE_MS: u64 = 170_000;
/// Istio's own connect timeout, ten seconds, three times.
const BY_DEFAULT_MS: f64 = 30_000.0;

/// An app that listens so many seconds after its start.
fn slow(seconds: u32) -> App {
    App::new("slow").arg(&format!("--delay-listen={seconds}s"))
}

/// Deploys `app`, awake.
async fn awake(app: App, namespace: &Namespace) -> anyhow::Result<Workload> {
    let app = app.annotate("lull.dev/min-scale", "1");
    let workload = app.deploy(namespace).await?;
    eventually("it to be awake", FOLLOW, async || {
        workload.is_enrolled().await?;
        workload.is_rolled_out().await.map(drop)
    })
    .await?;
    Ok(workload)
}

/// Callers at once.
const TWENTY: u32 = 20;

/// Puts `workload` to sleep and has it woken by so many callers at once; milliseconds until the first
/// answer.
async fn woken_by(callers: u32, (agent, workload): (&Agent, &Workload)) -> anyhow::Result<f64> {
    workload.put_to_sleep().await?;
    let spec = RunSpec {
        url: workload.url("/"),
        connections: callers,
        requests: Some(100),
        timeout_ms: PATIENCE_MS,
        ..RunSpec::default()
    };
    let result = agent.run(&spec).await?;
    all_answered(&result)?;
    let first = result.first_ok_ms.unwrap_or_default();
    eprintln!(
        "first answered after {first:.0} ms, {:?} ms",
        result.latency_ms
    );
    Ok(first)
}

#[tokio::test]
async fn a_wake_of_twenty_seconds_succeeds_by_istio_s_own_defaults() -> anyhow::Result<()> {
    in_mesh("slow", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        // The pod's start takes the other three or four.
        let workload = awake(slow(16), namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        // Of several that an Envoy has waiting some get 503 (docs/istio.md, "Long wakes").
        let first = woken_by(1, (&agent, &workload)).await?;
        ensure!(
            (16_000.0..BY_DEFAULT_MS).contains(&first),
            "answered after {first:.0} ms"
        );
        // Of whoever calls at once with others some would not have been answered: it is said.
        eventually("the line that is missing", FOLLOW, async || {
            let status = workload.status().await?;
            let mut conditions = status.conditions.iter();
            let told = conditions.find(|found| found.type_ == "Warnings");
            let text = told.map(|found| found.message.as_str()).unwrap_or_default();
            let is_told = text.contains("to wake lately") && text.contains(CONNECT_TIMEOUT);
            ensure!(is_told, "{text:?}, wakes {:?}", status.wakes);
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_wake_of_fifty_seconds_succeeds_with_the_connect_timeout_raised() -> anyhow::Result<()> {
    in_mesh_for(SLOW_TEST, "slower", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = slow(46).annotate("lull.dev/hold-timeout", "110s");
        let workload = awake(app, namespace).await?;
        connect_timeout(namespace, &workload, Duration::from_secs(120)).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let first = woken_by(TWENTY, (&agent, &workload)).await?;
        ensure!(first >= 46_000.0, "answered after {first:.0} ms");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn lull_writes_a_connect_timeout_for_a_wake_of_forty_seconds_and_gives_way_to_a_rule()
-> anyhow::Result<()> {
    in_mesh_for(SLOW_TEST, "written", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = slow(36).annotate("lull.dev/connect-timeout", "60s");
        let workload = awake(app, namespace).await?;
        written(&workload, &["60s"]).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let first = woken_by(TWENTY, (&agent, &workload)).await?;
        ensure!(first >= BY_DEFAULT_MS, "answered after {first:.0} ms");
        connect_timeout(namespace, &workload, Duration::from_secs(120)).await?;
        written(&workload, &[]).await
    })
    .await
}

/// Waits until Lull's DestinationRules say this.
async fn written(workload: &Workload, wanted: &[&str]) -> anyhow::Result<()> {
    eventually("Lull's DestinationRules", FOLLOW, async || {
        let there = mesh::connect_timeouts(workload).await?;
        ensure!(there == wanted, "{there:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn five_hundred_grpc_streams_on_one_connection_wake_a_workload_that_takes_ten()
-> anyhow::Result<()> {
    const STREAMS: u32 = 500;
    const AT_ONCE: u64 = 10;
    in_mesh("streams", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let h2c = Port {
            app_protocol: Some("kubernetes.io/h2c"),
            ..Port::http()
        };
        let app = App::new("grpc")
            .ports([h2c])
            .annotate("lull.dev/container-concurrency", &AT_ONCE.to_string())
            // A connection is one pod's, and so are its streams: others can't help.
            .annotate("lull.dev/max-scale", "2");
        let workload = awake(app, namespace).await?;
        let once = RunSpec {
            url: workload.url("/?sleep_ms=50"),
            requests: Some(1),
            h2c: true,
            grpc: true,
            timeout_ms: PATIENCE_MS,
            ..RunSpec::default()
        };
        eventually("the first answer", FOLLOW, async || {
            all_answered(&agent.run(&once).await?)
        })
        .await?;

        workload.put_to_sleep().await?;
        let calls = RunSpec {
            streams: STREAMS,
            requests: Some(1_000),
            ..once
        };
        let result = agent.run(&calls).await?;
        all_answered(&result)?;
        ensure!(result.connections_opened == 1, "{result:?}");
        eprintln!("{:?} ms, by {:?}", result.latency_ms, result.by_pod);
        let stats = ProbeSpec {
            url: workload.url("/stats"),
            h2c: true,
            ..ProbeSpec::default()
        };
        let answer = agent.probe(&stats).await?;
        ensure!(answer.ok, "{answer:?}");
        let stats: AppStats = serde_json::from_str(&answer.body)?;
        ensure!(stats.max_in_flight <= AT_ONCE, "{stats:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn twenty_websockets_wake_a_workload_and_are_upgraded() -> anyhow::Result<()> {
    in_mesh("sockets", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = awake(App::new("socket"), namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        workload.put_to_sleep().await?;
        let upgrade = ProbeSpec {
            url: workload.url("/echo"),
            upgrade: true,
            send: Some("said before anybody was awake".to_owned()),
            timeout_ms: PATIENCE_MS,
            ..ProbeSpec::default()
        };
        let all = try_join_all((0..20).map(|_| agent.probe(&upgrade))).await?;
        for answer in all {
            ensure!(answer.ok && answer.status == Some(101), "{answer:?}");
        }
        Ok(())
    })
    .await
}
