//! Where a namespace lets callers come in plain text, or in nothing else: who calls from the mesh and who
//! calls from outside are answered alike awake and woken, and the app sees the same of them.
//!
//! What is shown here stands as a table in docs/security.md.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use lull_contract::ports::QUEUE_PROXY_TRAFFIC_FIRST;
use lull_e2e::{
    Agent, App, Workload, eventually, in_mesh, in_namespace_for,
    mesh::{self, CALLER_HEADER},
};
use sample_app::wire::ProbeSpec;

/// Longest wait for what Istio, Kubernetes or Lull is about to do.
const FOLLOW: Duration = Duration::from_secs(120);
/// Longest time of a test with a caller outside: longer than the part inside of the mesh has, which then
/// ends by itself and takes its namespace away.
const TEST: Duration = Duration::from_secs(720);
/// Longest time of a single request that wakes.
const PATIENCE_MS: u64 = 60_000;
/// What every caller here says of itself, and nobody may be told.
const FORGED: &str = "By=spiffe://forged/callee;Hash=f0;URI=spiffe://forged/caller";

#[tokio::test]
async fn where_plain_text_is_permitted_the_app_sees_the_same_callers_awake_and_woken()
-> anyhow::Result<()> {
    is_the_same("PERMISSIVE", true).await
}

#[tokio::test]
async fn without_mutual_tls_the_app_sees_the_same_callers_awake_and_woken() -> anyhow::Result<()> {
    is_the_same("DISABLE", false).await
}

/// Has a member of the mesh and a caller from outside call a workload that takes `mode`, awake and asleep;
/// only of the member, and only where it `is_known`, the app may be told who it is.
async fn is_the_same(mode: &str, is_known: bool) -> anyhow::Result<()> {
    let purpose = mode.to_lowercase();
    in_namespace_for(TEST, "outside", async |outside| {
        in_mesh(&purpose, async |inside| {
            mesh::mutual_tls(inside, mode).await?;
            let member = Agent::deploy_with_account("caller", inside).await?;
            let outsider = Agent::deploy(outside).await?;
            let workload = App::new("shop").deploy_awake(inside).await?;
            let account = is_known.then(|| mesh::principal(inside, "caller"));
            let callers = [("member", &member, account), ("outsider", &outsider, None)];
            let mut awake = Vec::new();
            for (who, agent, account) in &callers {
                // The mode and the Service come to Envoys by istiod.
                let what = format!("the {who} to be seen as it is");
                let seen = eventually(&what, FOLLOW, async || {
                    let seen = seen(agent, &workload).await?;
                    is_shown(seen.as_deref(), account.as_deref())?;
                    Ok(seen)
                });
                awake.push(seen.await?);
            }

            workload.put_to_sleep().await?;
            for ((who, agent, _), awake) in callers.iter().zip(&awake) {
                workload.asleep().await?;
                workload.pods_gone().await?;
                let woken = seen(agent, &workload)
                    .await
                    .with_context(|| format!("woken by the {who}"))?;
                ensure!(woken == *awake, "{who}: awake {awake:?}, woken {woken:?}");
            }
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn plain_text_at_a_port_alone_is_the_same_awake_and_woken_once_it_is_at_the_activators_too()
-> anyhow::Result<()> {
    in_mesh("by-port", async |namespace| {
        let agent = Agent::deploy_with_account("caller", namespace).await?;
        let workload = App::new("shop").deploy_awake(namespace).await?;
        let scaled = workload.scaled().await?;
        let ports = scaled.context("there is no ScaledWorkload")?.spec.ports;
        let port = ports.first().context("it has no port")?;
        let at_pods = [port.app_port, QUEUE_PROXY_TRAFFIC_FIRST];
        mesh::plain_text_at(&workload, &at_pods).await?;
        // It would be called in mutual TLS asleep, which its pods no longer end.
        let line = format!("{}: {{ mode: DISABLE }}", port.activator_port);
        eventually("Lull to name the activators' port", FOLLOW, async || {
            let reason = workload.status().await?.reason;
            ensure!(reason.contains(&line), "{reason}");
            Ok(())
        })
        .await?;
        eventually("the caller to come in plain text", FOLLOW, async || {
            is_shown(seen(&agent, &workload).await?.as_deref(), None)
        })
        .await?;

        let everywhere = [at_pods.as_slice(), &[port.activator_port]].concat();
        mesh::plain_text_at(&workload, &everywhere).await?;
        workload.put_to_sleep().await?;
        let woken = seen(&agent, &workload).await.context("woken")?;
        is_shown(woken.as_deref(), None).context("woken")
    })
    .await
}

/// What the app is told of who calls; a caller that is not answered is an error.
async fn seen(agent: &Agent, workload: &Workload) -> anyhow::Result<Option<String>> {
    let spec = ProbeSpec {
        url: workload.url("/?headers"),
        headers: BTreeMap::from([(CALLER_HEADER.to_owned(), FORGED.to_owned())]),
        timeout_ms: PATIENCE_MS,
        ..ProbeSpec::default()
    };
    let answer = agent.probe(&spec).await?;
    ensure!(answer.status == Some(200), "not answered: {answer:?}");
    Ok(mesh::headers_told(&answer)?.remove(CALLER_HEADER))
}

/// Fails unless the app was told of `account`, and of nobody else.
fn is_shown(seen: Option<&str>, account: Option<&str>) -> anyhow::Result<()> {
    let wanted = account.map(|account| format!("URI=spiffe://{account}"));
    // One element for each hop, in each one of each key.
    let named: Vec<&str> = seen
        .into_iter()
        .flat_map(|text| text.split([';', ',']))
        .filter(|part| part.starts_with("URI="))
        .collect();
    let is_alone = named.iter().copied().eq(wanted.as_deref());
    ensure!(
        is_alone && seen.is_some() == wanted.is_some(),
        "wanted {wanted:?}, the app saw {seen:?}"
    );
    Ok(())
}
