//! Why a request was not answered by the app, and what its caller is told.

use std::{error::Error as _, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use lull_contract::headers::{ERROR_SOURCE_HEADER, REASON_HEADER};

use crate::{
    body::Outgoing,
    grpc::{self, Code},
    limiter::QueueFull,
    metrics::Reason,
};

/// Where a full queue is likely to have moved on: about a request's time.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A request that did not get the app's answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Every slot and every waiting place was taken. Never reached the app.
    #[error("all slots and waiting places are taken")]
    QueueFull,
    /// No slot had become free in time. Never reached the app.
    #[error("no slot became free within {0:?}")]
    QueueTimeout(Duration),
    /// The answer had not started in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The app does not listen. Never reached the app.
    #[error("the app refuses connections: {0}")]
    AppRefused(#[source] std::io::Error),
    /// The app could not be dialled otherwise. Never reached the app.
    #[error("the app can't be reached: {0}")]
    AppUnreachable(#[source] std::io::Error),
    /// The app closed the connection or spoke something else.
    #[error("the app did not answer: {0}")]
    AppFailed(#[source] hyper::Error),
    /// The app has said that it has not looked at the request, whose body may be on its way already.
    #[error("the app did not look at the request: {0}")]
    Unseen(#[source] hyper::Error),
    /// The request's body broke off or is not in the form that its head says.
    #[error("the request's body is broken: {0}")]
    Upload(#[source] hyper::Error),
    /// HTTP/1.1 without a Host, or with several.
    #[error("the request has {0} Host headers, exactly one is allowed")]
    Hosts(usize),
    /// A transfer coding beside chunked.
    #[error("the only Transfer-Encoding that is allowed is one \"chunked\"")]
    Coding,
    /// 101 for a request that had asked for no switch.
    #[error("the app switched to another protocol without having been asked to")]
    Switch,
    /// CONNECT, which makes no sense at a reverse proxy.
    #[error("CONNECT is not supported")]
    Connect,
    /// The request can't be written in the app's protocol.
    #[error("the request's target is not valid: {0}")]
    Target(#[source] http::Error),
}

// === impl Error ===

impl Error {
    /// What broke the exchange with the app: the app, or the caller whose body could not be read.
    pub(crate) fn exchange(error: hyper::Error) -> Self {
        // To hyper's client the body is the user's, whose error is that of our server side.
        let of_body = error
            .source()
            .is_some_and(|source| source.is::<hyper::Error>());
        if error.is_user() && of_body {
            Self::Upload(error)
        } else {
            Self::AppFailed(error)
        }
    }

    /// The same, with a timeout blamed on the queue where the request had no slot yet.
    pub(crate) fn judged(self, had_slot: bool) -> Self {
        match self {
            Self::Timeout(limit) if !had_slot => Self::QueueTimeout(limit),
            error => error,
        }
    }

    /// The reason as a closed enum.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::QueueFull => Reason::QueueFull,
            Self::QueueTimeout(_) => Reason::QueueTimeout,
            Self::Timeout(_) => Reason::Timeout,
            Self::AppRefused(_) => Reason::AppRefused,
            Self::AppUnreachable(_) => Reason::AppUnreachable,
            Self::AppFailed(_) | Self::Unseen(_) | Self::Switch => Reason::AppFailed,
            Self::Upload(_) | Self::Hosts(_) | Self::Coding | Self::Connect | Self::Target(_) => {
                Reason::BadRequest
            }
        }
    }

    /// The status of the answer, also where gRPC hides it behind its own.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::QueueFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::QueueTimeout(_) | Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::AppRefused(_)
            | Self::AppUnreachable(_)
            | Self::AppFailed(_)
            | Self::Unseen(_)
            | Self::Switch => StatusCode::BAD_GATEWAY,
            Self::Coding | Self::Connect => StatusCode::NOT_IMPLEMENTED,
            Self::Upload(_) | Self::Hosts(_) | Self::Target(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer for the caller; what a gRPC client understands where it is one.
    pub(crate) fn respond(&self, to_grpc: bool) -> Response<Outgoing> {
        let mut response = if to_grpc {
            grpc::refusal(self.grpc_code(), &self.to_string())
        } else {
            self.plain()
        };
        let reason = self.reason();
        let headers = response.headers_mut();
        for (name, value) in [
            (REASON_HEADER, reason.as_str()),
            (ERROR_SOURCE_HEADER, reason.source().as_str()),
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        if matches!(self, Self::QueueFull) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }

    fn plain(&self) -> Response<Outgoing> {
        let mut response = Response::new(Outgoing::text(Bytes::from(format!("{self}\n"))));
        *response.status_mut() = self.status();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    }

    /// 502 and 503 become UNAVAILABLE, as in gRPC's mapping of HTTP statuses
    /// (`doc/http-grpc-status-mapping.md`): a caller sees the same whether we or a proxy before us
    /// translate, and its usual retry policy applies. RESOURCE_EXHAUSTED for a full queue would
    /// say that waiting is no use.
    ///
    /// A timeout is not UNAVAILABLE, as the mapping has it for 504: that is retried by default,
    /// but the app may have done the work.
    fn grpc_code(&self) -> Code {
        match self {
            Self::QueueFull
            | Self::AppRefused(_)
            | Self::AppUnreachable(_)
            | Self::AppFailed(_)
            | Self::Unseen(_)
            | Self::Switch => Code::Unavailable,
            Self::QueueTimeout(_) | Self::Timeout(_) => Code::DeadlineExceeded,
            Self::Coding | Self::Connect => Code::Unimplemented,
            Self::Upload(_) | Self::Hosts(_) | Self::Target(_) => Code::InvalidArgument,
        }
    }
}

impl From<QueueFull> for Error {
    fn from(QueueFull: QueueFull) -> Self {
        Self::QueueFull
    }
}
