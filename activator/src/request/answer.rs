//! Answers of our own.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use lull_contract::headers::{ERROR_SOURCE_HEADER, ErrorSource, REASON_HEADER};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::metrics::Reason;

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
