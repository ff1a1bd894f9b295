//! The process: servers, the keeper of certificates, and an orderly end.

use std::{io, sync::Arc, time::Duration};

use axum::http::StatusCode;
use kube::Client;
use lull_cluster_settings::{Settings, Watcher};
use lull_process::{
    readiness::Readiness,
    server::{self, Answer},
};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    admission,
    certs::{Resolver, keeper::Keeper, mounted::Mounted, server_config},
    config::Args,
    metrics::Metrics,
    serve,
};

/// How long we go on serving after we have said that we are not ready: endpoints take that long
/// to leave the API server's view.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// The process can't start or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A port can't be opened.
    #[error("can't listen on port {port}: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A task that must not end did.
    #[error("the task {0} has ended")]
    Ended(&'static str),
}

/// Runs the webhook until `stop` is cancelled and everything in flight is answered.
///
/// # Errors
/// Ports that can't be opened, and the end of a vital task.
pub async fn run(args: &Args, client: &Client, stop: CancellationToken) -> Result<(), AppError> {
    let readiness = Readiness::default();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let resolver = Arc::new(Resolver::default());
    let served = (Arc::clone(&resolver), metrics.certificate_end.clone());
    let (namespace, rejected) = (args.namespace.as_str(), metrics.settings_rejected.clone());
    let (watcher, settings) =
        Watcher::new(client, (namespace, &args.settings), &readiness, rejected);

    let admission = listen(args.port).await?;
    let (end, lame_duck) = (CancellationToken::new(), stop.clone());
    let certificates = spawn_certificates(args, client, served, (&readiness, &end));
    let mut tasks = [
        (
            "metrics",
            spawn_metrics(args.metrics_port, registry, &end).await?,
        ),
        (
            "admin",
            spawn_admin(args, &settings, &readiness, &end).await?,
        ),
        ("settings", tokio::spawn(watcher.run(end.clone()))),
        ("certificates", certificates),
        (
            "admission",
            tokio::spawn(serve::serve(
                admission,
                server_config(resolver)?,
                admission::router(args.sidecar(), args.targets.0.clone(), settings, metrics),
                end.clone(),
            )),
        ),
    ];
    tracing::info!(?args, "webhook is up");

    tokio::select! {
        () = lame_duck.cancelled() => {}
        ended = first_end(&mut tasks) => return Err(AppError::Ended(ended)),
    }
    let _not_ready = readiness.expect("shutting down");
    tokio::time::sleep(LAME_DUCK).await;
    end.cancel();
    for (name, task) in tasks {
        if let Err(error) = task.await {
            tracing::error!(name, %error, "task failed");
        }
    }
    Ok(())
}

/// The task that keeps the served certificate: our own, or what is mounted.
fn spawn_certificates(
    args: &Args,
    client: &Client,
    served: (Arc<Resolver>, Gauge),
    (readiness, end): (&Readiness, &CancellationToken),
) -> JoinHandle<()> {
    match &args.certificates {
        Some(folder) => tokio::spawn(Mounted::new(folder, served, readiness).run(end.clone())),
        None => {
            let keeper = Keeper::new(client, args.names(), served, readiness);
            tokio::spawn(keeper.run(end.clone()))
        }
    }
}

async fn first_end(tasks: &mut [(&'static str, JoinHandle<()>)]) -> &'static str {
    let ends = tasks.iter_mut().map(|(name, task)| {
        Box::pin(async move {
            if let Err(error) = task.await {
                tracing::error!(name, %error, "task failed");
            }
            *name
        })
    });
    futures::future::select_all(ends).await.0
}

async fn listen(port: u16) -> Result<tokio::net::TcpListener, AppError> {
    server::bind(port)
        .await
        .map_err(|source| AppError::Listen { port, source })
}

async fn spawn_metrics(
    port: u16,
    registry: Registry,
    end: &CancellationToken,
) -> Result<JoinHandle<()>, AppError> {
    let registry = Arc::new(registry);
    let listener = listen(port).await?;
    Ok(tokio::spawn(server::serve(
        listener,
        end.clone(),
        move |request| {
            let registry = Arc::clone(&registry);
            async move {
                match request.uri().path() {
                    "/metrics" => server::metrics(&registry),
                    _ => not_found(),
                }
            }
        },
    )))
}

async fn spawn_admin(
    args: &Args,
    settings: &Settings,
    readiness: &Readiness,
    end: &CancellationToken,
) -> Result<JoinHandle<()>, AppError> {
    let (args, settings, readiness) = (args.clone(), settings.clone(), readiness.clone());
    let listener = listen(args.admin_port).await?;
    Ok(tokio::spawn(server::serve(
        listener,
        end.clone(),
        move |request| {
            let answer = match request.uri().path() {
                "/live" => server::text(StatusCode::OK, "live\n"),
                "/ready" => ready(&readiness),
                "/config" => server::json(&args.page(&settings.borrow())),
                _ => not_found(),
            };
            std::future::ready(answer)
        },
    )))
}

fn ready(readiness: &Readiness) -> Answer {
    let missing = readiness.missing();
    if missing.is_empty() {
        server::text(StatusCode::OK, "ready\n")
    } else {
        let text = format!("not ready: {}\n", missing.join(", "));
        server::text(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

fn not_found() -> Answer {
    server::text(StatusCode::NOT_FOUND, "not found\n")
}
