//! What is known about each cluster: one JSON file in its folder, and locks.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::build::Kubernetes;
use crate::families::Families;
use crate::network::{Subnet, host_routes};
use crate::paths::{Paths, state_root};
use crate::process;
use crate::up::Options;

/// What a caller needs to use a running cluster.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterInfo {
    /// The cluster's name.
    pub name: String,
    /// A kubeconfig with full rights that works from the host's own network namespace.
    pub kubeconfig: PathBuf,
    /// How many nodes it has, up to 2; 0 is an API server alone.
    pub nodes: usize,
}

/// One cluster as [`status`] sees it.
#[derive(Debug, Clone)]
pub struct Status {
    /// Name, nodes and kubeconfig.
    pub info: ClusterInfo,
    /// Nothing if all is well, else what isn't.
    pub trouble: Option<String>,
}

/// The record of a cluster; written before anything is made, so that `down` finds everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) nodes: usize,
    #[serde(default)]
    pub(crate) kubernetes: Kubernetes,
    #[serde(default)]
    pub(crate) network_policies: bool,
    pub(crate) families: Families,
    pub(crate) subnet: Subnet,
}

/// Keeps other `up` and `down` runs away; released on drop.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

/// Lists the clusters of this machine's state folder, by name.
///
/// # Errors
/// When the folder can't be read.
pub fn status() -> Result<Vec<Status>> {
    let mut all = Vec::new();
    for paths in every(&state_root())? {
        if let Some(state) = State::load(&paths)? {
            let trouble = state.trouble(&paths);
            all.push(Status {
                info: state.info(&paths),
                trouble,
            });
        }
    }
    Ok(all)
}

/// Gives a cluster by name, whether it is healthy or not.
///
/// # Errors
/// When there is none of that name.
pub fn find(name: &str) -> Result<ClusterInfo> {
    let paths = Paths::try_new(name)?;
    let Some(state) = State::load(&paths)? else {
        bail!("no cluster {name:?} here: start it with lull-cluster up --name {name}");
    };
    Ok(state.info(&paths))
}

// === impl State ===

impl State {
    /// Reads a cluster's record; nothing if there is none.
    pub(crate) fn load(paths: &Paths) -> Result<Option<Self>> {
        let file = paths.file("cluster.json");
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(file.display().to_string()),
        };
        let state = serde_json::from_slice(&text)
            .with_context(|| format!("{} is broken: run lull-cluster down", file.display()))?;
        Ok(Some(state))
    }

    /// Picks a free subnet and writes the record, alone on the machine while it does.
    pub(crate) fn allocate(paths: &Paths, options: &Options) -> Result<Self> {
        let _lock = Lock::take(&paths.root, ".lock")?;
        let mut taken = host_routes()?;
        for other in every(&paths.root)? {
            taken.extend(
                Self::load(&other)
                    .ok()
                    .flatten()
                    .map(|state| state.subnet.prefix()),
            );
        }
        let state = Self {
            nodes: options.nodes,
            kubernetes: options.kubernetes,
            network_policies: options.network_policies,
            families: options.families,
            subnet: Subnet::pick(&taken)?,
        };
        for folder in ["logs", "pids", "certs"] {
            fs::create_dir_all(paths.file(folder))?;
        }
        fs::write(paths.file("cluster.json"), serde_json::to_vec(&state)?)?;
        Ok(state)
    }

    pub(crate) fn info(&self, paths: &Paths) -> ClusterInfo {
        let kubeconfig = paths.kubeconfig();
        ClusterInfo {
            name: paths.name.clone(),
            kubeconfig,
            nodes: self.nodes,
        }
    }

    pub(crate) fn api(&self, paths: &Paths) -> Api {
        Api::new(&self.subnet.node(0), paths)
    }

    /// Says what is wrong with a cluster that should be up; nothing if all is well.
    pub(crate) fn trouble(&self, paths: &Paths) -> Option<String> {
        for name in crate::services::names(self.nodes, self.network_policies) {
            if !process::is_running(&paths.pid(&name)) {
                return Some(format!("{name} is not running"));
            }
        }
        let api = self.api(paths);
        match api.unready_nodes(self.nodes) {
            Ok(unready) if unready.is_empty() => None,
            Ok(unready) => Some(format!("not ready: {}", unready.join(", "))),
            Err(error) => Some(format!("{error:#}")),
        }
    }
}

// === impl Lock ===

impl Lock {
    /// Waits for the lock file `name` in `root`.
    pub(crate) fn take(root: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(root)
            .with_context(|| format!("can't make {}: are you root?", root.display()))?;
        let path = root.join(name);
        loop {
            let file = File::create(&path).with_context(|| path.display().to_string())?;
            file.lock()?;
            // The holder before us may have deleted the file: then others lock another one.
            let same = fs::metadata(&path)
                .is_ok_and(|now| file.metadata().is_ok_and(|ours| ours.ino() == now.ino()));
            if same {
                return Ok(Self { path, _file: file });
            }
        }
    }

    /// The lock of one cluster's `up` and `down`.
    pub(crate) fn cluster(paths: &Paths) -> Result<Self> {
        Self::take(&paths.root, &format!(".{}.lock", paths.name))
    }

    /// Releases the lock and leaves no file.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| self.path.display().to_string())
    }
}

/// The paths of every folder in `root` that can be a cluster's, sorted.
fn every(root: &Path) -> Result<Vec<Paths>> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(root).with_context(|| root.display().to_string())? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names
        .iter()
        .filter_map(|name| Paths::under(root, name).ok())
        .collect())
}
