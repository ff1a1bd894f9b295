//! `Expect: 100-continue`: whether the body is wanted is for the app to say.

use std::fs;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    apps::Nginx,
    client::{Curl, curl, read_to},
    process::{TempDir, soon},
    proxy::{Proxy, UNPROBED},
};

const MIB: usize = 1 << 20;

/// PUTs 5 MiB and does not send them before it is told to, or refused.
async fn put(url: &str) -> Curl {
    let directory = TempDir::new();
    let file = directory.path().join("file");
    fs::write(&file, vec![b'x'; 5 * MIB]).unwrap();
    let file = file.to_str().unwrap();
    let expect = ["-H", "Expect: 100-continue", "--expect100-timeout", "20"];
    let printed = ["-v", "-w", "%{http_code} %{size_upload}", "-o", "/dev/null"];
    curl(&[&expect[..], &printed, &["-T", file, url]].concat()).await
}

#[tokio::test]
async fn an_app_that_wants_the_body_gets_it() {
    let nginx = Nginx::start("client_max_body_size 64m; location / { dav_methods PUT; }").await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let answer = put(&proxy.url("/file")).await;
    assert!(
        answer.received().contains(&"HTTP/1.1 100 Continue"),
        "{answer:?}"
    );
    assert_eq!(answer.ok(), format!("201 {}", 5 * MIB));
    let stored = fs::metadata(nginx.directory.path().join("file")).unwrap();
    assert_eq!(stored.len(), 5 * MIB as u64);
}

#[tokio::test]
async fn an_app_that_refuses_the_body_by_its_length_is_not_sent_it() {
    let nginx = Nginx::start("client_max_body_size 1k; location / { dav_methods PUT; }").await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let answer = put(&proxy.url("/file")).await;
    assert!(!answer.stderr.contains("100 Continue"), "{answer:?}");
    assert_eq!(answer.ok(), "413 0");
}

#[tokio::test]
async fn an_expectation_is_the_apps_to_fail() {
    let refusal = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let mut caller = proxy.connect().await;
    caller
        .write_all(
            b"PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        )
        .await
        .unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    let head = read_to(&mut app, "\r\n\r\n").await;
    let expectation = "\r\nexpect: 100-continue\r\n";
    assert!(head.to_lowercase().contains(expectation), "{head}");
    app.write_all(refusal).await.unwrap();
    let answer = read_to(&mut caller, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 417"), "{answer}");
    // Where the body should be comes nothing: the connection is of no more use.
    assert_eq!(soon(app.read(&mut [0])).await.unwrap_or(0), 0);
}

/// Where we closed the connection at once, the kernel would answer what still comes with a reset,
/// and callers that are writing would not look at the answer.
#[tokio::test]
async fn a_caller_may_go_on_sending_after_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let mut caller = proxy.connect().await;
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n",
        2 * MIB
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut app, "\r\n\r\n").await;
    let refusal = b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    app.write_all(refusal).await.unwrap();
    drop(app);
    let answer = read_to(&mut caller, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(
        soon(caller.read(&mut [0])).await.unwrap(),
        0,
        "it is closed"
    );
    for _ in 0..16 {
        soon(caller.write_all(&[b'x'; MIB / 16])).await.unwrap();
    }
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_body_reaches_the_caller() {
    let nginx = Nginx::start("client_max_body_size 1k; location / { dav_methods PUT; }").await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let file = TempDir::new();
    let path = file.path().join("file");
    fs::write(&path, vec![b'x'; 5 * MIB]).unwrap();
    let path = path.to_str().unwrap();
    let url = proxy.url("/file");
    for transfer in ["Expect:", "Transfer-Encoding: chunked"] {
        let arguments = [
            "-H",
            "Expect:",
            "-H",
            transfer,
            "-w",
            "%{http_code}",
            "-T",
            path,
            &url,
        ];
        let answer = curl(&[&["-v", "-o", "/dev/null"], &arguments[..]].concat()).await;
        assert!(answer.stdout.ends_with("413"), "{transfer}: {answer:?}");
    }
    proxy.in_flight(0).await;
}
