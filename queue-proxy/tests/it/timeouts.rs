//! Requests that take too long.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, h2_get, h2c, read_to, soon};

#[tokio::test]
async fn no_answer_in_time_is_504_with_the_reason() {
    for key in ["QP_TIMEOUT", "QP_RESPONSE_START_TIMEOUT", "QP_IDLE_TIMEOUT"] {
        let proxy = Proxy::start(&[(key, "50ms")]).await;
        let answer = proxy.get("/gate").await;
        assert_eq!(answer.status(), 504, "{key}");
        assert!(
            answer.has("lull-reason: timeout") && answer.has("lull-error-source: app"),
            "{answer:?}"
        );
        proxy.inside(0).await;
    }
}

#[tokio::test]
async fn time_in_the_queue_counts() {
    let limit = [
        ("QP_CONTAINER_CONCURRENCY", "1"),
        ("QP_RESPONSE_START_TIMEOUT", "100ms"),
    ];
    let proxy = Proxy::start(&limit).await;
    let mut streaming = proxy.connect().await;
    let request = b"GET /stall HTTP/1.1\r\nhost: shop\r\n\r\n";
    streaming.write_all(request).await.unwrap();
    read_to(&mut streaming, "begun\r\n").await;
    let answer = proxy.get("/").await;
    assert_eq!(answer.status(), 504);
    // The app never had it.
    assert!(
        answer.has("lull-reason: queue-timeout") && answer.has("lull-error-source: queue-proxy"),
        "{answer:?}"
    );
    assert_eq!(proxy.report().await.queued, 0);
}

#[tokio::test]
async fn a_begun_answer_is_cut_and_never_ends_cleanly() {
    for key in ["QP_TIMEOUT", "QP_IDLE_TIMEOUT"] {
        let proxy = Proxy::start(&[(key, "100ms")]).await;
        let mut stream = proxy.connect().await;
        stream
            .write_all(b"GET /stall HTTP/1.1\r\nhost: shop\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        // Closed or reset: both tell a caller that a chunked body is cut.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("begun\r\n"), "{answer}");
        proxy.in_flight(0).await;
        assert!(
            proxy
                .metrics()
                .await
                .contains(r#"rejected_total{reason="timeout",source="app"} 1"#)
        );
    }
}

#[tokio::test]
async fn a_begun_http2_answer_is_reset() {
    let proxy = Proxy::start(&[("QP_TIMEOUT", "100ms")]).await;
    let (mut sender, _connection) = h2c::<Full<Bytes>>(proxy.traffic()).await;
    let response = soon(sender.send_request(h2_get("/stall"))).await.unwrap();
    assert!(soon(response.into_body().collect()).await.is_err());
    // Only the stream ends, not the connection.
    let next = soon(sender.send_request(h2_get("/"))).await.unwrap();
    assert_eq!(next.status(), 200);
}

#[tokio::test]
async fn an_upgraded_connection_obeys_the_idle_timeout_only() {
    let proxy = Proxy::start(&[("QP_TIMEOUT", "50ms"), ("QP_IDLE_TIMEOUT", "300ms")]).await;
    let mut socket = proxy.connect().await;
    socket
        .write_all(
            b"GET /upgrade HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n",
        )
        .await
        .unwrap();
    read_to(&mut socket, "\r\n\r\n").await;
    let begin = tokio::time::Instant::now();
    while begin.elapsed().as_millis() < 400 {
        socket.write_all(b"x").await.unwrap();
        assert_eq!(soon(socket.read_u8()).await.unwrap(), b'X');
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut rest = Vec::new();
    let _ = soon(socket.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    proxy.in_flight(0).await;
}
