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
