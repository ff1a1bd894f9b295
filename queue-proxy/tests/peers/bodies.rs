//! Bodies that would not fit: 1 GiB up and down, and peers that do not read.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    process::Stdio,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    client::read_to,
    frames,
    process::{find, soon},
    proxy::{Proxy, UNPROBED},
};

const GIB: u64 = 1 << 30;
/// The proxy may not have more than this while the bodies pass; a debug build's own pages are
/// about half of it.
const MEMORY_KIB: u64 = 40 << 10;
/// What an answer on HTTP/2 may hold that nobody reads: its stream's window at the app.
const WINDOW_KIB: u64 = 128;
/// What sockets and buffers on the way may hold when nobody reads at the end of it.
const ON_THE_WAY: u64 = 32 << 20;
/// A length that no buffer's size divides, so that bytes in a wrong place are seen.
const BLOCK: usize = 1_000_003;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..BLOCK).map(next).collect()
});

/// Compares a stream with the pattern, repeated.
#[derive(Default)]
struct Checker(u64);

impl Checker {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = usize::try_from(self.0 % BLOCK as u64).unwrap();
            let length = bytes.len().min(BLOCK - at);
            assert!(
                bytes[..length] == PATTERN[at..at + length],
                "other bytes after {}",
                self.0
            );
            self.0 += length as u64;
            bytes = &bytes[length..];
        }
    }
}

/// An answer with the pattern, repeated, which counts what was asked for.
struct Source {
    left: u64,
    said: Arc<AtomicU64>,
}

impl Body for Source {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.left.min(BLOCK as u64);
        self.left -= length;
        self.said.fetch_add(length, Ordering::Relaxed);
        let data = PATTERN.slice(..usize::try_from(length).unwrap());
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

/// A server in hyper: GET is answered with 1 GiB, of PUT every byte is checked and counted.
struct App {
    address: SocketAddr,
    /// Bytes of answers that were asked for.
    said: Arc<AtomicU64>,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let said = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&said);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let said = Arc::clone(&counted);
                let service = service_fn(move |request: Request<Incoming>| {
                    let said = Arc::clone(&said);
                    async move { Ok::<_, Infallible>(answer(request, said).await) }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, said }
    }

    /// Waits until nothing more is asked of it, and returns what was.
    async fn stalls(&self) -> u64 {
        stalls(|| self.said.load(Ordering::Relaxed)).await
    }
}

async fn answer(request: Request<Incoming>, said: Arc<AtomicU64>) -> Response<Source> {
    let mut checker = Checker::default();
    let mut body = request.into_body();
    if body.is_end_stream() {
        return Response::new(Source { left: GIB, said });
    }
    while let Some(frame) = body.frame().await {
        checker.take(&frame.unwrap().into_data().unwrap_or_default());
    }
    let left = 0;
    let mut answer = Response::new(Source { left, said });
    let length = checker.0.to_string().parse().unwrap();
    answer.headers_mut().insert("x-length", length);
    answer
}

/// Waits until `count` is above zero and has not changed for a while.
async fn stalls(count: impl Fn() -> u64) -> u64 {
    let quiet = Duration::from_millis(300);
    soon(async {
        let (mut last, mut since) = (0, Instant::now());
        while last == 0 || since.elapsed() < quiet {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = count();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    })
    .await
}

fn curl(arguments: &[&str]) -> Command {
    let mut command = Command::new(find("curl"));
    command
        .args(["-q", "--silent", "--show-error", "--noproxy", "*"])
        .args(arguments)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

async fn down(version: &str) {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    let mut curl = curl(&[version, &proxy.url("/")]).spawn().unwrap();
    let mut output = curl.stdout.take().unwrap();
    let mut checker = Checker::default();
    let mut buffer = vec![0; 1 << 20];
    while let length @ 1.. = soon(output.read(&mut buffer)).await.unwrap() {
        checker.take(&buffer[..length]);
    }
    assert_eq!(checker.0, GIB);
    assert!(soon(curl.wait()).await.unwrap().success());
    let peak = proxy.process.peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

async fn up(version: &str) {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    let url = proxy.url("/");
    let arguments = [version, "-H", "Expect:", "-D", "-", "-T", "-", &url];
    let mut curl = curl(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = curl.stdin.take().unwrap();
    let mut left = GIB;
    while left > 0 {
        let length = left.min(BLOCK as u64);
        let block = &PATTERN[..usize::try_from(length).unwrap()];
        soon(input.write_all(block)).await.unwrap();
        left -= length;
    }
    drop(input);
    let output = soon(curl.wait_with_output()).await.unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        answer.contains(&format!("x-length: {GIB}\r\n")),
        "{output:?}"
    );
    let peak = proxy.process.peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

#[tokio::test]
async fn a_gibibyte_comes_down_in_http1() {
    down("--http1.1").await;
}

#[tokio::test]
async fn a_gibibyte_comes_down_in_http2() {
    down("--http2-prior-knowledge").await;
}

#[tokio::test]
async fn a_gibibyte_goes_up_in_http1() {
    up("--http1.1").await;
}

#[tokio::test]
async fn a_gibibyte_goes_up_in_http2() {
    up("--http2-prior-knowledge").await;
}

#[tokio::test]
async fn an_app_waits_for_a_caller_that_does_not_read_in_http1() {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    let mut caller = proxy.connect().await;
    caller
        .write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
        .await
        .unwrap();
    let said = app.stalls().await;
    assert!(said < ON_THE_WAY, "{said} bytes");
    let peak = proxy.process.peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    // It goes on where it stopped.
    read_to(&mut caller, "\r\n\r\n").await;
    let mut checker = Checker::default();
    let mut buffer = vec![0; 1 << 20];
    while checker.0 < 4 * ON_THE_WAY {
        // Chunk sizes are between the data: only the amount is looked at here.
        checker.0 += soon(caller.read(&mut buffer)).await.unwrap() as u64;
    }
    drop(caller);
    proxy.in_flight(0).await;
}

/// Asks so many times on a connection of HTTP/2, each on a stream of its own.
async fn ask(caller: &mut TcpStream, times: u32) {
    for number in 0..times {
        let flags = frames::END_HEADERS | frames::END_STREAM;
        let request = frames::open(2 * number + 1, "GET", flags);
        caller.write_all(&request).await.unwrap();
    }
}

#[tokio::test]
async fn an_app_waits_for_a_caller_that_gives_no_window_in_http2() {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    let mut caller = frames::connect(proxy.traffic()).await;
    ask(&mut caller, 10).await;
    let said = app.stalls().await;
    assert!(said < ON_THE_WAY, "{said} bytes");
    let peak = proxy.process.peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    drop(caller);
    proxy.in_flight(0).await;
}

/// The queue-proxy's default limit is 256 MiB, and who asks and does not read costs nothing.
#[tokio::test]
async fn a_hundred_callers_that_do_not_read_in_http1_do_not_fill_the_memory() {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    let mut callers = Vec::new();
    for _ in 0..100 {
        let mut caller = proxy.connect().await;
        let request = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
        caller.write_all(request).await.unwrap();
        callers.push(caller);
    }
    app.stalls().await;
    let peak = proxy.process.peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    drop(callers);
    proxy.in_flight(0).await;
}

/// What one of them does not take must not stand in the way of who shares the app's connection.
#[tokio::test]
async fn callers_that_give_no_window_in_http2_do_not_stop_others_at_the_app() {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    let mut stopped = frames::connect(proxy.traffic()).await;
    ask(&mut stopped, 20).await;
    app.stalls().await;
    let arguments = ["--http2-prior-knowledge", &proxy.url("/")];
    let mut other = curl(&arguments).spawn().unwrap();
    let mut output = other.stdout.take().unwrap();
    let mut checker = Checker::default();
    let mut buffer = vec![0; 1 << 20];
    while checker.0 < ON_THE_WAY {
        let length = soon(output.read(&mut buffer)).await.unwrap();
        assert!(length > 0, "the answer ended after {} bytes", checker.0);
        checker.take(&buffer[..length]);
    }
    proxy.in_flight(21).await;
}

/// Each stream holds its own window, at most.
#[tokio::test]
async fn a_thousand_streams_without_a_window_do_not_fill_the_memory() {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    let mut callers = Vec::new();
    for _ in 0..10 {
        callers.push(frames::connect(proxy.traffic()).await);
    }
    for caller in &mut callers {
        ask(caller, 100).await;
    }
    app.stalls().await;
    let peak = proxy.process.peak_kib();
    assert!(peak < MEMORY_KIB + 1_000 * WINDOW_KIB, "{peak} KiB");
    drop(callers);
    proxy.in_flight(0).await;
}

/// Writes to `caller` until nobody takes more; returns how much that was.
async fn push(caller: &mut TcpStream) -> u64 {
    let mut written = 0;
    let quiet = Duration::from_millis(300);
    loop {
        let at = usize::try_from(written % BLOCK as u64).unwrap();
        let writing = tokio::time::timeout(quiet, caller.write(&PATTERN[at..]));
        let Ok(length) = writing.await else {
            return written;
        };
        written += length.unwrap() as u64;
        assert!(written < 8 * ON_THE_WAY, "everything is taken");
    }
}

#[tokio::test]
async fn a_caller_waits_for_an_app_that_does_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ports = [(address.port(), "http"), (address.port(), "tcp")];
    let proxy = Proxy::with_ports(address.ip(), &ports, &[UNPROBED]).await;
    for index in 0..ports.len() {
        let mut caller = TcpStream::connect(proxy.port(index)).await.unwrap();
        let head = format!("PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: {GIB}\r\n\r\n");
        caller.write_all(head.as_bytes()).await.unwrap();
        let (mut app, _) = soon(listener.accept()).await.unwrap();
        read_to(&mut app, "\r\n\r\n").await;
        let written = push(&mut caller).await;
        assert!(written < ON_THE_WAY, "{written} bytes");
        let peak = proxy.process.peak_kib();
        assert!(peak < MEMORY_KIB, "{peak} KiB");
        // All of it is still there.
        let mut checker = Checker::default();
        let mut buffer = vec![0; 1 << 20];
        while checker.0 < written {
            let length = soon(app.read(&mut buffer)).await.unwrap();
            checker.take(&buffer[..length]);
        }
        drop((caller, app));
        proxy.in_flight(0).await;
    }
}
