//! Long-lived processes: started in sessions of their own, known by pid and start time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::exec::{checked, poll};
use crate::paths::Paths;

/// Notes its own pid, joins the cgroup and becomes the program: `sh -c SCRIPT pidfile procs ...`.
const WRAPPER: &str = r#"echo $$ > "$0.new"; echo $$ > "$1"; shift; exec "$@""#;

/// What a cluster's processes never inherit: they talk to each other only.
pub(crate) const PROXY_VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A process to start: which node's namespaces it runs in and its command line.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Unique in the cluster; also the name of its pid file and log.
    pub(crate) name: String,
    /// Whose network namespace it runs in.
    pub(crate) node: usize,
    /// Whether it also runs in the node's private mount namespace.
    pub(crate) mounts: bool,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
}

/// A pid together with when it started (clock ticks since boot), so that a reused pid is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    started: u64,
}

// === impl Service ===

impl Service {
    /// Starts the process in its namespaces and in `cgroup` and returns when it has a pid.
    pub(crate) fn start(&self, paths: &Paths, cgroup: &Path) -> Result<Identity> {
        let mut enter = vec![
            "nsenter".to_owned(),
            format!("--net={}", paths.netns_file(self.node).display()),
        ];
        if self.mounts {
            let holder = paths.pid(&crate::services::holder_name(self.node));
            let holder = read(&holder).context("the node's mount namespace is gone")?;
            enter.push(format!("--mount=/proc/{}/ns/mnt", holder.pid));
        }
        enter.push("--".to_owned());
        enter.extend(self.command.iter().cloned());
        self.detach(paths, cgroup, &enter)
    }

    /// As [`Self::start`], in the caller's namespaces.
    pub(crate) fn start_outside(&self, paths: &Paths, cgroup: &Path) -> Result<Identity> {
        self.detach(paths, cgroup, &self.command)
    }

    /// The process is made by a `setsid` that exits at once: it belongs to init from the start and
    /// never turns into a zombie of a test that used this library.
    fn detach(&self, paths: &Paths, cgroup: &Path, command: &[String]) -> Result<Identity> {
        let pid_file = paths.pid(&self.name);
        let log = File::create(paths.log(&self.name))?;
        let mut setsid = Command::new("setsid");
        setsid.args(["--fork", "sh", "-c", WRAPPER]).arg(&pid_file);
        setsid.arg(cgroup.join("cgroup.procs")).args(command);
        PROXY_VARIABLES.iter().for_each(|name| {
            setsid.env_remove(name);
        });
        let status = setsid
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .context("can't run setsid (package util-linux)")?;
        if !status.success() {
            bail!(
                "can't start {}: {}",
                self.name,
                tail(&paths.log(&self.name))
            );
        }
        self.note_pid(&pid_file)
    }

    fn note_pid(&self, pid_file: &Path) -> Result<Identity> {
        let fresh = pid_file.with_file_name(format!("{}.new", self.name));
        let pid = poll(&self.name, Duration::from_secs(5), || {
            let text = fs::read_to_string(&fresh).unwrap_or_default();
            Ok(text
                .strip_suffix('\n')
                .and_then(|pid| pid.parse::<i32>().ok()))
        })?;
        let started = started(pid).with_context(|| format!("{} died at once", self.name))?;
        fs::write(pid_file, format!("{pid} {started}\n"))?;
        fs::remove_file(fresh)?;
        Ok(Identity { pid, started })
    }
}

// === impl Identity ===

impl Identity {
    /// True while that very process runs.
    pub(crate) fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Sends a signal, unless the process is gone or its pid belongs to another one now.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive() {
            send(self.pid, signal);
        }
    }
}

/// True if the process of a pid file runs.
pub(crate) fn is_running(pid_file: &Path) -> bool {
    read(pid_file).is_some_and(Identity::is_alive)
}

/// Fails with the end of its log if a process has died.
pub(crate) fn check_running(paths: &Paths, name: &str) -> Result<()> {
    if is_running(&paths.pid(name)) {
        return Ok(());
    }
    let log = paths.log(name);
    bail!("{name} died; the end of {}:\n{}", log.display(), tail(&log))
}

/// Every process that has a pid file, running or not.
pub(crate) fn recorded(paths: &Paths) -> Vec<Identity> {
    let files = fs::read_dir(paths.file("pids"))
        .into_iter()
        .flatten()
        .flatten();
    files.filter_map(|file| read(&file.path())).collect()
}

/// Sends a signal to a pid; one that is already gone is fine.
pub(crate) fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Pids of all processes, this one and its ancestors left out.
pub(crate) fn others() -> Vec<i32> {
    let mut own = vec![rustix::process::getpid().as_raw_nonzero().get()];
    while let Some(parent) = own
        .last()
        .and_then(|pid| parent_of(*pid))
        .filter(|pid| *pid > 0)
    {
        own.push(parent);
    }
    all().into_iter().filter(|pid| !own.contains(pid)).collect()
}

/// The identity of a pid, if such a process runs (a zombie doesn't).
pub(crate) fn identify(pid: i32) -> Option<Identity> {
    Some(Identity {
        pid,
        started: started(pid)?,
    })
}

/// The words of a process's command line.
pub(crate) fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0);
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    checked(Command::new("tail").args(["-n", "15"]).arg(log)).unwrap_or_default()
}

/// The process of a pid file, running or not.
pub(crate) fn read(pid_file: &Path) -> Option<Identity> {
    let text = fs::read_to_string(pid_file).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some(Identity {
        pid: pid.parse().ok()?,
        started: started.parse().ok()?,
    })
}

fn all() -> Vec<i32> {
    let entries = fs::read_dir(PathBuf::from("/proc"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    fields(pid)?.get(1)?.parse().ok()
}

/// When a process started; nothing if there is none or it is a zombie.
fn started(pid: i32) -> Option<u64> {
    let fields = fields(pid)?;
    let state = fields.first()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Fields 3 (state) and on of `/proc/<pid>/stat`; field 2, the name, may hold blanks and brackets.
fn fields(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_not_among_the_others() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        assert!(identify(pid).unwrap().is_alive());
        assert!(!others().contains(&pid));
    }

    #[test]
    fn a_reused_pid_is_not_taken_for_the_old_process() {
        let now = identify(rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        let before = Identity {
            started: now.started - 1,
            ..now
        };
        assert!(!before.is_alive());
        // Would end this test if it went through.
        before.signal(Signal::KILL);
    }

    #[test]
    fn a_killed_child_that_nobody_has_waited_for_counts_as_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = identify(i32::try_from(child.id()).unwrap()).unwrap();
        identity.signal(Signal::KILL);
        poll("zombie", Duration::from_secs(5), || {
            Ok((!identity.is_alive()).then_some(()))
        })
        .unwrap();
        child.wait().unwrap();
    }
}
