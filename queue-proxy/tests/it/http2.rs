//! h2c by prior knowledge through the proxy.

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Duration, timeout},
};

use crate::{
    app::{App, ChannelBody, channel},
    harness::{Proxy, body, h2_get, h2c, soon},
};

#[tokio::test]
async fn the_app_is_spoken_to_in_http2_with_the_callers_authority() {
    let proxy = Proxy::start(&[]).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let seen = body(soon(sender.send_request(h2_get("/seen"))).await.unwrap()).await;
    assert!(seen.starts_with("HTTP/2.0 http://shop/seen"), "{seen}");
}

#[tokio::test]
async fn trailers_pass() {
    let proxy = Proxy::start(&[]).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let response = soon(sender.send_request(h2_get("/trailers")))
        .await
        .unwrap();
    let collected = soon(response.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), "data");
}

#[tokio::test]
async fn a_stream_flows_both_ways_before_either_side_has_ended() {
    let proxy = Proxy::start(&[]).await;
    let (mut sender, _connection) = h2c::<ChannelBody>(proxy.traffic()).await;
    let (frames_tx, upload) = channel();
    let request = Request::post("http://shop/echo").body(upload).unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    let mut answer = response.into_body();
    for part in ["one", "two"] {
        frames_tx
            .send(Frame::data(Bytes::from(part)))
            .await
            .unwrap();
        let frame = soon(answer.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    drop(frames_tx);
    while let Some(frame) = soon(answer.frame()).await {
        assert!(frame.unwrap().into_data().unwrap().is_empty());
    }
}

#[tokio::test]
async fn many_streams_share_few_connections_to_the_app() {
    let proxy = Proxy::start(&[]).await;
    let (sender, _connection) = h2c::<Full<Bytes>>(proxy.traffic()).await;
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { sender.send_request(h2_get("/gate")).await.unwrap() })
        })
        .collect();
    proxy.inside(50).await;
    assert_eq!(proxy.report().await.load.in_flight, 50);
    let connections = proxy
        .app
        .connections
        .load(std::sync::atomic::Ordering::SeqCst);
    // The readiness check's connections are among them.
    assert!(connections < 10, "{connections}");
    proxy.app.gate.add_permits(50);
    for request in requests {
        assert_eq!(body(soon(request).await.unwrap()).await, "through the gate");
    }
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn uploads_that_wait_for_a_slot_do_not_stop_the_one_that_has_it() {
    let limit = [("QP_CONTAINER_CONCURRENCY", "1"), ("QP_QUEUE_DEPTH", "20")];
    let proxy = Proxy::start(&limit).await;
    let (mut sender, connection) = h2::client::handshake(proxy.connect().await).await.unwrap();
    tokio::spawn(connection);
    let post = || Request::post("http://shop/echo-whole").body(()).unwrap();
    let (first, mut upload) = sender.send_request(post(), false).unwrap();
    proxy.inside(1).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        sender = soon(sender.ready()).await.unwrap();
        let (answer, mut body) = sender.send_request(post(), false).unwrap();
        body.send_data(Bytes::from(vec![b'x'; 100_000]), true)
            .unwrap();
        waiting.push(answer);
    }
    proxy.queued(20).await;
    // Whatever the proxy takes of the others has been assigned to them before this.
    upload.send_data(Bytes::from("done"), true).unwrap();
    assert_eq!(soon(first).await.unwrap().status(), 200);
    for answer in waiting {
        assert_eq!(soon(answer).await.unwrap().status(), 200);
    }
    proxy.in_flight(0).await;
}

/// It may be sent anew (RFC 9113, 8.7), but not by us: its body has gone.
#[tokio::test]
async fn what_the_app_has_refused_with_its_body_is_refused_in_the_same_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = format!("0={}/http", listener.local_addr().unwrap().port());
    let probes = [("QP_APP_PROBES", r#"[{"port":1}]"#)];
    let proxy = Proxy::before(App::new(), &ports, &probes).await;
    let app = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut app = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_request, mut answer))) = app.accept().await {
            answer.send_reset(h2::Reason::REFUSED_STREAM);
        }
    });
    let (mut sender, connection) = h2::client::handshake(proxy.connect().await).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://shop/").body(()).unwrap();
    let (response, mut upload) = sender.send_request(request, false).unwrap();
    upload.send_data(Bytes::from("one"), true).unwrap();
    let error = soon(response).await.unwrap_err();
    assert!(error.is_remote(), "{error:?}");
    assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM));
    proxy.in_flight(0).await;
    let failed = r#"rejected_total{reason="app-failed",source="app"} 1"#;
    assert!(proxy.metrics().await.contains(failed));
    app.abort();
}

#[tokio::test]
async fn a_caller_that_resets_its_stream_is_not_the_apps_fault() {
    let proxy = Proxy::start(&[]).await;
    let (mut sender, connection) = h2::client::handshake(proxy.connect().await).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://shop/echo").body(()).unwrap();
    let (response, mut upload) = sender.send_request(request, false).unwrap();
    upload.send_data(Bytes::from("one"), false).unwrap();
    let mut answer = soon(response).await.unwrap().into_body();
    soon(answer.data()).await.unwrap().unwrap();
    proxy.in_flight(1).await;
    upload.send_reset(h2::Reason::CANCEL);
    proxy.in_flight(0).await;
    let metrics = proxy.metrics().await;
    assert!(
        metrics.contains(r#"rejected_total{reason="app-failed",source="app"} 0"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn our_own_answer_to_a_head_has_no_body() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let proxy = Proxy::before(App::new(), &format!("0={port}/http"), &[]).await;
    let (mut sender, _connection) = h2c(proxy.traffic()).await;
    let head = Request::head("http://shop/").body(Full::<Bytes>::default());
    let response = soon(sender.send_request(head.unwrap())).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()["lull-reason"], "app-refused");
    assert_eq!(body(response).await, "");
}

/// Its clock goes on by itself whenever nothing else does.
#[tokio::test(start_paused = true)]
async fn a_caller_that_never_ends_its_preface_is_not_waited_for() {
    let proxy = Proxy::start(&[]).await;
    let mut caller = proxy.connect().await;
    caller.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut said = Vec::new();
    let ended = timeout(Duration::from_secs(600), caller.read_to_end(&mut said)).await;
    assert!(ended.is_ok(), "it is open still");
}
