//! One HTTP request: count it, wait for a slot, pass it to the app, pass the answer back.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade};
use lull_traces::{Span, TRACE_PARENT, Traces};
use tokio::time::Instant;

use crate::{
    access::{AccessLog, Record},
    activity::Idle,
    body::{Download, Outgoing},
    caller::{Busy, Caller},
    callers::Callers,
    config::Config,
    drain::Drain,
    error::Error,
    grpc, headers,
    limiter::{Limiter, Permit},
    metrics::{CodeClass, Metrics, Reason},
    traffic::{Ticket, Traffic},
    tunnel::Switch,
    upload::Upload,
    upstream::{Lease, Upstream},
};

/// Name of the span of the wait for a slot.
const QUEUED: &str = "queued";

/// What all ports share.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) config: Arc<Config>,
    pub(crate) limiter: Limiter,
    pub(crate) traffic: Traffic,
    pub(crate) callers: Callers,
    pub(crate) metrics: Metrics,
    pub(crate) access: AccessLog,
    pub(crate) traces: Traces,
    pub(crate) drain: Drain,
}

/// One traffic port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) upstream: Arc<Upstream>,
}

/// What a request holds until its answer has ended; dropping it counts the end.
#[derive(Debug)]
pub(crate) struct Hold {
    busy: Busy,
    /// The caller's.
    version: Version,
    started: Instant,
    class: CodeClass,
    permit: Option<Permit>,
    /// `None` = no access log is wanted.
    record: Option<Box<Record>>,
    /// `None` = it is not traced.
    span: Option<Box<Span>>,
    ticket: Ticket,
}

// === impl Gateway ===

impl Gateway {
    /// The idle clock of one request or connection, if there is a limit.
    pub(crate) fn idle(&self) -> Option<Idle> {
        self.config.idle_timeout.map(|limit| Idle::new(limit.0))
    }

    /// Longest time to the head of the answer.
    fn start_limit(&self) -> Duration {
        let config = &self.config;
        let whole = config.timeout.0;
        config
            .response_start_timeout
            .map_or(whole, |start| start.0.min(whole))
    }

    /// A slot for a request that came at `arrived`.
    async fn slot(&self, arrived: Instant) -> Result<Permit, Error> {
        let permit = self.limiter.acquire(arrived).await?;
        if self.limiter.is_limited() {
            self.metrics.waited(arrived.elapsed());
        }
        Ok(permit)
    }
}

/// Answers `request`.
///
/// Each async function keeps what it was given beside what it makes of it, and hyper keeps the
/// space of the outermost for as long as the connection lives. So the request lies here, once, and
/// all others get a reference.
///
/// # Errors
/// Where the app has not looked at one of HTTP/2: it is refused as the app has refused it, so that whoever
/// has its body may send it anew, whatever its method (RFC 9113, 8.7).
///
/// # Cancel safety
/// Dropping the future, as when the caller leaves, gives back everything that it holds and closes
/// the app's connection (or resets its stream).
pub(crate) fn handle(
    busy: Busy,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Outgoing>, h2::Error>> + Send {
    let is_http1 = request.version() != Version::HTTP_2;
    let is_grpc = !is_http1 && grpc::is_request(request.headers());
    // Of such an answer hyper leaves the body away in HTTP/1 alone, and a caller takes it for a fault.
    let is_http2_head = !is_http1 && request.method() == Method::HEAD;
    let mut hold = Hold::new(busy, &request);
    let mut inbound = Inbound::new(&hold, request);
    async move {
        let result = inbound.forward(&mut hold).await;
        let gateway = Arc::clone(&hold.caller().port.gateway);
        let mut response = match result {
            Ok((response, lease)) => inbound.into_response(response, lease, hold),
            Err(error @ Error::Unseen(_)) => {
                tracing::debug!(%error, "request is refused");
                hold.rejected(error.reason());
                return Err(h2::Reason::REFUSED_STREAM.into());
            }
            Err(error) => {
                let error = error.judged(hold.permit.is_some());
                tracing::debug!(%error, "request was not answered by the app");
                hold.answered(error.status());
                hold.rejected(error.reason());
                if !is_http1 {
                    inbound.discard_body();
                }
                let mut response = error.respond(is_grpc);
                if is_http2_head {
                    *response.body_mut() = Outgoing::text(bytes::Bytes::new());
                }
                response
            }
        };
        if is_http1 {
            *response.version_mut() = Version::HTTP_11;
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if !switches && gateway.drain.has_begun() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
        }
        Ok(response)
    }
}

/// A request on its way to the app.
struct Inbound {
    /// Taken when it is sent.
    request: Option<Request<Upload>>,
    /// If it asks for a switch of protocols.
    switched: Option<Box<Switch>>,
    idle: Option<Idle>,
    /// Why it does not reach the app.
    refusal: Option<Error>,
}

// === impl Inbound ===

impl Inbound {
    fn new(hold: &Hold, mut request: Request<Incoming>) -> Self {
        let caller = hold.caller();
        let refusal = if request.method() == Method::CONNECT {
            Some(Error::Connect)
        } else {
            let has_body = !request.body().is_end_stream();
            headers::check_request(request.version(), request.headers(), has_body).err()
        };
        let switch = headers::clean_request(request.headers_mut());
        headers::add_forwarded_for(request.headers_mut(), &caller.name);
        if let Some(span) = &hold.span {
            let below = span.context().header();
            request.headers_mut().insert(TRACE_PARENT, below);
        }
        let switched = (switch.is_some() && request.version() == Version::HTTP_11)
            .then(|| Box::new(Switch::of(&mut request, hold)));
        let idle = caller.port.gateway.idle();
        let told = (request.version() != Version::HTTP_2).then_some(caller);
        Self {
            request: Some(Upload::wrap(request, idle.clone(), told)),
            switched,
            idle,
            refusal,
        }
    }

    async fn forward(&mut self, hold: &mut Hold) -> Result<(Response<Incoming>, Lease), Error> {
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        let started = hold.started;
        let caller = Arc::clone(hold.caller());
        let Port { gateway, upstream } = &*caller.port;
        let limit = gateway.start_limit();
        let request = &mut self.request;
        let exchange = pin!(async {
            let permit = gateway.slot(started).await?;
            hold.has_slot(permit);
            upstream.send(request).await
        });
        let (response, lease) =
            within(started + limit, limit, self.idle.as_ref(), exchange).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && self.switched.is_none() {
            return Err(Error::Switch);
        }
        Ok((response, lease))
    }

    /// Lets a caller go on for a moment with the body of a refused HTTP/2 request: it has not heard yet.
    /// What comes in a stream that was reset at once is a fault for h2, and after 1,024 faults hyper
    /// ends the connection, with all that is in flight on it.
    fn discard_body(&mut self) {
        let upload = self.request.take().map(Request::into_body);
        if let Some(upload) = upload.filter(|upload| !upload.is_end_stream()) {
            tokio::spawn(upload.discard());
        }
    }

    fn into_response(
        self,
        mut response: Response<Incoming>,
        lease: Lease,
        mut hold: Hold,
    ) -> Response<Outgoing> {
        let status = response.status();
        hold.answered(status);
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        let about_upgrade = switches || status == StatusCode::UPGRADE_REQUIRED;
        headers::clean_response(response.headers_mut(), about_upgrade);
        match self.switched {
            Some(switched) if switches => {
                let app = upgrade::on(&mut response);
                tokio::spawn(switched.run(app, (hold, lease), self.idle));
                response.map(|_| Outgoing::text(bytes::Bytes::new()))
            }
            _ => response.map(|body| {
                let may_stall = hold.version == Version::HTTP_2;
                Download::new(body, lease, hold, self.idle).into_outgoing(may_stall)
            }),
        }
    }
}

/// The result of `work`, unless `deadline` passes or no byte moves for too long.
async fn within<T>(
    deadline: Instant,
    limit: Duration,
    idle: Option<&Idle>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let timed = tokio::time::timeout_at(deadline, work);
    let Some(idle) = idle else {
        return timed.await.unwrap_or(Err(Error::Timeout(limit)));
    };
    tokio::select! {
        done = timed => done.unwrap_or(Err(Error::Timeout(limit))),
        () = idle.expired() => Err(Error::Timeout(idle.limit())),
    }
}

// === impl Hold ===

impl Hold {
    fn new(busy: Busy, request: &Request<Incoming>) -> Self {
        let gateway = &busy.caller().port.gateway;
        let agent = request.headers().get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok());
        let record = gateway.access.request(request, &busy.caller().name);
        let span = gateway.traces.join(request.method(), request.headers());
        let counted = !gateway.config.ignore.matches(request.uri().path(), agent);
        let started = Instant::now();
        let ticket = gateway.traffic.enter(started, counted);
        if counted {
            busy.caller().note(started, request);
        }
        Self {
            busy,
            version: request.version(),
            started,
            class: CodeClass::None,
            permit: None,
            record,
            span,
            ticket,
        }
    }

    /// The head of the answer goes to the caller.
    fn answered(&mut self, status: StatusCode) {
        self.class = CodeClass::of(status);
        if let Some(record) = &mut self.record {
            record.answered(status);
        }
        if let Some(span) = &mut self.span {
            span.answered(status);
        }
    }

    /// The app does not answer, or not to the end.
    pub(crate) fn rejected(&mut self, reason: Reason) {
        self.gateway().metrics.rejected(reason);
        if let Some(record) = &mut self.record {
            record.rejected(reason);
        }
        if let Some(span) = &mut self.span {
            span.failed(reason.as_str());
        }
    }

    /// The answer breaks off: by the app, or because the caller's body broke, which ends the app's
    /// connection.
    pub(crate) fn broke_off(&mut self) {
        let by_caller = self.busy.caller().has_broken_body();
        self.cut(if by_caller {
            Reason::BadRequest
        } else {
            Reason::AppFailed
        });
    }

    /// The answer ends before its end.
    pub(crate) fn cut(&mut self, reason: Reason) {
        self.rejected(reason);
        if self.version == Version::HTTP_10 {
            self.caller().reset_at_end();
        }
    }

    fn has_slot(&mut self, permit: Permit) {
        self.permit = Some(permit);
        let is_limited = self.gateway().limiter.is_limited();
        if let Some(record) = self.record.as_mut().filter(|_| is_limited) {
            record.queued(self.started.elapsed());
        }
        if let Some(span) = self.span.as_ref().filter(|_| is_limited) {
            let (part, start) = (Span::below(span.context(), QUEUED), span.start());
            let part = part.between(start, start + self.started.elapsed());
            self.gateway().traces.end(part);
        }
    }

    /// So many bytes of the app's answer go to the caller.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.sent(bytes);
        }
    }

    pub(crate) fn caller(&self) -> &Arc<Caller> {
        self.busy.caller()
    }

    /// Whether it is traffic.
    pub(crate) fn is_counted(&self) -> bool {
        self.ticket.is_counted()
    }

    fn gateway(&self) -> &Gateway {
        &self.caller().port.gateway
    }

    /// When the whole request must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        self.started + self.gateway().config.timeout.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let lasted = self.started.elapsed();
        let (record, span) = (self.record.take(), self.span.take());
        let gateway = self.gateway();
        gateway.metrics.ended(self.class, lasted);
        if let Some(record) = record {
            gateway.access.end(record, lasted);
        }
        if let Some(span) = span {
            gateway.traces.end(*span);
        }
    }
}
