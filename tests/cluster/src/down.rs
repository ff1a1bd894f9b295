//! Taking a cluster away, all of it, whatever state it is in.
//!
//! Nothing here asks the cluster: processes are found by pid file, cgroup, network namespace and
//! containerd socket, so it works after any crash and after half an `up`. Pods need no farewell;
//! what they mounted and their network namespaces belong to the node's private mount namespace.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::exec::{poll, run};
use crate::paths::Paths;
use crate::process::{self, Identity};
use crate::report::{note, step};
use crate::state::{Lock, State};
use crate::{cgroup, mounts, network};

/// Nodes that a cluster can have; `down` looks for all of them, whatever the record says.
const MAX_NODES: usize = 2;

/// Takes a cluster down and deletes everything of it. None of that name is fine too.
///
/// # Errors
/// When something can't be removed; a second run tries again.
pub fn down(name: &str) -> Result<()> {
    let paths = Paths::try_new(name)?;
    if !paths.root.exists() && leftovers(name)?.is_empty() {
        note(format_args!("No cluster {name:?} here."));
        return Ok(());
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can take a cluster down: sudo?"
    );
    let lock = Lock::cluster(&paths)?;
    if leftovers(name)?.is_empty() {
        note(format_args!("No cluster {name:?} here."));
    } else {
        let start = Instant::now();
        note(format_args!("Taking down cluster {name:?}:"));
        take_down(&paths)?;
        note(format_args!(
            "Down in {:.1} s.",
            start.elapsed().as_secs_f64()
        ));
    }
    lock.remove()
}

/// Lists what is there of a cluster: processes, cgroups, namespaces, mounts, files. Empty after
/// [`down`].
///
/// # Errors
/// When the name is no cluster name.
pub fn leftovers(name: &str) -> Result<Vec<String>> {
    let paths = Paths::try_new(name)?;
    let processes = processes(&paths).into_iter().map(|process| {
        format!(
            "process {} {}",
            process.pid,
            process::command_line(process.pid).join(" ")
        )
    });
    let cgroups = cgroup::folders(&paths)
        .into_iter()
        .map(|path| path.display().to_string());
    let netns = (0..MAX_NODES)
        .map(|node| paths.netns_file(node))
        .filter(|path| path.exists());
    let netns = netns.map(|path| path.display().to_string());
    let mounts = mounts::under(&paths.dir())
        .into_iter()
        .map(|path| path.display().to_string());
    let state = paths.dir();
    let state = state.exists().then(|| state.display().to_string());
    Ok(processes
        .chain(cgroups)
        .chain(netns)
        .chain(mounts)
        .chain(state)
        .collect())
}

/// As [`down`], for a caller that holds the cluster's lock.
pub(crate) fn take_down(paths: &Paths) -> Result<()> {
    step("processes", || stop_processes(paths))?;
    step("mounts, cgroups", || {
        mounts::unmount_under(&paths.dir())?;
        cgroup::remove(paths)
    })?;
    step("network", || delete_network(paths))?;
    step("files", || {
        let folder = paths.dir();
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        mounts::remove_mount_points();
        Ok(())
    })
}

/// Kills everything, pods included, until nothing is left. No farewell: what the processes would
/// tidy up is deleted next anyway, and etcd and the API server, asked to end, wait 5 s and more for
/// each other's connections.
fn stop_processes(paths: &Paths) -> Result<()> {
    poll(
        "end of the cluster's processes",
        Duration::from_secs(20),
        || {
            let left = processes(paths);
            left.iter().for_each(|process| process.signal(Signal::KILL));
            Ok(left.is_empty().then_some(()))
        },
    )
}

/// Every process that is part of the cluster or sits in its network.
fn processes(paths: &Paths) -> Vec<Identity> {
    let mut pids = cgroup::members(paths);
    pids.extend(
        process::recorded(paths)
            .into_iter()
            .filter(|p| p.is_alive())
            .map(|p| p.pid),
    );
    pids.extend(shims(paths));
    for node in 0..MAX_NODES {
        let ns = paths.netns(node);
        let listed = if paths.netns_file(node).exists() {
            run("ip", &format!("netns pids {ns}")).unwrap_or_default()
        } else {
            String::new()
        };
        pids.extend(
            listed
                .lines()
                .filter_map(|pid| pid.trim().parse::<i32>().ok()),
        );
    }
    // Not ourselves: `down` may run inside `lull-cluster exec`.
    let others: BTreeSet<_> = process::others().into_iter().collect();
    pids.intersection(&others)
        .filter_map(|pid| process::identify(*pid))
        .collect()
}

/// containerd's shims outlive it; each names its containerd's socket.
fn shims(paths: &Paths) -> Vec<i32> {
    let sockets: Vec<_> = (0..MAX_NODES)
        .map(|node| paths.socket(node).display().to_string())
        .collect();
    let is_ours = |pid: &i32| {
        let words = process::command_line(*pid);
        words
            .iter()
            .zip(words.iter().skip(1))
            .any(|(flag, value)| flag == "-address" && sockets.contains(value))
    };
    process::others().into_iter().filter(is_ours).collect()
}

fn delete_network(paths: &Paths) -> Result<()> {
    // Without a record (or with a broken one) the link goes with its other end, a little later.
    if let Ok(Some(state)) = State::load(paths) {
        network::delete_host_link(&state.subnet)?;
    }
    for node in 0..MAX_NODES {
        if paths.netns_file(node).exists() {
            run("ip", &format!("netns del {}", paths.netns(node)))?;
        }
    }
    Ok(())
}
