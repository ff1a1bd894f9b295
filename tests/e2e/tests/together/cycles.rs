//! Sleep and wake: nobody who calls a sleeping workload goes without an answer.

use std::ops::RangeInclusive;

use lull_e2e::{Agent, App, Workload, all_answered, in_namespace};
use sample_app::wire::RunSpec;

#[tokio::test]
async fn knative_9888_a_hundred_first_requests_at_zero_are_all_answered() -> anyhow::Result<()> {
    in_namespace("hundred", async |namespace| {
        let app = App::new("shop");
        let (agent, workload) =
            tokio::try_join!(Agent::deploy(namespace), app.deploy_asleep(namespace))?;
        workload.pods_gone().await?;
        let spec = RunSpec {
            url: workload.url("/?sleep_ms=50"),
            connections: 100,
            requests: Some(100),
            ..RunSpec::default()
        };
        let result = agent.run(&spec).await?;
        all_answered(&result)?;
        assert_eq!(
            (result.sent, result.by_status.get(&200)),
            (100, Some(&100)),
            "{result:?}"
        );
        assert_eq!(result.via_activator, 100, "no pod was there: {result:?}");
        eprintln!("100 first requests: {:?}", result.latency_ms);
        Ok(())
    })
    .await
}

/// Two workloads side by side, five cycles each.
#[tokio::test]
async fn ten_sleep_wake_cycles_answer_every_request() -> anyhow::Result<()> {
    in_namespace("cycles", async |namespace| {
        let (first, second) = (App::new("first"), App::new("second"));
        let (agent, first, second) = tokio::try_join!(
            Agent::deploy(namespace),
            first.deploy_asleep(namespace),
            second.deploy_asleep(namespace)
        )?;
        tokio::try_join!(
            slept_and_woken(&agent, &first, 1..=5),
            slept_and_woken(&agent, &second, 6..=10)
        )?;
        Ok(())
    })
    .await
}

async fn slept_and_woken(
    agent: &Agent,
    workload: &Workload,
    cycles: RangeInclusive<u32>,
) -> anyhow::Result<()> {
    for cycle in cycles {
        // Odd cycles call while the old pod may still be going, even ones when it is gone.
        if cycle % 2 == 0 {
            workload.pods_gone().await?;
        }
        let answer = agent.get(&workload.url("/")).await?;
        assert_eq!(answer.status, Some(200), "cycle {cycle}: {answer:?}");
        let took = workload.asleep().await?;
        eprintln!(
            "cycle {cycle}: answered in {:.0} ms, asleep after {took:.1?}",
            answer.ms
        );
    }
    Ok(())
}
