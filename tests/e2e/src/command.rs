//! Programs that the suite runs beside the cluster, such as helm.

use std::{ffi::OsStr, process::Command};

use anyhow::{Context as _, ensure};

use crate::background::program;

/// Runs kubectl, whose path is `E2E_KUBECTL`, to its end.
///
/// # Errors
/// As [`run`]'s.
pub async fn kubectl(args: &[&str]) -> anyhow::Result<()> {
    run(program("E2E_KUBECTL")?, args).await
}

/// Runs helm, whose path is `E2E_HELM`, to its end.
///
/// # Errors
/// As [`run`]'s.
pub async fn helm(args: &[&str]) -> anyhow::Result<()> {
    run(program("E2E_HELM")?, args).await
}

/// Runs a program to its end, and shows what it says.
///
/// # Errors
/// Where it can't be run or fails, with what it said.
pub async fn run(program: impl AsRef<OsStr>, args: &[&str]) -> anyhow::Result<()> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.with_context(|| format!("run {name}"))?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {}: {text}", args.join(" "));
    eprintln!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_tells_what_was_said() {
        run("true", &[]).await.unwrap();
        let error = run("sh", &["-c", "echo why; exit 3"]).await.unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
