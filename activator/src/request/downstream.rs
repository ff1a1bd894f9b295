//! The caller's side of a request.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use pingora_proxy::Session;

use super::{Connection, answer::OwnAnswer};
use crate::splice::{self, Leaves};

/// For so long at most the rest of a request that was answered is still taken in.
const SWALLOW: Duration = Duration::from_secs(2);

/// The connection on which it came.
pub(super) fn connection_of(session: &Session) -> Option<Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    let connection = digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>();
    connection.cloned()
}

/// Returns when the caller has left. Reads nothing of the request's body.
pub(super) async fn caller_left(session: &mut Session, connection: &Connection) {
    let downstream = session.as_downstream_mut();
    if let Some(closed) = downstream.watch_h2_stream_close() {
        // Reset, or the connection broke: either way nobody waits.
        let _ = closed.await;
        return;
    }
    splice::left(&connection.socket, Leaves::Closed).await;
}

/// Whether the caller has heard the beginning of an answer: hints, and that it may go on, are none.
pub(super) fn answer_has_begun(session: &Session) -> bool {
    let told = session.response_written().map(|head| head.status);
    told.is_some_and(|status| {
        !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
    })
}

/// Answers, and ends the connection where it is HTTP/1: the request's body may be unread.
pub(super) async fn refuse(session: &mut Session, answer: &OwnAnswer) {
    session.set_keepalive(None);
    match answer.send(session).await {
        Ok(()) => swallow_rest(session).await,
        Err(error) => tracing::debug!(%error, "caller left before the answer"),
    }
}

/// Takes what an HTTP/1 caller is still sending. Closed with that unread, the connection would be
/// reset, and a caller that writes first and reads then would not see its answer.
async fn swallow_rest(session: &mut Session) {
    let downstream = session.as_downstream_mut();
    if !downstream.is_http2() {
        downstream.set_total_drain_timeout(Some(SWALLOW));
        // The connection is closed, whatever comes of it.
        let _ = downstream.drain_request_body().await;
    }
}
