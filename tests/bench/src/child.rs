//! Processes that die with their owner, and what they used.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{self, Command};

/// Longest wait for a process that was asked to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: u32,
    process: process::Child,
}

/// Memory of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Resident set, MiB.
    pub resident_mib: f64,
    /// The same where shared pages count by their share, MiB.
    pub proportional_mib: f64,
}

// === impl Child ===

impl Child {
    /// Starts `command`; what it says on standard error goes to ours, the rest nowhere.
    ///
    /// # Errors
    /// Where it can't be started, with what to install.
    pub fn spawn(name: &str, mut command: Command) -> anyhow::Result<Self> {
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name} (make bench installs what is missing)"))?;
        let pid = process.id().context("the process has ended")?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            process,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Where it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait().context("ask for its state")? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended by itself: {status}", self.name),
        }
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// Where that can't be done.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let killed = self.process.kill().await;
        killed.with_context(|| format!("stop {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// Where it doesn't end soon, or fails.
    pub async fn terminate(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        kill_process(pid.context("its process id")?, Signal::TERM).context("send SIGTERM")?;
        let ended = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        let name = &self.name;
        let status = ended.with_context(|| format!("{name} doesn't end"))??;
        ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    }

    /// CPU time of its threads until now. A thread that has ended is not in it: none of the
    /// proxies ends threads while it serves.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.pid.to_string())
    }

    /// Memory that it has now.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(&self.pid.to_string())
    }

    /// Number of its open descriptors.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        let folder = format!("/proc/{}/fd", self.pid);
        let list = std::fs::read_dir(&folder).with_context(|| format!("list {folder}"))?;
        Ok(list.count())
    }
}

// === impl Memory ===

impl Memory {
    /// What `process` has now: a number, or `self`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn of(process: &str) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        memory(&text).with_context(|| format!("{text:?} in {path}"))
    }
}

/// CPU time of the threads of `process`, a number or `self`, until now.
///
/// # Errors
/// Where there is none.
pub fn cpu(process: &str) -> anyhow::Result<Duration> {
    let folder = format!("/proc/{process}/task");
    let mut sum = 0;
    for thread in std::fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        let path = thread?.path().join("schedstat");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        sum += on_cpu_ns(&text).with_context(|| format!("{text:?} in {}", path.display()))?;
    }
    Ok(Duration::from_nanos(sum))
}

/// First field of `schedstat`: nanoseconds on a core.
fn on_cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

fn memory(smaps_rollup: &str) -> Option<Memory> {
    let mib = |key: &str| -> Option<f64> {
        let line = smaps_rollup
            .lines()
            .find_map(|line| line.strip_prefix(key))?;
        let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib / 1024.0)
    };
    Some(Memory {
        resident_mib: mib("Rss:")?,
        proportional_mib: mib("Pss:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_core_is_the_first_field() {
        assert_eq!(on_cpu_ns("123456 789 10\n"), Some(123_456));
        assert_eq!(on_cpu_ns(""), None);
    }
    #[test]
    fn memory_is_read_in_mebibytes() {
        let text =
            "55-7f ---p 0 00:00 0 [rollup]\nRss:     2048 kB\nPss:      512 kB\nPss_Dirty: 1 kB\n";
        let read = memory(text).unwrap();
        assert_eq!((read.resident_mib, read.proportional_mib), (2.0, 0.5));
        assert_eq!(memory("Rss: 1 kB"), None);
    }
}
