//! The last pod of a workload is evicted: alone and in the drain of its node, under load, and with one call
//! of each kind in flight, which ends well or is cut by the pod's grace period.
//!
//! The node takes no new pods meanwhile, so nothing else may run beside it, and no test beside another.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::join_all;
use lull_contract::settings::{DRAIN_APP_STOP, DRAIN_MIN};
use lull_e2e::{
    Agent, App, Namespace, Workload, activators, agent::Run, all_answered, eventually, evict,
    in_namespace, in_namespace_for, say, slices,
};
use sample_app::wire::{ProbeSpec, RunSpec};
use serde_json::json;

/// Longest wait for pods and endpoints to follow: a pod that ends drains first.
const FOLLOW: Duration = Duration::from_secs(90);
/// Longest time of a part of the test: more than all its waits together, so that it never ends between
/// the node's closing and its opening.
const PART: Duration = Duration::from_secs(600);
/// Content type of a node's patch.
const MERGE: &str = "application/merge-patch+json";
/// Longer than a drain lasts that waits for nobody, however long the test takes to begin one.
const LONG: Duration = Duration::from_secs(18);
/// Longer than any grace period here.
const ENDLESS: Duration = Duration::from_secs(60);
/// Until the kubelet has heard of the eviction and has begun the drain, and until the test has seen the
/// call's end: on a busy machine.
const SIGHT: Duration = Duration::from_secs(3);

/// A call that lasts.
#[derive(Debug, Clone, Copy)]
enum Call {
    Request,
    Events,
    WebSocket,
    GrpcStream,
}

/// What comes of it when its pod has to go.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It is answered to its end, and the pod waits for that.
    Well,
    /// It is cut when the grace period is nearly over: the drain leaves the app what is left of it.
    Cut,
}

/// Name of the workload, call, seconds of the app's own preStop, the pod's grace period, and the end.
type Row = (&'static str, Call, Option<u32>, u32, End);

/// Ours is the preStop that an app gets which has none; one of 6 s lets the app go long before the call ends.
/// Of a grace period of 5 s a drain has 2.
const CHAIN: [Row; 11] = [
    ("request", Call::Request, None, 30, End::Well),
    ("events", Call::Events, None, 30, End::Well),
    ("websocket", Call::WebSocket, None, 30, End::Well),
    ("grpc", Call::GrpcStream, None, 30, End::Well),
    ("own-hook", Call::Request, Some(6), 30, End::Well),
    ("request-cut", Call::Request, None, 18, End::Cut),
    ("events-cut", Call::Events, None, 18, End::Cut),
    ("websocket-cut", Call::WebSocket, None, 18, End::Cut),
    ("grpc-cut", Call::GrpcStream, None, 18, End::Cut),
    ("own-hook-cut", Call::Request, Some(6), 18, End::Cut),
    ("short-grace-cut", Call::Request, None, 5, End::Cut),
];

/// One after the other: the second one takes the node from everybody.
#[tokio::test]
async fn eviction_of_the_last_pod_and_drain_of_its_node_lose_nothing() -> anyhow::Result<()> {
    in_namespace_for(PART, "evicted", async |namespace| {
        let (agent, workload) = deployed(namespace).await?;
        let loads = loads(&agent, &workload).await?;
        let last = last_pod(&workload).await?;
        evict(&workload, &last).await?;
        another_alone(&workload, &last).await?;
        answered(loads).await
    })
    .await?;
    in_namespace_for(PART, "drained", async |namespace| {
        let (agent, workload) = deployed(namespace).await?;
        let loads = loads(&agent, &workload).await?;
        let node = node_of(&workload).await?;
        let last = last_pod(&workload).await?;
        cordon(&workload, (&node, true)).await?;
        let drained = drained(&workload, &last).await;
        cordon(&workload, (&node, false)).await?;
        drained?;
        another_alone(&workload, &last).await?;
        answered(loads).await
    })
    .await
}

async fn deployed(namespace: &Namespace) -> anyhow::Result<(Agent, Workload)> {
    let agent = Agent::deploy(namespace).await?;
    let app = App::new("shop").annotate("lull.dev/max-scale", "1");
    let workload = app.deploy(namespace).await?;
    workload.enrolled().await?;
    workload.rolled_out().await?;
    Ok((agent, workload))
}

async fn last_pod(workload: &Workload) -> anyhow::Result<String> {
    let mut pods = workload.ready_pods().await?;
    ensure!(pods.len() == 1, "not one pod alone: {pods:?}");
    pods.pop().context("no pod is ready")
}

async fn node_of(workload: &Workload) -> anyhow::Result<String> {
    let pods = workload.pods().await?;
    let mut nodes = pods.into_iter().filter_map(|pod| pod.spec?.node_name);
    nodes.next().context("no pod has a node")
}

/// Whether the node takes new pods.
async fn cordon(workload: &Workload, (node, is_closed): (&str, bool)) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "unschedulable": is_closed } });
    let path = format!("/api/v1/nodes/{node}");
    workload.cluster.patch(&path, MERGE, &patch).await
}

/// Evicts the pod and waits until it has gone, and callers are held or another node has another pod.
async fn drained(workload: &Workload, last: &str) -> anyhow::Result<()> {
    evict(workload, last).await?;
    eventually(
        "the pod to go and its callers to be held",
        FOLLOW,
        async || {
            let pods = workload.pods().await?;
            let mut names = pods.iter().map(|pod| pod.metadata.name.as_deref());
            ensure!(names.all(|name| name != Some(last)), "{last} is there");
            let held = activators::held(workload).await?;
            let ready = workload.ready_pods().await?.len();
            ensure!(held > 0 || ready > 0, "{held} are held, {ready} are ready");
            Ok(())
        },
    )
    .await
}

/// Waits until another pod than `last` is behind the Service, and nothing else.
async fn another_alone(workload: &Workload, last: &str) -> anyhow::Result<()> {
    eventually("another pod alone", FOLLOW, async || {
        let backends = slices::pods_only(workload, 1).await?;
        ensure!(!backends.pods.contains(last), "{last} is still there");
        Ok(())
    })
    .await
}

/// On kept connections, and each request on its own.
async fn loads<'a>(agent: &'a Agent, workload: &Workload) -> anyhow::Result<[Run<'a>; 2]> {
    let kept = RunSpec {
        url: workload.url("/?sleep_ms=10"),
        connections: 20,
        seconds: Some(280.0),
        rate: Some(100.0),
        timeout_ms: 120_000,
        ..RunSpec::default()
    };
    let loads = agent.start_kept_and_new(kept).await?;
    // A workload that slept at the beginning has activators behind it for a moment.
    eventually("pods alone behind the Service", FOLLOW, async || {
        slices::pods_only(workload, 1).await
    })
    .await?;
    Ok(loads)
}

async fn answered(loads: [Run<'_>; 2]) -> anyhow::Result<()> {
    for load in loads {
        let result = load.stop().await?;
        all_answered(&result)?;
        eprintln!(
            "{} answered, {} by way of an activator, {:?} ms",
            result.ok, result.via_activator, result.latency_ms
        );
    }
    Ok(())
}

/// Side by side: each has a workload of its own, and they take as long as the longest.
#[tokio::test]
async fn what_is_in_flight_ends_well_or_is_cut_by_the_grace_period_and_never_before()
-> anyhow::Result<()> {
    in_namespace("chain", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let rows = CHAIN.into_iter();
        let ends = rows.map(|row| ended_as_it_must(namespace, &agent, row));
        let ends = join_all(ends).await;
        let faults: Vec<String> = ends
            .into_iter()
            .filter_map(|end| Some(format!("{:#}", end.err()?)))
            .collect();
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    })
    .await
}

async fn ended_as_it_must(
    namespace: &Namespace,
    agent: &Agent,
    (name, call, own_hook, grace, end): Row,
) -> anyhow::Result<()> {
    let app = App::new(name).grace(grace);
    let app = match own_hook {
        Some(seconds) => app.lingering(seconds),
        None => app,
    };
    let workload = app.deploy_awake(namespace).await?;
    eventually("its pod alone behind the Service", FOLLOW, async || {
        slices::pods_only(&workload, 1).await
    })
    .await?;
    agent.is_answered(&workload.url("/"), FOLLOW).await?;
    let lasts = match end {
        End::Well => LONG,
        End::Cut => ENDLESS,
    };
    let called = async {
        let cut = call.made(agent, &workload, lasts).await?;
        anyhow::Ok((cut, Instant::now()))
    };
    let ((cut, ended), evicted) = tokio::try_join!(called, evicted_in_flight(&workload))?;
    let after = ended.duration_since(evicted);
    say(format!("{name}: {after:.1?} after the eviction, {cut:?}"));
    let (earliest, latest) = end.between(Duration::from_secs(grace.into()));
    ensure!(
        cut.is_some() == matches!(end, End::Cut) && (earliest..=latest).contains(&after),
        "{name}: {end:?} between {earliest:?} and {latest:?}, was {after:.1?}: {cut:?}"
    );
    Ok(())
}

/// Waits until the workload's pod has something in flight, and evicts it; when that was.
async fn evicted_in_flight(workload: &Workload) -> anyhow::Result<Instant> {
    let pod = last_pod(workload).await?;
    let what = format!("the call of {} to be in flight", workload.name);
    eventually(&what, FOLLOW, async || {
        let report = workload.queue_proxy(&pod).await?;
        let in_flight = report.load.in_flight;
        ensure!(in_flight == 1, "{in_flight} are");
        Ok(())
    })
    .await?;
    evict(workload, &pod).await?;
    Ok(Instant::now())
}

// === impl Call ===

impl Call {
    /// Makes the call, and waits for its end; why it was cut, if it was.
    async fn made(
        self,
        agent: &Agent,
        workload: &Workload,
        lasts: Duration,
    ) -> anyhow::Result<Option<String>> {
        let ms = u64::try_from(lasts.as_millis())?;
        let path = match self {
            Self::Request => format!("/?sleep_ms={ms}"),
            Self::Events | Self::GrpcStream => format!("/stream?ms={ms}"),
            Self::WebSocket => {
                let answer = agent.probe(&held(workload, ms)).await?;
                let said = format!("{:?}, status {:?}", answer.error, answer.status);
                return Ok((!answer.ok).then_some(said));
            }
        };
        let is_grpc = matches!(self, Self::GrpcStream);
        let spec = RunSpec {
            url: workload.url(&path),
            requests: Some(1),
            h2c: is_grpc,
            grpc: is_grpc,
            timeout_ms: 2 * ms,
            ..RunSpec::default()
        };
        let result = agent.run(&spec).await?;
        let said = format!("{:?}, by status {:?}", result.errors, result.by_status);
        Ok((result.ok != 1).then_some(said))
    }
}

fn held(workload: &Workload, ms: u64) -> ProbeSpec {
    ProbeSpec {
        url: workload.url("/echo"),
        upgrade: true,
        send: Some("still there?".to_owned()),
        hold_ms: ms,
        timeout_ms: 2 * ms,
        ..ProbeSpec::default()
    }
}

// === impl End ===

impl End {
    /// The earliest and the latest that it may come, from the eviction on.
    fn between(self, grace: Duration) -> (Duration, Duration) {
        match self {
            // Longer than the drain of a pod that nobody calls, which would show nothing.
            Self::Well => (DRAIN_MIN.0, LONG + SIGHT),
            Self::Cut => (grace.saturating_sub(DRAIN_APP_STOP), grace + SIGHT),
        }
    }
}
