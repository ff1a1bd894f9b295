//! NetworkPolicies that are enforced: on the users' pods, on callers, and on Lull's own.
//!
//! Lull is installed with `networkPolicy.enabled`, with `callersFrom` namespaces of the suite and with
//! `metricsFrom` those that are labelled for it (scripts/network-policies.sh). Policies of users are those
//! of docs/network-policies.md, word for word.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use lull_contract::{
    annotations::{ACCEPT_ACTIVATOR_SOURCE, SCALE},
    ports,
    view::WorkloadList,
};
use lull_e2e::{
    Agent, App, Namespace, Workload, all_answered,
    background::{PlainClient, Program, Scratch},
    book::{self, Page},
    cluster::COMPONENTS,
    command, eventually, in_namespace_for,
    namespace::SUITE_LABEL,
    slices,
};
use sample_app::wire::{RunResult, RunSpec};
use serde_json::{Value, json};

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);
/// Longest time of one test: it falls asleep several times.
const TEST: Duration = Duration::from_secs(600);
/// Whom policies keep out gets no answer at all.
const REFUSED_MS: u64 = 2_000;
/// Label on namespaces that may scrape Lull's metrics.
const SCRAPER_LABEL: &str = "e2e-scraper";
/// The shortest window.
const WINDOW: (&str, Option<&str>) = ("lull.dev/window", Some("6s"));

// === policies ===

/// Path of a namespace's policies on the API server.
fn policies_of(namespace: &str) -> String {
    format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
}

async fn add(namespace: &Namespace, mut policy: Value) -> anyhow::Result<()> {
    policy["metadata"]["namespace"] = json!(namespace.name);
    let path = policies_of(&namespace.name);
    namespace.cluster.create(&path, &policy).await
}

async fn add_new(namespace: &Namespace, name: &str, spec: Value) -> anyhow::Result<()> {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name }, "spec": spec,
    });
    add(namespace, policy).await
}

/// The policy called `name` in the page on NetworkPolicies.
fn documented(name: &str) -> anyhow::Result<Value> {
    let page = Page::read(book::folder().join("network-policies.md"))?;
    for block in page.blocks() {
        if block.info == "yaml" {
            let policy: Value = serde_saphyr::from_str(&block.text)?;
            if policy["metadata"]["name"] == name {
                return Ok(policy);
            }
        }
    }
    anyhow::bail!("the page has no policy {name}")
}

fn peer(app: &str) -> Value {
    json!({ "podSelector": { "matchLabels": { "app": app } } })
}

/// Sets a label of the namespace, or takes it away.
async fn label(namespace: &Namespace, key: &str, value: Option<&str>) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}", namespace.name);
    let patch = json!({ "metadata": { "labels": { key: value } } });
    let kind = "application/merge-patch+json";
    namespace.cluster.patch(&path, kind, &patch).await
}

// === requests, counted ===

/// `count` requests, each on a connection of its own and all at once.
async fn requests(agent: &Agent, url: String, count: u32) -> anyhow::Result<RunResult> {
    let spec = RunSpec {
        url,
        connections: count,
        requests: Some(count.into()),
        keep_alive: false,
        ..RunSpec::default()
    };
    agent.run(&spec).await
}

/// Ten requests a second until it is stopped, on connections that are kept.
fn steady(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/"),
        connections: 2,
        rate: Some(10.0),
        seconds: Some(300.0),
        ..RunSpec::default()
    }
}

/// Fails unless none of ten requests gets any answer.
async fn gets_nothing(agent: &Agent, url: &str) -> anyhow::Result<()> {
    let spec = RunSpec {
        url: url.to_owned(),
        connections: 10,
        requests: Some(10),
        keep_alive: false,
        timeout_ms: REFUSED_MS,
        ..RunSpec::default()
    };
    let result = agent.run(&spec).await?;
    ensure!(
        result.done && result.sent == 10 && result.ok == 0 && result.by_status.is_empty(),
        "{} gets answers from {url}: {result:?}",
        agent.pod()
    );
    Ok(())
}

/// Waits until the workload sleeps and has no pod left, and wakes it by counted requests.
async fn sleeps_and_wakes(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    workload.asleep().await?;
    workload.pods_gone().await?;
    woken(agent, workload).await
}

/// Wakes the sleeping workload: every request is answered, all of them by way of an activator.
async fn woken(agent: &Agent, workload: &Workload) -> anyhow::Result<()> {
    let result = requests(agent, workload.url("/?sleep_ms=50"), 50).await?;
    all_answered(&result)?;
    ensure!(
        result.via_activator == result.sent,
        "not all were held: {result:?}"
    );
    Ok(())
}

/// What `then` sees while the workload's pods alone answer for it; a load that is counted keeps it awake.
async fn while_served(
    agent: &Agent,
    workload: &Workload,
    then: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let load = agent.start(&steady(workload)).await?;
    eventually("its pods alone", FOLLOW, async || {
        slices::pods_only(workload, 1).await
    })
    .await?;
    // kube-proxy follows a moment later. A request that fails is no reason to look again.
    let direct = eventually("answers by pods alone", FOLLOW, async || {
        let result = requests(agent, workload.url("/"), 20).await?;
        ensure!(result.failed > 0 || result.via_activator == 0, "{result:?}");
        Ok(result)
    });
    all_answered(&direct.await?)?;
    then().await?;
    all_answered(&load.stop().await?)
}

/// Waits until the workload is refused, for `reason`, with a message that has all of `parts`.
async fn is_refused(workload: &Workload, reason: &str, parts: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("a refusal {reason}"), FOLLOW, async || {
        let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
        let status = scaled.status.context("no status")?;
        let mut conditions = status.conditions.iter();
        let enrolled = conditions.find(|condition| condition.type_ == "Enrolled");
        let enrolled = enrolled.context("no condition Enrolled")?;
        ensure!(
            enrolled.status == "False"
                && enrolled.reason == reason
                && parts.iter().all(|part| enrolled.message.contains(part)),
            "{} {}: {}",
            enrolled.status,
            enrolled.reason,
            enrolled.message
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn pods_that_deny_by_default_sleep_and_wake_under_the_rules_that_are_asked_for()
-> anyhow::Result<()> {
    in_namespace_for(TEST, "deny", async |namespace| {
        let (web, stranger) = tokio::try_join!(
            Agent::deploy_as("web", namespace),
            Agent::deploy_as("stranger", namespace)
        )?;
        let everything = json!({ "podSelector": {}, "policyTypes": ["Ingress"] });
        add_new(namespace, "default-deny", everything).await?;
        let rule = json!({ "from": [peer("web")], "ports": [{ "port": 8080 }] });
        let selector = peer("shop")["podSelector"].take();
        let only_web = json!({ "podSelector": selector, "ingress": [rule] });
        add_new(namespace, "only-web", only_web).await?;

        // They are enforced, without Lull.
        let shop = App::plain("shop").deploy(namespace).await?;
        shop.rolled_out().await?;
        let url = shop.url("/");
        web.is_answered(&url, FOLLOW).await?;
        gets_nothing(&stranger, &url).await?;

        // What is missing is told, and nothing is switched.
        shop.annotate(&[(SCALE, Some("true")), WINDOW]).await?;
        let policy = documented("shop-with-lull")?;
        let rule_for_lull = policy["spec"]["ingress"][1].to_string();
        let missing = [
            rule_for_lull.as_str(),
            "NetworkPolicy default-deny",
            "only-web",
            "lull-8080 (8012) from Lull's activators",
            "lull-8080 (8012) from those who are let in on 8080",
            "lull-admin (8022) from Lull's activators",
            "lull-report (9090) from Lull's autoscaler",
            namespace.cluster.lull_namespace.as_str(),
        ];
        is_refused(&shop, "PolicyBlocks", &missing).await?;
        shop.rolled_out().await?;
        web.is_answered(&url, FOLLOW).await?;
        gets_nothing(&stranger, &url).await?;

        add(namespace, policy).await?;
        is_refused(&shop, "PolicyNarrower", &[ACCEPT_ACTIVATOR_SOURCE]).await?;
        let load = web.start(&steady(&shop)).await?;
        let accepted = [(ACCEPT_ACTIVATOR_SOURCE, Some("true"))];
        shop.annotate(&accepted).await?;
        shop.enrolled().await?;
        all_answered(&load.stop().await?)?;

        for _ in 0..2 {
            sleeps_and_wakes(&web, &shop).await?;
        }
        while_served(&web, &shop, async || gets_nothing(&stranger, &url).await).await?;

        shop.asleep().await?;
        shop.pods_gone().await?;
        outsiders_get_nothing(&shop).await?;
        // As the page says: who is let in at the activators is let in by them.
        woken(&stranger, &shop).await
    })
    .await
}

/// Nobody of a namespace that `callersFrom` leaves out reaches or wakes the sleeping workload.
async fn outsiders_get_nothing(workload: &Workload) -> anyhow::Result<()> {
    in_namespace_for(FOLLOW * 2, "outside", async |outside| {
        label(outside, SUITE_LABEL, None).await?;
        let outsider = Agent::deploy_as("outsider", outside).await?;
        gets_nothing(&outsider, &workload.url("/")).await?;
        let replicas = workload.replicas().await?;
        ensure!(replicas == 0, "it was woken: {replicas} replicas");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn callers_whose_egress_is_closed_need_the_activators_and_may_reach_too_much_by_them()
-> anyhow::Result<()> {
    in_namespace_for(TEST, "egress", async |namespace| {
        let web = Agent::deploy_as("web", namespace).await?;
        let (shop, vault) = (App::new("shop"), App::new("vault"));
        let (shop, vault) =
            tokio::try_join!(shop.deploy_asleep(namespace), vault.deploy_awake(namespace))?;
        shop.pods_gone().await?;
        let names = json!({ "ports": [{ "protocol": "UDP", "port": 53 }] });
        let to_shop = json!({ "to": [peer("shop")], "ports": [{ "port": "lull-8080" }] });
        let selector = peer("web")["podSelector"].take();
        let closed = json!({
            "podSelector": selector, "policyTypes": ["Egress"], "egress": [names, to_shop],
        });
        add_new(namespace, "web-to-shop", closed).await?;

        eventually("the policy to be enforced", FOLLOW, async || {
            gets_nothing(&web, &vault.url("/")).await
        })
        .await?;
        gets_nothing(&web, &shop.url("/")).await?;
        let replicas = shop.replicas().await?;
        ensure!(replicas == 0, "it was woken: {replicas} replicas");

        add(namespace, documented("web-to-activators")?).await?;
        web.is_answered(&shop.url("/"), FOLLOW).await?;
        sleeps_and_wakes(&web, &shop).await?;
        while_served(&web, &shop, async || {
            gets_nothing(&web, &vault.url("/")).await
        })
        .await?;

        // As the page says: an activator leads to whatever sleeps.
        vault.put_to_sleep().await?;
        woken(&web, &vault).await
    })
    .await
}

/// Addresses of Lull's pods of one component, each with the page at `port`.
async fn pages_of(
    namespace: &Namespace,
    component: &str,
    port: u16,
) -> anyhow::Result<Vec<String>> {
    let pods = namespace.cluster.component_pods(component).await?;
    let ready = pods.iter().filter(|pod| lull_e2e::cluster::is_ready(pod));
    let address = |pod: &Pod| pod.status.as_ref()?.pod_ip.clone();
    let pages: Vec<String> = ready
        .filter_map(address)
        .map(|address| format!("http://{address}:{port}/metrics"))
        .collect();
    ensure!(!pages.is_empty(), "no {component} is ready");
    Ok(pages)
}

/// Lull's own pods are closed but for their purposes; metrics are for whom `metricsFrom` lets in.
async fn own_pods_are_closed(namespace: &Namespace) -> anyhow::Result<()> {
    let policies = policies_of(&namespace.cluster.lull_namespace);
    for component in COMPONENTS {
        let path = format!("{policies}/lull-{component}");
        namespace.cluster.get(&path).await?;
    }
    let agent = Agent::deploy(namespace).await?;
    let mut metrics = Vec::new();
    for component in COMPONENTS {
        metrics.extend(pages_of(namespace, component, ports::METRICS).await?);
    }
    let mut closed = metrics.clone();
    for (component, port) in [
        ("activator", ports::ADMIN),
        ("activator", ports::REPORT),
        ("autoscaler", ports::STATUS_PAGE),
    ] {
        closed.extend(pages_of(namespace, component, port).await?);
    }
    try_join_all(closed.iter().map(|url| gets_nothing(&agent, url))).await?;

    label(namespace, SCRAPER_LABEL, Some("yes")).await?;
    for url in &metrics {
        agent.is_answered(url, FOLLOW).await?;
        let answer = agent.get(url).await?;
        ensure!(answer.body.contains("# TYPE"), "no metrics: {answer:?}");
    }
    Ok(())
}

/// Every replica shows what only the leader of a workload knows: they ask each other.
async fn shown_by_every_replica(workload: &Workload) -> anyhow::Result<()> {
    let cluster = &workload.cluster;
    let replicas = cluster.ready_names("autoscaler").await?;
    ensure!(replicas.len() > 1, "a single autoscaler asks nobody");
    for replica in &replicas {
        eventually("the workload, live", FOLLOW, async || {
            let page = cluster.page(replica, ports::STATUS_PAGE, "workloads");
            let list: WorkloadList = serde_json::from_str(&page.await?)?;
            let is_live = list.workloads.iter().any(|view| {
                view.namespace == workload.namespace
                    && view.target_name == workload.name
                    && view.is_live
            });
            ensure!(is_live, "{replica} shows {list:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn lull_works_as_ever_behind_policies_of_its_own() -> anyhow::Result<()> {
    let binary = std::env::var_os("E2E_KUBECTL_LULL").map(PathBuf::from);
    let binary = binary.context("E2E_KUBECTL_LULL must be the path of kubectl-lull")?;
    in_namespace_for(TEST, "own", async |namespace| {
        own_pods_are_closed(namespace).await?;
        let agent = Agent::deploy_as("web", namespace).await?;
        // Enrolled by a webhook that is called, asleep by reports that are pulled.
        let workload = App::new("shop").deploy(namespace).await?;
        workload.enrolled().await?;
        for _ in 0..2 {
            sleeps_and_wakes(&agent, &workload).await?;
        }
        while_served(&agent, &workload, async || {
            shown_by_every_replica(&workload).await
        })
        .await?;

        let within = namespace.cluster.lull_namespace.as_str();
        let doctor = ["doctor", "--lull-namespace", within];
        // Other tests' workloads come and go.
        eventually("a doctor without findings", FOLLOW * 2, async || {
            command::run(&binary, &doctor).await
        })
        .await?;
        let scratch = Scratch::try_new("ui")?;
        let mut ui = tokio::process::Command::new(&binary);
        ui.args(["ui", "--lull-namespace", within]);
        let mut ui = Program::start("kubectl-lull-ui", ui, &scratch)?;
        let address = ui.address(&["http://"]).await?;
        let page = PlainClient::try_new(address)?.get("/workloads").await?;
        ensure!(page.contains("\"workloads\""), "{page}");
        ui.stop().await
    })
    .await
}
