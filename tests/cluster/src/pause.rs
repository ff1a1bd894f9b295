//! Processes of a cluster that stand still for a while: what an outage looks like to the others.

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::paths::Paths;
use crate::process::{self, Identity};

/// A process that stands still until this is dropped.
#[derive(Debug)]
#[must_use = "the process goes on when this is dropped"]
pub struct Paused(Identity);

/// Makes a process (`kube-apiserver`, `kubelet-n0`, ...) stand still; its connections stay open and
/// nobody answers on them. [`resume`] or [`down`](crate::down) end that.
///
/// # Errors
/// When no such process of the cluster runs.
pub fn pause(cluster: &str, component: &str) -> Result<()> {
    running(cluster, component)?.signal(Signal::STOP);
    Ok(())
}

/// Makes a process that stands still go on; one that goes on already is fine.
///
/// # Errors
/// When no such process of the cluster runs.
pub fn resume(cluster: &str, component: &str) -> Result<()> {
    running(cluster, component)?.signal(Signal::CONT);
    Ok(())
}

/// As [`pause`], until the value is dropped.
///
/// # Errors
/// When no such process of the cluster runs.
pub fn paused(cluster: &str, component: &str) -> Result<Paused> {
    let process = running(cluster, component)?;
    process.signal(Signal::STOP);
    Ok(Paused(process))
}

fn running(cluster: &str, component: &str) -> Result<Identity> {
    let paths = Paths::try_new(cluster)?;
    let process = process::read(&paths.pid(component)).filter(|process| process.is_alive());
    process.with_context(|| format!("no {component} of cluster {cluster:?} runs on this machine"))
}

// === impl Paused ===

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = paused("no-such-cluster", "etcd").unwrap_err().to_string();
        assert!(error.contains("etcd") && error.contains("no-such-cluster"));
    }
}
