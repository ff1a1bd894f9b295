//! A caller's connection as Pingora uses it.
//!
//! Pingora's own stream sends an answer's head and body one by one where they exceed a KiB
//! together, and keeps its socket to itself: to see that a caller has left while it is held would
//! take a second descriptor for each.

use std::{
    io::{self, IoSlice},
    os::fd::AsRawFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use lull_contract::headers::{ERROR_SOURCE_HEADER, ErrorSource, REASON_HEADER};
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, raw_connect::ProxyDigest,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::head::Head;
use crate::metrics::Reason;

/// What is not yet sent is kept up to this: a head and a small body, which then go out together.
const KEPT: usize = 4 << 10;
/// Longest wait for the last bytes to go out when the connection is closed.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// The connection; whoever has a clone of the socket sees that the caller leaves.
#[derive(Debug)]
pub(super) struct Caller {
    socket: Arc<TcpStream>,
    /// Read before Pingora has asked; it comes first.
    read: Vec<u8>,
    unsent: Vec<u8>,
    /// Of HTTP/1.
    head: Option<Arc<Head>>,
    /// What travels with the connection to each request.
    digest: Option<Arc<ProxyDigest>>,
}

/// Answers a head that is not taken in; the connection is to be closed.
pub(super) fn refuse(socket: &TcpStream, status: &str, reason: Option<Reason>) {
    let source = ErrorSource::Client.as_str();
    let reason = reason.map_or_else(String::new, |reason| {
        format!("{REASON_HEADER}: {}\r\n", reason.as_str())
    });
    let answer = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\
         {ERROR_SOURCE_HEADER}: {source}\r\n{reason}\r\n"
    );
    // There is room for it, or the caller reads nothing anyway.
    let _ = socket.try_write(answer.as_bytes());
}

// === impl Caller ===

impl Caller {
    pub(super) fn new(
        socket: Arc<TcpStream>,
        read: Vec<u8>,
        head: Option<Arc<Head>>,
        digest: Option<ProxyDigest>,
    ) -> Self {
        Self {
            socket,
            read,
            unsent: Vec::new(),
            head,
            digest: digest.map(Arc::new),
        }
    }

    /// Reads once.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let fits = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read[..fits]);
            match fits == self.read.len() {
                true => self.read = Vec::new(),
                false => drop(self.read.drain(..fits)),
            }
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let mut place = &mut *buffer;
            match self.socket.try_read_buf(&mut place) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Fails where a head gets too long with what has been `read` now. Pingora's buffer for it doubles,
    /// so what else came with its end is no reason.
    fn bound_head(&self, read: usize) -> io::Result<()> {
        let head = self.head.as_ref();
        if !head.is_some_and(|head| head.is_too_long(read)) {
            return Ok(());
        }
        refuse(&self.socket, "431 Request Header Fields Too Large", None);
        Err(io::Error::other("the head of the request is too long"))
    }

    /// Sends what is unsent and of `more` as much as goes; how much of `more` went.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let sent = match self.unsent.is_empty() {
                true => self.socket.try_write(more),
                false => {
                    let parts = [IoSlice::new(&self.unsent), IoSlice::new(more)];
                    self.socket.try_write_vectored(&parts)
                }
            };
            match sent {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(sent) if sent >= self.unsent.len() => {
                    let of_more = sent - self.unsent.len();
                    self.unsent.clear();
                    if of_more > 0 || more.is_empty() {
                        return Poll::Ready(Ok(of_more));
                    }
                }
                Ok(sent) => {
                    self.unsent.drain(..sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Caller {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.poll_fill(cx, buffer)?.is_pending() {
            // Pingora sends what it has of an answer of a known length when that is whole. Here it waits,
            // also for more of it: what has come so far goes out.
            let _ = Pin::new(this).poll_flush(cx)?;
            return Poll::Pending;
        }
        Poll::Ready(this.bound_head(buffer.filled().len() - before))
    }
}

impl AsyncWrite for Caller {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent.len() + bytes.len() > KEPT {
            return this.poll_send(cx, bytes);
        }
        this.unsent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.unsent.is_empty() {
            ready!(this.poll_send(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        // Only the writing half: the caller may still be sending.
        let shut = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Write);
        Poll::Ready(shut.map_err(io::Error::from))
    }
}

#[async_trait]
impl Shutdown for Caller {
    async fn shutdown(&mut self) {
        // A caller that has left or does not read misses what is left: there is nobody to tell.
        let _ = timeout(LAST_BYTES, AsyncWriteExt::shutdown(self)).await;
    }
}

impl UniqueID for Caller {
    fn id(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

impl GetProxyDigest for Caller {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.digest = Some(Arc::new(digest));
    }
}

impl GetTimingDigest for Caller {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetSocketDigest for Caller {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Ssl for Caller {}

#[async_trait]
impl Peek for Caller {
    /// Fills `buffer` where so many bytes have been read: Pingora asks for no more than the preface
    /// that a connection has shown already.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let read = self.read.get(..buffer.len());
        if let Some(read) = read {
            buffer.copy_from_slice(read);
        }
        Ok(read.is_some())
    }
}
