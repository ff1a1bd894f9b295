//! Where a request goes: a pod, as Pingora is told of it, and what Pingora tells of one that failed.

use std::time::Duration;

use lull_contract::names;
use pingora_core::{protocols::TcpKeepalive, upstreams::peer::HttpPeer};
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};

use crate::{keepalive, splice, workload::Slot};

/// Idle connections to pods are closed by us before a pod is likely to.
const IDLE: Duration = Duration::from_secs(20);
/// Streams on one HTTP/2 connection to a pod: what most servers allow.
const STREAMS: usize = 100;
/// What a pod may send on one of them before its caller has read it, bytes. All together stay below
/// Pingora's window for the connection, 8 MiB: callers that do not read must not stop the others.
const STREAM_WINDOW: u32 = 64 << 10;

/// The pod of `slot`.
pub(super) fn peer(slot: &Slot, is_http2: bool) -> HttpPeer {
    let mut peer = HttpPeer::new(slot.address, false, String::new());
    peer.group_key = names::fnv1a(slot.pod_uid().as_bytes());
    peer.options.connection_timeout = Some(splice::CONNECT);
    peer.options.idle_timeout = Some(IDLE);
    peer.options.tcp_keepalive = Some(TcpKeepalive {
        idle: keepalive::AFTER,
        interval: keepalive::EVERY,
        count: keepalive::TIMES as usize,
        // The system's.
        user_timeout: Duration::ZERO,
    });
    if is_http2 {
        peer.options.set_http_version(2, 2);
        peer.options.max_h2_streams = STREAMS;
        peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
    }
    peer
}

/// Whether the pod has said that it has not begun the request (RFC 9113, 8.7): by REFUSED_STREAM, or by a
/// GOAWAY that does not count it, whatever its reason; h2 ends no other streams with a pod's GOAWAY. A caller
/// that takes its request back may give the same reason, and says nothing of the pod.
pub(super) fn has_not_begun(error: &Error) -> bool {
    if *error.esource() != ErrorSource::Upstream {
        return false;
    }
    let told = error.root_cause().downcast_ref::<h2::Error>();
    told.filter(|told| told.is_remote())
        .is_some_and(|told| told.is_go_away() || told.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Whether the pod's connection broke before the head of an answer was whole: while the request was sent, or
/// when an answer was waited for, which is all that Pingora marks in this way. An answer that is none, and a
/// stream that the pod ends, are the pod's own word.
pub(super) fn broke_off(error: &Error) -> bool {
    let is_unsent = *error.etype() == ErrorType::WriteError;
    *error.esource() == ErrorSource::Upstream && (is_unsent || error.retry == RetryType::ReusedOnly)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// What is heard of a stream that the other side refuses.
    async fn refusal() -> h2::Error {
        let (near, far) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            let mut far = h2::server::handshake(far).await.unwrap();
            while let Some(Ok((_request, mut answer))) = far.accept().await {
                answer.send_reset(h2::Reason::REFUSED_STREAM);
            }
        });
        let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://any.example/").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        response.await.unwrap_err()
    }

    #[tokio::test]
    async fn a_pod_says_that_it_has_not_begun_a_request_and_a_caller_does_not() {
        let error = || async { Error::because(ErrorType::H2Error, "read", refusal().await) };
        assert!(has_not_begun(&error().await.into_up()));
        assert!(!has_not_begun(&error().await.into_down()));
    }

    #[test]
    fn a_pod_breaks_off_by_its_connection_and_not_by_what_it_says() {
        let mut lost = Error::explain(ErrorType::ConnectionClosed, "while reading");
        lost.retry = RetryType::ReusedOnly;
        assert!(broke_off(&lost.into_up()));
        assert!(broke_off(&Error::new_up(ErrorType::WriteError)));
        assert!(!broke_off(&Error::new_down(ErrorType::WriteError)));
        for said in [ErrorType::InvalidHTTPHeader, ErrorType::H2Error] {
            assert!(!broke_off(&Error::new_up(said)));
        }
    }
}
