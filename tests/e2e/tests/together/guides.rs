//! The pages' commands do what they say: those beside a workload are run as a reader would run them. The
//! quickstart is a story of its own (`quickstart.rs`); what replaces Lull is run alone (`chart_upgrade.rs`).

use anyhow::{Context as _, ensure};
use futures::future::join_all;
use lull_e2e::{
    App, Namespace,
    book::{self, Block, Page, Scene},
    in_namespace,
    reader::Reader,
};

/// Pages with blocks of a scene, by their names.
fn pages(scene: Scene) -> anyhow::Result<Vec<(String, Vec<Block>)>> {
    let mut pages = book::pages()?;
    pages.push(Page::read(book::root().join("README.md"))?);
    let named = pages.into_iter().map(|page| {
        let mut blocks = page.blocks();
        blocks.retain(|block| block.scene() == Some(scene));
        let name = page.path.file_name().unwrap_or_default();
        (name.to_string_lossy().into_owned(), blocks)
    });
    let with_blocks: Vec<_> = named.filter(|(_, blocks)| !blocks.is_empty()).collect();
    ensure!(!with_blocks.is_empty(), "no block of {scene:?}");
    Ok(with_blocks)
}

async fn is_read(namespace: &Namespace, name: &str, blocks: &[Block]) -> anyhow::Result<()> {
    let reader = Reader::try_new(&namespace.cluster, &namespace.name).await?;
    let typed = reader.types(blocks).await;
    typed.with_context(|| name.to_owned())
}

#[tokio::test]
async fn commands_about_a_plain_workload_can_be_typed_as_they_stand() -> anyhow::Result<()> {
    // Each page changes the workload: it has one of its own.
    let read = pages(Scene::Plain)?
        .into_iter()
        .map(|(name, blocks)| async move {
            in_namespace("guide", async |namespace| {
                let shop = App::plain("shop").deploy(namespace).await?;
                shop.rolled_out().await?;
                is_read(namespace, &name, &blocks).await
            })
            .await
        });
    let read: Result<Vec<()>, _> = join_all(read).await.into_iter().collect();
    read.map(drop)
}

#[tokio::test]
async fn commands_about_an_enrolled_workload_can_be_typed_as_they_stand() -> anyhow::Result<()> {
    let pages = pages(Scene::Enrolled)?;
    in_namespace("guides", async |namespace| {
        App::new("shop").deploy_awake(namespace).await?;
        for (name, blocks) in &pages {
            is_read(namespace, name, blocks).await?;
        }
        Ok(())
    })
    .await
}
