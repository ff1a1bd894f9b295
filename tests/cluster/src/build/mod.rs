//! Everything a cluster needs on the machine: Debian packages and programs of our own.
//!
//! Programs are kept outside the tree, under a key of all that goes into them, so that every
//! checkout shares them and a second run takes milliseconds.

mod packages;
mod programs;

use std::path::PathBuf;

use anyhow::Result;

/// The programs that a cluster is made of.
#[derive(Debug, Clone)]
pub struct Components {
    /// etcd and all Kubernetes components; the first argument picks one.
    pub kubernetes: PathBuf,
    /// kubectl: a script that calls the above.
    pub kubectl: PathBuf,
    /// Helm 3.
    pub helm: PathBuf,
    /// CoreDNS.
    pub coredns: PathBuf,
    /// The first process of every pod, static.
    pub pause: PathBuf,
}

/// Makes sure that packages and programs are there. The first time this takes about 10 minutes.
///
/// # Errors
/// When something is missing that can't be installed or built; the error says what to install.
pub fn ensure() -> Result<Components> {
    packages::ensure()?;
    programs::ensure()
}
