//! Lull's admission server: validates the annotations of workloads, injects the queue-proxy, and keeps
//! Services in the state that their mode needs.
//!
//! ```text
//! API server --TLS--> serve -> admission -> inject, services (pure)
//!                       ^
//! Secret, configuration <-> certs::keeper (certificate, caBundle), or
//! mounted files -----------> certs::mounted (certificate)
//! ```

pub mod admission;
pub mod app;
pub mod certs;
pub mod config;
pub mod inject;
pub mod metrics;
pub mod serve;
pub mod services;
