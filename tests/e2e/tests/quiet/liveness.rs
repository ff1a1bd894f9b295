//! An app that falls ill is restarted as quickly as without Lull.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use lull_contract::names::QUEUE_PROXY_CONTAINER;
use lull_e2e::{Agent, App, Workload, app::CONTAINER, eventually, in_namespace};

/// The app's liveness probe: every second, one failure is enough.
const PROBE: Duration = Duration::from_secs(1);
/// The promise of issue 3: probe time and this.
const RESTART: Duration = Duration::from_secs(3);
/// Kubelet notices a container's end at its next relist (1 s) and starts it at the next sync
/// (1 s); a second more for the machine.
const KUBELET: Duration = Duration::from_secs(3);
/// Longest wait until callers hear of that.
const AGAIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_failing_liveness_probe_restarts_the_app_quickly() -> anyhow::Result<()> {
    in_namespace("liveness", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = App::new("shop")
            .annotate("lull.dev/min-scale", "1")
            .with_liveness_probe();
        let workload = app.deploy(namespace).await?;
        workload.enrolled().await?;
        workload.rolled_out().await?;
        let pod = workload
            .ready_pods()
            .await?
            .pop()
            .context("no pod is ready")?;
        let before = workload.queue_proxy(&pod).await?;
        workload
            .ask_pod(&pod, 8080, "POST", "break-liveness")
            .await?;
        let broken = Instant::now();
        let cap = PROBE + RESTART + KUBELET;
        eventually("the app to run again", cap, async || {
            let (restarts, running) = container(&workload, &pod, CONTAINER).await?;
            ensure!(
                restarts == 1 && running,
                "{restarts} restarts, running: {running}"
            );
            Ok(())
        })
        .await?;
        eprintln!("the app ran again after {:.1?}", broken.elapsed());
        // Its only pod was in no endpoints meanwhile: callers are led to it again a moment after it runs.
        agent.is_answered(&workload.url("/"), AGAIN).await?;
        let after = workload.queue_proxy(&pod).await?;
        ensure!(
            after.boot == before.boot && !after.draining,
            "the sidecar was restarted or drained: {before:?}, {after:?}"
        );
        assert_eq!(
            container(&workload, &pod, QUEUE_PROXY_CONTAINER).await?,
            (0, true)
        );
        Ok(())
    })
    .await
}

/// How often a container was restarted, and whether it runs.
async fn container(workload: &Workload, pod: &str, name: &str) -> anyhow::Result<(i32, bool)> {
    let pods = workload.pods().await?;
    let pod = pods
        .into_iter()
        .find(|p| p.metadata.name.as_deref() == Some(pod));
    let status = pod.and_then(|pod| pod.status).context("the pod is gone")?;
    let containers = status.container_statuses.unwrap_or_default();
    let container = containers
        .into_iter()
        .find(|c| c.name == name)
        .context("no such container")?;
    let running = container.state.is_some_and(|state| state.running.is_some());
    Ok((container.restart_count, running))
}
