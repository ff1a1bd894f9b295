//! One HTTP request: count it, wait for a slot, pass it to the app, pass the answer back.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::{
    activity::Idle,
    body::{Download, Outgoing, Upload},
    config::Config,
    drain::Drain,
    error::Error,
    grpc, headers,
    limiter::{Limiter, Permit},
    metrics::{CodeClass, Metrics, Reason},
    splice,
    traffic::{Ticket, Traffic},
    upstream::{Lease, Upstream},
};

/// What all ports share.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) config: Arc<Config>,
    pub(crate) limiter: Limiter,
    pub(crate) traffic: Traffic,
    pub(crate) metrics: Metrics,
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
    gateway: Arc<Gateway>,
    started: Instant,
    class: CodeClass,
    permit: Option<Permit>,
    _ticket: Ticket,
}

// === impl Gateway ===

impl Gateway {
    /// The idle clock of one request or connection, if there is a limit.
    pub(crate) fn idle(&self) -> Option<Idle> {
        self.config.idle_timeout.map(|limit| Idle::new(limit.0))
    }

    fn hold(self: &Arc<Self>, request: &Request<Incoming>) -> Hold {
        let agent = request.headers().get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok());
        let counted = !self.config.ignore.matches(request.uri().path(), agent);
        let started = Instant::now();
        Hold {
            gateway: Arc::clone(self),
            started,
            class: CodeClass::None,
            permit: None,
            _ticket: self.traffic.enter(started, counted),
        }
    }

    async fn slot(&self) -> Result<Permit, Error> {
        if !self.limiter.is_limited() {
            return Ok(self.limiter.acquire().await?);
        }
        let since = Instant::now();
        let permit = self.limiter.acquire().await?;
        self.metrics.waited(since.elapsed());
        Ok(permit)
    }
}

// === impl Port ===

impl Port {
    /// Answers `request`, which came from `peer`.
    ///
    /// # Cancel safety
    /// Dropping the future, as when the caller leaves, gives back everything that it holds and
    /// closes the app's connection (or resets its stream).
    pub(crate) async fn handle(
        &self,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Outgoing> {
        let is_http1 = request.version() != Version::HTTP_2;
        let is_grpc = !is_http1 && grpc::is_request(request.headers());
        let mut hold = self.gateway.hold(&request);
        let mut response = match self.forward(&mut hold, peer, request).await {
            Ok(answer) => answer.into_response(hold),
            Err(error) => {
                tracing::debug!(%error, "request was not answered by the app");
                self.gateway.metrics.rejected(error.reason());
                hold.class = CodeClass::of(error.status());
                error.respond(is_grpc)
            }
        };
        if is_http1 {
            *response.version_mut() = Version::HTTP_11;
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if !switches && self.gateway.drain.has_begun() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
        }
        response
    }

    async fn forward(
        &self,
        hold: &mut Hold,
        peer: IpAddr,
        mut request: Request<Incoming>,
    ) -> Result<Answer, Error> {
        if request.method() == Method::CONNECT {
            return Err(Error::Connect);
        }
        let switch = headers::clean_request(request.headers_mut());
        headers::add_forwarded_for(request.headers_mut(), peer);
        let caller = (switch.is_some() && request.version() == Version::HTTP_11)
            .then(|| upgrade::on(&mut request));
        let idle = self.gateway.idle();
        let request = request.map(|body| Upload::new(body, idle.clone()));

        let limit = self.start_limit();
        let exchange = async {
            hold.permit = Some(self.gateway.slot().await?);
            self.upstream.send(request).await
        };
        let (response, lease) = within(hold.started + limit, limit, idle.as_ref(), exchange)
            .await
            .map_err(|error| match error {
                Error::Timeout(limit) if hold.permit.is_none() => Error::QueueTimeout(limit),
                error => error,
            })?;
        Ok(Answer {
            response,
            lease,
            caller,
            idle,
        })
    }

    /// Longest time to the head of the answer.
    fn start_limit(&self) -> Duration {
        let config = &self.gateway.config;
        let whole = config.timeout.0;
        config
            .response_start_timeout
            .map_or(whole, |start| start.0.min(whole))
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

/// What the app answered, and what goes with it.
struct Answer {
    response: Response<Incoming>,
    lease: Lease,
    /// The caller's connection as bytes, if it asked for a switch of protocols.
    caller: Option<OnUpgrade>,
    idle: Option<Idle>,
}

// === impl Answer ===

impl Answer {
    fn into_response(self, mut hold: Hold) -> Response<Outgoing> {
        let Self {
            mut response,
            lease,
            caller,
            idle,
        } = self;
        let status = response.status();
        hold.class = CodeClass::of(status);
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        let about_upgrade = switches || status == StatusCode::UPGRADE_REQUIRED;
        headers::clean_response(response.headers_mut(), about_upgrade);
        match caller {
            Some(caller) if switches => {
                let app = upgrade::on(&mut response);
                tokio::spawn(tunnel(caller, app, (hold, lease), idle));
                response.map(|_| Outgoing::text(bytes::Bytes::new()))
            }
            _ => response.map(|body| Outgoing::App(Download::new(body, lease, hold, idle))),
        }
    }
}

/// Passes bytes between the two until both have ended; `_held` is held so long.
async fn tunnel(caller: OnUpgrade, app: OnUpgrade, _held: (Hold, Lease), idle: Option<Idle>) {
    let both = async { tokio::try_join!(caller, app) };
    match both.await {
        Ok((caller, app)) => {
            splice::copy(TokioIo::new(caller), TokioIo::new(app), idle).await;
        }
        Err(error) => tracing::debug!(%error, "switch of protocols failed"),
    }
}

// === impl Hold ===

impl Hold {
    /// When the whole request must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        self.started + self.gateway.config.timeout.0
    }

    /// The answer is cut because it took too long.
    pub(crate) fn timed_out(&self) {
        self.gateway.metrics.rejected(Reason::Timeout);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gateway
            .metrics
            .ended(self.class, self.started.elapsed());
    }
}
