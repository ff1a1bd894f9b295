//! Where things live: the build cache, shared by all checkouts, and one state folder per cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Kernel limit for the path of a Unix socket, less the `.ttrpc` that containerd appends.
const SOCKET_PATH_MAX: usize = 100;

/// The folder that keeps built programs: `$LULL_CACHE`, `$XDG_CACHE_HOME/lull` or `~/.cache/lull`.
pub(crate) fn cache_root() -> Result<PathBuf> {
    if let Some(path) = set("LULL_CACHE") {
        return Ok(path);
    }
    if let Some(path) = set("XDG_CACHE_HOME") {
        return Ok(path.join("lull"));
    }
    let home = set("HOME").context("no folder for the cache: set LULL_CACHE or HOME")?;
    Ok(home.join(".cache/lull"))
}

/// The folder that holds the state folders: `$LULL_CLUSTER_STATE` or `/var/lib/lull-clusters`.
pub(crate) fn state_root() -> PathBuf {
    set("LULL_CLUSTER_STATE").unwrap_or_else(|| PathBuf::from("/var/lib/lull-clusters"))
}

/// A folder from the environment, made absolute: the cluster's processes run in other folders.
fn set(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    std::path::absolute(value).ok()
}

/// The names and files of one cluster. Making one touches nothing.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
}

// === impl Paths ===

impl Paths {
    /// Checks the name and gives its paths.
    ///
    /// # Errors
    /// When the name can't be part of a network namespace's, a cgroup's and a folder's name.
    pub(crate) fn try_new(name: &str) -> Result<Self> {
        Self::under(&state_root(), name)
    }

    pub(crate) fn under(root: &Path, name: &str) -> Result<Self> {
        let fits = name.len() <= 24
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        ensure!(
            fits,
            "{name:?} is no cluster name: use up to 24 of a-z 0-9 -, a letter first"
        );
        // `x-n1` would be the namespace of node 1 of cluster `x`.
        ensure!(
            !is_node_suffix(name.rsplit('-').next().unwrap_or_default()) || !name.contains('-'),
            "{name:?} is no cluster name: it ends like a node's namespace"
        );
        let paths = Self {
            name: name.to_owned(),
            root: root.to_owned(),
        };
        let socket = paths.socket(0);
        ensure!(
            socket.as_os_str().len() <= SOCKET_PATH_MAX,
            "{} is too long for a Unix socket: set LULL_CLUSTER_STATE to a shorter folder",
            socket.display()
        );
        Ok(paths)
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{process}.log"))
    }

    pub(crate) fn pid(&self, process: &str) -> PathBuf {
        self.dir().join("pids").join(process)
    }

    pub(crate) fn node(&self, node: usize) -> PathBuf {
        self.dir().join(format!("n{node}"))
    }

    /// containerd's socket on a node.
    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.node(node).join("containerd.sock")
    }

    pub(crate) fn netns(&self, node: usize) -> String {
        match node {
            0 => format!("lull-{}", self.name),
            _ => format!("lull-{}-n{node}", self.name),
        }
    }

    pub(crate) fn netns_file(&self, node: usize) -> PathBuf {
        Path::new("/run/netns").join(self.netns(node))
    }

    /// The cgroup, below each hierarchy's root, that holds all of the cluster.
    pub(crate) fn cgroup(&self) -> String {
        format!("lull-{}", self.name)
    }
}

fn is_node_suffix(word: &str) -> bool {
    word.strip_prefix('n')
        .is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(name: &str) -> Result<Paths> {
        Paths::under(Path::new("/var/lib/lull-clusters"), name)
    }

    #[test]
    fn plain_names_are_accepted() {
        for name in ["lull", "e2e-1", "lifecycle-4194304", "n1"] {
            paths(name).unwrap();
        }
    }

    #[test]
    fn names_that_break_a_path_or_clash_with_a_node_are_refused() {
        for name in [
            "",
            "../x",
            "A",
            "1a",
            "x-n1",
            "a b",
            "a-very-long-name-for-a-cluster",
        ] {
            assert!(paths(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_state_folder_too_deep_for_sockets_is_refused() {
        let deep = PathBuf::from("/").join("x".repeat(90));
        let error = Paths::under(&deep, "lull").unwrap_err();
        assert!(error.to_string().contains("LULL_CLUSTER_STATE"), "{error}");
    }
}
