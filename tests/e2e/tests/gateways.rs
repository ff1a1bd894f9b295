//! In a mesh that requires mutual TLS, what users route and allow by Istio's own objects: gateways,
//! weights, timeouts, policies, subsets and protocols hold alike for a workload that is awake and
//! for one that is woken by the call.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Namespace, Workload, all_answered,
    app::Port,
    eventually, in_mesh, in_namespace_for,
    mesh::{self, CALLER_HEADER},
    routes::{self, Door, ROUTE_HEADER},
};
use sample_app::wire::{Hello, ProbeAnswer, ProbeSpec, RunSpec};
use serde_json::{Value, json};

/// Longest wait for what Istio, Kubernetes or Lull is about to do.
const FOLLOW: Duration = Duration::from_secs(120);
/// Longest time of a test with a caller outside: longer than the part inside of the mesh has, which then
/// ends by itself and takes its namespace away.
const TEST: Duration = Duration::from_secs(720);
/// Longest time of a single request that wakes.
const PATIENCE_MS: u64 = 60_000;

/// Runs `test` with a caller outside of the mesh and a namespace inside.
async fn with_outsider(
    purpose: &str,
    test: impl AsyncFnOnce(&Agent, &Namespace) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    in_namespace_for(TEST, "outside", async |outside| {
        let agent = Agent::deploy(outside).await?;
        in_mesh(purpose, async |inside| test(&agent, inside).await).await
    })
    .await
}

fn patient(spec: ProbeSpec) -> ProbeSpec {
    ProbeSpec {
        timeout_ms: PATIENCE_MS,
        ..spec
    }
}

fn get(url: String) -> ProbeSpec {
    patient(ProbeSpec {
        url,
        ..ProbeSpec::default()
    })
}

/// Waits until `spec` is answered by way of the route called `name`: Envoys learn of it from istiod.
async fn routed(agent: &Agent, spec: &ProbeSpec, name: &str) -> anyhow::Result<()> {
    eventually(&format!("the route {name:?}"), FOLLOW, async || {
        let answer = agent.probe(spec).await?;
        took(&answer, name)
    })
    .await
}

/// Fails unless `answer` is a good one that came by the route called `name`.
fn took(answer: &ProbeAnswer, name: &str) -> anyhow::Result<()> {
    let taken = answer.headers.get(ROUTE_HEADER).map(String::as_str);
    ensure!(
        answer.ok && taken == Some(name),
        "wanted the route {name:?}: {answer:?}"
    );
    Ok(())
}

fn hello(answer: &ProbeAnswer) -> anyhow::Result<Hello> {
    ensure!(answer.ok, "not answered: {answer:?}");
    serde_json::from_str(&answer.body).with_context(|| answer.body.clone())
}

/// A host that no other test has.
fn external_host(namespace: &Namespace) -> String {
    format!("{}.example.org", namespace.name)
}

#[tokio::test]
async fn a_gateway_wakes_both_workloads_behind_the_paths_of_an_external_host() -> anyhow::Result<()>
{
    with_outsider("paths", async |agent, namespace| {
        let (one, two) = tokio::try_join!(
            App::new("one").deploy_awake(namespace),
            App::new("two").deploy_awake(namespace)
        )?;
        let host = external_host(namespace);
        let http = json!([
            routes::below("/one", routes::route("one", &one)),
            routes::below("/two", routes::route("two", &two)),
        ]);
        Door::World.open(namespace, &host, &http).await?;
        let to_one = patient(Door::World.request(&host, "/one"));
        let to_two = patient(Door::World.request(&host, "/two"));
        tokio::try_join!(routed(agent, &to_one, "one"), routed(agent, &to_two, "two"))?;

        tokio::try_join!(one.put_to_sleep(), two.put_to_sleep())?;
        let (first, second) = tokio::try_join!(agent.probe(&to_one), agent.probe(&to_two))?;
        took(&first, "one")?;
        took(&second, "two")?;
        eprintln!("woken after {:.0} and {:.0} ms", first.ms, second.ms);

        tokio::try_join!(one.asleep(), two.asleep())?;
        tokio::try_join!(one.pods_gone(), two.pods_gone())?;
        let load = |path: &str| RunSpec {
            url: Door::World.url(path),
            headers: routes::host_header(&host),
            connections: 20,
            requests: Some(500),
            timeout_ms: PATIENCE_MS,
            ..RunSpec::default()
        };
        let (load_one, load_two) = (load("/one?sleep_ms=5"), load("/two?sleep_ms=5"));
        let (first, second) = tokio::try_join!(agent.run(&load_one), agent.run(&load_two))?;
        all_answered(&first)?;
        all_answered(&second)
    })
    .await
}

#[tokio::test]
async fn a_cluster_local_gateway_wakes_by_the_name_of_the_service() -> anyhow::Result<()> {
    with_outsider("local", async |agent, namespace| {
        let workload = App::new("shop").deploy_awake(namespace).await?;
        let host = workload.host();
        let http = json!([routes::route("local", &workload)]);
        Door::Cluster.open(namespace, &host, &http).await?;
        let request = patient(Door::Cluster.request(&host, "/"));
        routed(agent, &request, "local").await?;
        workload.put_to_sleep().await?;
        took(&agent.probe(&request).await?, "local")
    })
    .await
}

#[tokio::test]
async fn weights_over_two_versions_hold_while_one_of_them_sleeps() -> anyhow::Result<()> {
    in_mesh("weights", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let (old, new) = tokio::try_join!(
            App::new("old").deploy_awake(namespace),
            App::new("new").deploy_awake(namespace)
        )?;
        let half = |to: &Workload| json!({ "destination": { "host": to.host() }, "weight": 50 });
        let mut split = routes::route("split", &old);
        split["route"] = json!([half(&old), half(&new)]);
        routes::within_mesh(namespace, &old, &json!([split])).await?;
        routed(&agent, &get(old.url("/")), "split").await?;

        new.put_to_sleep().await?;
        let load = RunSpec {
            url: old.url("/"),
            connections: 10,
            requests: Some(400),
            timeout_ms: PATIENCE_MS,
            ..RunSpec::default()
        };
        let result = agent.run(&load).await?;
        all_answered(&result)?;
        let share = |name: &str| -> u64 {
            let pods = result.by_pod.iter();
            let of_name = pods.filter(|(pod, _)| pod.starts_with(&format!("{name}-")));
            of_name.map(|(_, count)| count).sum()
        };
        let (old, new) = (share("old"), share("new"));
        // Half of 400, give or take six standard deviations.
        ensure!(
            (140..=260).contains(&old) && old + new == result.ok,
            "{old} of the old version and {new} of the new: {:?}",
            result.by_pod
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_route_s_timeout_and_retries_are_kept_while_it_wakes() -> anyhow::Result<()> {
    in_mesh("timeouts", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let slow = App::new("slow")
            .arg("--delay-listen=5s")
            .without_readiness_probe();
        let workload = slow.deploy_awake(namespace).await?;
        let mut short = routes::below("/short", routes::route("short", &workload));
        short["timeout"] = json!("2s");
        let mut long = routes::route("long", &workload);
        long["timeout"] = json!("60s");
        long["retries"] = json!({
            "attempts": 3, "perTryTimeout": "30s", "retryOn": "connect-failure,refused-stream,reset",
        });
        routes::within_mesh(namespace, &workload, &json!([short, long])).await?;
        let (in_short, in_long) = (get(workload.url("/short")), get(workload.url("/long")));
        routed(&agent, &in_short, "short").await?;

        workload.put_to_sleep().await?;
        let answer = agent.probe(&in_short).await?;
        ensure!(
            answer.status == Some(504) && answer.ms < 4_000.0,
            "wanted 504 after 2 s: {answer:?}"
        );
        // It had begun to wake, and nobody calls any more.
        workload.asleep().await?;
        workload.pods_gone().await?;
        let answer = agent.probe(&in_long).await?;
        took(&answer, "long")?;
        ensure!(answer.ms >= 5_000.0, "answered before it listened: {answer:?}");
        took(&agent.probe(&in_short).await?, "short")
    })
    .await
}

#[tokio::test]
async fn a_policy_that_names_the_gateway_s_account_holds_awake_and_woken() -> anyhow::Result<()> {
    with_outsider("allowed", async |agent, namespace| {
        let stranger = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        let host = external_host(namespace);
        let http = json!([routes::route("shop", &workload)]);
        Door::World.open(namespace, &host, &http).await?;
        let (admitted, direct) = (
            patient(Door::World.request(&host, "/")),
            get(workload.url("/")),
        );
        routed(agent, &admitted, "shop").await?;
        mesh::allow_only(&workload, &routes::gateway_principal()).await?;
        eventually("the policy to reach the pod", FOLLOW, async || {
            refused(&stranger.probe(&direct).await?)
        })
        .await?;
        took(&agent.probe(&admitted).await?, "shop")?;

        workload.put_to_sleep().await?;
        refused(&stranger.probe(&direct).await?).context("woken by a stranger")?;
        workload.asleep().await?;
        workload.pods_gone().await?;
        took(&agent.probe(&admitted).await?, "shop")?;
        refused(&stranger.probe(&direct).await?).context("awake again")
    })
    .await
}

fn refused(answer: &ProbeAnswer) -> anyhow::Result<()> {
    ensure!(answer.status == Some(403), "wanted 403: {answer:?}");
    Ok(())
}

#[tokio::test]
async fn the_app_sees_the_same_headers_awake_and_woken() -> anyhow::Result<()> {
    in_mesh("headers", async |namespace| {
        let agent = Agent::deploy_with_account("caller", namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        let request = get(workload.url("/?headers"));
        eventually("the first answer", FOLLOW, async || {
            hello(&agent.probe(&request).await?).map(drop)
        })
        .await?;
        let seen = async || -> anyhow::Result<(BTreeSet<String>, String)> {
            let headers = hello(&agent.probe(&request).await?)?.headers;
            let headers = headers.context("no headers were told")?;
            let caller = headers.get(CALLER_HEADER).cloned();
            let caller = caller.context("the app wasn't told who called")?;
            Ok((headers.into_keys().collect(), caller))
        };
        let awake = seen().await?;
        workload.put_to_sleep().await?;
        let woken = seen().await?;
        ensure!(awake == woken, "awake {awake:?}, woken {woken:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_subset_holds_the_workload_while_it_sleeps_and_another_stays_empty() -> anyhow::Result<()>
{
    in_mesh("subsets", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        let labelled = json!({ "metadata": { "labels": { "version": "v1" } } });
        workload
            .patch(&json!({ "spec": { "template": labelled } }))
            .await?;
        workload.rolled_out().await?;
        routes::subsets(namespace, &workload, &["v1", "v2"]).await?;
        let to = |version: &str| -> Value {
            let mut route = routes::route(version, &workload);
            route["route"][0]["destination"]["subset"] = json!(version);
            route
        };
        let http = json!([routes::below("/v2", to("v2")), to("v1")]);
        routes::within_mesh(namespace, &workload, &http).await?;
        let (in_first, in_second) = (get(workload.url("/")), get(workload.url("/v2")));
        routed(&agent, &in_first, "v1").await?;
        empty(&agent.probe(&in_second).await?).context("awake")?;

        workload.put_to_sleep().await?;
        empty(&agent.probe(&in_second).await?).context("asleep")?;
        ensure!(
            workload.replicas().await? == 0,
            "a subset of nobody woke it"
        );
        took(&agent.probe(&in_first).await?, "v1")
    })
    .await
}

/// Fails unless Envoy says that there is no endpoint.
fn empty(answer: &ProbeAnswer) -> anyhow::Result<()> {
    ensure!(answer.status == Some(503), "wanted 503: {answer:?}");
    Ok(())
}

#[tokio::test]
async fn http2_as_grpc_speaks_it_and_upgrades_wake() -> anyhow::Result<()> {
    in_mesh("protocols", async |namespace| {
        let h2c = Port {
            app_protocol: Some("kubernetes.io/h2c"),
            ..Port::http()
        };
        let (agent, grpc, socket) = tokio::try_join!(
            Agent::deploy(namespace),
            App::new("grpc").ports([h2c]).deploy_awake(namespace),
            App::new("socket").deploy_awake(namespace)
        )?;
        let spoken = ProbeSpec {
            h2c: true,
            ..get(grpc.url("/"))
        };
        let upgrade = ProbeSpec {
            upgrade: true,
            send: Some("said before anybody was awake".to_owned()),
            ..get(socket.url("/echo"))
        };
        eventually("both to answer", FOLLOW, async || {
            let (spoken, echoed) = tokio::try_join!(agent.probe(&spoken), agent.probe(&upgrade))?;
            ensure!(spoken.ok && echoed.ok, "{spoken:?}, {echoed:?}");
            Ok(())
        })
        .await?;

        tokio::try_join!(grpc.put_to_sleep(), socket.put_to_sleep())?;
        let load = RunSpec {
            url: grpc.url("/"),
            connections: 10,
            requests: Some(500),
            h2c: true,
            timeout_ms: PATIENCE_MS,
            ..RunSpec::default()
        };
        let (loaded, echoed) = tokio::try_join!(agent.run(&load), agent.probe(&upgrade))?;
        all_answered(&loaded)?;
        ensure!(
            echoed.ok && echoed.status == Some(101),
            "no echo: {echoed:?}"
        );
        let version = hello(&agent.probe(&spoken).await?)?.version;
        ensure!(version == "HTTP/2.0", "the app saw {version}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_tcp_server_that_speaks_first_is_woken_by_its_first_connection() -> anyhow::Result<()> {
    in_mesh("tcp", async |namespace| {
        let greeter = Port {
            name: "greeter",
            container: 9000,
            service: 9000,
            app_protocol: Some("tcp"),
            ..Port::http()
        };
        let app = App::new("talker")
            .ports([Port::http(), greeter])
            .annotate("lull.dev/ports", "8080,9000/tcp")
            .arg("--tcp-port=9000");
        let (agent, workload) =
            tokio::try_join!(Agent::deploy(namespace), app.deploy_awake(namespace))?;
        let greet = ProbeSpec {
            send: Some("are you there".to_owned()),
            ..get(format!("tcp://{}:9000", workload.host()))
        };
        let greeted = async || -> anyhow::Result<()> {
            let answer = agent.probe(&greet).await?;
            ensure!(answer.ok, "not greeted: {answer:?}");
            Ok(())
        };
        eventually("the first greeting", FOLLOW, async || greeted().await).await?;
        workload.put_to_sleep().await?;
        greeted().await.context("woken")
    })
    .await
}
