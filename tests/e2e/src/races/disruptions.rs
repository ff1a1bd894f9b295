//! What happens to workloads' pods, to Lull and to Kubernetes meanwhile, one thing at a time.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::time::sleep;

use super::{Act, Race};
use crate::{Cluster, Workload, chance::Chance, components, evict, process, say, slices};

/// Everything that may happen; each once before any of them happens again.
const ALL: [Act; 12] = [
    Act::RollOut,
    Act::EvictPod,
    Act::KillPod,
    Act::KillActivator,
    Act::EndActivator,
    Act::RollOutActivators,
    Act::KillAutoscaler,
    Act::RollOutAutoscalers,
    Act::KillWebhook,
    Act::RollOutWebhooks,
    Act::PauseApiServer,
    Act::PauseControllers,
];
/// Longest pause between two.
const PAUSE: Duration = Duration::from_secs(5);
/// The process that takes pods that end out of endpoints, among other things.
const CONTROLLERS: &str = "kube-controller-manager";

/// Workloads with a steady load, of two pods each.
#[derive(Debug)]
pub struct Targets<'a> {
    /// In Serve mode: rolled out, and its pods evicted.
    pub served: &'a Workload,
    /// In Proxy mode: its pods are killed. Activators try another pod for whoever has not reached the
    /// dead one; in Serve mode nobody does that, with Lull or without.
    pub proxied: &'a Workload,
}

/// Disturbs everything in random order until the last lane has ended.
///
/// Nothing happens until what happened before is over: a kill while the controllers stand still would
/// leave a dead pod in the endpoints, which is so without Lull, too.
///
/// # Errors
/// Where something doesn't come back.
pub async fn disrupt(race: &Race, targets: &Targets<'_>, mut chance: Chance) -> anyhow::Result<()> {
    let mut deck = Vec::new();
    while race.is_disturbed() {
        let Some(act) = deck.pop() else {
            deck = ALL.to_vec();
            chance.shuffle(&mut deck);
            continue;
        };
        // Failures are told with the seconds in which they came.
        say(format!(
            "second {}: {act}",
            sample_app::unix_us() / 1_000_000
        ));
        let done = disturb(race, targets, (act, &mut chance)).await;
        done.with_context(|| act.to_string())?;
        race.did(act);
        sleep(chance.up_to(PAUSE)).await;
    }
    Ok(())
}

async fn disturb(
    race: &Race,
    Targets { served, proxied }: &Targets<'_>,
    (act, chance): (Act, &mut Chance),
) -> anyhow::Result<()> {
    let cluster = &served.cluster;
    match act {
        Act::RollOut => roll_out(race, served).await,
        Act::EvictPod => evict_pod(race, served, chance).await,
        Act::KillPod => kill_pod(race, (proxied, false), chance).await,
        Act::KillActivator => kill(race, (cluster, "activator", act), chance).await,
        Act::KillAutoscaler => kill(race, (cluster, "autoscaler", act), chance).await,
        Act::KillWebhook => kill(race, (cluster, "webhook", act), chance).await,
        Act::EndActivator => {
            let name = one_of(cluster, "activator", chance).await?;
            components::end(cluster, "activator", &name).await
        }
        Act::RollOutActivators => components::roll_out(cluster, "activator").await,
        Act::RollOutAutoscalers => components::roll_out(cluster, "autoscaler").await,
        Act::RollOutWebhooks => components::roll_out(cluster, "webhook").await,
        Act::PauseApiServer => pause(race, cluster, "kube-apiserver").await,
        Act::PauseControllers => pause(race, cluster, CONTROLLERS).await,
        // What lanes do.
        _ => Ok(()),
    }
}

async fn roll_out(race: &Race, workload: &Workload) -> anyhow::Result<()> {
    let version = sample_app::unix_us().to_string();
    let env = json!({ "env": [{ "name": "VERSION", "value": version }] });
    let change = async || workload.change_container(env.clone()).await;
    race.until("the new template to be taken", change).await?;
    let what = format!("the rollout of {}", workload.name);
    race.until(&what, async || workload.is_rolled_out().await)
        .await
        .map(drop)
}

/// Evicts one of the workload's pods and waits until it has gone and as many as before are ready.
///
/// # Errors
/// Where that doesn't come.
pub async fn evict_pod(
    race: &Race,
    workload: &Workload,
    chance: &mut Chance,
) -> anyhow::Result<()> {
    let pods = workload.ready_pods().await?;
    let victim = chance.one_of(&pods).context("no pod is ready")?;
    evict(workload, victim).await?;
    replaced(race, workload, (victim, pods.len())).await
}

/// Kills every process of one of the workload's pods (-9) and waits until others are ready instead;
/// `refuses`: callers connect to the pod itself.
///
/// # Errors
/// Where no other pod is ready, or that doesn't come.
pub async fn kill_pod(
    race: &Race,
    (workload, refuses): (&Workload, bool),
    chance: &mut Chance,
) -> anyhow::Result<()> {
    let pods = workload.ready_pods().await?;
    ensure!(pods.len() > 1, "another one must be ready: {pods:?}");
    let victim = chance.one_of(&pods).context("no pod is ready")?;
    let before = components::restarts(&workload.pods().await?, victim)?;
    let kill = || process::kill_all(victim);
    race.kill((Act::KillPod, Some(workload), refuses), kill)?;
    let what = format!("{victim} to be ready again");
    race.until(&what, async || {
        let pods = workload.pods().await?;
        components::is_restarted(&pods, (victim, before))
    })
    .await?;
    race.is_back();
    // Another one comes instead: the kubelet makes one that is killed often wait for minutes.
    evict(workload, victim).await?;
    replaced(race, workload, (victim, pods.len())).await
}

/// Waits until `victim` has gone and `count` others are ready.
async fn replaced(
    race: &Race,
    workload: &Workload,
    (victim, count): (&str, usize),
) -> anyhow::Result<()> {
    let what = format!("another pod than {victim}");
    race.until(&what, async || {
        let pods = workload.pods().await?;
        let is_there = pods
            .iter()
            .any(|pod| pod.metadata.name.as_deref() == Some(victim));
        let ready = workload.ready_pods().await?;
        ensure!(!is_there && ready.len() >= count, "ready are {ready:?}");
        Ok(())
    })
    .await
}

/// One of a component's processes; the pod is replaced when it has come back.
async fn kill(
    race: &Race,
    (cluster, component, act): (&Cluster, &str, Act),
    chance: &mut Chance,
) -> anyhow::Result<()> {
    let victim = one_of(cluster, component, chance).await?;
    let before = components::restarts(&cluster.component_pods(component).await?, &victim)?;
    // The others have no requests.
    race.kill((act, None, true), || process::kill(&victim))?;
    let what = format!("{victim} to be ready again");
    race.until(&what, async || {
        let pods = cluster.component_pods(component).await?;
        components::is_restarted(&pods, (&victim, before))
    })
    .await?;
    race.is_back();
    components::end(cluster, component, &victim).await
}

async fn one_of(cluster: &Cluster, component: &str, chance: &mut Chance) -> anyhow::Result<String> {
    let ready = cluster.ready_names(component).await?;
    ensure!(
        ready.len() > 1,
        "another {component} must be ready: {ready:?}"
    );
    let ready: Vec<String> = ready.into_iter().collect();
    chance.one_of(&ready).cloned().context("none is ready")
}

/// Fails while callers are led to a pod that ends.
async fn noticed(cluster: &Cluster) -> anyhow::Result<()> {
    let unnoticed = slices::unnoticed_ends(cluster).await?;
    ensure!(unnoticed.is_empty(), "{unnoticed:?}");
    Ok(())
}

/// A process of the control plane stands still; it goes on at the end, whatever happens.
async fn pause(race: &Race, cluster: &Cluster, process: &str) -> anyhow::Result<()> {
    let name = std::env::var("LULL_CLUSTER").context("LULL_CLUSTER must name the cluster")?;
    // A pod whose end they have not taken note of would be called after it, with Lull or without.
    let what = format!("no pod to end unnoticed before {process} stands still");
    let paused = race
        .until(&what, async || {
            noticed(cluster).await?;
            let paused = lull_cluster::paused(&name, process)?;
            if process == CONTROLLERS {
                // One may have come meanwhile. What the API server takes note of can't be asked while it stands.
                noticed(cluster).await?;
            }
            Ok(paused)
        })
        .await?;
    // Nothing can be asked meanwhile: the length is what this is about.
    sleep(race.length.pause).await;
    drop(paused);
    let what = format!("{process} to go on");
    race.until(&what, async || {
        let nodes = cluster.get("/api/v1/nodes").await?;
        let nodes = nodes["items"].as_array().context("no list of nodes")?;
        for node in nodes {
            let conditions = node["status"]["conditions"].as_array();
            let is_ready = conditions.is_some_and(|all| {
                all.iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
            });
            ensure!(is_ready, "node {} is not ready", node["metadata"]["name"]);
        }
        Ok(())
    })
    .await
}
