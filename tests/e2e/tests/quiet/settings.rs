//! The cluster-wide settings: an edit holds at once, a wrong one or a deletion is told and keeps what
//! was.
//!
//! All tests share the ConfigMap, so only keys are set that matter to no other test: every other
//! workload has a window of its own, and no quiet connection is a day old.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use lull_contract::{HumanDuration, Settings, annotations::SCALE, ports};
use lull_e2e::{App, Cluster, Namespace, Workload, cluster, eventually, in_namespace};
use serde_json::{Value, json};

/// Name of the ConfigMap.
const NAME: &str = "lull-settings";
/// Longest time from an edit until it holds: a watch event and a write, on a busy machine.
const SECONDS: Duration = Duration::from_secs(10);

type Data = BTreeMap<String, String>;

#[tokio::test]
async fn an_edit_holds_at_once_and_a_wrong_one_keeps_what_was() -> anyhow::Result<()> {
    let cluster = Cluster::connect().await?;
    let before = cluster::call("get the settings", maps(&cluster).get(NAME)).await?;
    // Whatever becomes of the test, which ends with an error even where it panics.
    let outcome = in_namespace("settings", async |namespace| follow_edits(namespace).await).await;
    let restored = restore(&cluster, before).await;
    outcome?;
    restored
}

async fn follow_edits(namespace: &Namespace) -> anyhow::Result<()> {
    let cluster = &namespace.cluster;
    let app = |name| App::plain(name).annotate(SCALE, "true");
    let (silent, own) = (app("silent"), app("own").annotate("lull.dev/window", "50s"));
    let (silent, own) = tokio::try_join!(silent.deploy(namespace), own.deploy(namespace))?;
    tokio::try_join!(silent.enrolled(), own.enrolled())?;
    let template = silent.object_json().await?["spec"]["template"].clone();

    set(
        cluster,
        &[
            ("window", "42s"),
            ("splice-max-age", "23h"),
            ("idle-timeout", "23h"),
        ],
    )
    .await?;
    eventually("the edit to reach both workloads", SECONDS, async || {
        let (silent, own) = tokio::try_join!(settings(&silent), settings(&own))?;
        let windows = (silent.window, own.window);
        let expected = (HumanDuration::from_secs(42), HumanDuration::from_secs(50));
        ensure!(windows == expected, "windows {windows:?}");
        let age = silent.splice_max_age;
        ensure!(age == Some(HumanDuration::from_secs(23 * 3600)), "{age:?}");
        // The pods were injected without one.
        let idle = silent.idle_timeout;
        ensure!(idle.is_none(), "idle timeout {idle:?}");
        Ok(())
    })
    .await?;
    everywhere(cluster, |settings| {
        let idle = &settings["values"]["idle-timeout"];
        ensure!(idle == "23h", "idle-timeout {idle}");
        Ok(())
    })
    .await?;
    silent
        .annotate(&[("lull.dev/min-scale", Some("0"))])
        .await?;
    let now = silent.object_json().await?["spec"]["template"].clone();
    ensure!(
        now == template,
        "a changed default has changed the template: {now}"
    );

    set(cluster, &[("window", "soon")]).await?;
    everywhere(cluster, shows_the_wrong_edit).await?;
    eventually("an Event", SECONDS, async || has_event(cluster).await).await?;
    keeps_what_was_without_the_map(cluster).await?;
    let kept = settings(&silent).await?.window;
    ensure!(kept == HumanDuration::from_secs(42), "the window is {kept}");
    Ok(())
}

/// Deletes the ConfigMap until everybody has seen it, and makes it again as it was.
async fn keeps_what_was_without_the_map(cluster: &Cluster) -> anyhow::Result<()> {
    let maps = maps(cluster);
    let map = cluster::call("get the settings", maps.get(NAME)).await?;
    let params = DeleteParams::default();
    cluster::call("delete the settings", maps.delete(NAME, &params)).await?;
    everywhere(cluster, |settings| {
        let edit = &settings["rejected"]["edit"];
        ensure!(edit == "deleted", "the last edit is {edit}");
        ensure!(settings["values"]["window"] == "42s", "other values");
        Ok(())
    })
    .await?;
    restore(cluster, map).await
}

/// Makes the ConfigMap what it was: by an edit or, where it is gone, anew.
async fn restore(cluster: &Cluster, was: ConfigMap) -> anyhow::Result<()> {
    let maps = maps(cluster);
    let there = cluster::call("look for the settings", maps.get_opt(NAME)).await?;
    if there.is_some() {
        return edit(cluster, |data| *data = was.data.unwrap_or_default()).await;
    }
    let ObjectMeta {
        name,
        labels,
        annotations,
        ..
    } = was.metadata;
    let metadata = ObjectMeta {
        name,
        labels,
        annotations,
        ..ObjectMeta::default()
    };
    let (params, map) = (PostParams::default(), ConfigMap { metadata, ..was });
    cluster::call("make the settings again", maps.create(&params, &map))
        .await
        .map(drop)
}

fn maps(cluster: &Cluster) -> Api<ConfigMap> {
    Api::namespaced(cluster.client.clone(), &cluster.lull_namespace)
}

/// Waits until every autoscaler and webhook shows settings that pass `check`.
async fn everywhere(
    cluster: &Cluster,
    check: impl Fn(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for component in ["autoscaler", "webhook"] {
        eventually("/config to show the edit", SECONDS, async || {
            for page in pages(cluster, component).await? {
                check(&page["clusterSettings"]).with_context(|| format!("{component}: {page}"))?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Changes the ConfigMap's data.
async fn edit(cluster: &Cluster, change: impl FnOnce(&mut Data)) -> anyhow::Result<()> {
    let maps = maps(cluster);
    let mut map = cluster::call("get the settings", maps.get(NAME)).await?;
    let before = map.data.clone().unwrap_or_default();
    change(map.data.get_or_insert_default());
    if *map.data.get_or_insert_default() != before {
        let params = PostParams::default();
        cluster::call("edit the settings", maps.replace(NAME, &params, &map)).await?;
    }
    Ok(())
}

async fn set(cluster: &Cluster, pairs: &[(&str, &str)]) -> anyhow::Result<()> {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    edit(cluster, |data| data.extend(pairs)).await
}

async fn settings(workload: &Workload) -> anyhow::Result<Settings> {
    let scaled = workload.scaled().await?.context("no ScaledWorkload")?;
    Ok(scaled.spec.settings)
}

/// `/config` of every pod of `component` that is ready.
async fn pages(cluster: &Cluster, component: &str) -> anyhow::Result<Vec<Value>> {
    let mut pages = Vec::new();
    for pod in cluster.component_pods(component).await? {
        if cluster::is_ready(&pod) {
            let name = pod.metadata.name.context("a pod without a name")?;
            let page = cluster.page(&name, ports::ADMIN, "config").await?;
            pages.push(serde_json::from_str(&page).context(page)?);
        }
    }
    ensure!(!pages.is_empty(), "no {component} is ready");
    Ok(pages)
}

fn shows_the_wrong_edit(settings: &Value) -> anyhow::Result<()> {
    ensure!(settings["values"]["window"] == "42s", "other values");
    let fault = &settings["rejected"]["faults"][0];
    let allowed = "must be a duration from 6s to 3600s, for instance \"90s\"";
    let expected = json!({ "key": "window", "value": "soon", "allowed": allowed });
    ensure!(*fault == expected, "another fault: {fault}");
    ensure!(
        settings["rejected"]["resourceVersion"] != settings["resourceVersion"],
        "the values come from another version"
    );
    Ok(())
}

async fn has_event(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = &cluster.lull_namespace;
    let path =
        format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name={NAME}");
    let events = cluster.get(&path).await?;
    let items = events["items"].as_array().context("no list")?;
    let tells = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["reason"] == "SettingsRejected" && message.contains("window=\"soon\": must be")
    };
    ensure!(items.iter().any(tells), "{} other Events", items.len());
    Ok(())
}
