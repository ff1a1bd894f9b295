//! Everything a cluster needs on the machine: Debian packages and programs of our own.
//!
//! Programs are kept outside the tree, under a key of all that goes into them, so that every
//! checkout shares them and a second run takes milliseconds.

mod envoy;
mod packages;
mod programs;

pub use envoy::ensure as ensure_envoy;
pub(crate) use programs::ensure_network_policies;
pub use programs::{ensure_hey, istio_kinds};

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Which Kubernetes a cluster has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kubernetes {
    /// The newest that Lull is run on.
    #[default]
    Newest,
    /// The oldest that Lull supports; there is an API server of it, and nothing that needs nodes.
    Oldest,
}

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
    packages::ensure(&packages::CLUSTER)?;
    programs::ensure()
}

/// As [`ensure`], with etcd and the API server of that Kubernetes.
///
/// # Errors
/// As for [`ensure`].
pub(crate) fn ensure_for(kubernetes: Kubernetes) -> Result<Components> {
    let newest = ensure()?;
    Ok(match kubernetes {
        Kubernetes::Newest => newest,
        Kubernetes::Oldest => Components {
            kubernetes: programs::ensure_oldest()?,
            ..newest
        },
    })
}

/// What issues certificates on a cluster.
#[derive(Debug, Clone)]
pub struct CertManager {
    /// Its controller, CA injector and webhook; the argument that is no flag picks one.
    pub program: PathBuf,
    /// Its own chart.
    pub chart: PathBuf,
}

/// Makes sure that cert-manager is there. The first time this takes about 3 minutes.
///
/// # Errors
/// As for [`ensure`].
pub fn ensure_cert_manager() -> Result<CertManager> {
    programs::ensure_cert_manager()
}

/// Knative Serving, which Lull is measured beside.
#[derive(Debug, Clone)]
pub struct Knative {
    /// Its controller, activator, autoscaler, queue-proxy and webhook, each called `knative-` and that.
    pub programs: BTreeMap<&'static str, PathBuf>,
    /// Folder of its own manifests.
    pub manifests: PathBuf,
    /// Folder of those of its networking layer's kinds.
    pub networking_manifests: PathBuf,
    /// Folder of those of the kind that asks for images ahead of time.
    pub caching_manifests: PathBuf,
}

/// Makes sure that Knative Serving is there. The first time this takes about 6 minutes.
///
/// # Errors
/// As for [`ensure`].
pub fn ensure_knative() -> Result<Knative> {
    programs::ensure_knative()
}

/// What a mesh on a cluster is made of.
#[derive(Debug, Clone)]
pub(crate) struct MeshComponents {
    /// istiod.
    pub(crate) pilot_discovery: PathBuf,
    /// What starts Envoy and gets its certificates, in every pod.
    pub(crate) pilot_agent: PathBuf,
    /// Plain upstream Envoy.
    pub(crate) envoy: PathBuf,
    /// Source of Istio: its charts and Envoy's bootstrap.
    pub(crate) source: PathBuf,
}

/// Makes sure that Istio's programs are there. The first time this takes about 5 minutes.
///
/// # Errors
/// As for [`ensure`].
pub(crate) fn ensure_mesh() -> Result<MeshComponents> {
    let programs::Istio {
        pilot_discovery,
        pilot_agent,
        source,
    } = programs::ensure_istio()?;
    Ok(MeshComponents {
        pilot_discovery,
        pilot_agent,
        envoy: ensure_envoy()?,
        source,
    })
}
