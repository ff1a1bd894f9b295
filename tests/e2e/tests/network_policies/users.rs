//! Policies of users: on the pods that are called, and on who calls them.

use anyhow::{Context as _, ensure};
use lull_contract::annotations::{ACCEPT_ACTIVATOR_SOURCE, SCALE};
use lull_e2e::{
    Agent, App, Workload, all_answered, eventually, in_namespace_for, namespace::SUITE_LABEL,
};
use serde_json::json;

use crate::{
    FOLLOW, TEST,
    policies::{add, add_new, documented, label, peer},
    requests::{gets_nothing, sleeps_and_wakes, steady, while_served, woken},
};

/// The shortest window.
const WINDOW: (&str, Option<&str>) = ("lull.dev/window", Some("6s"));

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
