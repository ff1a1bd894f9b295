//! Admin pages: `/live`, `/ready`, `/workloads`, `/config`.

use std::sync::Arc;

use http::{Request, StatusCode};
use lull_process::{
    readiness::Readiness,
    server::{Answer, json, text},
};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, directory::Directory};

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Effective settings.
    pub config: Arc<Config>,
    /// What is known.
    pub directory: Arc<Directory>,
    /// What is missing.
    pub readiness: Readiness,
    /// Cancelled when the process goes.
    pub draining: CancellationToken,
}

/// One workload for people.
#[derive(Debug, serde::Serialize)]
struct Line {
    namespace: String,
    name: String,
    held: u64,
    forwarding: u64,
    pods: usize,
    usable_pods: usize,
    ports: Vec<u16>,
}

// === impl Admin ===

impl Admin {
    /// Answers one request.
    pub async fn answer<B>(self, request: Request<B>) -> Answer {
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "ok\n"),
            "/ready" => self.ready(),
            "/workloads" => json(&self.workloads()),
            "/config" => json(&*self.config),
            _ => text(
                StatusCode::NOT_FOUND,
                "pages: /live /ready /workloads /config\n",
            ),
        }
    }

    fn ready(&self) -> Answer {
        let missing = self.readiness.missing();
        if self.draining.is_cancelled() {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        } else if missing.is_empty() {
            text(StatusCode::OK, "ok\n")
        } else {
            let waiting = format!("waiting for {}\n", missing.join(", "));
            text(StatusCode::SERVICE_UNAVAILABLE, waiting)
        }
    }

    fn workloads(&self) -> Vec<Line> {
        let line = |(workload, ports): (Arc<crate::workload::Workload>, Vec<u16>)| {
            let (held, forwarding, pods, usable_pods) = workload.counts();
            Line {
                namespace: workload.namespace.clone(),
                name: workload.name.clone(),
                held: held.in_flight,
                forwarding,
                pods,
                usable_pods,
                ports,
            }
        };
        self.directory.workloads().into_iter().map(line).collect()
    }
}
