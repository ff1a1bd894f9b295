//! A collector for tests (feature `test-collector`): what a real exporter sends to a real socket.

use std::{io, time::Duration};

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use lull_process::server;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value,
};
use prost::Message;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

pub use opentelemetry_proto::tonic::trace::v1::Span;

/// Longest wait for a span that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Batches that nobody has taken yet.
const BATCHES: usize = 64;

/// A span and the `service.name` of its resource.
pub type Sent = (String, Span);

/// What it was sent.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens, as `http://127.0.0.1:port`.
    pub endpoint: String,
    sent_rx: mpsc::Receiver<Vec<Sent>>,
    sent: Vec<Sent>,
}

// === impl Collector ===

impl Collector {
    /// One on a free port of loopback, for as long as the runtime lives.
    ///
    /// # Errors
    /// Where there is no port.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (sent_tx, sent_rx) = mpsc::channel(BATCHES);
        tokio::spawn(server::serve(
            listener,
            CancellationToken::new(),
            move |request| {
                let sent_tx = sent_tx.clone();
                async move {
                    match read(request).await {
                        Some(sent) => {
                            // A test that has ended wants no more.
                            let _ = sent_tx.send(sent).await;
                            server::text(StatusCode::OK, "")
                        }
                        None => server::text(StatusCode::BAD_REQUEST, ""),
                    }
                }
            },
        ));
        Ok(Self {
            endpoint,
            sent_rx,
            sent: Vec::new(),
        })
    }

    /// All spans that have come, in order, as soon as there are `count`.
    ///
    /// # Panics
    /// Where they do not come.
    pub async fn spans(&mut self, count: usize) -> &[Sent] {
        while self.sent.len() < count {
            let batch = timeout(PATIENCE, self.sent_rx.recv()).await;
            let batch = batch.ok().flatten();
            let names: Vec<&str> = self.sent.iter().map(|(_, span)| &*span.name).collect();
            assert!(batch.is_some(), "of {count} spans only {names:?} came");
            self.sent.extend(batch.into_iter().flatten());
        }
        while let Ok(batch) = self.sent_rx.try_recv() {
            self.sent.extend(batch);
        }
        &self.sent
    }
}

/// The spans of one call; `None` where it is not OTLP.
async fn read(request: Request<Incoming>) -> Option<Vec<Sent>> {
    if request.uri().path() != "/v1/traces" {
        return None;
    }
    let body = request.into_body().collect().await.ok()?.to_bytes();
    let traces = ExportTraceServiceRequest::decode(body).ok()?;
    let resources = traces.resource_spans.into_iter();
    let sent = resources.flat_map(|spans| {
        let attributes = spans.resource.map(|resource| resource.attributes);
        let service = attributes
            .into_iter()
            .flatten()
            .find(|attribute| attribute.key == "service.name")
            .and_then(|attribute| text(attribute.value?.value?))
            .unwrap_or_default();
        let all = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.map(move |span| (service.clone(), span))
    });
    Some(sent.collect())
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
