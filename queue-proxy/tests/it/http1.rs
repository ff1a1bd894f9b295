//! HTTP/1.1 through the proxy.

use std::{net::SocketAddr, sync::atomic::Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    app::App,
    harness::{Proxy, get, read_to, soon, until},
};

#[tokio::test]
async fn a_request_is_answered_by_the_app() {
    let proxy = Proxy::start(&[]).await;
    let answer = proxy.get("/").await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, "hello"));
    assert!(answer.has("content-length: 5"), "{answer:?}");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    for _ in 0..3 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
            .await
            .unwrap();
        read_to(&mut stream, "\r\n\r\nhello").await;
    }
    // The readiness check connects, too: what matters is that three requests took one more.
    let checks = proxy.app.connections.load(Ordering::SeqCst) - 1;
    assert!(checks <= 2, "{checks} connections beside the one");
}

#[tokio::test]
async fn body_bytes_stream_both_ways_before_either_side_has_ended() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    let head = b"POST /echo HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for part in ["one", "two"] {
        let chunk = format!("3\r\n{part}\r\n");
        stream.write_all(chunk.as_bytes()).await.unwrap();
        let read = read_to(&mut stream, &chunk).await;
        assert!(!read.contains("0\r\n\r\n"), "ended early: {read}");
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    read_to(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn a_chunked_body_reaches_the_app_with_every_method() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let request = format!(
            "{method} /echo-whole HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n\
             5\r\nquery\r\n0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to(&mut stream, "5\r\nquery\r\n0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn a_chunked_answer_arrives_whole() {
    let proxy = Proxy::start(&[]).await;
    let answer = proxy.get("/chunked").await;
    assert!(answer.has("transfer-encoding: chunked"), "{answer:?}");
    assert!(answer.body.ends_with("0\r\n\r\n"), "{answer:?}");
    assert!(answer.body.contains("three"), "{answer:?}");
}

#[tokio::test]
async fn a_large_body_comes_back_as_it_was_sent() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let head = format!(
        "POST /echo HTTP/1.1\r\nhost: shop\r\ncontent-length: {}\r\n\r\n",
        sent.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let body = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&body).await.unwrap();
        writer
    });
    let mut read = Vec::new();
    while read.len() < sent.len() {
        assert_ne!(
            soon(reader.read_buf(&mut read)).await.unwrap(),
            0,
            "ended early"
        );
    }
    let begin = read
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    read.drain(..begin);
    let missing = sent.len() - read.len();
    let mut rest = vec![0; missing];
    soon(reader.read_exact(&mut rest)).await.unwrap();
    read.extend(rest);
    assert!(read == sent, "other bytes came back");
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    let request = b"HEAD /head HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("content-length: 1234"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn the_app_sees_host_path_and_headers_as_sent_but_for_hop_by_hop_ones() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    let request = b"GET /seen?a=%2f//b HTTP/1.1\r\nHost: Shop.Example:81\r\nX-One: 1\r\n\
        Connection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers, gzip\r\nKeep-Alive: 5\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = body.lines().collect();
    lines.sort_unstable();
    let expected = [
        "HTTP/1.1 /seen?a=%2f//b",
        "host: Shop.Example:81",
        "te: trailers",
        "x-forwarded-for: 127.0.0.1",
        "x-one: 1",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn callers_of_both_families_reach_an_app_at_an_address_of_either() {
    const FAMILIES: [&str; 2] = ["127.0.0.1", "::1"];
    for ip in FAMILIES {
        let (app, address) = App::start_at(ip.parse().unwrap()).await;
        let ports = format!("0={}/http", address.port());
        let proxy = Proxy::before(app, &ports, &[("QP_POD_IP", ip)]).await;
        until(|| async { proxy.admin("/ready").await.status() == 200 }).await;
        for from in FAMILIES {
            let address = SocketAddr::new(from.parse().unwrap(), proxy.traffic().port());
            let answer = get(address, "/seen").await;
            let forwarded = format!("x-forwarded-for: {from}");
            let mut lines = answer.body.lines();
            assert!(lines.any(|line| line == forwarded), "to {ip}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn header_names_keep_their_case_and_envoys_are_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The readiness check would be the first to connect: let it look elsewhere.
    let probes = r#"[{"port":1}]"#;
    let ports = format!("0={port}/http");
    let proxy = Proxy::before(App::new(), &ports, &[("QP_APP_PROBES", probes)]).await;
    let mut caller = proxy.connect().await;
    caller
        .write_all(
            b"GET / HTTP/1.1\r\nHost: shop\r\nX-CamelCase: 1\r\nX-Envoy-Attempt-Count: 1\r\n\r\n",
        )
        .await
        .unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    let head = read_to(&mut app, "\r\n\r\n").await;
    assert!(head.contains("X-CamelCase: 1\r\n"), "{head}");
    assert!(!head.to_lowercase().contains("x-forwarded-for"), "{head}");
    app.write_all(b"HTTP/1.1 204 No Content\r\nX-FromApp: 1\r\n\r\n")
        .await
        .unwrap();
    let head = read_to(&mut caller, "\r\n\r\n").await;
    assert_eq!(head, "HTTP/1.1 204 No Content\r\nX-FromApp: 1\r\n\r\n");
}

#[tokio::test]
async fn an_http10_caller_gets_its_answer_and_the_end_of_the_connection() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"GET /seen HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.contains("HTTP/1.1 /seen"), "{answer}");
}

#[tokio::test]
async fn a_get_is_sent_again_when_the_app_closes_the_kept_connection_under_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probes = r#"[{"port":1}]"#;
    let ports = format!("0={port}/http");
    let proxy = Proxy::before(App::new(), &ports, &[("QP_APP_PROBES", probes)]).await;
    let mut caller = proxy.connect().await;
    let request = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n";
    caller.write_all(request).await.unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut app, "\r\n\r\n").await;
    app.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut caller, "\r\n\r\n").await;

    caller.write_all(request).await.unwrap();
    // The second request has reached the kept connection when the app closes it.
    read_to(&mut app, "\r\n\r\n").await;
    drop(app);
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut app, "\r\n\r\n").await;
    app.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .await
        .unwrap();
    assert!(
        read_to(&mut caller, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 204")
    );
}

#[tokio::test]
async fn an_app_that_does_not_listen_gives_502_with_the_reason() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let proxy = Proxy::before(App::new(), &format!("0={port}/http"), &[]).await;
    let answer = proxy.get("/").await;
    assert_eq!(answer.status(), 502);
    assert!(
        answer.has("lull-reason: app-refused") && answer.has("lull-error-source: app"),
        "{answer:?}"
    );
    assert!(
        proxy
            .metrics()
            .await
            .contains(r#"rejected_total{reason="app-refused",source="app"} 1"#),
        "{}",
        proxy.metrics().await
    );
}

#[tokio::test]
async fn a_caller_that_leaves_in_the_middle_takes_its_request_out_of_the_app() {
    let proxy = Proxy::start(&[]).await;
    let request = proxy.spawn_get("/gate");
    proxy.inside(1).await;
    request.abort();
    proxy.inside(0).await;
    proxy.in_flight(0).await;
    until(|| async {
        let metrics = proxy.metrics().await;
        metrics.contains(r#"requests_total{code_class="none"} 1"#)
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_broken_is_the_callers_fault_and_not_the_apps() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    let request = b"POST /echo-whole HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n\
        3\r\none\r\nrubbish\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("lull-reason: bad-request\r\n"), "{answer}");
    assert!(answer.contains("lull-error-source: client\r\n"), "{answer}");
    let metrics = proxy.metrics().await;
    assert!(
        metrics.contains(r#"rejected_total{reason="bad-request",source="client"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_caller_that_leaves_in_its_upload_is_not_the_apps_fault() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    let request = b"POST /echo-whole HTTP/1.1\r\nhost: shop\r\ncontent-length: 10\r\n\r\nthree";
    stream.write_all(request).await.unwrap();
    proxy.inside(1).await;
    drop(stream);
    proxy.in_flight(0).await;
    let metrics = proxy.metrics().await;
    assert!(
        metrics.contains(r#"rejected_total{reason="app-failed",source="app"} 0"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_counted_as_the_callers_fault() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nno colon\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let counted = r#"rejected_total{reason="bad-request",source="client"} 1"#;
    until(|| async { proxy.metrics().await.contains(counted) }).await;
}

#[tokio::test]
async fn an_answer_that_the_app_breaks_off_is_its_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probes = [("QP_APP_PROBES", r#"[{"port":1}]"#)];
    let proxy = Proxy::before(App::new(), &format!("0={port}/http"), &probes).await;
    let mut caller = proxy.connect().await;
    caller
        .write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await
        .unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut app, "\r\n\r\n").await;
    app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun")
        .await
        .unwrap();
    read_to(&mut caller, "begun").await;
    drop(app);
    let counted = r#"rejected_total{reason="app-failed",source="app"} 1"#;
    until(|| async { proxy.metrics().await.contains(counted) }).await;
}

#[tokio::test]
async fn a_body_that_breaks_while_the_answer_goes_on_is_not_the_apps_fault() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    let head = b"POST /echo HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream.write_all(b"3\r\none\r\n").await.unwrap();
    read_to(&mut stream, "3\r\none\r\n").await;
    stream.write_all(b"rubbish\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(
        !String::from_utf8_lossy(&rest).contains("0\r\n\r\n"),
        "{rest:?}"
    );
    proxy.in_flight(0).await;
    let metrics = proxy.metrics().await;
    assert!(
        metrics.contains(r#"rejected_total{reason="app-failed",source="app"} 0"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"rejected_total{reason="bad-request",source="client"} 1"#),
        "{metrics}"
    );
}
