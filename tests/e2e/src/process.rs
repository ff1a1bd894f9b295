//! The processes of Lull's pods, where the cluster's nodes run on this machine.

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// A process that stands still until this is dropped.
#[derive(Debug)]
#[must_use = "the process goes on when this is dropped"]
pub struct Paused(Pid);

/// Makes the process of the pod `name`, which must run on this machine, stand still: its connections stay
/// open and nobody answers on them.
///
/// # Errors
/// Where it isn't found here.
pub fn pause(name: &str) -> anyhow::Result<Paused> {
    let pid = pid(name)?;
    kill_process(pid, Signal::STOP).with_context(|| format!("pause {name}"))?;
    Ok(Paused(pid))
}

/// Kills the process of the pod `name`, which must run on this machine, without a warning.
///
/// # Errors
/// Where it isn't found here.
pub fn kill(name: &str) -> anyhow::Result<()> {
    kill_process(pid(name)?, Signal::KILL).with_context(|| format!("kill {name}"))
}

/// Kills every process of the pod `name`, which must run on this machine, without a warning.
///
/// # Errors
/// Where none is found here.
pub fn kill_all(name: &str) -> anyhow::Result<()> {
    // The container runtime gives each container its pod's name as that of the host.
    let variable = format!("HOSTNAME={name}");
    let all: Vec<Pid> = pids(|one| one == variable.as_bytes())?.collect();
    anyhow::ensure!(!all.is_empty(), "{}", not_here(name));
    for pid in all {
        kill_process(pid, Signal::KILL).with_context(|| format!("kill {name}"))?;
    }
    Ok(())
}

/// Memory of the pod `name`, which must run on this machine, that is not swapped out.
///
/// # Errors
/// Where it isn't found here.
pub fn resident_bytes(name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{}/status", pid(name)?.as_raw_nonzero());
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .with_context(|| format!("no VmRSS in {path}"))?
        .parse()?;
    Ok(kib << 10)
}

/// The process of the pod `name`, which must run on this machine.
///
/// # Errors
/// Where it isn't found here.
pub fn pid(name: &str) -> anyhow::Result<Pid> {
    // Every component's variables begin with its name.
    let variable = format!("_POD_NAME={name}");
    let mut pids = pids(|one| one.ends_with(variable.as_bytes()))?;
    pids.next().with_context(|| not_here(name))
}

/// Processes of this machine with an environment variable that `is_wanted`.
fn pids(is_wanted: impl Fn(&[u8]) -> bool) -> anyhow::Result<impl Iterator<Item = Pid>> {
    let has_it = move |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(&is_wanted)
    };
    let processes = std::fs::read_dir("/proc").context("list /proc")?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter(has_it).filter_map(Pid::from_raw))
}

fn not_here(name: &str) -> String {
    format!(
        "no process of {name} on this machine: this needs root and a cluster whose nodes run here (CLUSTER=builtin or kind)"
    )
}

// === impl Paused ===

impl Drop for Paused {
    fn drop(&mut self) {
        // One that has ended meanwhile needs nothing.
        let _ = kill_process(self.0, Signal::CONT);
    }
}
