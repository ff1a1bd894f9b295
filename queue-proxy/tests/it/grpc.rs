//! Our own errors to gRPC callers: trailers only, with a status of gRPC's.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    app::App,
    harness::{Http2, Proxy, h2c, soon},
};

fn call(path: &str, content_type: &str) -> Request<Full<Bytes>> {
    Request::post(format!("http://shop{path}"))
        .header(header::CONTENT_TYPE, content_type)
        .header(header::TE, "trailers")
        .body(Full::from("\0\0\0\0\0"))
        .unwrap()
}

async fn grpc(sender: &mut Http2<Full<Bytes>>, path: &str) -> Response<Incoming> {
    soon(sender.send_request(call(path, "application/grpc+proto")))
        .await
        .unwrap()
}

/// An error as gRPC's protocol wants it; returns its message.
fn expect(answer: &Response<Incoming>, code: &str, reason: &str) -> String {
    assert_eq!(answer.status(), 200, "{answer:?}");
    let headers = answer.headers();
    assert_eq!(headers[header::CONTENT_TYPE], "application/grpc");
    assert_eq!(headers["grpc-status"], code, "{answer:?}");
    assert_eq!(headers["lull-reason"], reason, "{answer:?}");
    // The stream ended with the headers: they are the trailers.
    assert!(answer.body().is_end_stream(), "{answer:?}");
    headers["grpc-message"].to_str().unwrap().to_owned()
}

/// A port on which nobody listens.
async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_full_queue_is_unavailable() {
    let limit = [("QP_CONTAINER_CONCURRENCY", "1"), ("QP_QUEUE_DEPTH", "0")];
    let proxy = Proxy::start(&limit).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let mut first = sender.clone();
    let first = tokio::spawn(async move { grpc(&mut first, "/gate").await });
    proxy.inside(1).await;
    let refused = grpc(&mut sender, "/shop.Cart/Add").await;
    let message = expect(&refused, "14", "queue-full");
    assert_eq!(message, "all slots and waiting places are taken");
    proxy.app.gate.add_permits(1);
    assert!(
        !soon(first)
            .await
            .unwrap()
            .headers()
            .contains_key("grpc-status")
    );
    // The metric has the class that a caller of plain HTTP would have seen.
    let metrics = proxy.metrics().await;
    assert!(
        metrics.contains(r#"requests_total{code_class="5xx"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_app_that_does_not_listen_is_unavailable() {
    let ports = format!("0={}/http", closed_port().await);
    let proxy = Proxy::before(App::new(), &ports, &[]).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let message = expect(&grpc(&mut sender, "/").await, "14", "app-refused");
    assert!(
        message.starts_with("the app refuses connections"),
        "{message}"
    );
}

#[tokio::test]
async fn an_app_that_breaks_off_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = format!("0={}/http", listener.local_addr().unwrap().port());
    let probes = [("QP_APP_PROBES", r#"[{"port":1}]"#)];
    let proxy = Proxy::before(App::new(), &ports, &probes).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let answer = tokio::spawn(async move { grpc(&mut sender, "/").await });
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    soon(app.read_u8()).await.unwrap();
    app.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    drop(app);
    expect(&soon(answer).await.unwrap(), "14", "app-failed");
}

#[tokio::test]
async fn no_answer_in_time_is_deadline_exceeded() {
    let proxy = Proxy::start(&[("QP_RESPONSE_START_TIMEOUT", "50ms")]).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let message = expect(&grpc(&mut sender, "/gate").await, "4", "timeout");
    assert_eq!(message, "no answer within 50ms");
}

#[tokio::test]
async fn connect_is_unimplemented() {
    let proxy = Proxy::start(&[]).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let request = Request::connect("shop:80")
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = soon(sender.send_request(request)).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12", "{answer:?}");
}

#[tokio::test]
async fn grpc_web_and_http1_get_a_plain_status() {
    let ports = format!("0={}/http", closed_port().await);
    let proxy = Proxy::before(App::new(), &ports, &[]).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let web = call("/", "application/grpc-web+proto");
    let answer = soon(sender.send_request(web)).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(!answer.headers().contains_key("grpc-status"), "{answer:?}");

    let mut stream = proxy.connect().await;
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-type: application/grpc\r\n\
              content-length: 0\r\nconnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}
