//! HTTP/2: many requests share a connection, which a task of its own drives.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;

use super::Upstream;
use crate::{body::Upload, error::Error, wire::Wire};

type Connection = http2::Connection<TokioIo<Wire>, Upload, TokioExecutor>;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Pool {
    connections: Mutex<Vec<Shared>>,
    /// Held while a connection is made, so that a burst shares one.
    dialling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    sender: http2::SendRequest<Upload>,
    /// Requests on this connection.
    active: Arc<AtomicUsize>,
    /// How many the app allows; streams beyond it would wait in hyper, unseen.
    most: Arc<AtomicUsize>,
}

/// Counts one stream while it lives.
#[derive(Debug)]
pub(crate) struct StreamCount(Arc<AtomicUsize>);

// === impl Upstream ===

impl Upstream {
    pub(super) async fn send_http2(
        &self,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, StreamCount), Error> {
        loop {
            let (mut connection, count) = self.stream().await?;
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, count)),
                Err(mut failed) => match failed.take_message() {
                    // The app said goodbye before this request was sent.
                    Some(unsent) => {
                        request = unsent;
                        self.streams.forget(&connection);
                    }
                    None => return Err(Error::AppFailed(failed.into_error())),
                },
            }
        }
    }

    /// A place on a connection that has one, or on a new one.
    async fn stream(&self) -> Result<(Shared, StreamCount), Error> {
        if let Some(found) = self.streams.free() {
            return Ok(found);
        }
        let _dialling = self.streams.dialling.lock().await;
        if let Some(found) = self.streams.free() {
            return Ok(found);
        }
        let stream = self.dial().await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(Wire::new(stream)))
            .await
            .map_err(Error::AppFailed)?;
        let most = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        tokio::spawn(drive(connection, Arc::clone(&most)));
        let connection = Shared {
            sender,
            active: Arc::default(),
            most,
        };
        self.streams.connections.lock().push(connection.clone());
        let count = StreamCount::new(&connection.active);
        Ok((connection, count))
    }
}

// === impl Pool ===

impl Pool {
    fn free(&self) -> Option<(Shared, StreamCount)> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        let free = connections.iter().find(|connection| {
            let most = connection.most.load(Ordering::Relaxed).max(1);
            connection.active.load(Ordering::Relaxed) < most
        })?;
        Some((free.clone(), StreamCount::new(&free.active)))
    }

    fn forget(&self, gone: &Shared) {
        self.connections
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.active, &gone.active));
    }
}

/// Drives a connection and keeps what the app allows: it says so when it likes.
async fn drive(connection: Connection, most: Arc<AtomicUsize>) {
    let mut connection = std::pin::pin!(connection);
    let ended = std::future::poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        most.store(connection.current_max_send_streams(), Ordering::Relaxed);
        polled
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "connection to the app ended");
    }
}

// === impl StreamCount ===

impl StreamCount {
    fn new(active: &Arc<AtomicUsize>) -> Self {
        active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(active))
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
