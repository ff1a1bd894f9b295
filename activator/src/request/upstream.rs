//! Where a request goes: a pod, as Pingora is told of it, and what Pingora tells of one that failed.

use std::time::Duration;

use lull_contract::names;
use pingora_core::{protocols::TcpKeepalive, upstreams::peer::HttpPeer};
use pingora_error::Error;

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
/// GOAWAY that does not count it, whatever its reason; h2 ends no other streams with a pod's GOAWAY.
pub(super) fn has_not_begun(error: &Error) -> bool {
    let told = error.root_cause().downcast_ref::<h2::Error>();
    told.filter(|told| told.is_remote())
        .is_some_and(|told| told.is_go_away() || told.reason() == Some(h2::Reason::REFUSED_STREAM))
}
