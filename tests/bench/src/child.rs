//! Processes that die with their owner, and what they used.

use std::{process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::process::{self, Command};

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: u32,
    process: process::Child,
}

// === impl Child ===

impl Child {
    /// Starts `command`; what it says on standard error is shown only by [`Child::failure`].
    ///
    /// # Errors
    /// Where it can't be started, with what to install.
    pub fn spawn(name: &str, mut command: Command) -> anyhow::Result<Self> {
        let process = command
            .stdin(Stdio::null())
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

    /// CPU time of its threads until now. A thread that has ended is not in it: none of the
    /// proxies ends threads while it serves.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let folder = format!("/proc/{}/task", self.pid);
        let mut sum = 0;
        for thread in std::fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
            let path = thread?.path().join("schedstat");
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("read {}", path.display()))?;
            sum += on_cpu_ns(&text).with_context(|| format!("{text:?} in {}", path.display()))?;
        }
        Ok(Duration::from_nanos(sum))
    }
}

/// First field of `schedstat`: nanoseconds on a core.
fn on_cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_core_is_the_first_field() {
        assert_eq!(on_cpu_ns("123456 789 10\n"), Some(123_456));
        assert_eq!(on_cpu_ns(""), None);
    }
}
