//! Lull's admission server: validates the annotations of Deployments and injects the queue-proxy.
//!
//! ```text
//! API server --TLS--> serve -> admission -> inject (pure)
//!                       ^
//! Secret, configuration <-> certs::keeper (certificate, caBundle)
//! ```

pub mod admission;
pub mod app;
pub mod certs;
pub mod config;
pub mod inject;
pub mod metrics;
pub mod serve;
