//! A certificate that somebody else keeps, such as cert-manager: two files of a mounted Secret.
//!
//! Kubelet replaces the folder's files together, but they are read one after the other: a look in that
//! very moment may find the old key beside the new chain. That is a fault like any other, and the next
//! look finds both. Who calls the webhook trusts it by a `caBundle` that somebody else keeps, too.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use lull_process::readiness::{Pending, Readiness};
use prometheus_client::metrics::gauge::Gauge;
use rustls::{
    crypto::ring::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Resolver;

/// The certificate and those between it and its authority, PEM.
const CHAIN: &str = "tls.crt";
/// Its key, PEM.
const KEY: &str = "tls.key";
/// The files are looked at this often: kubelet takes a minute or two to bring new ones anyway.
const LOOK: Duration = Duration::from_secs(10);

/// Serves what the files hold, and takes them in again when they change.
pub struct Mounted {
    folder: PathBuf,
    resolver: Arc<Resolver>,
    /// When the served certificate ends, seconds since 1970.
    end: Gauge,
    /// The chain that is served, as it was read: a new one comes with its key.
    served: Option<Vec<u8>>,
    no_certificate: Option<Pending>,
}

/// The files can't be served.
#[derive(Debug, thiserror::Error)]
enum MountError {
    #[error("{path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("tls.crt: {0}")]
    Chain(#[source] pem::Error),
    #[error("no certificate in tls.crt")]
    Empty,
    #[error("the first certificate in tls.crt is not an X.509 certificate")]
    X509,
    #[error("the certificate in tls.crt has ended at {0}")]
    Expired(Timestamp),
    #[error("tls.key: {0}")]
    Key(#[source] pem::Error),
    #[error("tls.crt with tls.key: {0}")]
    Pair(#[source] rustls::Error),
}

// === impl Mounted ===

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Mounted {
    /// Hands what is in `folder` to `resolver` and tells `end` when it ends; "certificate" is not
    /// ready yet.
    #[must_use]
    pub fn new(
        folder: &Path,
        (resolver, end): (Arc<Resolver>, Gauge),
        readiness: &Readiness,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            resolver,
            end,
            served: None,
            no_certificate: Some(readiness.expect("certificate")),
        }
    }

    /// Looks at the files until `stop` is cancelled; while they can't be served, the last ones are.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Both branches are cancel safe: a token and a timer.
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            if let Err(error) = self.look(Timestamp::now()) {
                let folder = self.folder.display();
                tracing::warn!(%error, %folder, "the mounted certificate can't be served");
            }
        }
    }

    /// Serves the files where they have changed. A Secret is mounted from memory: reading it waits
    /// for no disk.
    fn look(&mut self, now: Timestamp) -> Result<(), MountError> {
        let chain = self.read(CHAIN)?;
        if self.served.as_ref() == Some(&chain) {
            return Ok(());
        }
        let certificates = certificates(&chain)?;
        let end = end(&certificates, now)?;
        let key = PrivateKeyDer::from_pem_slice(&self.read(KEY)?).map_err(MountError::Key)?;
        let certified = CertifiedKey::from_der(certificates, key, &default_provider())
            .map_err(MountError::Pair)?;
        self.resolver.set(Arc::new(certified));
        self.end.set(end.as_second());
        self.served = Some(chain);
        self.no_certificate = None;
        tracing::info!(%end, "serving a new certificate");
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, MountError> {
        let path = self.folder.join(name);
        fs::read(&path).map_err(|source| MountError::Read {
            path: path.display().to_string(),
            source,
        })
    }
}

fn certificates(chain: &[u8]) -> Result<Vec<CertificateDer<'static>>, MountError> {
    CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(MountError::Chain)
}

/// When the first certificate ends, which is the webhook's own.
fn end(certificates: &[CertificateDer<'static>], now: Timestamp) -> Result<Timestamp, MountError> {
    let own = certificates.first().ok_or(MountError::Empty)?;
    let (_, parsed) = X509Certificate::from_der(own).map_err(|_| MountError::X509)?;
    let end = Timestamp::from_second(parsed.validity().not_after.timestamp())
        .map_err(|_| MountError::X509)?;
    if end <= now {
        return Err(MountError::Expired(end));
    }
    Ok(end)
}

#[cfg(test)]
mod tests;
