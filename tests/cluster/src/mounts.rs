//! A private mount namespace per node, and mounts left on the host.
//!
//! kubelet and containerd insist on some fixed paths (`/var/lib/kubelet/device-plugins`,
//! `/run/netns`, `/run/containerd`, `/var/lib/cni`, `/var/log`). In the node's own namespace the
//! state folder is mounted over them, so nodes and clusters don't meet, and all that the node mounts
//! is gone with its last process. The cluster's own DNS server is the node's: a missing image is then
//! a prompt "no such host" and not a wait for a server that can't be reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::exec::{checked, poll};
use crate::paths::Paths;
use crate::process::{self, Service};
use crate::services::holder_name;

/// Makes the namespace ready, says so with a file and then only keeps it alive. Shared propagation,
/// so that pods can ask for it as on any other node; it ends at this namespace.
const HOLDER: &str = r#"set -e
mount --make-rshared /
mount -t tmpfs -o mode=0755 tmpfs /run/netns
mount -t tmpfs -o mode=0711 tmpfs /run/containerd
mount --bind "$0/kubelet" /var/lib/kubelet
mount --bind "$0/cni-cache" /var/lib/cni
mount --bind "$0/log" /var/log
[ ! -e /etc/resolv.conf ] || mount --bind "$0/resolv.conf" /etc/resolv.conf
: > "$0/mounts-ready"
exec sleep infinity"#;

/// Mount points that must exist on the host; empty folders there are enough.
const MOUNT_POINTS: [&str; 4] = [
    "/run/netns",
    "/run/containerd",
    "/var/lib/kubelet",
    "/var/lib/cni",
];

/// Starts the process that holds a node's mount namespace and waits until it is set up.
///
/// # Errors
/// When a mount fails; the error has the reason from the holder's log.
pub(crate) fn hold(paths: &Paths, node: usize, cgroup: &Path, dns: &str) -> Result<()> {
    let folder = paths.node(node);
    for inner in ["kubelet", "cni-cache", "log", "cni"] {
        fs::create_dir_all(folder.join(inner))?;
    }
    fs::write(folder.join("resolv.conf"), format!("nameserver {dns}\n"))?;
    for point in MOUNT_POINTS {
        fs::create_dir_all(point).with_context(|| format!("can't make {point}"))?;
    }
    let words = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        HOLDER,
    ];
    let mut command: Vec<_> = words.map(str::to_owned).into();
    command.push(folder.display().to_string());
    let name = holder_name(node);
    let service = Service {
        name: name.clone(),
        node,
        mounts: false,
        command,
    };
    service.start_outside(paths, cgroup)?;
    poll(&name, Duration::from_secs(5), || {
        process::check_running(paths, &name)?;
        Ok(folder.join("mounts-ready").exists().then_some(()))
    })
}

/// Mount points under `folder` on the host, deepest first.
pub(crate) fn under(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<_> = mount_points(&table)
        .filter(|p| p.starts_with(folder))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// Unmounts everything under `folder` on the host. Normally there is nothing.
///
/// # Errors
/// When something can't even be detached.
pub(crate) fn unmount_under(folder: &Path) -> Result<()> {
    for point in under(folder) {
        if checked(Command::new("umount").arg(&point)).is_err() {
            checked(Command::new("umount").arg("--lazy").arg(&point))?;
        }
    }
    Ok(())
}

/// Removes the empty mount points that [`hold`] may have made. One that any namespace still uses
/// stays: removing the folder would detach the mount there.
pub(crate) fn remove_mount_points() {
    let used = everywhere();
    for point in MOUNT_POINTS.iter().skip(1).map(Path::new) {
        if !used.iter().any(|other| other == point) {
            let _ = fs::remove_dir(point);
        }
    }
}

fn everywhere() -> Vec<PathBuf> {
    let mut points = Vec::new();
    for pid in process::others() {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        points.extend(mount_points(&table));
    }
    points
}

fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_and_proc_are_found_and_deeper_ones_come_first() {
        let points = under(Path::new("/"));
        let at = |path: &str| {
            points
                .iter()
                .position(|point| point == Path::new(path))
                .unwrap()
        };
        assert!(at("/proc") < at("/"));
    }

    #[test]
    fn nothing_is_mounted_under_a_folder_that_is_not_there() {
        assert!(under(Path::new("/no/such/folder")).is_empty());
    }
}
