//! The certificate that is served right now.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Holds the served certificate; connections that are open keep the one they began with.
#[derive(Debug, Default)]
pub struct Resolver(ArcSwapOption<CertifiedKey>);

/// TLS settings of the admission server, with certificates from `resolver`.
///
/// # Errors
/// Where the TLS library doesn't support its own defaults.
pub fn server_config(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

// === impl Resolver ===

impl Resolver {
    /// Serves `certified` from now on.
    pub fn set(&self, certified: Arc<CertifiedKey>) {
        self.0.store(Some(certified));
    }
}

impl ResolvesServerCert for Resolver {
    /// The same for every name: the webhook has one Service, and probes send none.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

#[cfg(test)]
impl Resolver {
    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        self.0.load_full().expect("a certificate is served")
    }
}
