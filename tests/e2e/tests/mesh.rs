//! Inside an Istio mesh that requires mutual TLS: callers, policies and the app see no difference
//! between a workload that is awake and one that is woken by the request.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use lull_contract::{
    annotations::SCALE, names::private_service, ports::QUEUE_PROXY_TRAFFIC_FIRST,
    settings::DRAIN_MIN,
};
use lull_e2e::{
    Agent, App, Namespace, Workload, all_answered, app::APP_LABEL, cluster::is_ready,
    containers::Lives, eventually, in_mesh, in_mesh_for, in_namespace_for, istiod::DebugPages,
    leftovers, mesh, rounds::rounds, slices,
};
use sample_app::wire::{ProbeAnswer, ProbeSpec, RunSpec};
use serde_json::json;

/// Longest wait for what Istio, Kubernetes or Lull is about to do: a leave, with its wake and its rollout.
const FOLLOW: Duration = Duration::from_secs(120);
/// Longest time of a test that is in two namespaces: longer than the part in the inner one has, which then
/// ends by itself and takes its namespace away.
const TWO: Duration = Duration::from_secs(720);
/// Longest time until the first cycle can begin.
const SET_UP: Duration = Duration::from_secs(180);
/// Longest time of one cycle of sleep and wake, on a busy machine.
const CYCLE: Duration = Duration::from_secs(60);
/// The app's port.
const APP_PORT: u16 = 8080;
/// Name of the second Service of a workload.
const SECOND: &str = "till";
/// By how much clocks of two nodes may differ.
const CLOCKS: Duration = Duration::from_secs(1);

/// Whom callers of a Service reach by what istiod tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Pods,
    Activators,
    Nobody,
}

/// One request; what became of it is in the answer.
async fn call(agent: &Agent, workload: &Workload) -> anyhow::Result<ProbeAnswer> {
    let spec = ProbeSpec {
        url: workload.url("/"),
        ..ProbeSpec::default()
    };
    agent.probe(&spec).await
}

fn load(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 10,
        seconds: Some(5.0),
        rate: Some(100.0),
        ..RunSpec::default()
    }
}

#[tokio::test]
async fn a_meshed_caller_reaches_a_workload_that_is_awake() -> anyhow::Result<()> {
    in_mesh("warm", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let result = agent.run(&load(&workload)).await?;
        all_answered(&result)?;
        eprintln!("{} answered, {:?} ms", result.ok, result.latency_ms);
        // Where its pod came late it was woken, and activators leave a moment after that.
        no_entries(&workload).await
    })
    .await
}

#[tokio::test]
async fn the_app_sees_who_called_awake_and_woken() -> anyhow::Result<()> {
    in_mesh("identity", async |namespace| {
        let (agent, workload) = tokio::try_join!(
            Agent::deploy_with_account("caller", namespace),
            App::new("shop").deploy_awake(namespace)
        )?;
        let caller = (&agent, namespace, "caller");
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        mesh::sees_caller(&workload, caller).await?;

        workload.put_to_sleep().await?;
        let entries = mesh::entries(&workload).await?;
        ensure!(!entries.is_empty(), "asleep, and Istio knows no activator");
        mesh::sees_caller(&workload, caller).await?;
        no_entries(&workload).await
    })
    .await
}

/// Waits until Istio knows of no activator of a workload that is awake.
async fn no_entries(workload: &Workload) -> anyhow::Result<()> {
    eventually("the activators to leave", FOLLOW, async || {
        let entries = mesh::entries(workload).await?.len();
        let state = workload.status_line().await;
        ensure!(entries == 0, "Istio has {entries} entries; {state}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_policy_on_identities_holds_awake_and_woken() -> anyhow::Result<()> {
    in_mesh("policy", async |namespace| {
        let (friend, stranger, workload) = tokio::try_join!(
            Agent::deploy_with_account("friend", namespace),
            Agent::deploy_with_account("stranger", namespace),
            App::new("shop").deploy_awake(namespace)
        )?;
        stranger.is_answered(&workload.url("/"), FOLLOW).await?;
        mesh::allow_only(&workload, &mesh::principal(namespace, "friend")).await?;
        eventually("the policy to reach the pod", FOLLOW, async || {
            let answer = call(&stranger, &workload).await?;
            ensure!(answer.status == Some(403), "{answer:?}");
            Ok(())
        })
        .await?;
        // Its own Envoy learns of a new Service from istiod, too.
        friend.is_answered(&workload.url("/"), FOLLOW).await?;

        // Each of them wakes it once.
        workload.put_to_sleep().await?;
        let answer = call(&stranger, &workload).await?;
        ensure!(
            answer.status == Some(403),
            "woken by a stranger: {answer:?}"
        );
        workload.asleep().await?;
        workload.pods_gone().await?;
        friend.get(&workload.url("/")).await?;
        let answer = call(&stranger, &workload).await?;
        ensure!(answer.status == Some(403), "awake again: {answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cycles_of_sleep_and_wake_under_load_answer_every_request() -> anyhow::Result<()> {
    let cycles = rounds(10, 50);
    in_mesh_for(SET_UP + CYCLE * cycles, "cycles", async |namespace| {
        let app = App::new("shop");
        let (agent, workload) =
            tokio::try_join!(Agent::deploy(namespace), app.deploy_asleep(namespace))?;
        for cycle in 1..=cycles {
            // Odd cycles call while the old pod may still be going, even ones when it is gone.
            if cycle % 2 == 0 {
                workload.pods_gone().await?;
            }
            let result = agent.run(&load(&workload)).await?;
            all_answered(&result)?;
            let took = workload.asleep().await?;
            eprintln!(
                "cycle {cycle}: {} answered, {:?} ms, asleep after {took:.1?}",
                result.ok, result.latency_ms
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_caller_of_another_namespace_wakes_and_reaches_it() -> anyhow::Result<()> {
    in_mesh_for(TWO, "callers", async |callers| {
        in_mesh("apps", async |apps| {
            let agent = Agent::deploy_with_account("caller", callers).await?;
            let workload = App::new("shop").deploy_asleep(apps).await?;
            workload.pods_gone().await?;
            mesh::sees_caller(&workload, (&agent, callers, "caller")).await?;
            all_answered(&agent.run(&load(&workload)).await?)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_caller_outside_the_mesh_is_refused_awake_and_woken() -> anyhow::Result<()> {
    in_namespace_for(TWO, "outside", async |outside| {
        in_mesh("inside", async |inside| {
            let (member, outsider, workload) = tokio::try_join!(
                Agent::deploy(inside),
                Agent::deploy(outside),
                App::new("shop").deploy_awake(inside)
            )?;
            member.is_answered(&workload.url("/"), FOLLOW).await?;
            let answer = call(&outsider, &workload).await?;
            ensure!(!answer.ok, "awake: {answer:?}");

            workload.put_to_sleep().await?;
            let answer = call(&outsider, &workload).await?;
            ensure!(!answer.ok, "woken: {answer:?}");
            member.get(&workload.url("/")).await.map(drop)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_workload_that_leaves_in_its_sleep_leaves_nothing_behind() -> anyhow::Result<()> {
    in_mesh("leave", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_asleep(namespace).await?;
        workload
            .annotate(&[(SCALE, None), ("lull.dev/window", None)])
            .await?;
        eventually("everything to be given back", FOLLOW, async || {
            let left = leftovers::leftovers(&namespace.cluster, &namespace.name).await?;
            ensure!(left.is_empty(), "left behind: {}", left.join(", "));
            Ok(())
        })
        .await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await
    })
    .await
}

#[tokio::test]
async fn istiod_has_the_pods_or_the_activators_for_each_service_and_each_of_them_once()
-> anyhow::Result<()> {
    in_mesh("endpoints", async |namespace| {
        second_service(namespace, "shop").await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        let pages = DebugPages::open(&namespace.cluster).await?;
        let pods_alone = [Behind::Pods; 2];
        has_all(&pages, &workload, pods_alone)
            .await
            .context("awake")?;

        let burst = "lull.dev/target-burst-capacity";
        workload.annotate(&[(burst, Some("-1"))]).await?;
        let activators_alone = [Behind::Activators; 2];
        has_all(&pages, &workload, activators_alone)
            .await
            .context("held")?;
        workload.annotate(&[(burst, None)]).await?;
        has_all(&pages, &workload, pods_alone)
            .await
            .context("let go")?;

        workload.put_to_sleep().await?;
        has_all(&pages, &workload, activators_alone)
            .await
            .context("asleep")?;
        mesh::entries_are_placed(&workload).await
    })
    .await
}

/// One more Service for the pods of the app called `name`.
async fn second_service(namespace: &Namespace, name: &str) -> anyhow::Result<()> {
    let ports = [json!({ "name": "http", "port": 8081, "targetPort": APP_PORT })];
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": SECOND },
        "spec": { "selector": { APP_LABEL: name }, "ports": ports },
    });
    let path = format!("/api/v1/namespaces/{}/services", namespace.name);
    namespace.cluster.create(&path, &service).await
}

/// Waits until istiod has just these for the public and the second Service, and nobody for the private one,
/// of which no caller is told.
async fn has_all(
    pages: &DebugPages,
    workload: &Workload,
    wanted: [Behind; 2],
) -> anyhow::Result<()> {
    let private = private_service(&workload.name);
    let [public, second] = wanted;
    let services = [
        (workload.name.as_str(), public),
        (SECOND, second),
        (private.as_str(), Behind::Nobody),
    ];
    eventually("istiod to know whom to call", FOLLOW, async || {
        for (service, behind) in services {
            let wanted = addresses(workload, behind).await?;
            let known = pages.endpoints(workload, service).await?;
            ensure!(
                known == wanted,
                "{service}: wanted {behind:?} {wanted:?}, istiod has {known:?}; {}",
                workload.status_line().await
            );
        }
        // Whoever doesn't ask Istio finds them, too: in the slice that istiod must not read.
        let hidden = !slices::backends(workload).await?.activators.is_empty();
        let is_told = public == Behind::Activators;
        ensure!(hidden == is_told, "activators in slices: {hidden}");
        Ok(())
    })
    .await
}

/// Where they are now, in order.
async fn addresses(workload: &Workload, behind: Behind) -> anyhow::Result<Vec<SocketAddr>> {
    let mut found = match behind {
        Behind::Nobody => return Ok(Vec::new()),
        Behind::Activators => mesh::activators(workload, APP_PORT).await?,
        Behind::Pods => {
            let pods = workload.pods().await?.into_iter().filter(is_ready);
            let addresses = pods.filter_map(|pod| pod.status?.pod_ip);
            let doors = addresses.map(|address| {
                let address: IpAddr = address.parse()?;
                Ok(SocketAddr::new(address, QUEUE_PROXY_TRAFFIC_FIRST))
            });
            doors.collect::<anyhow::Result<Vec<_>>>()?
        }
    };
    ensure!(!found.is_empty(), "there are no {behind:?}");
    found.sort_unstable();
    Ok(found)
}

#[tokio::test]
async fn istio_s_proxy_is_the_first_to_begin_and_the_last_to_end_under_load() -> anyhow::Result<()>
{
    in_mesh("order", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = App::new("shop").annotate("lull.dev/max-scale", "1");
        let workload = app.deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        workload.put_to_sleep().await?;
        let lives = Lives::start(&workload).await?;
        let without_end = RunSpec {
            seconds: Some(500.0),
            ..load(&workload)
        };
        // The first of its requests wakes.
        let run = agent.start(&without_end).await?;
        let woken = alone(&workload, None).await?;
        // Not an eviction: docs/failures.md says what that loses in a mesh, where it is the only pod.
        let changed = json!({ "env": [{ "name": "ROLLED", "value": "1" }] });
        workload.change_container(changed).await?;
        let next = alone(&workload, Some(woken.as_str())).await?;
        let drain = DRAIN_MIN.0.saturating_sub(CLOCKS);
        eventually("the pod's last words", FOLLOW, async || {
            let life = lives.of(&woken)?;
            ensure!(life.istio_proxy.ended.is_some(), "{life:?}");
            Ok(())
        })
        .await?;
        let result = run.stop().await?;
        all_answered(&result)?;
        let (first, second) = (lives.of(&woken)?, lives.of(&next)?);
        eprintln!("{} answered; {first:?}, then {second:?}", result.ok);
        first.began_in_order()?;
        first.ended_in_order(drain)?;
        second.began_in_order()
    })
    .await
}

/// Waits until a pod that is not `before` is alone behind the Service.
async fn alone(workload: &Workload, before: Option<&str>) -> anyhow::Result<String> {
    eventually("one pod alone", FOLLOW, async || {
        let pods = slices::pods_only(workload, 1).await?.pods;
        let mut pods = pods.into_iter();
        let (pod, more) = (pods.next().context("no pod")?, pods.count());
        let is_new = before != Some(pod.as_str());
        ensure!(is_new && more == 0, "{pod} and {more} more");
        Ok(pod)
    })
    .await
}
