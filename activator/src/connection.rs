//! What a new connection is: its first bytes, or its port, decide. Who says nothing that we know
//! wakes nobody.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use lull_contract::{AppProtocol, scaled_workload::WorkloadPort};
use tokio::{
    io::AsyncReadExt,
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
    who::Who,
    workload::Workload,
};

/// Longest time until a connection has said what it is, a whole ClientHello included; and, where that
/// is HTTP/1, from the first byte of a request's head to its end.
pub(crate) const FIRST_BYTES: Duration = Duration::from_secs(5);
/// A connection on a TCP port that has been open for so long is meant: its server may speak first.
const MEANT: Duration = Duration::from_millis(200);
/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
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

/// A connection whose beginning has been read.
#[derive(Debug)]
pub(crate) struct First {
    pub(crate) stream: TcpStream,
    pub(crate) read: Vec<u8>,
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

    /// Nobody new comes this way from now on.
    pub(crate) fn closes(&self) {
        let workload = &self.workload;
        workload.listens_no_more(self.port.app_port, self.address);
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
        let mut read = Vec::new();
        if route.port.protocol == AppProtocol::Tcp {
            // Who leaves at once is a check whether the port is open, and wakes nobody.
            if let Ok(Err(left)) = timeout(MEANT, read_more(&mut stream, &mut read)).await {
                return Err(left);
            }
            self.counts(&route, Kind::Tcp);
            let who = Who::connected(peer, None);
            splice::serve(stream, Bytes::Tcp { read }, (&route, who), metrics).await;
            return Ok(());
        }
        let deadline = Instant::now() + FIRST_BYTES;
        let speaks = timeout_at(deadline, first_bytes(&mut stream, &mut read))
            .await
            .map_err(|_| Refused::Because(Reason::Silent))??;
        match speaks {
            Speaks::Tls => {
                let hello = timeout_at(deadline, client_hello(&mut stream, &mut read)).await;
                let hello = hello.map_err(|_| Refused::Because(Reason::BadHello))??;
                if !self.may_be_for(&hello, &route.workload) {
                    return Err(Refused::Because(Reason::WrongSni));
                }
                let who = Who::connected(peer, hello.server_name.as_deref());
                let hello = hello.length;
                self.counts(&route, Kind::Tls);
                splice::serve(stream, Bytes::Tls { read, hello }, (&route, who), metrics).await;
            }
            Speaks::Http1 => {
                self.counts(&route, Kind::Http1);
                let first = First { stream, read };
                self.requests.serve_http1(first, peer, route).await;
            }
            Speaks::H2c => {
                self.counts(&route, Kind::H2c);
                let first = First { stream, read };
                self.requests.serve_h2c(first, peer, route).await;
            }
            Speaks::Garbage => return Err(Refused::Because(Reason::Garbage)),
        }
        Ok(())
    }

    /// Somebody comes in this way.
    fn counts(&self, route: &Route, kind: Kind) {
        self.hub.metrics.connected(kind);
        route.workload.ways.add(kind);
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

/// Reads until the connection has said what it carries.
async fn first_bytes(stream: &mut TcpStream, read: &mut Vec<u8>) -> Result<Speaks, Refused> {
    loop {
        read_more(stream, read).await?;
        if let Some(speaks) = Speaks::of(read) {
            return Ok(speaks);
        }
    }
}

/// Reads until a ClientHello is whole.
async fn client_hello(stream: &mut TcpStream, read: &mut Vec<u8>) -> Result<Hello, Refused> {
    loop {
        // What has not ended at the bound is refused, so `read` never grows beyond it.
        match hello::parse(read) {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err(_) => return Err(Refused::Because(Reason::BadHello)),
        }
        read_more(stream, read).await?;
    }
}

/// Reads once, behind what was read before.
async fn read_more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Result<(), Refused> {
    // A connection that says nothing takes no buffer.
    stream.readable().await?;
    read.reserve(USUAL_HELLO);
    // Other than `try_read_buf`, this knows that a socket that gave less than it was asked for has
    // no more: what is told from now on is new.
    match stream.read_buf(read).await? {
        0 => Err(Refused::Left),
        _ => Ok(()),
    }
}

// === impl Speaks ===

impl Speaks {
    /// By the first bytes; `None` where more are needed.
    fn of(seen: &[u8]) -> Option<Self> {
        match seen.first()? {
            &hello::HANDSHAKE_RECORD => Some(Self::Tls),
            _ if seen.starts_with(H2_PREFACE) => Some(Self::H2c),
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
