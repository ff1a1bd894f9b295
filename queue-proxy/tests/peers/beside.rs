//! A small app, and a caller that must not feel what others do.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    client::{exchange, read_to},
    proxy::{Proxy, UNPROBED},
};

/// Longest time of a caller beside; the machine may be busy with other things.
const UNHARMED: Duration = Duration::from_secs(5);
/// Between two of its requests, so that it does not take the time from the others.
const PAUSE: Duration = Duration::from_millis(10);

const GET: &[u8] = b"GET /beside HTTP/1.1\r\nHost: shop\r\n\r\n";
const GET_ALONE: &[u8] = b"GET /beside HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";

/// A hyper server that answers every request, in either version, at once.
pub(crate) struct Hello {
    pub(crate) proxy: Proxy,
    /// Requests that reached the app.
    pub(crate) requests: Arc<AtomicUsize>,
    address: SocketAddr,
}

/// Asks again and again, over a kept connection and over new ones, until told to stop.
pub(crate) struct Beside {
    stop_tx: oneshot::Sender<()>,
    task: JoinHandle<usize>,
}

// === impl Hello ===

impl Hello {
    /// The app and a proxy before it.
    pub(crate) async fn start(overrides: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<AtomicUsize>::default();
        tokio::spawn(serve(listener, Arc::clone(&requests)));
        let overrides = [&[UNPROBED], overrides].concat();
        let proxy = Proxy::start(address, &overrides).await;
        Self {
            proxy,
            requests,
            address,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn traffic(&self) -> SocketAddr {
        self.proxy.traffic()
    }

    pub(crate) fn seen(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// A caller that comes while others do harm.
    pub(crate) fn beside(&self) -> Beside {
        let (stop_tx, stop_rx) = oneshot::channel();
        let task = tokio::spawn(ask(self.traffic(), stop_rx));
        Beside { stop_tx, task }
    }

    /// Fails where the proxy ever had more memory than this.
    pub(crate) fn assert_peak_below(&self, mib: u64) {
        let peak = self.proxy.process.peak_kib();
        assert!(peak < mib << 10, "{peak} KiB");
    }
}

async fn serve(listener: TcpListener, requests: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        let requests = Arc::clone(&requests);
        let service = service_fn(move |_: Request<Incoming>| {
            requests.fetch_add(1, Ordering::SeqCst);
            let body = Full::new(Bytes::from_static(b"hello"));
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

// === impl Beside ===

impl Beside {
    /// Ends it and fails where a request was not answered well; returns how many there were.
    pub(crate) async fn unharmed(self) -> usize {
        // Where it failed, it is no longer there to be told.
        let _ = self.stop_tx.send(());
        self.task.await.unwrap()
    }
}

async fn ask(address: SocketAddr, mut stop_rx: oneshot::Receiver<()>) -> usize {
    let mut kept = TcpStream::connect(address).await.unwrap();
    let mut asked = 0;
    loop {
        let begin = Instant::now();
        kept.write_all(GET).await.unwrap();
        read_to(&mut kept, "\r\n\r\nhello").await;
        let alone = exchange(address, GET_ALONE).await;
        assert!(
            alone.ends_with(b"\r\n\r\nhello"),
            "{:?}",
            String::from_utf8_lossy(&alone)
        );
        let took = begin.elapsed();
        assert!(took < UNHARMED, "two requests took {took:?}");
        asked += 2;
        // One round comes after the end of what the others do.
        if stop_rx.try_recv().is_ok() {
            return asked;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
