//! Many bytes by plain HTTP, held first and then let through: they arrive, and none are kept on the way.

use std::{convert::Infallible, future::poll_fn};

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use h2::{RecvStream, SendStream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Duration, timeout},
};

use crate::{
    harness::{Activator, FakePod, loopback, read_all, workload},
    http2,
};

/// Sent and received at once, bytes.
const BLOCK: usize = 64 << 10;
/// What a normal run moves, bytes.
const SOME: usize = 64 << 20;
/// More than the kernel keeps of two connections, bytes.
const MORE: usize = 256 << 20;
/// Longest time of one of these; the slow ones move a GiB by a build without optimisation.
const PATIENCE: Duration = Duration::from_secs(300);

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// A work that may take long.
async fn done<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it takes too long")
}

/// Block number `number` of any stream: where one is lost or comes twice, the sum differs.
fn block(number: usize) -> Vec<u8> {
    vec![number.to_le_bytes()[0]; BLOCK]
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Sum of all bytes of a stream.
fn whole_sum(bytes: usize) -> u64 {
    let bytes = (0..bytes / BLOCK).map(|number| number.to_le_bytes()[0]);
    bytes.map(|byte| u64::from(byte) * BLOCK as u64).sum()
}

async fn send(stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    for number in 0..bytes / BLOCK {
        stream.write_all(&block(number)).await?;
    }
    Ok(())
}

/// Reads so many bytes; their sum.
async fn receive(stream: &mut TcpStream, bytes: usize) -> u64 {
    let (mut left, mut total) = (bytes, 0);
    let mut buffer = vec![0; BLOCK];
    while left > 0 {
        let most = left.min(BLOCK);
        let length = stream.read(&mut buffer[..most]).await.unwrap();
        assert_ne!(length, 0, "{left} bytes are missing");
        total += sum(&buffer[..length]);
        left -= length;
    }
    total
}

/// Reads a head, and nothing behind it.
async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// The connection on which a pod is asked.
async fn asked() -> (FakePod, JoinHandle<TcpStream>) {
    let (listener, address) = loopback().await;
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream
    });
    (FakePod::before("shop-1", address).await, asked)
}

/// A caller that has sent `request`, which has reached its pod after it had been held.
async fn through(request: &str) -> (Activator, TcpStream, TcpStream) {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(request.as_bytes()).await.unwrap();
    activator.until_held(1).await;
    let (pod, asked) = asked().await;
    activator.add_pod(&pod);
    (activator, caller, done(asked).await.unwrap())
}

fn post(bytes: usize) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n")
}

/// HTTP/1.1, from a caller to its pod.
pub(crate) async fn upload(bytes: usize) {
    let (activator, mut caller, mut pod) = through(&post(bytes)).await;
    let (sent, total) =
        done(async { tokio::join!(send(&mut caller, bytes), receive(&mut pod, bytes)) }).await;
    sent.unwrap();
    assert_eq!(total, whole_sum(bytes));
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    pod.write_all(answer).await.unwrap();
    read_all(&mut caller).await.assert_status(200);
    activator.stop().await;
}

/// HTTP/1.1, from a pod to its caller.
pub(crate) async fn download(bytes: usize) {
    let (activator, mut caller, mut pod) = through(GET).await;
    let begins = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
    let (sent, total) = done(async {
        let sending = async {
            pod.write_all(begins.as_bytes()).await?;
            send(&mut pod, bytes).await
        };
        let receiving = async {
            head(&mut caller).await;
            receive(&mut caller, bytes).await
        };
        tokio::join!(sending, receiving)
    })
    .await;
    sent.unwrap();
    assert_eq!(total, whole_sum(bytes));
    activator.stop().await;
}

/// Sends all blocks on an HTTP/2 stream, as far as there is room.
async fn send_h2(stream: &mut SendStream<Bytes>, bytes: usize) {
    for number in 0..bytes / BLOCK {
        let mut left = Bytes::from(block(number));
        while !left.is_empty() {
            stream.reserve_capacity(left.len());
            let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
            let room = room.unwrap().unwrap().min(left.len());
            stream.send_data(left.split_to(room), false).unwrap();
        }
    }
    stream.send_data(Bytes::new(), true).unwrap();
}

async fn receive_h2(mut body: RecvStream) -> u64 {
    let mut total = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        total += sum(&data);
    }
    total
}

/// A pod that reads what one caller sends, then sends so many bytes; the sum of what it read.
async fn pod_h2(bytes: usize) -> (FakePod, JoinHandle<u64>) {
    let (listener, address) = loopback().await;
    let app = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut answer) = connection.accept().await.unwrap().unwrap();
        // What drives the connection.
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let total = receive_h2(request.into_body()).await;
        let mut body = answer.send_response(Response::new(()), false).unwrap();
        send_h2(&mut body, bytes).await;
        total
    });
    (FakePod::before("shop-1", address).await, app)
}

/// HTTP/2, to a pod and back.
pub(crate) async fn up_and_down_h2(bytes: usize) {
    let (activator, port) = Activator::with(workload("shop")).await;
    let (mut sender, _connection) = http2::connect(port).await;
    let (mut blocks, frames) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let request = Request::post("http://any.example/x").body(StreamBody::new(frames).boxed());
    let answer = tokio::spawn(sender.send_request(request.unwrap()));
    activator.until_held(1).await;
    let (pod, app) = pod_h2(bytes).await;
    activator.add_pod(&pod);
    done(async {
        for number in 0..bytes / BLOCK {
            let frame = Frame::data(Bytes::from(block(number)));
            blocks.send(Ok(frame)).await.unwrap();
        }
    })
    .await;
    drop(blocks);
    let answer = done(answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    let total = done(async {
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            total += frame.unwrap().data_ref().map_or(0, |data| sum(data));
        }
        total
    })
    .await;
    assert_eq!(total, whole_sum(bytes));
    assert_eq!(done(app).await.unwrap(), whole_sum(bytes));
    activator.stop().await;
}

#[tokio::test]
async fn an_upload_arrives_whole() {
    upload(SOME).await;
}

#[tokio::test]
async fn a_download_arrives_whole() {
    download(SOME).await;
}

#[tokio::test]
async fn over_http2_both_arrive_whole() {
    up_and_down_h2(SOME).await;
}

/// Sends until nobody takes more; how much that was.
async fn until_full(stream: &mut TcpStream) -> usize {
    let (bytes, mut sent) = (block(0), 0);
    while sent < MORE {
        let writing = stream.write(&bytes);
        match timeout(Duration::from_secs(1), writing).await {
            Ok(written) => sent += written.unwrap(),
            Err(_) => break,
        }
    }
    sent
}

#[tokio::test]
async fn what_a_pod_does_not_read_stays_with_its_caller() {
    let (activator, mut caller, pod) = through(&post(MORE)).await;
    let sent = until_full(&mut caller).await;
    assert!(sent < MORE, "all of it is kept on the way");
    drop((caller, pod));
    activator.stop().await;
}

#[tokio::test]
async fn what_a_caller_does_not_read_stays_with_its_pod() {
    let (activator, caller, mut pod) = through(GET).await;
    let begins = format!("HTTP/1.1 200 OK\r\ncontent-length: {MORE}\r\n\r\n");
    pod.write_all(begins.as_bytes()).await.unwrap();
    let sent = until_full(&mut pod).await;
    assert!(sent < MORE, "all of it is kept on the way");
    drop((caller, pod));
    activator.stop().await;
}

#[tokio::test]
async fn what_is_held_stays_with_its_caller() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(post(MORE).as_bytes()).await.unwrap();
    activator.until_held(1).await;
    let sent = until_full(&mut caller).await;
    assert!(sent < MORE, "all of it is kept here");
    // An orderly end would wait behind what is unread.
    caller.set_zero_linger().unwrap();
    drop(caller);
    activator.until_held(0).await;
    activator.stop().await;
}
