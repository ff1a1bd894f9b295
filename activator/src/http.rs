//! Plain HTTP, request by request, by Pingora.
//!
//! Pingora parses, forwards and streams; we decide where to and when: [`Forward::upstream_peer`]
//! waits for a slot, so bodies are not read while a request is held.

use std::{
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use lull_contract::scaled_workload::Mode;
use pingora_core::{
    apps::{HttpServerOptions, ServerApp},
    protocols::{GetSocketDigest, SocketDigest, l4::stream::Stream},
    server::{ShutdownWatch, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session, http_proxy};
use tokio::{net::TcpStream, sync::watch};

use crate::{
    directory::{Directory, Target},
    metrics::{Metrics, Reason},
    workload::{NoSlot, Slot},
};

/// Names the reason of an answer that is ours.
pub const REASON_HEADER: &str = "lull-reason";
/// Longest wait for a pod to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Tries to reach a pod; the hold timeout ends them much earlier.
const MAX_RETRIES: usize = 1000;

/// Two of Pingora's proxies over one decision: HTTP/1 and HTTP/2 with prior knowledge.
pub struct Proxies {
    http1: Arc<HttpProxy<Forward>>,
    h2c: Arc<HttpProxy<Forward>>,
    draining: watch::Sender<bool>,
}

/// Decides where a request goes.
#[derive(Debug)]
pub struct Forward {
    directory: Arc<Directory>,
    metrics: Metrics,
}

/// What is remembered of one request.
#[derive(Debug, Default)]
pub struct Ctx {
    target: Option<Target>,
    slot: Option<Slot>,
    held_for: Duration,
    began: Option<Instant>,
    refused: Option<(u16, Reason)>,
}

// === impl Proxies ===

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

impl Proxies {
    /// Proxies that ask `directory`.
    #[must_use]
    pub fn new(directory: &Arc<Directory>) -> Self {
        let conf = Arc::new(ServerConf {
            max_retries: MAX_RETRIES,
            ..ServerConf::default()
        });
        let proxy = |h2c: bool| {
            let forward = Forward {
                directory: Arc::clone(directory),
                metrics: directory.shared().metrics.clone(),
            };
            let mut proxy = http_proxy(&conf, forward);
            let mut options = HttpServerOptions::default();
            options.h2c = h2c;
            proxy.server_options = Some(options);
            Arc::new(proxy)
        };
        Self {
            http1: proxy(false),
            h2c: proxy(true),
            draining: watch::Sender::new(false),
        }
    }

    /// Serves one connection to its end.
    pub async fn serve(&self, stream: TcpStream, h2c: bool) {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let mut stream = Stream::from(stream);
        stream.set_socket_digest(digest);
        let shutdown: ShutdownWatch = self.draining.subscribe();
        let proxy = if h2c { &self.h2c } else { &self.http1 };
        proxy.process_new(Box::new(stream), &shutdown).await;
    }

    /// Answers carry `Connection: close`, HTTP/2 connections get GOAWAY.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }
}

// === impl Forward ===

impl Forward {
    fn target(&self, session: &Session) -> Option<Target> {
        let port = session.as_downstream().server_addr()?.as_inet()?.port();
        self.directory.target(port)
    }

    /// Answers what neither wakes nor counts while there is no pod to ask.
    async fn answer_ignored(&self, session: &mut Session, target: &Target) -> Result<bool> {
        let header = session.req_header();
        let agent = header
            .headers
            .get("user-agent")
            .and_then(|agent| agent.to_str().ok());
        let view = target.workload.view();
        let ignored = view.settings.ignores(header.uri.path(), agent);
        if !ignored || target.workload.has_usable_pod() {
            return Ok(false);
        }
        // A scrape answered with 200 would be taken for the app's metrics.
        if agent.is_some_and(|agent| agent.starts_with("Prometheus/")) {
            self.metrics.rejected(Reason::Asleep);
            respond(session, 503, Some("asleep"), "asleep\n".to_owned()).await?;
        } else {
            respond(
                session,
                200,
                Some("asleep"),
                "asleep: woken by the first request\n".to_owned(),
            )
            .await?;
        }
        Ok(true)
    }

    async fn acquire(
        &self,
        session: &mut Session,
        target: &Target,
        limit: Duration,
    ) -> Result<Slot, NoSlot> {
        // With a body still to come, the caller's leaving can't be told from its pausing.
        let bodyless = session.as_downstream_mut().is_body_empty();
        let workload = Arc::clone(&target.workload);
        let acquire = workload.acquire(target.app_port, limit);
        if !bodyless {
            return acquire.await;
        }
        let mut acquire = std::pin::pin!(acquire);
        tokio::select! {
            biased; // a slot that is there counts more than a caller that may have left
            slot = &mut acquire => slot,
            left = session.as_downstream_mut().read_body_or_idle(true) => match left {
                Err(error) if *error.etype() == ErrorType::ConnectionClosed => Err(NoSlot::Timeout),
                // Pipelined bytes, or an h2 stream that says nothing more: keep waiting.
                _ => acquire.await,
            },
        }
    }
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::default()
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let Some(target) = self.target(session) else {
            self.metrics.rejected(Reason::NoWorkload);
            respond(
                session,
                503,
                Some("no-workload"),
                "this port belongs to no workload any more\n".to_owned(),
            )
            .await?;
            return Ok(true);
        };
        if self.answer_ignored(session, &target).await? {
            return Ok(true);
        }
        ctx.began = Some(Instant::now());
        ctx.target = Some(target);
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let (Some(target), Some(began)) = (ctx.target.clone(), ctx.began) else {
            return Error::e_explain(ErrorType::InternalError, "request without a target");
        };
        // A slot of an earlier try goes back first.
        ctx.slot = None;
        let limit = target.workload.view().settings.hold_timeout.0;
        let slot = match self
            .acquire(session, &target, limit.saturating_sub(began.elapsed()))
            .await
        {
            Ok(slot) => slot,
            Err(NoSlot::Full) => {
                ctx.refused = Some((503, Reason::HoldFull));
                return Error::e_explain(ErrorType::HTTPStatus(503), "too many are held");
            }
            Err(NoSlot::Timeout) => {
                ctx.refused = Some((504, Reason::HoldTimeout));
                return Error::e_explain(ErrorType::HTTPStatus(504), "no pod became ready");
            }
        };
        ctx.held_for += slot.held_for;
        let mut peer = Box::new(HttpPeer::new(slot.address, false, String::new()));
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        if session.as_downstream().is_http2() {
            peer.options.set_http_version(2, 2);
        }
        ctx.slot = Some(slot);
        Ok(peer)
    }

    /// What never reached the app goes elsewhere.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        if let Some(slot) = ctx.slot.take() {
            slot.eject();
        }
        error.set_retry(true);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        _ctx: &mut Ctx,
    ) -> Result<()> {
        let named = |name: &str| upstream.headers.contains_key(name);
        let passed_envoy = named("x-forwarded-client-cert") || named("x-envoy-attempt-count");
        if passed_envoy || named("x-forwarded-for") {
            return Ok(());
        }
        let caller = session
            .as_downstream()
            .client_addr()
            .and_then(|addr| addr.as_inet());
        if let Some(caller) = caller {
            upstream.insert_header("x-forwarded-for", caller.ip().to_canonical().to_string())?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let millis = ctx.held_for.as_secs_f64() * 1000.0;
        response.append_header("server-timing", format!("lull;dur={millis:.1}"))?;
        let pods_now = ctx
            .target
            .as_ref()
            .is_some_and(|target| target.workload.view().mode == Mode::Serve);
        if pods_now && response.status.as_u16() != 101 {
            // The Service's endpoints are its pods: the next connection goes there.
            session.as_downstream_mut().set_keepalive(None);
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let code = self.answer_failure(session, error, ctx).await;
        FailToProxy {
            error_code: code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Ctx) {
        if let Some(response) = session.response_written() {
            self.metrics.answered(response.status.as_u16());
        }
        ctx.slot = None;
    }

    /// Each is counted by its reason; a line each would be a flood's second victim.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }
}

impl Forward {
    async fn answer_failure(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> u16 {
        let (code, reason, text) = match (ctx.refused, &ctx.target) {
            (Some((code, Reason::HoldFull)), Some(target)) => {
                let text = format!("too many requests are held for {}\n", name(target));
                (code, Reason::HoldFull, text)
            }
            (Some((code, reason)), Some(target)) => {
                let limit = target.workload.view().settings.hold_timeout;
                let text = format!("no pod of {} became ready within {limit}\n", name(target));
                (code, reason, text)
            }
            _ if *error.esource() == ErrorSource::Downstream => return 0,
            _ => (
                502,
                Reason::PodError,
                "the pod closed the connection\n".to_owned(),
            ),
        };
        self.metrics.rejected(reason);
        tracing::debug!(%error, code, "request failed");
        let word = match reason {
            Reason::HoldFull => "hold-full",
            Reason::HoldTimeout => "hold-timeout",
            _ => "pod-error",
        };
        if session.response_written().is_none() {
            // A caller that has left needs no answer.
            let _ = respond(session, code, Some(word), text).await;
        }
        code
    }
}

fn name(target: &Target) -> String {
    format!("{}/{}", target.workload.namespace, target.workload.name)
}

/// An answer of our own.
async fn respond(
    session: &mut Session,
    code: u16,
    reason: Option<&str>,
    text: String,
) -> Result<()> {
    let mut response = ResponseHeader::build(code, Some(4))?;
    response.insert_header("content-type", "text/plain; charset=utf-8")?;
    response.insert_header("content-length", text.len().to_string())?;
    if let Some(reason) = reason {
        response.insert_header(REASON_HEADER, reason)?;
    }
    if code == 503 {
        response.insert_header("retry-after", "1")?;
    }
    session.set_keepalive(None);
    session
        .write_response_header(Box::new(response), false)
        .await?;
    session
        .write_response_body(Some(Bytes::from(text)), true)
        .await
}
