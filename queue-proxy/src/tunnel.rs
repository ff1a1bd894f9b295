//! A connection that switches to another protocol, as to WebSocket: bytes from then on.

use std::{future, sync::Arc};

use http::Request;
use hyper::{
    body::Incoming,
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::{
    activity::Idle,
    callers::{self, Known},
    request::{Hold, Port},
    splice,
    upstream::Lease,
    wire,
};

/// A request to switch.
#[derive(Debug)]
pub(crate) struct Switch {
    /// The caller's connection as bytes.
    caller: OnUpgrade,
    /// Who has asked for it; `None` = it is no traffic.
    by: Option<Known>,
}

// === impl Switch ===

impl Switch {
    /// `request`, of which `hold` is.
    pub(crate) fn of(request: &mut Request<Incoming>, hold: &Hold) -> Self {
        let by = hold.is_counted().then(|| hold.caller().known(request));
        Self {
            caller: upgrade::on(request),
            by,
        }
    }

    /// Passes bytes between the caller and `app` until both have ended; `held` is held so long.
    pub(crate) async fn run(
        self: Box<Self>,
        app: OnUpgrade,
        held: (Hold, Lease),
        idle: Option<Idle>,
    ) {
        let Self { caller, by } = *self;
        let port = Arc::clone(&held.0.caller().port);
        let both = async { tokio::try_join!(caller, app) };
        match both.await {
            Ok((caller, app)) => {
                let passing = splice::copy(wire::switched(caller), TokioIo::new(app), idle);
                tokio::select! {
                    () = passing => {}
                    () = goes_on(&port, by) => {}
                }
            }
            Err(error) => tracing::debug!(%error, "switch of protocols failed"),
        }
    }
}

/// Takes note of who keeps it open, for as long as it is; does not return.
async fn goes_on(port: &Port, by: Option<Known>) {
    let Some(by) = by else {
        return future::pending().await;
    };
    loop {
        tokio::time::sleep(callers::EPOCH).await;
        port.gateway.callers.note_again(Instant::now(), &by);
    }
}
