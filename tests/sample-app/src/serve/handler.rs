//! What the app answers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::ready,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use lull_process::server::{Answer, json, text};
use tokio::time::Instant;

use super::{App, echo, stream::Pieces};
use crate::wire::{AppStats, Hello, POD_HEADER};

/// Longest `?sleep_ms=`.
const MAX_SLEEP: Duration = Duration::from_secs(600);
/// Media type of gRPC.
const GRPC: &str = "application/grpc";
/// Media type of server-sent events.
const EVENTS: &str = "text/event-stream";
/// Largest `?bytes=`.
const MAX_BYTES: usize = 64 << 20;

/// The body of an answer; that of a call of gRPC has trailers.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers one request; always with the pod's name in a header. `closes` asks the caller of an
/// HTTP/1 connection to leave it.
pub(super) async fn answer(
    app: Arc<App>,
    port: u16,
    closes: bool,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let http1 = request.version() <= Version::HTTP_11;
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
    if request.uri().path() == "/stream" {
        let mut response = stream(request, is_grpc).await;
        tell_pod(&app, &mut response);
        return Ok(response);
    }
    let mut response = match (request.method(), request.uri().path()) {
        (_, "/healthz") => health(Instant::now() >= app.ready_at, "not ready yet"),
        (_, "/live") => health(
            app.live.load(Ordering::Relaxed),
            "liveness was broken on purpose",
        ),
        (&Method::POST, "/break-liveness") => {
            app.live.store(false, Ordering::Relaxed);
            text(StatusCode::OK, "liveness is broken now\n")
        }
        (_, "/stats") => json(&stats(&app)),
        (_, "/echo") => upgrade(&app, request),
        _ => hello(&app, port, request).await,
    };
    tell_pod(&app, &mut response);
    if closes && http1 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    if is_grpc && response.status() == StatusCode::OK {
        return Ok(as_grpc(response).await);
    }
    Ok(response.map(|body| body.boxed_unsync()))
}

fn tell_pod<B>(app: &App, response: &mut Response<B>) {
    if let Ok(pod) = HeaderValue::from_str(&app.pod) {
        response.headers_mut().insert(POD_HEADER, pod);
    }
}

/// Server-sent events, or messages of a call of gRPC that succeeds, for `?ms=`.
async fn stream(request: Request<Incoming>, is_grpc: bool) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let lasts = Duration::from_millis(number(query, "ms").unwrap_or_default()).min(MAX_SLEEP);
    // Whoever breaks off here doesn't read the answer either.
    let _ = drain(request.into_body()).await;
    let (kind, pieces) = if is_grpc {
        let message = framed(b"tick");
        (GRPC, Pieces::new(lasts, message, Some(succeeded())))
    } else {
        let event = Bytes::from_static(b"data: tick\n\n");
        (EVENTS, Pieces::new(lasts, event, None))
    };
    let mut response = Response::new(pieces.boxed_unsync());
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// `answer` as the only message of a call of gRPC that succeeds.
async fn as_grpc(answer: Answer) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    let collected = body.collect().await;
    let message = collected.unwrap_or_else(|never| match never {}).to_bytes();
    head.headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
    head.headers.remove(header::CONTENT_LENGTH);
    let body = Full::new(framed(&message)).with_trailers(ready(Some(Ok(succeeded()))));
    Response::from_parts(head, body.boxed_unsync())
}

/// A message of gRPC: whether it is compressed, its length, itself.
fn framed(message: &[u8]) -> Bytes {
    // An answer is some KiB.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.extend_from_slice(message);
    Bytes::from(framed)
}

/// The trailers of a call of gRPC that succeeds.
fn succeeded() -> HeaderMap {
    HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )])
}

fn health(well: bool, ill: &str) -> Answer {
    if well {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, ill)
    }
}

fn stats(app: &App) -> AppStats {
    AppStats {
        pod: app.pod.clone(),
        requests: app.requests.load(Ordering::Relaxed),
        in_flight: app.in_flight.load(Ordering::Relaxed),
        max_in_flight: app.max_in_flight.load(Ordering::Relaxed),
    }
}

async fn hello(app: &App, port: u16, request: Request<Incoming>) -> Answer {
    let in_flight = app.count();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let headers = has(&query, "headers").then(|| readable(request.headers()));
    let version = format!("{:?}", request.version());
    let received_bytes = match drain(request.into_body()).await {
        Ok(received) => received,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if let Some(sleep_ms) = number(&query, "sleep_ms") {
        tokio::time::sleep(Duration::from_millis(sleep_ms).min(MAX_SLEEP)).await;
    }
    if let Some(bytes) = number(&query, "bytes") {
        let len = usize::try_from(bytes).unwrap_or(MAX_BYTES).min(MAX_BYTES);
        return Response::new(Full::new(Bytes::from(vec![b'x'; len])));
    }
    let pod = app.pod.clone();
    json(&Hello {
        pod,
        port,
        in_flight: in_flight.now,
        version,
        received_bytes,
        headers,
    })
}

/// Accepts any upgrade of HTTP/1.1 and echoes from then on.
fn upgrade(app: &Arc<App>, request: Request<Incoming>) -> Answer {
    let Some(protocol) = request.headers().get(header::UPGRADE).cloned() else {
        return text(
            StatusCode::UPGRADE_REQUIRED,
            "ask with Upgrade: websocket\n",
        );
    };
    let counted = Arc::clone(app);
    app.tasks.spawn(async move {
        let _in_flight = counted.count();
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => echo(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);
    response
}

/// Reads a body to its end without keeping it; its length in bytes.
async fn drain(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        len += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(len)
}

fn readable(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into(),
            )
        })
        .collect()
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn has(query: &str, key: &str) -> bool {
    pairs(query).any(|(name, _)| name == key)
}

fn number(query: &str, key: &str) -> Option<u64> {
    pairs(query).find(|(name, _)| *name == key)?.1.parse().ok()
}
