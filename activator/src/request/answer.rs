//! Answers of our own.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use lull_contract::headers::{ERROR_SOURCE_HEADER, ErrorSource, REASON_HEADER};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Connection;
use crate::{metrics::Reason, workload::HoldError};

/// An answer that no pod gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnAnswer {
    pub(super) status: StatusCode,
    /// `None` on success.
    pub(super) reason: Option<Reason>,
    /// Who caused the error; `None` on success.
    source: Option<ErrorSource>,
    /// Seconds.
    retry_after: Option<u64>,
    text: String,
}

// === impl OwnAnswer ===

impl OwnAnswer {
    pub(super) fn ok(text: String) -> Self {
        Self {
            status: StatusCode::OK,
            reason: None,
            source: None,
            retry_after: None,
            text,
        }
    }

    /// The caller did not speak HTTP as it is.
    pub(super) fn bad_request() -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            source: Some(ErrorSource::Client),
            ..Self::ok("the request can't be understood\n".to_owned())
        }
    }

    pub(super) fn refusal(status: StatusCode, reason: Reason, text: String) -> Self {
        Self {
            status,
            reason: Some(reason),
            source: Some(reason.source()),
            retry_after: None,
            text,
        }
    }

    /// To what neither wakes nor counts: a health check hears that all is well; an empty success would
    /// be taken for a target without metrics.
    pub(super) fn asleep(connection: &Connection, is_scrape: bool) -> Self {
        let text = format!("{} is asleep\n", connection.workload());
        match is_scrape {
            true => Self::refusal(StatusCode::SERVICE_UNAVAILABLE, Reason::Asleep, text),
            false => Self::ok(text),
        }
    }

    /// To who was not let through to a pod.
    pub(super) fn not_let_through(connection: &Connection, error: HoldError) -> Self {
        let who = connection.workload();
        match error {
            HoldError::Full { retry_after } => {
                let text = format!("too many requests are held for {who}\n");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::refusal(status, Reason::HoldFull, text).retry_after(retry_after)
            }
            HoldError::Timeout { pods } => {
                let limit = connection.route.workload.spec().settings.hold_timeout;
                let text = match pods {
                    0 => format!("no pod of {who} became ready within {limit}\n"),
                    _ => format!("no pod of {who} had a free slot within {limit}\n"),
                };
                Self::refusal(StatusCode::GATEWAY_TIMEOUT, Reason::HoldTimeout, text)
            }
        }
    }

    /// Says when the caller had better come again.
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// Sends it. The caller decides about the connection.
    pub(super) async fn send(&self, session: &mut Session) -> Result<()> {
        let body = Bytes::from(self.text.clone());
        let mut head = ResponseHeader::build(self.status, Some(5))?;
        head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        if let Some(reason) = self.reason {
            head.insert_header(REASON_HEADER, reason.as_str())?;
        }
        if let Some(source) = self.source {
            head.insert_header(ERROR_SOURCE_HEADER, source.as_str())?;
        }
        if let Some(seconds) = self.retry_after {
            head.insert_header(header::RETRY_AFTER, seconds)?;
        }
        let bodiless = session.req_header().method == Method::HEAD;
        session
            .write_response_header(Box::new(head), bodiless)
            .await?;
        if !bodiless {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }
}
