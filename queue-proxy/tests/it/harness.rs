//! Starts a proxy and talks to it.

#[path = "../shared/wait.rs"]
mod wait;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lull_contract::{HumanDuration, report::QueueProxyReport};
use queue_proxy::{Addresses, Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::app::App;

pub(crate) use wait::{soon, until};

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static SOCKETS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Proxy {
    pub(crate) app: Arc<App>,
    pub(crate) addresses: Addresses,
    pub(crate) socket: String,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

/// An HTTP answer, read to its end.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// The environment of a proxy that listens on free ports and on a socket of its own.
pub(crate) fn environment(ports: &str, overrides: &[(&str, &str)]) -> BTreeMap<String, String> {
    let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
    let socket = format!("lull-test-{}-{number}", std::process::id());
    [
        ("QP_PORTS", ports),
        ("QP_POD_IP", "127.0.0.1"),
        ("QP_POD_NAME", "shop-1"),
        ("QP_POD_NAMESPACE", "default"),
        ("QP_ADMIN_PORT", "0"),
        ("QP_REPORT_PORT", "0"),
        ("QP_METRICS_PORT", "0"),
        ("QP_DRAIN_MIN", "0s"),
        ("QP_DRAIN_QUIET", "0s"),
        ("QP_DRAIN_SOCKET", &socket),
    ]
    .iter()
    .chain(overrides)
    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
    .collect()
}

pub(crate) fn config(ports: &str, overrides: &[(&str, &str)]) -> Config {
    Config::read(&environment(ports, overrides)).unwrap()
}

/// How long a proxy here waits for a drain that nobody has announced.
pub(crate) const UNCLAIMED_WAIT: Duration = Duration::from_millis(100);

impl Proxy {
    /// A proxy before a new app, with one HTTP port.
    pub(crate) async fn start(overrides: &[(&str, &str)]) -> Self {
        let (app, address) = App::start().await;
        Self::before(app, &format!("0={}/http", address.port()), overrides).await
    }

    pub(crate) async fn before(app: Arc<App>, ports: &str, overrides: &[(&str, &str)]) -> Self {
        let mut config = config(ports, overrides);
        config.unclaimed_wait = HumanDuration(UNCLAIMED_WAIT);
        let socket = config.drain_socket.clone();
        let bound = queue_proxy::build(config).await.unwrap();
        let addresses = bound.addresses().clone();
        let shutdown = CancellationToken::new();
        let run = bound.run(shutdown.clone());
        Self {
            app,
            addresses,
            socket,
            shutdown,
            task: tokio::spawn(async move { run.await.unwrap() }),
        }
    }

    pub(crate) fn traffic(&self) -> SocketAddr {
        local(self.addresses.traffic[0])
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.traffic()).await.unwrap()
    }

    /// A GET on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Raw {
        get(self.traffic(), path).await
    }

    /// A GET whose answer is not waited for here.
    pub(crate) fn spawn_get(&self, path: &str) -> JoinHandle<Raw> {
        let (address, path) = (self.traffic(), path.to_owned());
        tokio::spawn(async move { get(address, &path).await })
    }

    pub(crate) async fn admin(&self, path: &str) -> Raw {
        get(local(self.addresses.admin), path).await
    }

    pub(crate) async fn metrics(&self) -> String {
        get(local(self.addresses.metrics), "/metrics").await.body
    }

    pub(crate) async fn report(&self) -> QueueProxyReport {
        let raw = get(local(self.addresses.report), "/report").await;
        QueueProxyReport::parse(raw.body.as_bytes()).unwrap()
    }

    /// Waits until so many requests are in the app.
    pub(crate) async fn inside(&self, wanted: usize) {
        until(|| async { self.app.inside.load(Ordering::SeqCst) == wanted }).await;
    }

    pub(crate) async fn in_flight(&self, wanted: u64) {
        until(|| async { self.report().await.load.in_flight == wanted }).await;
    }

    pub(crate) async fn queued(&self, wanted: u64) {
        until(|| async { self.report().await.queued == wanted }).await;
    }
}

/// The loopback address of a listener on all addresses.
pub(crate) fn local(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Raw {
    let head = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or((answer.as_str(), ""));
    Raw {
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// Reads until what was read ends with `end`.
pub(crate) async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let byte = soon(stream.read_u8()).await;
        read.push(byte.unwrap_or_else(|error| panic!("{error} after {read:?}")));
    }
    String::from_utf8(read).unwrap()
}

impl Raw {
    pub(crate) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub(crate) fn has(&self, header: &str) -> bool {
        self.head
            .lines()
            .any(|line| line.eq_ignore_ascii_case(header))
    }
}

pub(crate) type Http2<B> = hyper::client::conn::http2::SendRequest<B>;

/// An HTTP/2 client by prior knowledge, and the task that ends with its connection.
pub(crate) async fn h2c<B>(address: SocketAddr) -> (Http2<B>, JoinHandle<hyper::Result<()>>)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    (sender, tokio::spawn(connection))
}

pub(crate) fn h2_get(path: &str) -> Request<Full<Bytes>> {
    let uri = format!("http://shop{path}");
    Request::get(uri).body(Full::default()).unwrap()
}

pub(crate) async fn body(response: Response<Incoming>) -> String {
    let bytes = soon(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
