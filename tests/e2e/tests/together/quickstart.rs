//! The quickstart does what it says: its commands are run as a reader would run them.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use lull_e2e::{
    Cluster, Namespace,
    book::{self, Block, Page},
    command, diagnostics,
};

/// Info of a block whose commands are run.
const RUN: &str = "sh run";
/// Namespace that the page makes and deletes.
const NAMESPACE: &str = "lull-quickstart";
/// Longest time of one block, seconds: its own waits end before.
const LONGEST: &str = "600";

/// A reader's shell, with the cluster's kubectl first.
struct Shell {
    root: String,
    path: String,
}

#[tokio::test]
async fn the_quickstart_s_commands_do_what_the_page_says() -> anyhow::Result<()> {
    let page = Page::read(book::folder().join("quickstart.md"))?;
    let blocks = page.blocks().into_iter();
    let blocks: Vec<_> = blocks.filter(|block| block.info == RUN).collect();
    ensure!(!blocks.is_empty(), "no block of the page is {RUN:?}");
    let shell = Shell::new()?;
    let namespace = Namespace {
        cluster: Cluster::connect().await?,
        name: NAMESPACE.to_owned(),
    };
    shell.delete_namespace().await?;
    let outcome = shell.run_all(&blocks).await;
    if outcome.is_err() {
        diagnostics::dump(&namespace).await;
    }
    if env::var_os("E2E_KEEP").is_some() {
        return outcome;
    }
    outcome.and(shell.delete_namespace().await)
}

// === impl Shell ===

impl Shell {
    fn new() -> anyhow::Result<Self> {
        let kubectl = env::var_os("E2E_KUBECTL").map(PathBuf::from);
        let kubectl = kubectl.context("E2E_KUBECTL must be the path of kubectl")?;
        let folder = kubectl.parent().unwrap_or_else(|| Path::new(""));
        let path = env::var("PATH").unwrap_or_default();
        Ok(Self {
            root: book::root().display().to_string(),
            path: format!("PATH={}:{path}", folder.display()),
        })
    }

    async fn run_all(&self, blocks: &[Block]) -> anyhow::Result<()> {
        for block in blocks {
            let run = self.run(&block.text).await;
            run.with_context(|| format!("the block at line {}", block.line))?;
        }
        Ok(())
    }

    /// Runs commands in the repository; the first that fails ends them.
    async fn run(&self, commands: &str) -> anyhow::Result<()> {
        let (root, path) = (self.root.as_str(), self.path.as_str());
        let limited = ["timeout", "--kill-after=10", LONGEST];
        let bash = ["bash", "-euo", "pipefail", "-c", commands];
        let args = [&["-C", root, path][..], &limited[..], &bash[..]].concat();
        command::run("env", &args).await
    }

    /// Takes away what an earlier run has left, or this one.
    async fn delete_namespace(&self) -> anyhow::Result<()> {
        let command = format!("kubectl delete namespace {NAMESPACE} --ignore-not-found");
        self.run(&command).await
    }
}
