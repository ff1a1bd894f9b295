//! Callers of HTTP/1.0: Pingora makes HTTP/1.1 of what they ask and of what they are answered.

use http::{Version, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::downstream::connection_of;
use crate::workload::Slot;

fn is_old(session: &Session) -> bool {
    session.req_header().version == Version::HTTP_10
}

/// Gives the `request` a host for the pod of `slot` where it has none. HTTP/1.0 knows no Host, and a pod
/// refuses a request of HTTP/1.1 without one (RFC 9112, 3.2). It is the one that the queue-proxy takes
/// where such a caller reaches the pod itself.
pub(super) fn name_host(
    session: &Session,
    request: &mut RequestHeader,
    slot: Option<&Slot>,
) -> Result<()> {
    if is_old(session)
        && lacks_host(request)
        && let Some(slot) = slot
    {
        request.insert_header(header::HOST, slot.app().to_string())?;
    }
    Ok(())
}

/// In absolute form the target has it, and Pingora takes it from there.
fn lacks_host(request: &RequestHeader) -> bool {
    let is_absolute = !matches!(request.raw_path(), [b'/' | b'*', ..]);
    !is_absolute && !request.headers.contains_key(header::HOST)
}

/// Such a caller knows no chunks (RFC 9112, 6.1): an answer that says no length ends with its connection.
pub(super) fn frame(session: &mut Session, answer: &mut ResponseHeader) {
    if is_old(session) && answer.remove_header(&header::TRANSFER_ENCODING).is_some() {
        session.set_keepalive(None);
    }
}

/// An answer that has begun breaks off: nothing but a reset tells it from one that is whole.
pub(super) fn cut(session: &Session) {
    if let Some(connection) = connection_of(session).filter(|_| is_old(session)) {
        // Where that can't be, the connection ends as it is.
        let _ = connection.socket.set_zero_linger();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_lacking_where_neither_a_header_nor_the_target_has_it() {
        for (target, host, expected) in [
            ("/", None, true),
            ("*", None, true),
            ("/", Some("shop"), false),
            ("http://shop/a", None, false),
        ] {
            let mut request = RequestHeader::build("OPTIONS", target.as_bytes(), None).unwrap();
            if let Some(host) = host {
                request.insert_header(header::HOST, host).unwrap();
            }
            assert_eq!(lacks_host(&request), expected, "{target} {host:?}");
        }
    }
}
