//! Apps that are not the simplest: several ports, slow, broken, other protocols.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_contract::headers::REASON_HEADER;
use lull_e2e::{Agent, App, Workload, all_answered, app::Port, eventually, in_namespace};
use sample_app::wire::{Hello, ProbeAnswer, ProbeSpec, RunSpec};
use serde_json::json;

/// Longest time of a single request at zero in these tests.
const PATIENCE_MS: u64 = 60_000;

fn get(url: String) -> ProbeSpec {
    ProbeSpec {
        url,
        timeout_ms: PATIENCE_MS,
        ..ProbeSpec::default()
    }
}

fn hello(answer: &ProbeAnswer) -> anyhow::Result<Hello> {
    ensure!(
        answer.ok && answer.status == Some(200),
        "not answered: {answer:?}"
    );
    Ok(serde_json::from_str(&answer.body)?)
}

#[tokio::test]
async fn two_ports_a_named_target_no_probe_and_a_late_listener_are_woken() -> anyhow::Result<()> {
    in_namespace("apps", async |namespace| {
        let named = Port {
            by_name: true,
            ..Port::http()
        };
        let admin = Port {
            name: "admin",
            container: 8081,
            service: 8081,
            ..Port::http()
        };
        let greeter = Port {
            name: "greeter",
            container: 9000,
            service: 9000,
            ..Port::http()
        };
        let ports = App::new("ports")
            .ports([named, admin, greeter])
            .annotate("lull.dev/ports", "8080,8081,9000/tcp")
            .arg("--port=8080")
            .arg("--port=8081")
            .arg("--tcp-port=9000")
            .without_readiness_probe();
        let late = App::new("late")
            .arg("--delay-listen=3s")
            .without_readiness_probe();
        let (agent, ports, late) = tokio::try_join!(
            Agent::deploy(namespace),
            ports.deploy_asleep(namespace),
            late.deploy_asleep(namespace)
        )?;
        // A pod that ends still answers what comes in the first moment after sleep.
        tokio::try_join!(ports.pods_gone(), late.pods_gone())?;

        let greeted = ProbeSpec {
            send: Some("are you there".to_owned()),
            ..get(format!("tcp://{}:9000", ports.host()))
        };
        let (first, admin_url) = (
            get(ports.url("/")),
            format!("http://{}:8081/", ports.host()),
        );
        let (second, third) = (get(admin_url), get(late.url("/")));
        let (first, second, greeted, third) = tokio::try_join!(
            agent.probe(&first),
            agent.probe(&second),
            agent.probe(&greeted),
            agent.probe(&third)
        )?;
        assert_eq!(hello(&first)?.port, 8080);
        assert_eq!(hello(&second)?.port, 8081);
        ensure!(
            greeted.ok,
            "the server that speaks first was not heard: {greeted:?}"
        );
        hello(&third)?;
        ensure!(
            third.ms >= 3000.0,
            "answered before it can have listened: {third:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_app_that_never_comes_up_ends_requests_with_a_reason() -> anyhow::Result<()> {
    in_namespace("never", async |namespace| {
        let (never, good) = (
            App::new("never").annotate("lull.dev/hold-timeout", "5s"),
            App::new("good"),
        );
        let (agent, never, good) = tokio::try_join!(
            Agent::deploy(namespace),
            never.deploy_asleep(namespace),
            good.deploy_asleep(namespace)
        )?;
        never
            .change_container(json!({ "args": ["serve", "--never-listen"] }))
            .await?;
        // The pod that slept in last runs the old template, and serves who comes late.
        never.pods_gone().await?;

        let (ask_never, ask_good) = (get(never.url("/")), get(good.url("/")));
        let (refused, answered) =
            tokio::try_join!(agent.probe(&ask_never), agent.probe(&ask_good))?;
        hello(&answered).context("another workload is affected")?;
        ensure!(
            matches!(refused.status, Some(503 | 504))
                && refused.headers.contains_key(REASON_HEADER),
            "want 503 or 504 with {REASON_HEADER}: {refused:?}"
        );
        // 2 s on top: a busy machine, and the request's way there and back.
        ensure!(refused.ms <= 7_000.0, "held longer than 5 s: {refused:?}");
        eprintln!(
            "status {:?}, {REASON_HEADER}: {:?}, after {:.0} ms",
            refused.status, refused.headers[REASON_HEADER], refused.ms
        );
        let why = eventually(
            "the ScaledWorkload to say why",
            Duration::from_secs(20),
            async || says_why(&never).await,
        );
        eprintln!("the ScaledWorkload says: {}", why.await?);

        never.change_container(json!({ "args": ["serve"] })).await?;
        let healed = ProbeSpec {
            until_ok_ms: Some(60_000),
            ..get(never.url("/"))
        };
        hello(&agent.probe(&healed).await?).context("it doesn't come back once it is repaired")?;
        Ok(())
    })
    .await
}

/// What status and conditions say, if that is that no pod gets ready.
async fn says_why(workload: &Workload) -> anyhow::Result<String> {
    let scaled = workload
        .scaled()
        .await?
        .context("there is no ScaledWorkload")?;
    let status = scaled.status.context("it has no status")?;
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    let said = format!("{}; {}", status.reason, conditions.join("; "));
    let lower = said.to_lowercase();
    ensure!(
        lower.contains("no pod") && lower.contains("ready"),
        "it says {said:?}"
    );
    Ok(said)
}

#[tokio::test]
async fn upgrades_and_h2c_work_through_a_cold_start() -> anyhow::Result<()> {
    in_namespace("protocols", async |namespace| {
        let h2c = Port {
            app_protocol: Some("kubernetes.io/h2c"),
            ..Port::http()
        };
        let (socket, grpc) = (App::new("socket"), App::new("grpc").ports([h2c]));
        let (agent, socket, grpc) = tokio::try_join!(
            Agent::deploy(namespace),
            socket.deploy_asleep(namespace),
            grpc.deploy_asleep(namespace)
        )?;
        let upgrade = ProbeSpec {
            upgrade: true,
            send: Some("said before anybody was awake".to_owned()),
            ..get(socket.url("/echo"))
        };
        let load = RunSpec {
            url: grpc.url("/"),
            connections: 10,
            requests: Some(500),
            h2c: true,
            ..RunSpec::default()
        };
        let (echoed, loaded) = tokio::try_join!(agent.probe(&upgrade), agent.run(&load))?;
        ensure!(
            echoed.ok && echoed.status == Some(101),
            "no echo: {echoed:?}"
        );
        all_answered(&loaded)?;
        ensure!(loaded.via_activator > 0, "it was not asleep: {loaded:?}");
        let spoken = ProbeSpec {
            h2c: true,
            ..get(grpc.url("/"))
        };
        let hello = hello(&agent.probe(&spoken).await?)?;
        assert_eq!(
            hello.version, "HTTP/2.0",
            "the app must see what the caller spoke"
        );
        Ok(())
    })
    .await
}
