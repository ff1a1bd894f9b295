//! The cgroups of a cluster: `/lull-<name>` in each hierarchy.
//!
//! ```text
//! lull-<name>/n<i>/kubepods/...   pods of node i (kubelet's `cgroupRoot`)
//! lull-<name>/system              kubelet, containerd, its shims, control plane; one hierarchy only
//! ```
//!
//! `system` exists to find every process again. On cgroup v1 it is made in `pids` (not in `memory`:
//! whoever started us may account or limit memory, and that stays as it is).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::exec::poll;
use crate::paths::Paths;

/// Hierarchies of cgroup v1 that can hold `system`, best first.
const TRACKING: [&str; 3] = ["pids", "freezer", "cpu"];

/// Mount points of the cgroup hierarchies.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchies {
    v1: Vec<PathBuf>,
    v2: Option<PathBuf>,
}

/// Makes the cgroups for `nodes` nodes and gives the one for processes outside of pods.
///
/// # Errors
/// When no hierarchy is mounted or one can't be written to.
pub(crate) fn create(paths: &Paths, nodes: usize) -> Result<PathBuf> {
    let found = Hierarchies::read()?;
    for root in found.for_pods() {
        let top = root.join(paths.cgroup());
        make(&top)?;
        for node in 0..nodes {
            make(&top.join(format!("n{node}")))?;
        }
    }
    let system = found.tracking()?.join(paths.cgroup()).join("system");
    make(&system)?;
    Ok(system)
}

/// Pids of all processes in the cluster's cgroups.
pub(crate) fn members(paths: &Paths) -> BTreeSet<i32> {
    let mut pids = BTreeSet::new();
    for folder in folders(paths) {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    pids
}

/// The cluster's cgroups in all hierarchies, parents first.
pub(crate) fn folders(paths: &Paths) -> Vec<PathBuf> {
    let Ok(found) = Hierarchies::read() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for root in found.v1.iter().chain(&found.v2) {
        let top = root.join(paths.cgroup());
        if top.is_dir() {
            walk(&top, &mut all);
        }
    }
    all
}

/// Removes the cluster's cgroups; their processes must be gone.
///
/// # Errors
/// When one can't be removed for 5 s: the kernel needs a moment after the last process.
pub(crate) fn remove(paths: &Paths) -> Result<()> {
    poll(
        "removal of the cluster's cgroups",
        Duration::from_secs(5),
        || {
            let all = folders(paths);
            for folder in all.iter().rev() {
                let _ = fs::remove_dir(folder);
            }
            Ok(folders(paths).is_empty().then_some(()))
        },
    )
}

fn walk(folder: &Path, all: &mut Vec<PathBuf>) {
    all.push(folder.to_owned());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), all);
        }
    }
}

/// Makes one cgroup. A new `cpuset` is empty and takes no process until it has processors.
fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (ours, parents) = (folder.join(file), folder.with_file_name(file));
        // cgroup v2 inherits what is left empty, and its root has no such file.
        if parents.exists() && fs::read_to_string(&ours).is_ok_and(|now| now.trim().is_empty()) {
            fs::write(&ours, fs::read(&parents)?).with_context(|| ours.display().to_string())?;
        }
    }
    Ok(())
}

// === impl Hierarchies ===

impl Hierarchies {
    fn read() -> Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self {
            v1: Vec::new(),
            v2: None,
        };
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4) else {
                continue;
            };
            match right.split(' ').next() {
                Some("cgroup") => found.v1.push(PathBuf::from(point)),
                Some("cgroup2") => found.v2 = Some(PathBuf::from(point)),
                _ => {}
            }
        }
        found
    }

    /// Where kubelet looks for its `cgroupRoot`: v2 only counts if there is no v1.
    fn for_pods(&self) -> Vec<PathBuf> {
        if self.v1.is_empty() {
            self.v2.iter().cloned().collect()
        } else {
            self.v1.clone()
        }
    }

    fn tracking(&self) -> Result<PathBuf> {
        let named = |name| self.v1.iter().find(|root| root.ends_with(name));
        let v1 = TRACKING.iter().find_map(named).or_else(|| self.v1.first());
        v1.or(self.v2.as_ref())
            .cloned()
            .context("no cgroups are mounted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw";

    #[test]
    fn a_hybrid_machine_counts_as_v1_and_is_tracked_in_pids() {
        let found = Hierarchies::parse(HYBRID);
        assert_eq!(found.for_pods().len(), 2);
        assert_eq!(found.tracking().unwrap(), Path::new("/sys/fs/cgroup/pids"));
    }

    #[test]
    fn a_v2_machine_has_one_hierarchy_for_everything() {
        let found = Hierarchies::parse("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        assert_eq!(found.for_pods(), [PathBuf::from("/sys/fs/cgroup")]);
        assert_eq!(found.tracking().unwrap(), Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_machine_without_cgroups_is_an_error() {
        assert!(Hierarchies::parse("").tracking().is_err());
    }
}
