//! `helm upgrade` from a chart with an older CRD, as the page on upgrades has it: the schema is this
//! version's afterwards, and what there was stays.
//!
//! It changes what every other test needs, so nothing may run beside it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Agent, App, Cluster, Workload,
    background::Scratch,
    book::{self, Page, Scene},
    command, eventually, in_namespace,
    reader::Reader,
};
use serde_json::{Value, json};

/// The chart's template that is the CRD.
const TEMPLATE: &str = "templates/scaledworkloads.yaml";
const CRD: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/scaledworkloads.lull.dev";
/// Where the schema of a status has its fields.
const FIELDS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
/// A field that this version has and the older one has not: the autoscaler writes it with each wake.
const NEW: &str = "savedPodSeconds";
/// One that only the older one has.
const OLD: &str = "ofAnOlderVersion";
/// Longest wait for what follows a changed CRD.
const FOLLOW: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_upgrade_brings_the_new_crd_and_keeps_every_workload() -> anyhow::Result<()> {
    in_namespace("chart-upgrade", async |namespace| {
        let cluster = &namespace.cluster;
        let agent = Agent::deploy(namespace).await?;
        let shop = App::new("shop").deploy_asleep(namespace).await?;
        let before = identity(&shop).await?;
        let reader = Reader::try_new(cluster, &namespace.name).await?;
        reader
            .run("helm get values lull -n lull-system -o yaml >your-values.yaml")
            .await?;
        let scratch = Scratch::try_new("older-chart")?;
        let chart = older_chart(scratch.path()).await?;
        reader
            .run(&format!(
                "helm upgrade lull {chart} -n lull-system -f your-values.yaml --wait"
            ))
            .await?;
        let fields = fields(cluster).await?;
        ensure!(
            fields.get(NEW).is_none() && !fields[OLD].is_null(),
            "{fields}"
        );

        upgraded_as_the_page_says(&reader).await?;
        let fields = self::fields(cluster).await?;
        ensure!(
            !fields[NEW].is_null() && fields.get(OLD).is_none(),
            "{fields}"
        );
        ensure!(identity(&shop).await? == before, "it is another one");
        // With its wake the field is written that the older schema doesn't have.
        agent.get(&shop.url("/")).await?;
        eventually("what the sleep has saved", FOLLOW, async || {
            let object = cluster.get(&path(&shop)).await?;
            let saved = &object["status"][NEW];
            ensure!(saved.as_u64().is_some_and(|seconds| seconds > 0), "{saved}");
            Ok(())
        })
        .await
    })
    .await
}

/// The commands of the page that replace Lull.
async fn upgraded_as_the_page_says(reader: &Reader) -> anyhow::Result<()> {
    let page = Page::read(book::folder().join("upgrades.md"))?;
    let mut blocks = page.blocks();
    blocks.retain(|block| block.scene() == Some(Scene::Alone));
    ensure!(!blocks.is_empty(), "no block of the page is run alone");
    reader.types(&blocks).await
}

/// This tree's chart with an older CRD, in `folder`; where it is.
async fn older_chart(folder: &Path) -> anyhow::Result<String> {
    let chart = folder.join("lull");
    let (from, to) = (
        book::root().join("charts/lull"),
        chart.display().to_string(),
    );
    let from = from.display().to_string();
    command::run("cp", &["-r", from.as_str(), to.as_str()]).await?;
    let template = chart.join(TEMPLATE);
    let mut crd: Value = serde_json::from_str(&fs::read_to_string(&template)?)?;
    let fields = crd.pointer_mut(FIELDS).and_then(Value::as_object_mut);
    let fields = fields.context("the chart's CRD has no fields of a status")?;
    let new = fields.remove(NEW);
    new.with_context(|| format!("the chart's CRD has no {NEW}"))?;
    fields.insert(OLD.to_owned(), json!({ "type": "string" }));
    fs::write(&template, serde_json::to_string_pretty(&crd)?)?;
    Ok(to)
}

/// The fields that the API server lets a status have.
async fn fields(cluster: &Cluster) -> anyhow::Result<Value> {
    let crd = cluster.get(CRD).await?;
    let fields = crd.pointer(FIELDS).cloned();
    fields.context("the CRD has no fields of a status")
}

fn path(workload: &Workload) -> String {
    let Workload {
        namespace, name, ..
    } = workload;
    format!("/apis/lull.dev/v1alpha1/namespaces/{namespace}/scaledworkloads/{name}")
}

/// What stays the same for as long as an object isn't made anew.
async fn identity(workload: &Workload) -> anyhow::Result<Value> {
    let object = workload.cluster.get(&path(workload)).await?;
    Ok(object["metadata"]["uid"].clone())
}
