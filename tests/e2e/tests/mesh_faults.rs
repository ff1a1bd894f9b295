//! In a mesh that requires mutual TLS, what happens to the mesh itself costs no request: istiod gone
//! for a minute in each phase of a workload's life, certificates renewed, both sidecars rolled at once,
//! the only pod evicted while callers come by activators, switches again and again. Where they know that pod
//! itself, its eviction may cost a moment.
//!
//! istiod is everybody's: nothing else can run beside these.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Container, Pod};
use lull_contract::{
    annotations::STANDBY,
    names::QUEUE_PROXY_CONTAINER,
    scaled_workload::{Mode, State},
};
use lull_e2e::{
    Agent, App, Namespace, Workload, activators,
    agent::Run,
    all_answered, eventually, evict, in_mesh, in_mesh_for,
    istiod::{self, DebugPages},
    mesh,
    races::is_switched,
    rounds::rounds,
    routes,
};
use sample_app::wire::{RunResult, RunSpec};
use serde_json::json;
use tokio::time::sleep;

/// Longest wait for what Istio, Kubernetes or Lull is about to do: two meshed pods rolled one by one.
const FOLLOW: Duration = Duration::from_secs(120);
/// How long istiod is gone.
const ABSENCE: Duration = Duration::from_secs(60);
/// Nobody gets a new pod into the mesh before istiod is back, and a ReplicaSet that was refused tries
/// again after up to 41 s more: callers and activators wait for longer than all that.
const CONNECT: Duration = Duration::from_secs(150);
const HOLD: &str = "140s";
/// Longest time of a request, for the same reason.
const PATIENCE_MS: u64 = 170_000;
/// Between two bursts on a workload that would like to sleep: time to begin with it.
const PAUSE: Duration = Duration::from_secs(8);
/// A certificate is renewed after half of it.
const CERTIFICATE: Duration = Duration::from_secs(60);
/// Longest time of a switch, on a busy machine.
const SWITCH: Duration = Duration::from_secs(20);
/// For so long, in milliseconds, callers may have nobody when their only pod is told to end: istiod takes it out at
/// once, and tells of activators with its next push, or the one after.
const MOMENT_MS: f64 = 2_000.0;

/// Loads that go on until they are stopped: on kept connections, and on new ones.
fn steady(workload: &Workload) -> [RunSpec; 2] {
    let kept = RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 10,
        rate: Some(50.0),
        seconds: Some(3_000.0),
        timeout_ms: PATIENCE_MS,
        ..RunSpec::default()
    };
    let fresh = RunSpec {
        connections: 5,
        rate: Some(20.0),
        keep_alive: false,
        ..kept.clone()
    };
    [kept, fresh]
}

/// Twenty callers at once.
fn burst(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/"),
        connections: 20,
        requests: Some(100),
        timeout_ms: PATIENCE_MS,
        ..RunSpec::default()
    }
}

/// Runs `during` under a steady load on `workload`, of which no request may fail.
async fn under_load(
    parts: (&Agent, &Workload),
    during: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    under_judged_load(parts, all_answered, during).await
}

/// The same where `judge` says what may fail.
async fn under_judged_load(
    (agent, workload): (&Agent, &Workload),
    judge: impl Fn(&RunResult) -> anyhow::Result<()>,
    during: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for spec in steady(workload) {
        runs.push(agent.start(&spec).await?);
    }
    let outcome = match under_way(&runs).await {
        Ok(()) => Box::pin(during()).await,
        Err(error) => Err(error),
    };
    for run in runs {
        let result = run.stop().await?;
        judge(&result)?;
        eprintln!(
            "{} answered, {:?} ms, by {:?}",
            result.ok, result.latency_ms, result.by_pod
        );
    }
    outcome
}

/// Waits until each load has had its first answers.
async fn under_way(runs: &[Run<'_>]) -> anyhow::Result<()> {
    for run in runs {
        eventually("the load to be under way", FOLLOW, async || {
            let ok = run.so_far().await?.ok;
            ensure!(ok >= 20, "{ok} answers");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// An app whose callers wait long enough; awake, and reached.
async fn patient(app: App, (agent, namespace): (&Agent, &Namespace)) -> anyhow::Result<Workload> {
    let app = app.annotate("lull.dev/hold-timeout", HOLD);
    let workload = app.deploy_awake(namespace).await?;
    routes::connect_timeout(namespace, &workload, CONNECT).await?;
    agent.is_answered(&workload.url("/"), FOLLOW).await?;
    Ok(workload)
}

/// It sleeps and wakes as ever.
async fn is_well(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    workload.asleep().await?;
    workload.pods_gone().await?;
    all_answered(&agent.run(&burst(workload)).await?).context("afterwards")
}

#[tokio::test]
async fn a_workload_that_is_awake_does_not_miss_istiod() -> anyhow::Result<()> {
    in_mesh("awake", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let before = workload.ready_pods().await?;
        under_load((&agent, &workload), async || {
            istiod::away(&namespace.cluster, ABSENCE, async || Ok(())).await
        })
        .await?;
        let after = workload.ready_pods().await?;
        ensure!(before == after, "before {before:?}, after {after:?}");
        workload.put_to_sleep().await?;
        all_answered(&agent.run(&burst(&workload)).await?).context("afterwards")
    })
    .await
}

#[tokio::test]
async fn who_calls_a_sleeper_without_istiod_waits_until_it_is_back() -> anyhow::Result<()> {
    in_mesh("asleep", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = patient(App::new("shop"), (&agent, namespace)).await?;
        workload.put_to_sleep().await?;
        let called = istiod::away(&namespace.cluster, ABSENCE, async || {
            agent.run(&burst(&workload)).await
        });
        let result = called.await?;
        all_answered(&result)?;
        eprintln!("first answered after {:?} ms", result.first_ok_ms);
        is_well(&agent, &workload).await
    })
    .await
}

#[tokio::test]
async fn a_wake_that_loses_istiod_on_its_way_ends_well() -> anyhow::Result<()> {
    in_mesh("waking", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        // Long enough for istiod to be gone before the app listens.
        let app = App::new("shop").arg("--delay-listen=8s");
        let workload = patient(app, (&agent, namespace)).await?;
        workload.put_to_sleep().await?;
        let run = agent.start(&burst(&workload)).await?;
        eventually("the wake to begin", FOLLOW, async || {
            let replicas = workload.replicas().await?;
            ensure!(replicas > 0, "{}", workload.status_line().await);
            Ok(())
        })
        .await?;
        let result = istiod::away(&namespace.cluster, ABSENCE, async || run.finished().await);
        let result = result.await?;
        all_answered(&result)?;
        eprintln!("first answered after {:?} ms", result.first_ok_ms);
        is_well(&agent, &workload).await
    })
    .await
}

#[tokio::test]
async fn a_workload_that_loses_istiod_while_it_falls_asleep_answers_on() -> anyhow::Result<()> {
    in_mesh("falling", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = patient(App::new("shop"), (&agent, namespace)).await?;
        workload.put_to_sleep().await?;
        agent.get(&workload.url("/")).await?;
        eventually("it to begin to fall asleep", FOLLOW, async || {
            let state = workload.status().await?.state;
            ensure!(state == State::FallingAsleep, "it is {state}");
            Ok(())
        })
        .await?;
        istiod::away(&namespace.cluster, ABSENCE, async || {
            let began = Instant::now();
            while began.elapsed() < ABSENCE - PAUSE {
                // Time is all that there is to wait for: whether it sleeps meanwhile is open.
                sleep(PAUSE).await;
                let state = workload.status_line().await;
                let result = agent.run(&burst(&workload)).await?;
                all_answered(&result).context(state)?;
            }
            Ok(())
        })
        .await?;
        is_well(&agent, &workload).await
    })
    .await
}

#[tokio::test]
async fn certificates_are_renewed_under_load() -> anyhow::Result<()> {
    const RENEWED: f64 = 4.0;
    in_mesh("certificates", async |namespace| {
        let (key, config) = istiod::certificates_for(CERTIFICATE);
        let agent = Agent::deploy_annotated(&[(key, config.as_str())], namespace).await?;
        let app = App::new("shop").annotate_pods(key, &config);
        let workload = app.deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let pods = workload.ready_pods().await?;
        let callee = pods.first().context("no pod is ready")?;
        let ends = [agent.pod(), callee.as_str()];
        let before = certificates(namespace, ends).await?;
        under_load((&agent, &workload), async || {
            let cap = CERTIFICATE * 5;
            eventually("certificates to be renewed", cap, async || {
                let now = certificates(namespace, ends).await?;
                let mut renewed = now.iter().zip(before).map(|(now, before)| now - before);
                let are_all = renewed.all(|count| count >= RENEWED);
                ensure!(are_all, "before {before:?}, now {now:?}");
                Ok(())
            })
            .await
        })
        .await?;
        // Older than its first certificate, the caller wakes it once more.
        workload.put_to_sleep().await?;
        all_answered(&agent.run(&burst(&workload)).await?).context("woken")
    })
    .await
}

/// How often the Envoys of two pods have asked for one.
async fn certificates(namespace: &Namespace, pods: [&str; 2]) -> anyhow::Result<[f64; 2]> {
    let of = pods.map(|pod| (namespace.name.as_str(), pod));
    let [caller, callee] = of.map(|of| istiod::certificates(&namespace.cluster, of));
    Ok([caller.await?, callee.await?])
}

#[tokio::test]
async fn both_sidecars_roll_together_under_load() -> anyhow::Result<()> {
    let limit = FOLLOW * 6;
    in_mesh_for(limit, "sidecars", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = App::new("shop").replicas(2);
        let workload = app
            .annotate("lull.dev/min-scale", "2")
            .deploy(namespace)
            .await?;
        rolled_out(&workload).await?;
        workload.enrolled().await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        under_load((&agent, &workload), async || {
            for round in 1..=rounds(1, 3) {
                let cpu = format!("{}m", 30 + round);
                let template = json!({ "sidecar.istio.io/proxyCPU": cpu });
                workload
                    .patch(&json!({
                        "metadata": { "annotations": { "lull.dev/sidecar-cpu-request": cpu } },
                        "spec": { "template": { "metadata": { "annotations": template } } },
                    }))
                    .await?;
                rolled_out(&workload).await?;
                for pod in workload.pods().await? {
                    let stays = pod.metadata.deletion_timestamp.is_none();
                    ensure!(!stays || has_rolled(&pod, &cpu), "wanted {cpu}: {pod:?}");
                }
            }
            Ok(())
        })
        .await
    })
    .await
}

async fn rolled_out(workload: &Workload) -> anyhow::Result<()> {
    eventually("the rollout", FOLLOW, async || {
        workload.is_rolled_out().await.map(drop)
    })
    .await
}

/// Whether both sidecars ask for `cpu`; that of Istio may be of either sort.
fn has_rolled(pod: &Pod, cpu: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let requested = |container: &Container| {
        let requests = container.resources.as_ref()?.requests.as_ref()?;
        Some(requests.get("cpu")?.0.clone())
    };
    [QUEUE_PROXY_CONTAINER, "istio-proxy"].iter().all(|name| {
        let mut all = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers);
        let sidecar = all.find(|container| container.name == *name);
        sidecar.and_then(requested).as_deref() == Some(cpu)
    })
}

#[tokio::test]
async fn switches_under_load_answer_every_request() -> anyhow::Result<()> {
    // There and back are two.
    let pairs = rounds(10, 50);
    let limit = SWITCH * 2 * pairs + FOLLOW;
    in_mesh_for(limit, "switches", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        under_load((&agent, &workload), async || {
            for _ in 0..pairs {
                for (capacity, mode) in [("-1", Mode::Proxy), ("0", Mode::Serve)] {
                    let wanted = [("lull.dev/target-burst-capacity", Some(capacity))];
                    workload.annotate(&wanted).await?;
                    let what = format!("it to be in {mode} mode");
                    eventually(&what, FOLLOW, async || is_there(&workload, mode).await).await?;
                }
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_eviction_of_the_only_pod_costs_nothing_where_callers_come_by_activators_anyway()
-> anyhow::Result<()> {
    in_mesh("evicted", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let always = [("lull.dev/target-burst-capacity", Some("-1"))];
        workload.annotate(&always).await?;
        eventually(
            "activators to be all that callers know",
            FOLLOW,
            async || is_there(&workload, Mode::Proxy).await,
        )
        .await?;
        under_load((&agent, &workload), async || another_pod(&workload).await).await
    })
    .await
}

#[tokio::test]
async fn an_eviction_of_the_only_pod_costs_a_moment_at_most_where_callers_know_it()
-> anyhow::Result<()> {
    in_mesh("moment", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        eventually("pods to be all that callers know", FOLLOW, async || {
            is_there(&workload, Mode::Serve).await
        })
        .await?;
        let parts = (&agent, &workload);
        under_judged_load(parts, lost_a_moment_at_most, async || {
            another_pod(&workload).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_eviction_of_the_only_pod_costs_nothing_where_activators_stand_by() -> anyhow::Result<()>
{
    in_mesh("standby", async |namespace| {
        let cluster = &namespace.cluster;
        let agent = Agent::deploy(namespace).await?;
        // A start of a pod is not what is looked at: callers wait for as long as it takes.
        let app = App::new("shop")
            .annotate("lull.dev/connect-timeout", "60s")
            .annotate(STANDBY, "true");
        let workload = app.deploy_awake(namespace).await?;
        let pages = DebugPages::open(cluster).await?;
        eventually("a pod, and activators that stand by", FOLLOW, async || {
            is_switched(&workload, Mode::Serve).await?;
            let entries = mesh::entries(&workload).await?.len();
            let known = pages.endpoints(&workload, &workload.name).await?;
            ensure!(
                entries > 0 && known.len() == entries + 1,
                "{entries} entries, istiod has {known:?}"
            );
            Ok(())
        })
        .await?;
        agent.is_answered(&workload.url("/"), FOLLOW).await?;
        let before = activators::tls_connections(cluster).await?;
        under_load((&agent, &workload), async || {
            let taken = activators::tls_connections(cluster).await? - before;
            ensure!(taken == 0.0, "{taken} calls though there is a pod");
            another_pod(&workload).await?;
            let taken = activators::tls_connections(cluster).await? - before;
            ensure!(taken > 0.0, "no activator was called");
            // Nor does it cost anything to give that up.
            workload.annotate(&[(STANDBY, None)]).await?;
            eventually("pods to be all that callers know", FOLLOW, async || {
                is_there(&workload, Mode::Serve).await?;
                let standing_by = mesh::pods_first(&workload).await?;
                ensure!(standing_by == 0, "{standing_by} rules say pods first");
                Ok(())
            })
            .await
        })
        .await
    })
    .await
}

/// Evicts the only pod and waits until there is another one.
async fn another_pod(workload: &Workload) -> anyhow::Result<()> {
    let before = workload.ready_pods().await?;
    let last = before.first().context("no pod is ready")?;
    evict(workload, last).await?;
    eventually("another pod", FOLLOW, async || {
        let ready = workload.ready_pods().await?;
        ensure!(ready.len() == 1 && ready != before, "{ready:?}");
        Ok(())
    })
    .await
}

/// Fails unless what was not answered got an Envoy's 503, for a moment.
fn lost_a_moment_at_most(result: &RunResult) -> anyhow::Result<()> {
    let refused = result.by_status.get(&503).copied().unwrap_or_default();
    let ends = result.last_failed_ms.zip(result.first_failed_ms);
    let lasted = ends.map_or(0.0, |(last, first)| last - first);
    // How much it is stands in docs/failures.md.
    eprintln!("{refused} got 503, within {lasted:.0} ms");
    ensure!(
        result.done
            && result.ok + result.failed == result.sent
            && refused == result.failed
            && lasted <= MOMENT_MS,
        "of {} requests {} failed, {refused} with 503, within {lasted:.0} ms: {:?}",
        result.sent,
        result.failed,
        result.errors
    );
    Ok(())
}

/// Fails unless Kubernetes and Istio have been told all of `mode`.
async fn is_there(workload: &Workload, mode: Mode) -> anyhow::Result<()> {
    is_switched(workload, mode).await?;
    let entries = mesh::entries(workload).await?.len();
    ensure!(
        (entries > 0) == (mode == Mode::Proxy),
        "{entries} entries in {mode} mode"
    );
    Ok(())
}
