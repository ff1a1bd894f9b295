//! The app behind the proxy: a real hyper server that does what the path says.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};

pub(crate) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A body whose frames come from a channel; dropping the sender ends it.
pub(crate) struct ChannelBody(mpsc::Receiver<Frame<Bytes>>);

pub(crate) fn channel() -> (mpsc::Sender<Frame<Bytes>>, ChannelBody) {
    let (frames_tx, frames_rx) = mpsc::channel(4);
    (frames_tx, ChannelBody(frames_rx))
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

#[derive(Debug)]
pub(crate) struct App {
    /// One permit lets one `/gate` request go on.
    pub(crate) gate: Semaphore,
    pub(crate) healthy: AtomicBool,
    pub(crate) inside: AtomicUsize,
    pub(crate) most_inside: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    /// Paths of `/gate` requests in the order of their arrival.
    pub(crate) order: parking_lot::Mutex<Vec<String>>,
}

/// Counts a request while it is in the app.
struct Inside(Arc<App>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl App {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            healthy: AtomicBool::new(true),
            inside: AtomicUsize::new(0),
            most_inside: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            order: parking_lot::Mutex::default(),
        })
    }

    /// An app that listens on a port of its own.
    pub(crate) async fn start() -> (Arc<Self>, SocketAddr) {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at an address of either family.
    pub(crate) async fn start_at(ip: IpAddr) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Self::new();
        tokio::spawn(Arc::clone(&app).serve(listener));
        (app, address)
    }

    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            self.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(Arc::clone(&self).connection(stream));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(move |request| {
            let app = Arc::clone(&self);
            async move { Ok::<_, Infallible>(app.answer(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().preserve_header_case(true);
        let _ = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_inside.fetch_max(inside, Ordering::SeqCst);
        let _inside = Inside(Arc::clone(&self));
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/echo" => Response::new(request.into_body().boxed()),
            "/echo-whole" => match request.into_body().collect().await {
                Ok(body) => Response::new(body.map_err(|never| match never {}).boxed()),
                Err(error) => status(400, &error.to_string()),
            },
            "/seen" => text(seen(&request)),
            "/chunked" => chunks(&["one,", "two,", "three"]).await,
            "/trailers" => trailers().await,
            "/stall" => stall().await,
            "/upgrade" => upgrade(request),
            "/health" if !self.healthy.load(Ordering::SeqCst) => status(503, "sick"),
            "/head" => head(),
            _ if path.starts_with("/gate") => {
                self.order.lock().push(path);
                self.gate.acquire().await.unwrap().forget();
                text("through the gate".to_owned())
            }
            _ => text("hello".to_owned()),
        }
    }
}

fn full(text: String) -> BoxBody<Bytes, hyper::Error> {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed()
}

fn text(text: String) -> Answer {
    Response::new(full(text))
}

fn status(code: u16, text: &str) -> Answer {
    let mut answer = Response::new(full(text.to_owned()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}

fn head() -> Answer {
    let mut answer = text(String::new());
    *answer.body_mut() = full("x".repeat(1234));
    answer
}

/// What the app saw of the request, one thing per line.
fn seen(request: &Request<Incoming>) -> String {
    let mut lines = vec![format!("{:?} {}", request.version(), request.uri())];
    lines.extend(
        request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())),
    );
    lines.join("\n")
}

async fn chunks(parts: &[&'static str]) -> Answer {
    let (frames_tx, body) = channel();
    for part in parts {
        frames_tx
            .send(Frame::data(Bytes::from_static(part.as_bytes())))
            .await
            .unwrap();
    }
    Response::new(body.boxed())
}

async fn trailers() -> Answer {
    let (frames_tx, body) = channel();
    let data = Frame::data(Bytes::from_static(b"data"));
    frames_tx.send(data).await.unwrap();
    let mut map = HeaderMap::new();
    map.insert("grpc-status", HeaderValue::from_static("0"));
    frames_tx.send(Frame::trailers(map)).await.unwrap();
    Response::new(body.boxed())
}

/// Begins an answer and never ends it.
async fn stall() -> Answer {
    let (frames_tx, body) = channel();
    let data = Frame::data(Bytes::from_static(b"begun"));
    frames_tx.send(data).await.unwrap();
    tokio::spawn(async move { frames_tx.closed().await });
    Response::new(body.boxed())
}

/// Switches to a protocol that gives every byte back in upper case.
fn upgrade(mut request: Request<Incoming>) -> Answer {
    let switching = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(switching.await.unwrap());
        let mut bytes = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut bytes).await {
            bytes.make_ascii_uppercase();
            stream.write_all(&bytes[..length]).await.unwrap();
        }
    });
    let mut answer = status(101, "");
    let headers = answer.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", request.headers()["upgrade"].clone());
    answer
}
