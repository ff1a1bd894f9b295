//! Pages for kubelet, people and Prometheus. Read-only.

use std::sync::Arc;

use http::{Method, StatusCode};
use lull_process::{
    readiness::Readiness,
    server::{self, Answer},
};
use prometheus_client::registry::Registry;

use crate::{directory::Directory, hub::Hub};

/// Everything that the pages show.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) hub: Arc<Hub>,
    pub(crate) directory: Directory,
    pub(crate) readiness: Readiness,
    pub(crate) registry: Registry,
}

// === impl Pages ===

impl Pages {
    /// Admin port.
    pub(crate) fn admin(&self, method: &Method, path: &str) -> Answer {
        if let Some(refused) = read_only(method) {
            return refused;
        }
        match path {
            "/live" => server::text(StatusCode::OK, "live\n"),
            "/ready" => self.ready(),
            "/workloads" => server::json(&self.directory.pages()),
            "/config" => server::json(&self.hub.config),
            _ => not_found("/live, /ready, /workloads and /config"),
        }
    }

    /// Metrics port.
    pub(crate) fn metrics(&self, method: &Method, path: &str) -> Answer {
        match (read_only(method), path) {
            (Some(refused), _) => refused,
            (None, "/metrics") => {
                let held = self.hub.budget.held();
                self.hub.metrics.held.set(held.count as u64);
                self.hub.metrics.held_bytes.set(held.bytes as u64);
                server::metrics(&self.registry)
            }
            (None, _) => not_found("/metrics"),
        }
    }

    fn ready(&self) -> Answer {
        if self.hub.is_draining() {
            return server::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        let missing = self.readiness.missing();
        if missing.is_empty() {
            return server::text(StatusCode::OK, "ready\n");
        }
        let text = format!("not ready: {}\n", missing.join(", "));
        server::text(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

fn read_only(method: &Method) -> Option<Answer> {
    let reads = method == Method::GET || method == Method::HEAD;
    (!reads).then(|| {
        server::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "this port only answers GET\n",
        )
    })
}

fn not_found(pages: &str) -> Answer {
    server::text(StatusCode::NOT_FOUND, format!("here are {pages}\n"))
}
