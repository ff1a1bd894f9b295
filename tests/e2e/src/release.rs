//! The installed release, as Helm changes it.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::{Cluster, command};

/// The chart of this tree.
#[must_use]
pub fn chart() -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../charts/lull");
    folder.to_string_lossy().into_owned()
}

/// Runs helm, and makes sure that no pod of `components` is one that was there before.
///
/// # Errors
/// Where `E2E_HELM` names no helm, it fails, or a pod is left.
pub async fn helm(cluster: &Cluster, args: &[&str], components: &[&str]) -> anyhow::Result<()> {
    let helm = std::env::var_os("E2E_HELM").map(PathBuf::from);
    let helm = helm.context("E2E_HELM must be the path of helm")?;
    let mut before = Vec::new();
    for component in components {
        before.push((component, cluster.ready_names(component).await?));
    }
    let namespace = cluster.lull_namespace.as_str();
    let wait = ["-n", namespace, "--wait", "--timeout", "5m"];
    let all: Vec<&str> = args.iter().copied().chain(wait).collect();
    command::run(&helm, &all).await?;
    for (component, before) in before {
        let now = cluster.ready_names(component).await?;
        ensure!(
            !now.is_empty() && now.is_disjoint(&before),
            "{component}: before {before:?}, now {now:?}"
        );
    }
    Ok(())
}
