//! The harness itself, on a plain Deployment: what the other tests rely on is counted right.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, all_answered, eventually, in_namespace, leftovers, slices, timeline::Observer,
};
use sample_app::wire::{AppStats, ProbeSpec, RunSpec};
use serde_json::json;

/// Longest wait for what must come.
const FOLLOW: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_plain_deployment_is_timed_counted_and_told_apart_from_a_broken_one() -> anyhow::Result<()>
{
    in_namespace("harness", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::plain("plain").replicas(0).deploy(namespace).await?;
        let observer = Observer::start(&workload).await?;
        let url = workload.url("/");
        let refused = agent
            .probe(&ProbeSpec {
                url: url.clone(),
                ..ProbeSpec::default()
            })
            .await?;
        ensure!(
            !refused.ok && refused.error.is_some(),
            "nobody can have answered: {refused:?}"
        );

        workload
            .patch(&json!({ "spec": { "replicas": 2 } }))
            .await?;
        let spec = ProbeSpec {
            url: url.clone(),
            until_ok_ms: Some(60_000),
            ..ProbeSpec::default()
        };
        let answer = agent.probe(&spec).await?;
        ensure!(answer.ok && answer.attempts > 1, "{answer:?}");
        assert_eq!(workload.rolled_out().await?, 2);
        let order = eventually("the watches to have seen it", FOLLOW, async || {
            let seen = observer.timeline();
            let order = [
                seen.patched_us,
                seen.created_us,
                seen.scheduled_us,
                seen.running_us,
                seen.ready_us,
            ];
            ensure!(order.iter().all(Option::is_some), "{seen:?}");
            Ok(order)
        })
        .await?;
        ensure!(order.is_sorted(), "{order:?}");

        let run = RunSpec {
            url,
            connections: 20,
            requests: Some(2000),
            ..RunSpec::default()
        };
        let result = agent.run(&run).await?;
        all_answered(&result)?;
        assert_eq!((result.ok, result.via_activator), (2000, 0), "{result:?}");
        let backends = eventually("both pods behind the Service", FOLLOW, async || {
            slices::pods_only(&workload, 2).await
        })
        .await?;
        let mut counted = 0;
        for pod in &backends.pods {
            let stats = workload.ask_pod(pod, 8080, "GET", "stats").await?;
            counted += serde_json::from_str::<AppStats>(&stats)
                .context(stats)?
                .requests;
        }
        assert_eq!(
            counted, 2001,
            "the apps must have seen what the agent has sent"
        );
        assert_eq!(
            leftovers::leftovers(&namespace.cluster, &namespace.name).await?,
            [""; 0]
        );
        let ahead_us = agent.clock_ahead_us().await?;
        eprintln!(
            "{:?} ms; the agent's clock is {ahead_us} us ahead",
            result.latency_ms
        );
        Ok(())
    })
    .await
}
