//! The one of the tickets of other systems (docs/tickets.md) that is about time.

use std::time::Duration;

use anyhow::ensure;
use lull_e2e::{Agent, App, all_answered, in_namespace};
use sample_app::wire::RunSpec;

/// Longest wait for no replicas.
const SLEEP: Duration = Duration::from_secs(60);

/// A request that came while the pods shut down was answered with 500, or after 27 s.
#[tokio::test]
async fn fission_3183_requests_while_pods_shut_down_are_answered_at_once() -> anyhow::Result<()> {
    /// A cold start on a busy machine.
    const AT_MOST_MS: f64 = 10_000.0;
    in_namespace("tickets-3183", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_asleep(namespace).await?;
        agent.get(&workload.url("/")).await?;
        workload.scaled_to_zero(SLEEP).await?;
        // From the first moment of the shutdown to its end.
        let result = agent
            .run(&RunSpec {
                url: workload.url("/"),
                connections: 20,
                rate: Some(20.0),
                seconds: Some(15.0),
                keep_alive: false,
                ..RunSpec::default()
            })
            .await?;
        all_answered(&result)?;
        let slowest = result.latency_ms.max;
        ensure!(slowest < AT_MOST_MS, "the slowest took {slowest:.0} ms");
        Ok(())
    })
    .await
}
