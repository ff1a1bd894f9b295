//! gRPC by plain HTTP/2, held first and then let through: messages as they come, and the status in
//! trailers.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{SinkExt, channel::mpsc};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::task::JoinHandle;

use crate::{
    harness::{Activator, FakePod, loopback, soon, workload},
    http2::{self, Body},
};

/// A call that is under way.
struct Call {
    /// What the caller says.
    messages: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    answer: JoinHandle<hyper::Result<Response<Incoming>>>,
}

// === impl Call ===

impl Call {
    async fn say(&mut self, message: &Bytes) {
        let frame = Frame::data(message.clone());
        soon(self.messages.send(Ok(frame))).await.unwrap();
    }
}

/// A message as gRPC has it: not compressed, its length, and itself.
fn message(content: &str) -> Bytes {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[0][..], &length, content.as_bytes()].concat().into()
}

/// A pod whose app says each message again as it comes.
async fn pod() -> FakePod {
    let (listener, address) = loopback().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, answer))) = connection.accept().await {
                    tokio::spawn(echo(request, answer));
                }
            });
        }
    });
    FakePod::before("shop-1", address).await
}

async fn echo(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
    assert_eq!(request.headers()[header::TE], "trailers");
    let head = Response::builder().header(header::CONTENT_TYPE, "application/grpc");
    let mut said = answer.send_response(head.body(()).unwrap(), false).unwrap();
    let mut heard = request.into_body();
    while let Some(message) = heard.data().await {
        let message = message.unwrap();
        let taken = heard.flow_control().release_capacity(message.len());
        taken.unwrap();
        said.send_data(message, false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "all said".parse().unwrap());
    said.send_trailers(trailers).unwrap();
}

/// Begins a call, which is held, says `first` in it and lets it through.
async fn call(first: &Bytes) -> (Activator, Call) {
    let (activator, port) = Activator::with(workload("shop")).await;
    let (mut sender, _connection) = http2::connect(port).await;
    let (messages, frames) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let body: Body = StreamBody::new(frames).boxed();
    let request = Request::post("http://any.example/shop.Cart/Add")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(body)
        .unwrap();
    let answer = tokio::spawn(async move { sender.send_request(request).await });
    let mut call = Call { messages, answer };
    call.say(first).await;
    activator.until_held(1).await;
    activator.add_pod(&pod().await);
    (activator, call)
}

/// The next message of an answer, or its trailers.
async fn next(answer: &mut Incoming) -> Frame<Bytes> {
    loop {
        let frame = soon(answer.frame()).await.unwrap().unwrap();
        if frame.data_ref().is_none_or(|data| !data.is_empty()) {
            return frame;
        }
    }
}

#[track_caller]
fn assert_status(frame: Frame<Bytes>) {
    let trailers = frame.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["grpc-message"], "all said");
}

#[tokio::test]
async fn a_call_is_held_and_its_status_comes_in_trailers() {
    let one = message("one");
    let (activator, call) = call(&one).await;
    drop(call.messages);
    let answer = soon(call.answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/grpc");
    let mut body = answer.into_body();
    assert_eq!(next(&mut body).await.into_data().unwrap(), one);
    assert_status(next(&mut body).await);
    assert!(soon(body.frame()).await.is_none());
    activator.stop().await;
}

#[tokio::test]
async fn a_stream_is_held_and_then_goes_both_ways_at_once() {
    let first = message("first");
    let (activator, mut call) = call(&first).await;
    let answer = soon(&mut call.answer).await.unwrap().unwrap();
    let mut body = answer.into_body();
    assert_eq!(next(&mut body).await.into_data().unwrap(), first);
    // Each is answered before the next one is said.
    for number in 0..5 {
        let message = message(&format!("message {number}"));
        call.say(&message).await;
        assert_eq!(next(&mut body).await.into_data().unwrap(), message);
    }
    drop(call.messages);
    assert_status(next(&mut body).await);
    activator.stop().await;
}
