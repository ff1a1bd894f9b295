//! The quickstart does what it says: its commands are run as a reader would run them.

use std::env;

use anyhow::ensure;
use lull_e2e::{
    Cluster, Namespace,
    book::{self, Page, Scene},
    diagnostics,
    reader::Reader,
};

/// Namespace that the page makes and deletes.
const NAMESPACE: &str = "lull-quickstart";

#[tokio::test]
async fn the_quickstart_s_commands_do_what_the_page_says() -> anyhow::Result<()> {
    let page = Page::read(book::folder().join("quickstart.md"))?;
    let mut blocks = page.blocks();
    blocks.retain(|block| block.scene() == Some(Scene::Own));
    ensure!(!blocks.is_empty(), "no block of the page is run");
    let namespace = Namespace {
        cluster: Cluster::connect().await?,
        name: NAMESPACE.to_owned(),
    };
    let reader = Reader::try_new(&namespace.cluster, "default").await?;
    delete_namespace(&reader).await?;
    let outcome = reader.types(&blocks).await;
    if outcome.is_err() {
        diagnostics::dump(&namespace).await;
    }
    if env::var_os("E2E_KEEP").is_some() {
        return outcome;
    }
    outcome.and(delete_namespace(&reader).await)
}

/// Takes away what an earlier run has left, or this one.
async fn delete_namespace(reader: &Reader) -> anyhow::Result<()> {
    let command = format!("kubectl delete namespace {NAMESPACE} --ignore-not-found");
    reader.run(&command).await
}
