//! HTTP/2 without TLS: many requests on one connection, which must not wait for each other, and how
//! such a connection is moved to the pods.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::harness::{Activator, FakePod, loopback, soon, until, workload};

/// Reasons that HTTP/2 gives (RFC 9113, 7).
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A connection, and the task that ends with it.
pub(crate) async fn connect(
    port: SocketAddr,
) -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(port).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

/// The connection ends; how, is the client's business.
async fn ended(connection: JoinHandle<hyper::Result<()>>) {
    let _ = soon(connection).await.unwrap();
}

fn post(body: Body) -> Request<Body> {
    Request::post("http://any.example/x").body(body).unwrap()
}

pub(crate) fn whole(bytes: usize) -> Body {
    Full::new(Bytes::from(vec![b'x'; bytes])).boxed()
}

async fn assert_ok(response: Response<Incoming>, bytes: usize) {
    assert_eq!(response.status(), StatusCode::OK);
    let body = soon(response.into_body().collect()).await.unwrap();
    assert!(body.to_bytes().len() >= bytes);
}

/// Sends so many requests at once, which are held.
async fn hold(
    activator: &Activator,
    sender: &mut SendRequest<Body>,
    count: u32,
) -> Vec<JoinHandle<hyper::Result<Response<Incoming>>>> {
    let requests = (0..count)
        .map(|_| tokio::spawn(sender.send_request(post(whole(5)))))
        .collect();
    activator.until_held(u64::from(count)).await;
    requests
}

#[tokio::test]
async fn a_connection_is_moved_off_once_the_endpoints_are_the_pods() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let (mut sender, connection) = connect(port).await;
    for _ in 0..2 {
        let response = soon(sender.send_request(post(whole(1)))).await.unwrap();
        assert_ok(response, 1).await;
    }
    assert!(!connection.is_finished());
    let mut entry = workload("shop");
    entry.serve = true;
    activator.directory.apply_workload(entry);
    // This one is answered, and with it comes GOAWAY.
    let response = soon(sender.send_request(post(whole(1)))).await.unwrap();
    assert_ok(response, 1).await;
    ended(connection).await;
    activator.stop().await;
}

#[tokio::test]
async fn who_connects_during_a_drain_is_served_and_then_moved_off() {
    let activator = Activator::start(&[("ACTIVATOR_DRAIN_MIN", "4s")]).await;
    let port = activator.add(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let (mut idle, idle_connection) = connect(port).await;
    let response = soon(idle.send_request(post(whole(1)))).await.unwrap();
    assert_ok(response, 1).await;
    activator.shutdown.cancel();
    // Who is there already is told at once.
    ended(idle_connection).await;
    let (mut sender, connection) = connect(port).await;
    let response = soon(sender.send_request(post(whole(1)))).await.unwrap();
    assert_ok(response, 1).await;
    ended(connection).await;
    soon(activator.task).await.unwrap();
}

/// What a pod says to the head of a request, by its stream.
type Answers = Box<dyn FnMut(u32) -> Vec<u8> + Send>;

/// HEADERS: their end, the stream's, and status 200 (RFC 7541, appendix A).
fn ok(stream: u32) -> Vec<u8> {
    [&[0, 0, 1, 1, 5][..], &stream.to_be_bytes(), &[0x88]].concat()
}

fn reset(stream: u32, reason: u32) -> Vec<u8> {
    let [stream, reason] = [stream, reason].map(u32::to_be_bytes);
    [&[0, 0, 4, 3, 0][..], &stream, &reason].concat()
}

/// It counts the streams up to `last`.
fn go_away(last: u32, reason: u32) -> Vec<u8> {
    let [last, reason] = [last, reason].map(u32::to_be_bytes);
    [&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &last, &reason].concat()
}

/// A pod whose app says on its first connection what `first` says, and 200 on the others.
async fn pod_that(first: Answers) -> (FakePod, JoinHandle<()>) {
    let (listener, address) = loopback().await;
    let mut first = Some(first);
    let app = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answers = first.take().unwrap_or_else(|| -> Answers { Box::new(ok) });
            tokio::spawn(answer_all(stream, answers));
        }
    });
    (FakePod::before("shop-1", address).await, app)
}

/// A pod's side of a connection (RFC 9113, 4.1).
async fn answer_all(mut stream: TcpStream, mut answers: Answers) -> std::io::Result<()> {
    // SETTINGS, which are empty.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [_, high, low, kind, flags, id @ ..] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        stream.read_exact(&mut payload).await?;
        match kind {
            1 => stream.write_all(&answers(u32::from_be_bytes(id))).await?,
            // The caller's SETTINGS are acknowledged.
            4 if flags == 0 => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await?,
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_a_pod_has_not_begun_is_sent_anew_whatever_it_is() {
    for refusal in [go_away(0, NO_ERROR), reset(1, REFUSED_STREAM)] {
        let (activator, port) = Activator::with(workload("shop")).await;
        let mut once = Some(refusal.clone());
        let first: Answers = Box::new(move |stream| once.take().unwrap_or_else(|| ok(stream)));
        let (pod, app) = pod_that(first).await;
        activator.add_pod(&pod);
        let (mut sender, _connection) = connect(port).await;
        let response = soon(sender.send_request(post(whole(5)))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{refusal:?}");
        app.abort();
        activator.stop().await;
    }
}

#[tokio::test]
async fn of_many_on_one_connection_those_are_sent_anew_that_a_pod_has_not_begun() {
    const COUNT: u32 = 8;
    /// A caller's streams have odd numbers.
    const LAST: u32 = 2 * COUNT - 1;
    for reason in [NO_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM] {
        let (activator, port) = Activator::with(workload("shop")).await;
        let (mut sender, _connection) = connect(port).await;
        let requests = hold(&activator, &mut sender, COUNT).await;
        // When all have come, the second one is refused, and the last one is not counted.
        let first: Answers = Box::new(move |stream| {
            if stream != LAST {
                return Vec::new();
            }
            let begun = (1..LAST).step_by(2).filter(|begun| *begun != 3);
            let refusals = [reset(3, REFUSED_STREAM), go_away(LAST - 2, reason)];
            begun.map(ok).chain(refusals).flatten().collect()
        });
        let (pod, app) = pod_that(first).await;
        activator.add_pod(&pod);
        for request in requests {
            let response = soon(request).await.unwrap().unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{reason}");
        }
        app.abort();
        activator.stop().await;
    }
}

#[tokio::test]
async fn a_held_upload_does_not_stop_the_one_that_was_let_through() {
    const MANY: usize = 1 << 20;
    let mut entry = workload("shop");
    entry.settings.container_concurrency = 1;
    let (activator, port) = Activator::with(entry).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let (mut sender, _connection) = connect(port).await;
    let (mut upload, chunks) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let first = post(StreamBody::new(chunks).boxed());
    let first = tokio::spawn(sender.send_request(first));
    until(|| async { activator.forwarding().await == 1 }).await;
    // As much as a connection takes by default, which nobody reads.
    let second = tokio::spawn(sender.send_request(post(whole(MANY))));
    activator.until_held(1).await;
    for _ in 0..MANY / 1024 {
        let chunk = Frame::data(Bytes::from_static(&[b'y'; 1024]));
        soon(upload.send(Ok(chunk))).await.unwrap();
    }
    drop(upload);
    for request in [first, second] {
        assert_ok(soon(request).await.unwrap().unwrap(), MANY).await;
    }
    activator.stop().await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_does_not_stop_another_one_at_the_same_pod() {
    // More than all windows on the way together.
    const MANY: usize = 24 << 20;
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let (mut lazy, _lazy) = connect(port).await;
    let unread = soon(lazy.send_request(post(whole(MANY)))).await.unwrap();
    assert_eq!(unread.status(), StatusCode::OK);
    let (mut other, _other) = connect(port).await;
    for _ in 0..20 {
        let response = soon(other.send_request(post(whole(1)))).await.unwrap();
        assert_ok(response, 1).await;
    }
    assert_ok(unread, MANY).await;
    activator.stop().await;
}

#[tokio::test]
async fn as_many_are_held_on_one_connection_as_come_at_once() {
    // More than the 100 streams that servers allow mostly.
    const COUNT: u32 = 300;
    let (activator, port) = Activator::with(workload("shop")).await;
    let (mut sender, _connection) = connect(port).await;
    let held = hold(&activator, &mut sender, COUNT).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    for request in held {
        assert_ok(soon(request).await.unwrap().unwrap(), 0).await;
    }
    assert_eq!(pod.served(), COUNT);
    // They were let through at once, and no more connections were made than they need.
    assert!(pod.taken() <= COUNT.div_ceil(100), "{}", pod.taken());
    activator.stop().await;
}
