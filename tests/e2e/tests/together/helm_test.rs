//! `helm test`, as its user runs it: the chart's canary sleeps, is woken and goes again.

use std::path::PathBuf;

use anyhow::Context as _;
use lull_e2e::{Cluster, command};

#[tokio::test]
async fn helm_test_is_green() -> anyhow::Result<()> {
    let helm = std::env::var_os("E2E_HELM").map(PathBuf::from);
    let helm = helm.context("E2E_HELM must be the path of helm")?;
    let cluster = Cluster::connect().await?;
    let namespace = cluster.lull_namespace.as_str();
    command::run(&helm, &["test", "lull", "--namespace", namespace]).await
}
