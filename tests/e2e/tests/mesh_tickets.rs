//! What users of other systems met at the switch between proxy and pods inside a mesh, one test for each
//! ticket; docs/tickets.md has all of them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use lull_e2e::{Agent, App, all_answered, in_mesh, mesh};
use sample_app::wire::RunSpec;

/// Longest wait for the first answer of all: what a caller's Envoy knows of a new Service comes from
/// istiod.
const KNOWN: Duration = Duration::from_secs(120);

/// With Istio the request that woke went out before there was an endpoint, and failed.
#[tokio::test]
async fn openfaas_1721_requests_that_wake_find_an_endpoint_in_a_mesh() -> anyhow::Result<()> {
    in_mesh("tickets-1721", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), KNOWN).await?;
        workload.put_to_sleep().await?;
        let entries = mesh::entries(&workload).await?;
        ensure!(!entries.is_empty(), "Istio knows of no activator");
        let first = RunSpec {
            url: workload.url("/"),
            connections: 20,
            requests: Some(20),
            keep_alive: false,
            timeout_ms: 60_000,
            ..RunSpec::default()
        };
        all_answered(&agent.run(&first).await?)
    })
    .await
}

/// After a Service had gone from one pod to none and back, a caller couldn't reach it any more.
#[tokio::test]
async fn istio_14101_a_caller_reaches_a_service_that_had_a_pod_and_none_and_has_one()
-> anyhow::Result<()> {
    /// One pod to begin with, and one after each sleep.
    const PODS: usize = 3;
    in_mesh("tickets-14101", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        agent.is_answered(&workload.url("/"), KNOWN).await?;
        let mut answered = BTreeSet::new();
        while answered.len() < PODS {
            // The same caller, whose Envoy has known each of the others.
            let answer = agent.get(&workload.url("/")).await?;
            let pod = answer.pod.context("no pod has answered")?;
            ensure!(answered.insert(pod), "it is the old one: {answered:?}");
            workload.put_to_sleep().await?;
        }
        Ok(())
    })
    .await
}
