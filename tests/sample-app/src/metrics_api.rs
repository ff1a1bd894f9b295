//! An external metrics API, as a HorizontalPodAutoscaler asks it by way of the API server.
//!
//! HTTPS with a certificate of its own for the API server; `POST /set?value=N` in plain HTTP sets
//! what every metric of every namespace is worth.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use lull_process::server::{self, Answer, text};
use rcgen::CertifiedKey;
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::serve::accept;

/// The API's group and version.
const GROUP: &str = "external.metrics.k8s.io/v1beta1";

/// How the metrics API runs.
#[derive(Debug, Clone, clap::Args)]
pub struct MetricsApiArgs {
    /// Port in plain HTTP, where the value is set.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Port of the API itself, HTTPS.
    #[arg(long, default_value_t = 8443)]
    pub tls_port: u16,
}

/// The value that is told.
#[derive(Debug, Default)]
struct MetricsApi(AtomicU64);

/// Runs the API until `stop`.
///
/// # Errors
/// Where a port can't be opened or no certificate be made.
pub async fn run(args: &MetricsApiArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let (port, tls_port) = (args.port, args.tls_port);
    let plain = server::bind(port).await;
    let plain = plain.with_context(|| format!("listen on port {port}"))?;
    let listener = server::bind(tls_port).await;
    let listener = listener.with_context(|| format!("listen on port {tls_port}"))?;
    let tls = TlsAcceptor::from(Arc::new(tls()?));
    let api = Arc::new(MetricsApi::default());
    let pages = {
        let api = Arc::clone(&api);
        server::serve(plain, stop.clone(), move |request| {
            let answer = api.page(&request);
            async move { answer }
        })
    };
    tokio::join!(pages, api.serve(listener, tls, stop));
    Ok(())
}

/// With a certificate that nobody vouches for: the API server is told not to look at it.
fn tls() -> anyhow::Result<ServerConfig> {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["metrics-api".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let chain = vec![cert.der().clone()];
    Ok(builder.with_no_client_auth().with_single_cert(chain, key)?)
}

// === impl MetricsApi ===

impl MetricsApi {
    async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: TlsAcceptor,
        stop: CancellationToken,
    ) {
        while let Some(stream) = accept(&listener, &stop).await {
            tokio::spawn(Arc::clone(&self).connection(stream, tls.clone()));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, tls: TlsAcceptor) {
        let stream = match tls.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                return;
            }
        };
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = self.metric(request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// A page in plain HTTP.
    fn page<B>(&self, request: &Request<B>) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let value = query.strip_prefix("value=").and_then(|v| v.parse().ok());
        match (request.method(), request.uri().path(), value) {
            (_, "/healthz", _) => text(StatusCode::OK, "ok\n"),
            (&Method::POST, "/set", Some(value)) => {
                self.0.store(value, Ordering::Relaxed);
                text(StatusCode::OK, format!("{value}\n"))
            }
            (_, "/set", _) => text(StatusCode::BAD_REQUEST, "POST /set?value=N\n"),
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }

    /// What the API says at `path`.
    fn metric(&self, path: &str) -> Answer {
        let within = path
            .strip_prefix("/apis/")
            .and_then(|path| path.strip_prefix(GROUP));
        let parts: Vec<&str> = within.unwrap_or("?").split('/').collect();
        match parts[..] {
            [""] | ["", ""] => server::json(&json!({
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": GROUP,
                "resources": [],
            })),
            ["", "namespaces", _, name] => server::json(&json!({
                "kind": "ExternalMetricValueList",
                "apiVersion": GROUP,
                "metadata": {},
                "items": [{
                    "metricName": name,
                    "metricLabels": {},
                    "timestamp": jiff::Timestamp::now().to_string(),
                    "value": self.0.load(Ordering::Relaxed).to_string(),
                }],
            })),
            _ => text(StatusCode::NOT_FOUND, "no such page\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn body(answer: Answer) -> String {
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn set(method: Method, target: &str) -> Request<()> {
        let builder = Request::builder().method(method).uri(target);
        builder.body(()).unwrap()
    }

    #[tokio::test]
    async fn every_metric_is_worth_what_was_set() {
        let api = MetricsApi::default();
        let answer = api.page(&set(Method::POST, "/set?value=30"));
        assert_eq!(answer.status(), StatusCode::OK);
        let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/orders";
        let text = body(api.metric(path)).await;
        assert!(
            text.contains(r#""value":"30""#) && text.contains(r#""metricName":"orders""#),
            "{text}"
        );
    }

    #[test]
    fn the_group_is_there_and_nothing_else() {
        let api = MetricsApi::default();
        let status = |path: &str| api.metric(path).status();
        assert_eq!(
            status("/apis/external.metrics.k8s.io/v1beta1"),
            StatusCode::OK
        );
        assert_eq!(status("/apis"), StatusCode::NOT_FOUND);
        for (method, target) in [
            (Method::GET, "/set?value=1"),
            (Method::POST, "/set?value=x"),
        ] {
            let answer = api.page(&set(method, target));
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_certificate_can_be_made() {
        tls().unwrap();
    }
}
