//! Size of a binary as it ships.

use std::path::Path;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::Scratch;

/// Size of `binary` without debug information, as in its image: megabytes of 1,000,000 bytes.
///
/// # Errors
/// Where it can't be stripped.
pub async fn shipped_mb(binary: &Path, scratch: &Scratch) -> anyhow::Result<f64> {
    let stripped = scratch.path().join("stripped");
    let status = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .args([&stripped, binary])
        .kill_on_drop(true)
        .status()
        .await
        .context("run strip (make bench installs what is missing)")?;
    ensure!(status.success(), "strip {}: {status}", binary.display());
    let bytes = std::fs::metadata(&stripped)
        .context("the stripped binary")?
        .len();
    Ok(bytes as f64 / 1e6)
}
