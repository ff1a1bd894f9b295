//! What Pingora asks about a request: is it ours to answer, where does it go, what is changed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::StatusCode;
use lull_traces::{Span, TRACE_PARENT};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::time::Instant;

use super::{
    Connection,
    answer::OwnAnswer,
    downstream::{answer_has_begun, caller_left, connection_of, refuse},
    old,
    told::{FORWARDED_FOR, agent, length, passed_a_proxy, unread, who},
    tries::{Ended, Tries},
    unclear::is_unclear,
    upstream,
};
use crate::{
    hold::Ask,
    hub::Hub,
    metrics::{CodeClass, Reason},
    trace,
    workload::{Hold, Slot, Turn},
};

/// User agent of a scrape: an empty success would be taken for a target without metrics.
const SCRAPER: &str = "Prometheus/";
/// Tells callers and tests that the answer came through here, and how long it was held.
const TIMING_HEADER: &str = "server-timing";

/// The phases of a request.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) hub: Arc<Hub>,
}

/// One request.
#[derive(Debug, Default)]
pub(super) struct Ctx {
    connection: Option<Arc<Connection>>,
    /// It neither wakes nor counts.
    is_ignored: bool,
    hold: Option<Hold>,
    slot: Option<Slot>,
    /// Until it has a connection that others share.
    turn: Option<Turn>,
    tries: Tries,
    /// What we answer, where no pod does.
    own: Option<OwnAnswer>,
    /// `None` = it is not traced.
    span: Option<Box<Span>>,
}

// === impl Forward ===

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::default()
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        let Some(connection) = connection_of(session) else {
            return Err(Error::explain(ErrorType::InternalError, "no route"));
        };
        connection.begins();
        // A quiet WebSocket or a slow upload is none of our business: the queue-proxy has the
        // workload's timeouts.
        session.set_read_timeout(None);
        // A caller may send the next request before it has its answer (RFC 9112, 9.3.2).
        session.set_pipelining_enabled(true);
        if is_unclear(session.req_header()) {
            refuse(session, &OwnAnswer::bad_request()).await;
            return Ok(true);
        }
        let ask = Ask {
            app_port: connection.route.port.app_port,
            takes_slot: true,
        };
        let spec = connection.route.workload.spec();
        let request = session.req_header();
        let agent = agent(request);
        ctx.is_ignored = spec.settings.ignores(request.uri.path(), agent);
        if ctx.is_ignored && !connection.route.workload.has_pod(ask.app_port) {
            let answer = self.asleep(&connection, request);
            answer.send(session).await?;
            return Ok(true);
        }
        let ask = Ask {
            // What does not count as traffic takes no place from what does.
            takes_slot: !ctx.is_ignored,
            ..ask
        };
        let deadline = Instant::now() + spec.settings.hold_timeout.0;
        let bytes = length(session.req_header()) + unread(session);
        ctx.hold = Some(Hold::new(ask, deadline).with_bytes(bytes));
        let request = session.req_header();
        ctx.span = self.hub.traces.join(&request.method, &request.headers);
        ctx.connection = Some(connection);
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        // A try that failed after the pod was reached still has its slot.
        ctx.slot = None;
        let is_http2 = session.as_downstream().is_http2();
        let slot = loop {
            let slot = self.slot(session, ctx).await?;
            if !is_http2 {
                break slot;
            }
            ctx.turn = slot.turn().await;
            if ctx.turn.is_some() {
                break slot;
            }
            // Somebody else could not reach the pod.
            if let Some(hold) = &mut ctx.hold {
                hold.failed();
            }
        };
        let peer = upstream::peer(&slot, is_http2);
        ctx.slot = Some(slot);
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&pingora_core::protocols::Digest>,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.turn = None;
        if let Some(slot) = ctx.slot.as_ref().filter(|_| !reused) {
            slot.connected();
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        old::name_host(session, request, ctx.slot.as_ref())?;
        if let Some(connection) = ctx.connection.as_ref().filter(|_| !passed_a_proxy(request)) {
            let address = connection.peer.ip().to_canonical();
            request.insert_header(FORWARDED_FOR, address.to_string())?;
        }
        if let Some(span) = &ctx.span {
            request.insert_header(TRACE_PARENT, span.context().header())?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let status = response.status;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        old::frame(session, response);
        let connection = ctx.connection.as_ref();
        let held = ctx.hold.as_ref().map_or(Duration::ZERO, |hold| hold.waited);
        if held > Duration::ZERO
            && let Some(slot) = &ctx.slot
        {
            slot.answered();
        }
        if connection.is_some_and(|connection| connection.says_timing()) {
            let wake = ctx.hold.as_ref().and_then(|hold| hold.wake);
            let phases = wake.map_or_else(String::new, |wake| wake.server_timing());
            let value = format!("lull;dur={:.1}{phases}", held.as_secs_f64() * 1_000.0);
            response.append_header(TIMING_HEADER, value)?;
        }
        if let Some(connection) = connection.filter(|it| it.route.workload.moves_on()) {
            // HTTP/1 is told in this answer, HTTP/2 beside it.
            session.set_keepalive(None);
            connection.move_on();
        }
        Ok(())
    }

    /// The app has seen nothing of the request: it goes to another pod.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        tracing::debug!(pod = %peer._address, %error, "connect failed");
        self.hub.metrics.connect_failures.inc();
        if let Some(slot) = ctx.slot.take() {
            slot.eject();
        }
        // Those who wait for it see that the pod is not trusted.
        ctx.turn = None;
        if let Some(hold) = &mut ctx.hold {
            hold.failed();
        }
        error.set_retry(true);
        error
    }

    /// What has not reached the app goes to a pod anew, whatever it is. What may have does so only where it
    /// may be repeated and its caller has heard nothing; how often, [`Tries`] says.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        let is_answered = session.response_written().is_some();
        let is_kept = !is_answered && !session.as_ref().retry_buffer_truncated();
        let is_http2 = session.as_downstream().is_http2();
        let ended = if upstream::has_not_begun(&error) {
            Some(Ended::NotBegun)
        } else if session.req_header().method.is_idempotent() && upstream::broke_off(&error) {
            Some(Ended::broken(client_reused, is_http2))
        } else {
            None
        };
        let ended = ended.filter(|_| is_kept);
        if ended == Some(Ended::Fresh)
            && let Some(slot) = ctx.slot.take()
        {
            slot.avoid();
        }
        let goes_again = ended.is_some_and(|ended| ctx.tries.goes_again(ended));
        if goes_again {
            self.hub.metrics.redials.inc();
        }
        error.set_retry(goes_again);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let answer = ctx.own.take().or_else(|| self.failure(error, ctx));
        let error_code = answer.as_ref().map_or(0, |answer| answer.status.as_u16());
        let has_begun = answer_has_begun(session);
        let reason = answer.as_ref().and_then(|answer| answer.reason);
        if let (Some(span), Some(reason)) = (&mut ctx.span, reason) {
            span.failed(reason.as_str());
        }
        if has_begun {
            old::cut(session);
        } else if let Some(answer) = answer {
            // The pod is done with it, whatever the caller still does.
            ctx.slot = None;
            refuse(session, &answer).await;
        }
        FailToProxy {
            error_code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Ctx) {
        ctx.slot = None;
        if let Some(connection) = connection_of(session) {
            connection.ended();
        }
        let status = session.response_written().map(|response| response.status);
        let class = status.map_or(CodeClass::None, CodeClass::of);
        self.hub.metrics.ended(class);
        if let (Some(span), Some(connection)) = (ctx.span.take(), &ctx.connection) {
            let workload = &connection.route.workload;
            let held = ctx.hold.as_ref().map_or(Duration::ZERO, |hold| hold.waited);
            let id = (workload.namespace.as_str(), workload.name.as_str());
            trace::ended(&self.hub.traces, *span, id, (status, held));
        }
    }

    // We say ourselves what there is to say, with the workload's name.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Forward {
    /// A slot of a pod, once there is one.
    async fn slot(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Slot> {
        let (Some(connection), Some(hold)) = (&ctx.connection, &mut ctx.hold) else {
            return Err(Error::explain(ErrorType::InternalError, "no route"));
        };
        let workload = &connection.route.workload;
        // Most get their slot at once: nobody has to look after the caller then, or to know it.
        if let Some(mut slot) = workload.slot_at_once(hold) {
            slot.set_resting(ctx.is_ignored);
            return Ok(slot);
        }
        if ctx.is_ignored {
            // The pod that was there has gone: nobody is woken for it.
            ctx.own = Some(self.asleep(connection, session.req_header()));
            return Err(Error::new_in(ErrorType::HTTPStatus(503)));
        }
        if hold.who.is_none() {
            hold.who = Some(who(session.req_header(), connection));
        }
        if ctx.span.is_none() {
            let request = session.req_header();
            ctx.span = self.hub.traces.begin(&request.method, &request.headers);
        }
        hold.span = ctx.span.as_ref().map(|span| span.context());
        let granted = tokio::select! {
            biased;
            granted = workload.slot(hold) => granted,
            () = caller_left(session, connection) => {
                return Err(Error::new_down(ErrorType::ConnectionClosed));
            }
        };
        granted.map_err(|error| {
            ctx.own = Some(OwnAnswer::not_let_through(connection, error));
            Error::new_in(ErrorType::HTTPStatus(503))
        })
    }

    /// What to answer to what neither wakes nor counts.
    fn asleep(&self, connection: &Connection, request: &RequestHeader) -> OwnAnswer {
        let agent = agent(request);
        let is_scrape = agent.is_some_and(|agent| agent.starts_with(SCRAPER));
        let answer = OwnAnswer::asleep(connection, is_scrape);
        if let Some(reason) = answer.reason {
            self.hub.metrics.rejected(reason);
        }
        answer
    }

    /// What to answer after `error`; `None` where nobody is there to read it.
    fn failure(&self, error: &Error, ctx: &Ctx) -> Option<OwnAnswer> {
        let who = ctx
            .connection
            .as_deref()
            .map_or_else(String::new, Connection::workload);
        match (error.esource(), error.etype()) {
            (ErrorSource::Upstream, _) => {
                self.hub.metrics.rejected(Reason::PodError);
                tracing::warn!(workload = %who, %error, "pod failed");
                let text = format!("a pod of {who} broke off the request\n");
                let status = StatusCode::BAD_GATEWAY;
                Some(OwnAnswer::refusal(status, Reason::PodError, text))
            }
            (
                ErrorSource::Downstream,
                ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed,
            ) => None,
            (ErrorSource::Downstream, _) => Some(OwnAnswer::bad_request()),
            (ErrorSource::Internal | ErrorSource::Unset, _) => {
                self.hub.metrics.rejected(Reason::Internal);
                tracing::error!(workload = %who, %error, "request failed here");
                let text = "the activator failed\n".to_owned();
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Some(OwnAnswer::refusal(status, Reason::Internal, text))
            }
        }
    }
}
