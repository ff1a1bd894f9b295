//! A TCP connection below hyper.

use std::{
    future::Future,
    io::{self, Cursor, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

use crate::caller::Caller;

/// A head and a body up to so many bytes together are written as one piece: for the kernel a plain
/// `send` of a short message is cheaper than `writev`, by more than the copy costs.
const GATHER: usize = 4096;

/// How long a caller is listened to that may still be sending when its connection has been closed;
/// nginx's `lingering_timeout`.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
/// So much of what it sends is read at once, bytes.
const DISCARD: usize = 16 * 1024;

/// A TCP connection that writes short messages in one piece.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Is told when bytes arrive.
    caller: Option<Arc<Caller>>,
    /// Set once our side is closed and the caller's is not; ends the wait for it.
    linger: Option<Pin<Box<Sleep>>>,
}

/// The bytes of a caller's connection that has switched to another protocol. From now on it may read as
/// slowly as it likes: the time of a request is over.
pub(crate) fn switched(upgraded: Upgraded) -> impl AsyncRead + AsyncWrite + Unpin + Send {
    let parts = upgraded
        .downcast::<TokioIo<Wire>>()
        .expect("callers' connections are served as wires");
    let wire = parts.io.into_inner();
    // A failure only means that it may not.
    let _ = SockRef::from(&wire.stream).set_tcp_user_timeout(None);
    let (reader, writer) = tokio::io::split(wire);
    // What came right behind the head belongs to the new protocol.
    tokio::io::join(Cursor::new(parts.read_buf).chain(reader), writer)
}

// === impl Wire ===

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            caller: None,
            linger: None,
        }
    }

    /// The same, which tells `caller` when bytes arrive.
    pub(crate) fn watched(stream: TcpStream, caller: Arc<Caller>) -> Self {
        Self {
            stream,
            caller: Some(caller),
            linger: None,
        }
    }

    fn may_still_get(&self) -> bool {
        let caller = self.caller.as_ref();
        caller.is_some_and(|caller| caller.has_left_body() && !caller.must_reset())
    }

    /// Reads and forgets what a caller sends whose body nobody wants, until it closes, too: the
    /// kernel would answer it with a reset, which callers that are writing see before our answer.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scrap = [0; DISCARD];
        // One that never lets us wait must not outrun the deadline.
        while Instant::now() < sleep.deadline() {
            let mut buf = ReadBuf::new(&mut scrap);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return sleep.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self
            .caller
            .as_ref()
            .is_some_and(|caller| caller.must_reset())
        {
            // A failure only means that the caller can't tell.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(caller) = &self.caller
            && buf.filled().len() > before
        {
            caller.note_read();
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if let [one] = bufs {
            return stream.poll_write(cx, one);
        }
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length > GATHER {
            return stream.poll_write_vectored(cx, bufs);
        }
        let mut piece = Vec::with_capacity(length);
        for buf in bufs {
            piece.extend_from_slice(buf);
        }
        stream.poll_write(cx, &piece)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.may_still_get() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
