//! Where traces go.

use std::{fmt, str::FromStr};

use http::{Uri, uri::Scheme};
use serde::{Serialize, Serializer};

/// Address of an OpenTelemetry collector that takes OTLP over HTTP, without the path `/v1/traces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

/// The text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} {allowed}", allowed = Endpoint::ALLOWED)]
pub struct EndpointError(String);

// === impl Endpoint ===

impl Endpoint {
    /// What it may be, as the end of a sentence.
    pub const ALLOWED: &'static str =
        "must be a collector's OTLP/HTTP address such as http://otel-collector:4318";

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// TLS to a collector is a mesh's or an agent's business: traces hold no secrets.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let is_address = text.parse().is_ok_and(|address: Uri| {
            address.scheme() == Some(&Scheme::HTTP) && address.host().is_some()
        });
        match is_address {
            true => Ok(Self(text.to_owned())),
            false => Err(EndpointError(text.to_owned())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_http_address() {
        for right in ["http://10.0.0.7:4318", "http://otel-collector.ns:4318/base"] {
            assert_eq!(right.parse::<Endpoint>().unwrap().as_str(), right);
        }
        for wrong in [
            "",
            "collector",
            "collector:4318",
            "https://collector",
            "http://",
        ] {
            let error = wrong.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(Endpoint::ALLOWED), "{wrong}: {error}");
        }
    }
}
