//! The webhook's certificates: one authority for all replicas, a leaf in each one's memory.
//!
//! ```text
//! Secret (ca.crt, ca.key) --> Authority --mint--> Leaf --> Resolver (served)
//!                                 '--bundle--> caBundle of every webhook in the configuration
//! ```
//! This module is pure but for randomness; [`keeper`] does the I/O. Where somebody else keeps the
//! certificate (cert-manager), [`mounted`] serves it in its place.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

pub mod keeper;
pub mod mounted;
mod resolver;

pub use resolver::{Resolver, server_config};

/// Life of the authority: 10 years, so that it practically changes by hand only.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3652);
/// The authority is renewed this long before its end: longer than any leaf of it lives.
const AUTHORITY_MARGIN: SignedDuration = SignedDuration::from_hours(24 * 90);
/// Life of a leaf.
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 30);
/// A leaf is renewed at two thirds of its life.
const LEAF_RENEWAL: SignedDuration = SignedDuration::from_hours(24 * 20);
/// Certificates begin this long ago: the API server's clock may be behind ours.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);
/// Last line of a certificate.
const PEM_END: &str = "-----END CERTIFICATE-----";

/// The authority: its key, and the certificates that callers shall trust.
#[derive(Debug)]
pub struct Authority {
    key: KeyPair,
    /// The certificate of `key` first, then older ones whose leaves may still be served.
    trusted: Vec<CertificateDer<'static>>,
    bundle: String,
    not_after: Timestamp,
}

/// A certificate that is served.
#[derive(Debug)]
pub struct Leaf {
    /// Chain and key.
    pub certified: Arc<CertifiedKey>,
    issuer: CertificateDer<'static>,
    renew_at: Timestamp,
    not_after: Timestamp,
}

/// Certificates could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The PEM text can't be read.
    #[error("not PEM certificates: {0}")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// No certificate in the text.
    #[error("no certificate in ca.crt")]
    Empty,
    /// A certificate can't be read.
    #[error("not an X.509 certificate")]
    X509,
    /// Certificate and key belong to different authorities.
    #[error("ca.key is not the key of the first certificate in ca.crt")]
    KeyMismatch,
    /// The authority's time is over.
    #[error("the authority's certificate has expired")]
    Expired,
    /// Making or signing failed, or the key can't be read.
    #[error("certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// The TLS library doesn't take the key.
    #[error("key: {0}")]
    Rustls(#[from] rustls::Error),
    /// A date outside of the calendar.
    #[error("date: {0}")]
    Date(#[from] jiff::Error),
}

// === impl Authority ===

impl Authority {
    /// A new authority; the certificates in `older`, PEM, go on being trusted.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn generate(now: Timestamp, older: &str) -> Result<Self, CertError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(now, AUTHORITY_LIFE, "lull-webhook-ca")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let bundle = certificate.pem() + older;
        Self::parse(&bundle, &key.serialize_pem(), now)
    }

    /// The authority in a Secret's `ca.crt` and `ca.key`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bundle: &str, key: &str, now: Timestamp) -> Result<Self, CertError> {
        let key = KeyPair::from_pem(key)?;
        let trusted = CertificateDer::pem_slice_iter(bundle.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(CertError::Pem)?;
        let first = trusted.first().ok_or(CertError::Empty)?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|_| CertError::X509)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CertError::KeyMismatch);
        }
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())?;
        if not_after <= now {
            return Err(CertError::Expired);
        }
        Ok(Self {
            key,
            trusted,
            bundle: bundle.to_owned(),
            not_after,
        })
    }

    /// Whether it is time for [`Self::renewed`].
    #[must_use]
    pub fn needs_renewal(&self, now: Timestamp) -> bool {
        self.not_after.duration_since(now) < AUTHORITY_MARGIN
    }

    /// A new authority beside which this one is still trusted.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn renewed(&self, now: Timestamp) -> Result<Self, CertError> {
        // Those before this one have no leaves any more: it was renewed long before its end.
        let current = self.bundle.split_inclusive(PEM_END).next();
        Self::generate(now, &format!("{}\n", current.unwrap_or_default()))
    }

    /// Every trusted certificate as PEM: `ca.crt` in the Secret, `caBundle` of the webhooks.
    #[must_use]
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// The key as PEM: `ca.key` in the Secret.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A leaf for `names`.
    ///
    /// # Errors
    /// Where no key can be made or a name is no DNS name.
    pub fn mint(&self, names: &[String], now: Timestamp) -> Result<Leaf, CertError> {
        let issuer_der = self.trusted.first().ok_or(CertError::Empty)?;
        let issuer = Issuer::from_ca_cert_der(issuer_der, &self.key)?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(now, LEAF_LIFE, "lull-webhook")?;
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![certificate.der().clone()];
        Ok(Leaf {
            certified: Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&private)?)),
            issuer: issuer_der.clone(),
            renew_at: now.checked_add(LEAF_RENEWAL)?,
            not_after: now.checked_add(LEAF_LIFE)?,
        })
    }

    /// Whether callers that trust this authority's bundle take `leaf`, and it is young enough.
    #[must_use]
    pub fn vouches_for(&self, leaf: &Leaf, now: Timestamp) -> bool {
        self.trusted.contains(&leaf.issuer) && now < leaf.renew_at
    }
}

/// DNS names by which the API server may call the Service.
#[must_use]
pub fn service_names(service: &str, namespace: &str) -> Vec<String> {
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
    ]
}

fn params(
    now: Timestamp,
    life: SignedDuration,
    name: &str,
) -> Result<CertificateParams, CertError> {
    // rcgen's dates are of the `time` crate, which is not ours: counted from the epoch.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| epoch + time.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(now.checked_sub(BACKDATE)?);
    params.not_after = at(now.checked_add(life)?);
    Ok(params)
}

#[cfg(test)]
mod tests;
