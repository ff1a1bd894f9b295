//! What a request tells of itself before its body is read.

use http::header;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{CALLER_WINDOW, Connection};
use crate::who::Who;

pub(super) const FORWARDED_FOR: &str = "x-forwarded-for";

pub(super) fn agent(request: &RequestHeader) -> Option<&str> {
    let agent = request.headers.get(header::USER_AGENT)?;
    agent.to_str().ok()
}

/// About what the head of a request takes, bytes.
pub(super) fn length(request: &RequestHeader) -> usize {
    let fields = request.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    request.raw_path().len() + fields
}

/// What a caller may send of a body while nobody reads it, and we have to keep, bytes. In HTTP/1 that
/// stays with the kernel.
pub(super) fn unread(session: &mut Session) -> usize {
    let downstream = session.as_downstream_mut();
    match downstream.is_http2() && !downstream.is_body_empty() {
        true => CALLER_WINDOW as usize,
        false => 0,
    }
}

pub(super) fn who(request: &RequestHeader, connection: &Connection) -> Who {
    let host = request.headers.get(header::HOST);
    let host = host.and_then(|value| value.to_str().ok());
    Who::requested(connection.peer, (&request.method, &request.uri), host)
}

/// Whether the caller's address is in the request already, or a mesh's proxy takes care of it.
pub(super) fn passed_a_proxy(request: &RequestHeader) -> bool {
    let mut names = request.headers.keys().map(header::HeaderName::as_str);
    names.any(|name| {
        name == FORWARDED_FOR || name == "x-forwarded-client-cert" || name.starts_with("x-envoy-")
    })
}
