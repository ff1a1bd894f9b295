//! The load client: runs loads and single probes on request.
//!
//! `POST /runs` starts a load, `GET /runs/<id>` says how it goes, `DELETE /runs/<id>` stops it,
//! `POST /probe` sends one request and answers with what came back, `GET /now` gives the clock.
//! [`get()`] sends one request without any of this.

mod client;
mod get;
mod probe;
mod run;
#[cfg(test)]
mod tests;
mod totals;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use lull_process::server::{self, Answer, json, text};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::wire::{Now, ProbeSpec, RunId, RunSpec};
pub use get::{GetArgs, get};
use run::Run;

/// Largest request body, bytes.
const MAX_BODY: usize = 256 << 10;
/// Runs remembered; starting one more forgets the oldest that is done.
const MAX_RUNS: usize = 256;

/// How the load client runs.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// Port of its HTTP interface.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
}

/// The runs of one agent.
#[derive(Debug, Default)]
pub struct Agent {
    runs: Mutex<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    last_id: u64,
    by_id: BTreeMap<u64, Arc<Run>>,
}

/// Runs the load client until `stop`.
///
/// # Errors
/// Where its port can't be opened.
pub async fn run(args: &AgentArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = server::bind(args.port).await;
    let listener = listener.with_context(|| format!("listen on port {}", args.port))?;
    Agent::default().serve(listener, stop).await;
    Ok(())
}

// === impl Agent ===

impl Agent {
    /// Answers on `listener` until `stop`.
    pub async fn serve(self, listener: tokio::net::TcpListener, stop: CancellationToken) {
        let agent = Arc::new(self);
        server::serve(listener, stop, move |request| {
            Arc::clone(&agent).answer(request)
        })
        .await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        match (request.method().clone(), path.as_str()) {
            (_, "/healthz") => text(StatusCode::OK, "ok\n"),
            (Method::GET, "/now") => json(&Now {
                unix_us: crate::unix_us(),
            }),
            (Method::POST, "/probe") => match body::<ProbeSpec>(request).await {
                Ok(spec) => json(&Box::pin(probe::probe(&spec)).await),
                Err(refusal) => refusal,
            },
            (Method::POST, "/runs") => match body::<RunSpec>(request).await {
                Ok(spec) => self.start(spec),
                Err(refusal) => refusal,
            },
            (method, _) => match path.strip_prefix("/runs/").and_then(|id| id.parse().ok()) {
                Some(id) => self.look(&method, id),
                None => text(StatusCode::NOT_FOUND, "no such page\n"),
            },
        }
    }

    fn start(&self, spec: RunSpec) -> Answer {
        if let Err(wrong) = spec.check() {
            return text(StatusCode::BAD_REQUEST, wrong);
        }
        let mut runs = self.runs.lock();
        if runs.by_id.len() >= MAX_RUNS {
            let oldest = runs
                .by_id
                .iter()
                .find(|(_, run)| run.is_done())
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else {
                return text(StatusCode::TOO_MANY_REQUESTS, "too many runs at once\n");
            };
            runs.by_id.remove(&oldest);
        }
        runs.last_id += 1;
        let id = runs.last_id;
        runs.by_id.insert(id, Run::start(spec));
        json(&RunId { id })
    }

    fn look(&self, method: &Method, id: u64) -> Answer {
        let Some(run) = self.runs.lock().by_id.get(&id).cloned() else {
            return text(StatusCode::NOT_FOUND, format!("no run {id}\n"));
        };
        match *method {
            Method::GET => json(&run.result()),
            Method::DELETE => {
                run.stop();
                json(&run.result())
            }
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "GET or DELETE\n"),
        }
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Answer> {
    let refuse = |error: String| text(StatusCode::BAD_REQUEST, error);
    let limited = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let bytes: Bytes = limited
        .map_err(|error| refuse(error.to_string()))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))
}
