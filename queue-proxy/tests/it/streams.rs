//! What passes as bytes: upgrades, TLS, ports declared TCP.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    app::App,
    harness::{Proxy, local, read_to, soon},
};

/// The head of a TLS 1.2 record with a ClientHello, and some bytes of it.
const CLIENT_HELLO: [u8; 9] = [0x16, 3, 1, 0, 4, 1, 0, 0, 0];

/// An app that is only a listener; the readiness check looks elsewhere.
async fn bare(protocol: &str) -> (Proxy, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ports = format!("0={port}/{protocol}");
    let probes = [("QP_APP_PROBES", r#"[{"port":1}]"#)];
    (Proxy::before(App::new(), &ports, &probes).await, listener)
}

#[tokio::test]
async fn an_upgraded_connection_passes_raw_bytes_until_it_ends() {
    let proxy = Proxy::start(&[]).await;
    let mut socket = proxy.connect().await;
    // Bytes right behind the head belong to the new protocol already.
    socket
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let head = read_to(&mut socket, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    for word in ["one", "two"] {
        socket.write_all(word.as_bytes()).await.unwrap();
        read_to(&mut socket, &word.to_uppercase()).await;
    }
    proxy.in_flight(1).await;
    socket.shutdown().await.unwrap();
    assert_eq!(soon(socket.read(&mut [0])).await.unwrap(), 0);
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn an_upgrade_that_the_app_ignores_is_a_plain_answer() {
    let proxy = Proxy::start(&[]).await;
    let mut socket = proxy.connect().await;
    socket
        .write_all(
            b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await
        .unwrap();
    let answer = read_to(&mut socket, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn a_tls_connection_is_passed_byte_for_byte() {
    let (proxy, listener) = bare("http").await;
    let mut caller = proxy.connect().await;
    caller.write_all(&CLIENT_HELLO).await.unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    let mut seen = [0; CLIENT_HELLO.len()];
    soon(app.read_exact(&mut seen)).await.unwrap();
    assert_eq!(seen, CLIENT_HELLO);
    proxy.in_flight(1).await;
    app.write_all(b"server hello").await.unwrap();
    read_to(&mut caller, "server hello").await;
    drop(app);
    assert_eq!(soon(caller.read(&mut [0])).await.unwrap_or(0), 0);
    drop(caller);
    proxy.in_flight(0).await;
    assert!(
        proxy
            .metrics()
            .await
            .contains(r#"connections_total{kind="tls"} 1"#)
    );
}

#[tokio::test]
async fn on_a_tcp_port_the_server_may_speak_first_and_each_side_may_end_alone() {
    let (proxy, listener) = bare("tcp").await;
    let mut caller = proxy.connect().await;
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    app.write_all(b"220 ready\n").await.unwrap();
    read_to(&mut caller, "220 ready\n").await;
    caller.write_all(b"quit").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut said = String::new();
    soon(app.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "quit");
    app.write_all(b"bye").await.unwrap();
    drop(app);
    let mut said = String::new();
    soon(caller.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "bye");
    proxy.in_flight(0).await;
    assert_eq!(proxy.report().await.load.requests, 1);
}

#[tokio::test]
async fn who_only_looks_whether_a_tcp_port_is_open_is_no_traffic() {
    let (proxy, listener) = bare("tcp").await;
    drop(proxy.connect().await);
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    let mut said = Vec::new();
    soon(app.read_to_end(&mut said)).await.unwrap();
    drop(app);
    assert_eq!(proxy.report().await.load.requests, 0);
    let _silent = proxy.connect().await;
    proxy.in_flight(1).await;
    assert_eq!(proxy.report().await.load.requests, 1);
}

#[tokio::test]
async fn a_method_that_begins_like_the_http2_preface_is_http1_also_byte_by_byte() {
    let proxy = Proxy::start(&[]).await;
    let mut stream = proxy.connect().await;
    stream.set_nodelay(true).unwrap();
    for byte in b"PROPFIND / HTTP/1.1\r\nhost: shop\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    read_to(&mut stream, "\r\n\r\nhello").await;
}

#[tokio::test]
async fn several_ports_reach_the_app_each_on_its_own() {
    let (app, http) = App::start().await;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = format!(
        "0={}/http,0={}/tcp",
        http.port(),
        tcp.local_addr().unwrap().port()
    );
    let probes = [("QP_APP_PROBES", r#"[{"port":1}]"#)];
    let proxy = Proxy::before(app, &ports, &probes).await;
    assert_eq!(proxy.get("/").await.body, "hello");
    let _caller = TcpStream::connect(local(proxy.addresses.traffic[1]))
        .await
        .unwrap();
    soon(tcp.accept()).await.unwrap();
}
