//! Programs that run beside a test and say in their logs where they listen, and a client for them.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use kube::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{cluster::call, eventually};

/// Longest wait until a program listens, and until one that was asked to end has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program; dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A client for plain HTTP on this machine.
pub struct PlainClient(Client);

/// A new folder that goes when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

/// The path that the environment's `variable` has.
pub(crate) fn program(variable: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.with_context(|| format!("{variable} must be the path of a program (make e2e sets it)"))
}

// === impl Program ===

impl Program {
    /// Starts `command`; what it says goes into a log in `scratch`.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn start(name: &str, mut command: Command, scratch: &Scratch) -> anyhow::Result<Self> {
        let log = scratch.path().join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let errors = output.try_clone().context("share the log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Where it listens: the address that its log has behind `marks`, which follow each other.
    ///
    /// # Errors
    /// Where it doesn't say so in time, with its log.
    pub async fn address(&mut self, marks: &[&str]) -> anyhow::Result<SocketAddr> {
        let Self { name, child, log } = self;
        eventually(&format!("{name} to listen"), PATIENCE, async || {
            let text = std::fs::read_to_string(&*log).context("read its log")?;
            let ended = child.try_wait().context("ask for its state")?;
            ensure!(ended.is_none(), "it has ended: {text}");
            address_behind(marks, &text).with_context(|| format!("it says: {text}"))
        })
        .await
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// Where it has ended by itself, or doesn't end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let name = &self.name;
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{name} has ended by itself"))?;
        kill_process(pid, Signal::TERM).with_context(|| format!("stop {name}"))?;
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.with_context(|| format!("{name} doesn't end"))??;
        Ok(())
    }
}

/// An address that is a whole word, or has a path behind it.
fn address_behind(marks: &[&str], text: &str) -> Option<SocketAddr> {
    let rest = marks.iter().try_fold(text, |rest, mark| {
        let (_, behind) = rest.split_once(*mark)?;
        Some(behind)
    })?;
    // A line that is not written to its end yet has no end.
    let (address, _) = rest.split_once(|c: char| c.is_whitespace() || c == '/')?;
    address.parse().ok()
}

// === impl PlainClient ===

impl std::fmt::Debug for PlainClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PlainClient").finish_non_exhaustive()
    }
}

impl PlainClient {
    /// One for the server at `address`.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn try_new(address: SocketAddr) -> anyhow::Result<Self> {
        let url: http::Uri = format!("http://{address}").parse()?;
        Ok(Self(Client::try_from(kube::Config::new(url))?))
    }

    /// What the server has at `path`.
    ///
    /// # Errors
    /// Where the answer is not 2xx.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        call(path, self.0.request_text(request)).await
    }
}

// === impl Scratch ===

impl Scratch {
    /// Makes a folder for `purpose` in the system's place for temporary files.
    ///
    /// # Errors
    /// Where it can't be made.
    pub fn try_new(purpose: &str) -> anyhow::Result<Self> {
        let (process, now) = (std::process::id(), sample_app::unix_us());
        let name = format!("lull-e2e-{purpose}-{process}-{now}");
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_once_its_line_is_whole() {
        let marks = ["Listening on", "address="];
        let line = "address=127.0.0.1:0\nmsg=\"Listening on\" address=127.0.0.1:46287";
        assert_eq!(address_behind(&marks, line), None);
        let whole = format!("{line}\n");
        let address = address_behind(&marks, &whole).map(|address| address.port());
        assert_eq!(address, Some(46287));
        let of_url = address_behind(&["http://"], "it is at http://127.0.0.1:7/ now");
        assert_eq!(of_url.map(|address| address.port()), Some(7));
    }

    #[tokio::test]
    async fn a_program_is_started_heard_and_stopped_and_leaves_nothing() {
        let scratch = Scratch::try_new("background").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo here 127.0.0.1:7; exec sleep 1000"]);
        let mut program = Program::start("sleeper", command, &scratch).unwrap();
        let address = program.address(&["here "]).await.unwrap();
        assert_eq!(address.port(), 7);
        program.stop().await.unwrap();
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
