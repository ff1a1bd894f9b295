//! What a new connection is: its first bytes, or its port, decide. Who says nothing that we know
//! wakes nobody.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use lull_contract::{AppProtocol, scaled_workload::WorkloadPort};
use rustix::net::{self, RecvFlags};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    directory::{Directory, Wanted},
    hello::{self, Hello},
    hub::Hub,
    metrics::{Kind, Reason},
    request::Requests,
    splice::{self, Bytes},
    workload::Workload,
};

/// Longest time until a connection has said what it is, a whole ClientHello included.
const FIRST_BYTES: Duration = Duration::from_secs(5);
/// A connection on a TCP port that has been open for so long is meant: its server may speak first.
const MEANT: Duration = Duration::from_millis(200);
/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Leaves what is read where it is.
const PEEK: RecvFlags = RecvFlags::PEEK;
/// Bytes that are made ready for a ClientHello; most are shorter, a longer one gets more.
const USUAL_HELLO: usize = 2048;

/// Takes connections in.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) hub: Arc<Hub>,
    pub(crate) directory: Directory,
    pub(crate) requests: Requests,
}

/// Whom a port is for.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) workload: Arc<Workload>,
    pub(crate) port: WorkloadPort,
    /// Where we listen.
    pub(crate) address: SocketAddr,
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Tls,
    Http1,
    H2c,
    /// Nothing that we know.
    Garbage,
}

/// Why a connection is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The caller left before it had said what it wants.
    Left,
    Because(Reason),
}

// === impl Route ===

impl Route {
    pub(crate) fn new(wanted: &Wanted, address: SocketAddr) -> Self {
        Self {
            workload: Arc::clone(&wanted.workload),
            port: wanted.port.clone(),
            address,
        }
    }
}

// === impl Gate ===

impl Gate {
    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, route: Route) {
        if let Err(refused) = self.take_in(stream, peer, route).await
            && let Refused::Because(reason) = refused
        {
            self.hub.metrics.rejected(reason);
        }
    }

    async fn take_in(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        route: Route,
    ) -> Result<(), Refused> {
        let metrics = &self.hub.metrics;
        if route.port.protocol == AppProtocol::Tcp {
            // Who leaves at once is a check whether the port is open, and wakes nobody.
            if let Ok(Ok(0) | Err(_)) = timeout(MEANT, stream.peek(&mut [0])).await {
                return Err(Refused::Left);
            }
            metrics.connected(Kind::Tcp);
            splice::serve(stream, Bytes::Tcp, &route, metrics).await;
            return Ok(());
        }
        let deadline = Instant::now() + FIRST_BYTES;
        let speaks = timeout_at(deadline, first_bytes(&stream))
            .await
            .map_err(|_| Refused::Because(Reason::Silent))??;
        match speaks {
            Speaks::Tls => {
                let hello = timeout_at(deadline, client_hello(&mut stream)).await;
                let (hello, read) = hello.map_err(|_| Refused::Because(Reason::BadHello))??;
                if !self.may_be_for(&hello, &route.workload) {
                    return Err(Refused::Because(Reason::WrongSni));
                }
                let bytes = Bytes::Tls {
                    read: read.into(),
                    hello: hello.length,
                };
                metrics.connected(Kind::Tls);
                splice::serve(stream, bytes, &route, metrics).await;
            }
            Speaks::Http1 => {
                metrics.connected(Kind::Http1);
                self.requests.serve_http1(stream, peer, route).await;
            }
            Speaks::H2c => {
                metrics.connected(Kind::H2c);
                self.requests.serve_h2c(stream, peer, route).await;
            }
            Speaks::Garbage => return Err(Refused::Because(Reason::Garbage)),
        }
        Ok(())
    }

    /// Whether the Service that a caller asks for, where it says one, may be this workload's.
    fn may_be_for(&self, hello: &Hello, workload: &Workload) -> bool {
        let asked = hello.server_name.as_deref().and_then(hello::asked_service);
        asked.is_none_or(|(service, namespace)| {
            namespace.eq_ignore_ascii_case(&workload.namespace)
                && !self.directory.is_of_another(service, workload)
        })
    }
}

/// Looks at the first bytes and leaves them where they are.
async fn first_bytes(stream: &TcpStream) -> Result<Speaks, Refused> {
    let mut buffer = [0; H2_PREFACE.len()];
    let mut known = 0;
    loop {
        known = peek_more(stream, &mut buffer, known).await?;
        if let Some(speaks) = Speaks::of(buffer.get(..known).unwrap_or_default()) {
            return Ok(speaks);
        }
    }
}

/// Bytes that wait to be read, copied to `buffer`, once there are more than the `known` ones.
async fn peek_more(stream: &TcpStream, buffer: &mut [u8], known: usize) -> Result<usize, Refused> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // Unread bytes are always ready: this answer alone makes tokio wait for new ones.
        let peek = || match net::recv(stream, &mut *buffer, PEEK)?.1 {
            length if length == 0 || length > known => Ok(length),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
        match stream.try_io(Interest::READABLE, peek) {
            Ok(0) => return Err(Refused::Left),
            Ok(length) => return Ok(length),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            // No more will come.
            Err(_) if ready.is_read_closed() => return Err(Refused::Left),
            Err(_) => {}
        }
    }
}

/// Reads a ClientHello; all that was read.
async fn client_hello(stream: &mut TcpStream) -> Result<(Hello, Vec<u8>), Refused> {
    let mut read = Vec::with_capacity(USUAL_HELLO);
    loop {
        // Other than `try_read_buf`, this knows that a socket that gave less than it was asked for
        // has no more: what is told from now on is new.
        if stream.read_buf(&mut read).await? == 0 {
            return Err(Refused::Left);
        }
        // What has not ended at the bound is refused, so `read` never grows beyond it.
        match hello::parse(&read) {
            Ok(Some(hello)) => return Ok((hello, read)),
            Ok(None) => {}
            Err(_) => return Err(Refused::Because(Reason::BadHello)),
        }
    }
}

// === impl Speaks ===

impl Speaks {
    /// By the first bytes; `None` where more are needed.
    fn of(seen: &[u8]) -> Option<Self> {
        match seen.first()? {
            &hello::HANDSHAKE_RECORD => Some(Self::Tls),
            _ if seen == H2_PREFACE => Some(Self::H2c),
            _ if H2_PREFACE.starts_with(seen) => None,
            first if begins_request(*first) => Some(Self::Http1),
            _ => Some(Self::Garbage),
        }
    }
}

/// Whether an HTTP/1 request can begin with it: a method is a token (RFC 9110, 9.1 and 5.6.2), and
/// an empty line before it is ignored (RFC 9112, 2.2).
fn begins_request(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~\r\n".contains(&byte)
}

// === impl Refused ===

impl From<io::Error> for Refused {
    /// A connection that breaks this early is one whose caller has left.
    fn from(_: io::Error) -> Self {
        Self::Left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_it_is() {
        assert_eq!(Speaks::of(b""), None);
        assert_eq!(Speaks::of(b"\x16"), Some(Speaks::Tls));
        assert_eq!(Speaks::of(b"GET"), Some(Speaks::Http1));
        assert_eq!(Speaks::of(b"\r\nGET"), Some(Speaks::Http1));
        assert_eq!(Speaks::of(b"PRI"), None);
        assert_eq!(Speaks::of(b"PROPFIND"), Some(Speaks::Http1));
        assert_eq!(Speaks::of(H2_PREFACE), Some(Speaks::H2c));
        for first in [0, b' ', b'/', b'"', 0x15, 0x80, 0xff] {
            assert_eq!(Speaks::of(&[first]), Some(Speaks::Garbage), "{first}");
        }
    }
}
