//! What others may ask: admin pages, the autoscaler's report, Prometheus' text. Read-only, but for
//! the note of `/stopping`, which at most prolongs a wait.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use lull_contract::report::{QueueProxyReport, VERSION};
use lull_process::server::{self, Answer};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::{bypass, loopback, probe::AppState, request::Gateway};

/// How long `/ready` waits for an app that is not up: a little more than until the next try, so
/// that who asks learns it at once.
const NEXT_TRY: Duration = Duration::from_millis(15);

/// Everything that the pages show.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) app: watch::Receiver<AppState>,
    pub(crate) registry: Registry,
    pub(crate) boot: u64,
}

// === impl Pages ===

impl Pages {
    /// Admin port.
    pub(crate) async fn admin(&self, method: &Method, path: &str) -> Answer {
        if let Some(refused) = read_only(method) {
            return refused;
        }
        match path {
            "/live" => server::text(StatusCode::OK, "live\n"),
            "/ready" => self.ready().await,
            "/config" => server::json(&*self.gateway.config),
            "/wait-for-drain" => self.wait_for_drain().await,
            "/stopping" => {
                self.gateway.drain.announce();
                server::text(StatusCode::OK, "noted\n")
            }
            _ => not_found("/ready, /live, /config, /wait-for-drain and /stopping"),
        }
    }

    /// Report port.
    pub(crate) async fn report(&self, method: &Method, path: &str) -> Answer {
        match (read_only(method), path) {
            (Some(refused), _) => refused,
            (None, "/report") => server::json(&self.queue_proxy_report().await),
            (None, _) => not_found("/report"),
        }
    }

    /// Metrics port.
    pub(crate) fn metrics(&self, method: &Method, path: &str) -> Answer {
        match (read_only(method), path) {
            (Some(refused), _) => refused,
            (None, "/metrics") => self.prometheus(),
            (None, _) => not_found("/metrics"),
        }
    }

    async fn ready(&self) -> Answer {
        if self.gateway.drain.has_begun() {
            return server::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        let mut app = self.app.clone();
        // Its result is in the state; an error says that the prober is gone with the process.
        let _ = tokio::time::timeout(NEXT_TRY, app.wait_for(|state| *state == AppState::Up)).await;
        let state = app.borrow().clone();
        match state {
            AppState::Up => server::text(StatusCode::OK, "ready\n"),
            AppState::Down(why) => {
                let body = format!("the app is not ready: {why}\n");
                server::text(StatusCode::SERVICE_UNAVAILABLE, body)
            }
        }
    }

    /// Only waits. Where no drain begins soon, the app alone is restarted and must not be kept
    /// waiting.
    async fn wait_for_drain(&self) -> Answer {
        let drain = &self.gateway.drain;
        if !drain.begins(self.gateway.config.unclaimed_wait.0).await {
            return server::text(StatusCode::OK, "no drain has begun\n");
        }
        drain.done().await;
        server::text(StatusCode::OK, "drained\n")
    }

    async fn queue_proxy_report(&self) -> QueueProxyReport {
        let gateway = &self.gateway;
        // First: it may take a moment, and the rest is to be of one.
        let bypass = bypass::count(&gateway.config).await;
        let app_ready = *self.app.borrow() == AppState::Up;
        let loopback_only = if app_ready {
            Vec::new()
        } else {
            loopback::only(&gateway.config)
        };
        let (load, now_us) = gateway.traffic.load();
        QueueProxyReport {
            v: VERSION,
            pod: gateway.config.pod_name.clone(),
            boot: self.boot,
            now_us,
            load,
            queued: gateway.limiter.queued() as u64,
            limit: gateway.config.container_concurrency,
            app_ready,
            draining: gateway.drain.has_begun(),
            bypass,
            lately: gateway.callers.told(|at| gateway.traffic.micros(at)),
            loopback_only,
        }
    }

    fn prometheus(&self) -> Answer {
        let metrics = &self.gateway.metrics;
        metrics
            .in_flight
            .set(self.gateway.traffic.load().0.in_flight);
        metrics.queued.set(self.gateway.limiter.queued() as u64);
        metrics
            .app_up
            .set(u64::from(*self.app.borrow() == AppState::Up));
        server::metrics(&self.registry)
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
