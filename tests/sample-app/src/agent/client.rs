//! One HTTP connection and what is sent over it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle, time::Instant};

use crate::{
    wire::{Failure, POD_HEADER},
    with_causes,
};

/// Bytes of a body that are kept; the rest is read and dropped.
const KEPT_BODY: usize = 4 << 10;
/// Times that a request is sent again at most.
const RETRIES: u64 = 5;
/// Header or trailer with the outcome of a gRPC call.
const GRPC_STATUS: &str = "grpc-status";

type Body = Full<Bytes>;

/// Where requests go and what they look like.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    h2c: bool,
    request: Request<Body>,
}

/// Parts of a request as a run or a probe gives them.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) url: &'a str,
    pub(super) method: &'a str,
    pub(super) path: Option<&'a str>,
    pub(super) headers: &'a BTreeMap<String, String>,
    pub(super) h2c: bool,
    pub(super) close: bool,
    pub(super) body: &'a str,
}

/// A connection, or a share of one; dropping the last closes it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    driven: Arc<Driven>,
    local: SocketAddr,
    /// Who answered last, and when.
    last: Option<(String, Instant)>,
}

/// What moves a connection's bytes, until this is dropped.
#[derive(Debug)]
struct Driven(JoinHandle<()>);

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// An answer whose body has been read to its end.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) head: http::response::Parts,
    /// The first bytes of the body.
    pub(super) body: Vec<u8>,
    /// What came behind the body.
    trailers: HeaderMap,
}

/// What one exchange did to get its answer.
#[derive(Debug, Default, Clone)]
pub(super) struct Effort {
    pub(super) opened: u64,
    pub(super) reused_retries: u64,
    /// What it waits for, for the report of a failure.
    pub(super) waits_for: String,
    /// There is a connection for it.
    pub(super) is_connected: bool,
    /// Its time was over before there was an answer.
    pub(super) is_late: bool,
}

/// The address behind `host:port` of a URL.
pub(super) async fn resolve(uri: &Uri) -> Result<SocketAddr, String> {
    let host = uri.host().ok_or_else(|| format!("{uri}: no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let mut addrs = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| format!("resolve {host}: {error}"))?;
    addrs
        .next()
        .ok_or_else(|| format!("resolve {host}: no address"))
}

// === impl Target ===

impl Target {
    /// Resolves the host and makes the request.
    pub(super) async fn resolve(wanted: &Wanted<'_>) -> Result<Self, String> {
        let uri: Uri = wanted
            .url
            .parse()
            .map_err(|error| format!("{}: {error}", wanted.url))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{uri}: must start with http://"));
        }
        let addr = resolve(&uri).await?;
        let request = build(wanted, &uri).map_err(|error| format!("{uri}: {error}"))?;
        Ok(Self {
            addr,
            h2c: wanted.h2c,
            request,
        })
    }

    pub(super) async fn connect(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(self.addr)
            .await
            .map_err(|e| format!("connect: {e}"))?;
        // A failure only means that this socket waits for more bytes before it sends.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// A copy of the request.
    pub(super) fn request(&self) -> Request<Body> {
        self.request.clone()
    }

    async fn open(&self) -> Result<Connection, String> {
        let stream = self.connect().await?;
        let local = stream
            .local_addr()
            .map_err(|e| format!("local address: {e}"))?;
        let io = TokioIo::new(stream);
        let handshake = |e: hyper::Error| format!("handshake: {}", with_causes(&e));
        if self.h2c {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(handshake)?;
            // Its end shows at the sender.
            let task = tokio::spawn(async move { drop(connection.await) });
            Ok(Connection {
                sender: Sender::H2(sender),
                driven: Arc::new(Driven(task)),
                local,
                last: None,
            })
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(handshake)?;
            let task = tokio::spawn(async move { drop(connection.await) });
            Ok(Connection {
                sender: Sender::H1(sender),
                driven: Arc::new(Driven(task)),
                local,
                last: None,
            })
        }
    }

    /// Opens one connection for as many requests at once: only HTTP/2 has more than one.
    pub(super) async fn open_shared(&self, streams: u32) -> Result<Vec<Connection>, String> {
        let first = self.open().await?;
        let mut shares: Vec<Connection> = (1..streams).filter_map(|_| first.share()).collect();
        shares.push(first);
        Ok(shares)
    }

    /// Sends the request, over the connection in `slot` where there is a live one, and reads the
    /// whole answer; the connection stays in `slot` if it can be used again.
    ///
    /// Only a request that nobody has seen is sent again: one of which hyper gives the message back,
    /// which says that no byte of it was written, where the connection was a reused one; and one on a
    /// connection of HTTP/2 that goes away, as every client of it does (RFC 9113, 8.7).
    pub(super) async fn exchange(
        &self,
        slot: &mut Option<Connection>,
        effort: &mut Effort,
    ) -> Result<Answered, String> {
        loop {
            let reused = slot.take().filter(|connection| !connection.is_closed());
            let was_reused = reused.is_some();
            let mut connection = match reused {
                Some(connection) => connection,
                None => {
                    effort.opened += 1;
                    effort.waits_for = "a connection".to_owned();
                    effort.is_connected = false;
                    self.open().await?
                }
            };
            effort.is_connected = true;
            let description = connection.describe();
            effort.waits_for = format!("an answer, {description}");
            match connection.send(self.request()).await {
                Ok(response) => {
                    effort.waits_for = format!("the rest of an answer, {description}");
                    let answered = read(response).await?;
                    let pod = answered.header(POD_HEADER).unwrap_or("?").to_owned();
                    connection.last = Some((pod, Instant::now()));
                    *slot = Some(connection);
                    return Ok(answered);
                }
                Err(error)
                    if effort.reused_retries < RETRIES && self.is_unseen(&error, was_reused) =>
                {
                    effort.reused_retries += 1;
                }
                Err(error) => {
                    let text = with_causes(&error.into_error());
                    return Err(format!("{description}: {text}"));
                }
            }
        }
    }

    fn is_unseen(&self, error: &TrySendError<Request<Body>>, was_reused: bool) -> bool {
        let is_unsent = error.message().is_some();
        let source = std::error::Error::source(error.error());
        let is_told_to_go = source
            .and_then(|source| source.downcast_ref::<h2::Error>())
            .is_some_and(|error| error.is_go_away() && error.is_remote());
        is_unsent && (was_reused || self.h2c) || is_told_to_go
    }
}

fn build(wanted: &Wanted<'_>, uri: &Uri) -> Result<Request<Body>, http::Error> {
    let path = wanted
        .path
        .or_else(|| uri.path_and_query().map(|p| p.as_str()))
        .unwrap_or("/");
    let authority = uri.authority().map_or("", |a| a.as_str());
    let method = Method::from_bytes(wanted.method.as_bytes())?;
    let mut builder = Request::builder().method(method);
    builder = if wanted.h2c {
        builder.uri(format!("http://{authority}{path}"))
    } else {
        builder.uri(path).header(header::HOST, authority)
    };
    if wanted.close && !wanted.h2c {
        builder = builder.header(header::CONNECTION, "close");
    }
    let mut request = builder.body(Full::new(Bytes::copy_from_slice(wanted.body.as_bytes())))?;
    for (name, value) in wanted.headers {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        // In the place of what is there: who calls a gateway names another host than the gateway's.
        request
            .headers_mut()
            .insert(name, HeaderValue::from_str(value)?);
    }
    Ok(request)
}

/// Reads the body to its end.
async fn read(response: Response<Incoming>) -> Result<Answered, String> {
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|e| format!("body of a {}: {}", head.status, with_causes(&e)))?;
        if let Some(data) = frame.data_ref() {
            let room = KEPT_BODY.saturating_sub(body.len());
            body.extend_from_slice(&data[..data.len().min(room)]);
        } else if let Ok(last) = frame.into_trailers() {
            trailers = last;
        }
    }
    Ok(Answered {
        head,
        body,
        trailers,
    })
}

// === impl Connection ===

impl Connection {
    /// Enough to find it in a proxy's log or in the kernel's tables.
    fn describe(&self) -> String {
        let port = self.local.port();
        match &self.last {
            None => format!("new connection from port {port}"),
            Some((pod, at)) => format!(
                "reused connection from port {port}, {pod} answered {} ms ago",
                at.elapsed().as_millis()
            ),
        }
    }

    /// The same connection once more, where it can carry several requests at once.
    fn share(&self) -> Option<Self> {
        let Sender::H2(sender) = &self.sender else {
            return None;
        };
        Some(Self {
            sender: Sender::H2(sender.clone()),
            driven: Arc::clone(&self.driven),
            local: self.local,
            last: None,
        })
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_closed(),
            Sender::H2(sender) => sender.is_closed(),
        }
    }

    async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match &mut self.sender {
            Sender::H1(sender) => {
                // A connection that is closed here gives the message back below.
                let _ = sender.ready().await;
                sender.try_send_request(request).await
            }
            Sender::H2(sender) => {
                let _ = sender.ready().await;
                sender.try_send_request(request).await
            }
        }
    }
}

// === impl Driven ===

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Effort ===

impl Effort {
    /// What became of a request that has no answer, after all this.
    pub(super) fn failure(&self) -> Failure {
        match (self.is_late, self.is_connected) {
            (true, _) => Failure::Late,
            (false, true) => Failure::Cut,
            (false, false) => Failure::Unconnected,
        }
    }
}

// === impl Answered ===

impl Answered {
    /// Whether the status is 2xx or 3xx, and that of a gRPC call 0.
    pub(super) fn is_ok(&self) -> bool {
        let status = self.head.status;
        let is_fine = status.is_success() || status.is_redirection();
        is_fine && self.grpc_failure().is_none()
    }

    /// What a gRPC call's status says, where the answer is one's and it isn't 0. A call that fails
    /// before its body has the status among the headers.
    pub(super) fn grpc_failure(&self) -> Option<String> {
        self.header(header::CONTENT_TYPE.as_str())
            .filter(|kind| kind.starts_with("application/grpc"))?;
        let said = |name: &str| {
            let value = self
                .trailers
                .get(name)
                .or_else(|| self.head.headers.get(name));
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or("none")
        };
        let status = said(GRPC_STATUS);
        (status != "0").then(|| format!("{GRPC_STATUS} {status}: {}", said("grpc-message")))
    }

    /// A response header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_given_is_the_only_one() {
        let headers = BTreeMap::from([("host".to_owned(), "shop.example.org".to_owned())]);
        let uri = Uri::from_static("http://gateway:8080/one");
        let wanted = Wanted {
            url: "",
            method: "GET",
            path: None,
            headers: &headers,
            h2c: false,
            close: false,
            body: "",
        };
        let request = build(&wanted, &uri).unwrap();
        let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
        assert_eq!(hosts, ["shop.example.org"]);
        assert_eq!(request.uri(), "/one");
    }
}
