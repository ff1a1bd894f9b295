//! On a cluster that has IPv4 and IPv6: Services of one and of both families sleep and are woken by callers
//! of each of them.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use lull_contract::annotations::SCALE;
use lull_e2e::{
    Agent, App, Namespace, Workload, all_answered, eventually, families, in_namespace_for,
    leftovers, rounds::rounds, slices,
};
use sample_app::wire::{ACTIVATOR_HEADER, ACTIVATOR_MARK, ProbeAnswer, ProbeSpec, RunSpec};
use serde_json::{Value, json};

/// Longest time of a test without cycles.
const TEST: Duration = Duration::from_secs(600);
/// Longest time until the first cycle can begin.
const SET_UP: Duration = Duration::from_secs(180);
/// Longest time of one cycle of sleep and wake, on a busy machine.
const CYCLE: Duration = Duration::from_secs(60);
/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);
/// Longest wait for workloads to be given back: each is woken, then its pods are replaced.
const LEAVE: Duration = Duration::from_secs(120);
/// Annotation with the fewest pods.
const MIN_SCALE: &str = "lull.dev/min-scale";
/// Content type of a Service's patch.
const MERGE: &str = "application/merge-patch+json";
/// Both families, in the order of the cluster.
const BOTH: [&str; 2] = ["IPv4", "IPv6"];

/// Who is to be behind a Service.
#[derive(Debug, Clone, Copy)]
enum Behind {
    Pods,
    Activators,
}

/// Waits until pods alone, or activators alone, are behind the Service in each of its `families`, and
/// nobody is in any other.
async fn is_behind(workload: &Workload, who: Behind, families: &[&str]) -> anyhow::Result<()> {
    let what = format!("{who:?} alone behind {}", workload.name);
    eventually(&what, FOLLOW, async || {
        let seen = slices::by_family(workload).await?;
        let (mut there, mut listed) = (BTreeSet::new(), BTreeSet::new());
        for (family, backends) in &seen {
            let (wanted, other) = match who {
                Behind::Pods => (&backends.pods, &backends.activators),
                Behind::Activators => (&backends.activators, &backends.pods),
            };
            ensure!(other.is_empty() && backends.unknown.is_empty(), "{seen:?}");
            if !wanted.is_empty() {
                there.insert(family.as_str());
                listed.insert(wanted);
            }
        }
        let expected = families.iter().copied().collect::<BTreeSet<_>>();
        // The same ones in each family.
        ensure!(there == expected && listed.len() == 1, "{seen:?}");
        Ok(())
    })
    .await
}

/// The Service's addresses, which are those of `families` in this order.
async fn addresses(workload: &Workload, families: &[&str]) -> anyhow::Result<Vec<IpAddr>> {
    let addresses = families::addresses(workload).await?;
    let names: Vec<&str> = addresses.iter().map(|one| families::name(*one)).collect();
    ensure!(
        names == families,
        "the Service of {} has {addresses:?}, not one of each of {families:?}: is the cluster dual-stack?",
        workload.name
    );
    Ok(addresses)
}

fn came_by_activator(answer: &ProbeAnswer) -> bool {
    let header = answer.headers.get(ACTIVATOR_HEADER);
    header.is_some_and(|value| value.contains(ACTIVATOR_MARK))
}

/// Changes the Service's spec.
async fn patch_service(workload: &Workload, spec: &Value) -> anyhow::Result<()> {
    let (namespace, name) = (&workload.namespace, &workload.name);
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
    let patch = json!({ "spec": spec });
    workload.cluster.patch(&path, MERGE, &patch).await
}

/// Takes the workload from Lull, and waits until nothing of it is left in the namespace.
async fn leave(namespace: &Namespace, workloads: &[&Workload]) -> anyhow::Result<()> {
    for workload in workloads {
        let ours = [(SCALE, None), ("lull.dev/window", None), (MIN_SCALE, None)];
        workload.annotate(&ours).await?;
    }
    eventually("everything to be given back", LEAVE, async || {
        let left = leftovers::leftovers(&namespace.cluster, &namespace.name).await?;
        ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        Ok(())
    })
    .await
}

/// A whole life of a workload whose Service has `families`: asleep and woken by a caller of each.
async fn lives(
    (agent, namespace): (&Agent, &Namespace),
    (name, policy): (&str, &'static str),
    families: &[&'static str],
) -> anyhow::Result<Workload> {
    let app = App::new(name).families(policy, families);
    let workload = app.deploy_awake(namespace).await?;
    for address in addresses(&workload, families).await? {
        let url = families::url(address, "/");
        workload.put_to_sleep().await?;
        is_behind(&workload, Behind::Activators, families).await?;
        let answer = agent.get(&url).await?;
        ensure!(came_by_activator(&answer), "{url} was no wake: {answer:?}");
        eprintln!("{name} by {url}: {:.0} ms", answer.ms);
        workload.annotate(&[(MIN_SCALE, Some("1"))]).await?;
        is_behind(&workload, Behind::Pods, families).await?;
        eventually("callers to follow", FOLLOW, async || {
            let answer = agent.get(&url).await?;
            ensure!(
                !came_by_activator(&answer),
                "{url} by an activator: {answer:?}"
            );
            Ok(())
        })
        .await?;
    }
    // By its name, of which the DNS has an address for each family.
    agent.is_answered(&workload.url("/"), FOLLOW).await?;
    Ok(workload)
}

#[tokio::test]
async fn services_of_every_policy_are_woken_in_each_of_their_families() -> anyhow::Result<()> {
    in_namespace_for(TEST, "policies", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let place = (&agent, namespace);
        // The second one has IPv6 first.
        let (both, prefers, six) = tokio::try_join!(
            Box::pin(lives(place, ("both", "RequireDualStack"), &BOTH)),
            Box::pin(lives(
                place,
                ("prefers", "PreferDualStack"),
                &["IPv6", "IPv4"]
            )),
            Box::pin(lives(place, ("six", "SingleStack"), &["IPv6"])),
        )?;
        // Leaves in its sleep, with slices of both families; the others leave awake.
        both.put_to_sleep().await?;
        is_behind(&both, Behind::Activators, &BOTH).await?;
        leave(namespace, &[&both, &prefers, &six]).await?;
        for (workload, families) in [(&both, &BOTH[..]), (&six, &["IPv6"][..])] {
            is_behind(workload, Behind::Pods, families).await?;
            for address in addresses(workload, families).await? {
                agent
                    .is_answered(&families::url(address, "/"), FOLLOW)
                    .await?;
            }
        }
        Ok(())
    })
    .await
}

/// Kept connections and new ones to each address.
async fn load(agent: &Agent, addresses: &[IpAddr]) -> anyhow::Result<(u64, u64)> {
    let loads = addresses.iter().flat_map(|address| {
        [true, false].map(|keep_alive| RunSpec {
            url: families::url(*address, "/?sleep_ms=10"),
            connections: 5,
            seconds: Some(5.0),
            rate: Some(50.0),
            keep_alive,
            ..RunSpec::default()
        })
    });
    let loads: Vec<RunSpec> = loads.collect();
    let results = try_join_all(loads.iter().map(|load| agent.run(load))).await?;
    let (mut answered, mut by_activators) = (0, 0);
    for (load, result) in loads.iter().zip(&results) {
        all_answered(result).with_context(|| load.url.clone())?;
        answered += result.ok;
        by_activators += result.via_activator;
    }
    Ok((answered, by_activators))
}

#[tokio::test]
async fn cycles_of_sleep_and_wake_under_load_in_both_families_answer_every_request()
-> anyhow::Result<()> {
    let cycles = rounds(6, 30);
    in_namespace_for(SET_UP + CYCLE * cycles, "cycles", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = App::new("shop").families("RequireDualStack", &BOTH);
        let workload = app.deploy_asleep(namespace).await?;
        let both = addresses(&workload, &BOTH).await?;
        for cycle in 1..=cycles {
            // Odd cycles call while the old pod may still be going, even ones when it is gone.
            if cycle % 2 == 0 {
                workload.pods_gone().await?;
            }
            // Callers of IPv6 alone, of IPv4 alone, of both.
            let callers = match cycle % 3 {
                1 => &both[1..],
                2 => &both[..1],
                _ => &both[..],
            };
            let (answered, by_activators) = load(&agent, callers).await?;
            ensure!(by_activators > 0, "cycle {cycle} began awake");
            let took = workload.asleep().await?;
            eprintln!(
                "cycle {cycle}: {answered} answered over {callers:?}, asleep after {took:.1?}"
            );
        }
        Ok(())
    })
    .await
}

/// The sidecar calls the app at the pod's first address, which here is of IPv4, whichever family a caller
/// came by: so such an app is reached by more callers than it would be without Lull.
#[tokio::test]
async fn an_app_on_ipv4_alone_is_called_by_both_families_awake_and_woken() -> anyhow::Result<()> {
    in_namespace_for(TEST, "ipv4-app", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let listens = |app: App| app.arg("--ipv4-only").families("RequireDualStack", &BOTH);
        let plain = listens(App::plain("plain")).deploy(namespace).await?;
        let workload = listens(App::new("shop")).deploy_awake(namespace).await?;
        plain.rolled_out().await?;
        let without: Vec<IpAddr> = addresses(&plain, &BOTH).await?;
        agent
            .is_answered(&families::url(without[0], "/"), FOLLOW)
            .await?;
        let refused = ProbeSpec {
            url: families::url(without[1], "/"),
            ..ProbeSpec::default()
        };
        let answer = agent.probe(&refused).await?;
        ensure!(
            !answer.ok,
            "a plain app answers where it doesn't listen: {answer:?}"
        );

        for address in addresses(&workload, &BOTH).await? {
            let url = families::url(address, "/");
            is_behind(&workload, Behind::Pods, &BOTH).await?;
            agent.is_answered(&url, FOLLOW).await?;
            workload.put_to_sleep().await?;
            let answer = agent.get(&url).await?;
            ensure!(came_by_activator(&answer), "{url} was no wake: {answer:?}");
            workload.annotate(&[(MIN_SCALE, Some("1"))]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_that_gets_and_loses_a_family_in_its_sleep_is_followed() -> anyhow::Result<()> {
    in_namespace_for(TEST, "changes", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let app = App::new("shop").families("SingleStack", &["IPv4"]);
        let workload = app.deploy_asleep(namespace).await?;
        workload.pods_gone().await?;
        is_behind(&workload, Behind::Activators, &["IPv4"]).await?;

        let more = json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": BOTH });
        patch_service(&workload, &more).await?;
        is_behind(&workload, Behind::Activators, &BOTH).await?;
        let both = addresses(&workload, &BOTH).await?;
        // kube-proxy hears of the new address a moment later.
        agent
            .is_answered(&families::url(both[1], "/"), FOLLOW)
            .await?;
        workload.asleep().await?;
        workload.pods_gone().await?;

        // The API server takes the second family away by itself.
        patch_service(&workload, &json!({ "ipFamilyPolicy": "SingleStack" })).await?;
        is_behind(&workload, Behind::Activators, &["IPv4"]).await?;
        let one = addresses(&workload, &["IPv4"]).await?;
        agent.get(&families::url(one[0], "/")).await.map(drop)
    })
    .await
}
