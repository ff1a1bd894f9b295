//! Byte streams: TLS that isn't ours to end, ports declared TCP, upgraded connections.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};

use crate::{
    activity::{Idle, Noted},
    callers::{self, Callers},
    metrics::Kind,
    request::Port,
    traffic::Ticket,
};

/// A connection on a TCP port that has been open for so long is meant: its server may speak first. Who
/// leaves before without a word has looked whether the port is open, for the activator, too.
const MEANT: Duration = Duration::from_millis(200);
/// How long a caller may say nothing to an app that has ended its side. Where it has closed its
/// connection it hears nothing more, but only a caller that speaks would learn that: one that keeps
/// the connection in a pool would be in flight for as long as it likes. (The kernel gives up after 60 s.)
const FAREWELL: Duration = Duration::from_secs(300);

/// Counts a stream as traffic, once it is, and takes note of whose it is for as long as it is open.
#[derive(Debug)]
struct Count<'a> {
    ticket: Mutex<Ticket>,
    callers: &'a Callers,
    peer: IpAddr,
}

/// When the caller was told that the app has ended its side, and when it spoke last after that.
#[derive(Debug)]
struct Farewell {
    begun: Notify,
    quiet: Idle,
}

/// Where the farewell of a stream is heard.
#[derive(Debug)]
struct Parting<'a> {
    farewell: &'a Farewell,
    has_begun: bool,
}

/// Hears of what happens at the caller's side of a stream.
trait Observer {
    /// The caller has said something.
    fn spoken(&mut self);

    /// The caller is told that the app has ended its side, and has been sent all before.
    fn ended(&mut self) {}
}

/// The caller's side of a stream.
#[derive(Debug)]
struct CallerSide<T, O> {
    inner: T,
    observer: O,
}

/// Passes bytes between `caller` and the app; counts as one in flight.
///
/// Takes no slot of the hard limit, which is about requests: these are not visible here, and
/// connections that sit in a pool would starve them.
pub(crate) async fn serve(caller: TcpStream, (kind, peer): (Kind, IpAddr), port: &Port) {
    let gateway = &port.gateway;
    let mut record = gateway.access.stream(kind, peer);
    let (now, is_meant) = (Instant::now(), kind == Kind::Tls);
    let count = Count {
        ticket: Mutex::new(gateway.traffic.enter(now, is_meant)),
        callers: &gateway.callers,
        peer,
    };
    if is_meant {
        count.note(now);
    }
    let passing = async {
        match port.upstream.dial().await {
            Ok(app) => copy(CallerSide::new(caller, Some(&count)), app, gateway.idle()).await,
            Err(error) => {
                count.now();
                gateway.metrics.rejected(error.reason());
                record.rejected(error.reason());
                tracing::debug!(%error, "connection was not passed on");
            }
        }
    };
    tokio::select! {
        () = passing => {}
        () = count.once_meant() => {}
    }
}

/// Passes bytes both ways until both sides have ended (each may end alone, but the caller not long
/// after the app), one breaks, or no byte has moved for too long.
pub(crate) async fn copy<A, B>(caller: A, mut app: B, idle: Option<Idle>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let farewell = Farewell::new();
    // Whatever moves, moves at the caller's side: noting there is enough.
    let parting = Parting {
        farewell: &farewell,
        has_begun: false,
    };
    let mut caller = CallerSide::new(Noted::new(caller, idle.clone()), parting);
    let result = tokio::select! {
        result = tokio::io::copy_bidirectional(&mut caller, &mut app) => result,
        () = expired(idle) => {
            tracing::debug!("byte stream was idle for too long");
            return;
        }
        () = farewell.is_over() => {
            tracing::debug!("the app has ended a byte stream, and its caller says nothing");
            return;
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "byte stream broke");
    }
}

/// Returns when no byte has moved for too long, where that is limited.
async fn expired(idle: Option<Idle>) {
    match idle {
        Some(idle) => idle.expired().await,
        None => std::future::pending().await,
    }
}

// === impl Count ===

impl Count<'_> {
    fn now(&self) {
        let now = Instant::now();
        let is_news = self.ticket.lock().count(now);
        if is_news {
            self.note(now);
        }
    }

    fn note(&self, now: Instant) {
        self.callers.note_stream(now, self.peer);
    }

    /// Counts what is still there after the time of a check; does not return.
    async fn once_meant(&self) {
        tokio::time::sleep(MEANT).await;
        self.now();
        loop {
            tokio::time::sleep(callers::EPOCH).await;
            self.note(Instant::now());
        }
    }
}

/// Counts with the first byte.
impl Observer for Option<&Count<'_>> {
    fn spoken(&mut self) {
        if let Some(count) = self.take() {
            count.now();
        }
    }
}

// === impl Farewell ===

impl Farewell {
    fn new() -> Self {
        Self {
            begun: Notify::new(),
            quiet: Idle::new(FAREWELL),
        }
    }

    /// Returns when the app has ended and its caller has said nothing since for too long.
    async fn is_over(&self) {
        self.begun.notified().await;
        self.quiet.expired().await;
    }
}

// === impl Parting ===

impl Observer for Parting<'_> {
    fn spoken(&mut self) {
        if self.has_begun {
            self.farewell.quiet.note();
        }
    }

    fn ended(&mut self) {
        if !self.has_begun {
            self.has_begun = true;
            self.farewell.quiet.note();
            self.farewell.begun.notify_one();
        }
    }
}

// === impl CallerSide ===

impl<T, O> CallerSide<T, O> {
    fn new(inner: T, observer: O) -> Self {
        Self { inner, observer }
    }
}

impl<T: AsyncRead + Unpin, O: Observer + Unpin> AsyncRead for CallerSide<T, O> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.observer.spoken();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin, O: Observer + Unpin> AsyncWrite for CallerSide<T, O> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // It may take more than one call.
        this.observer.ended();
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
