//! HTTP/2 by prior knowledge: curl and nghttp2's tools call, nghttpd and nginx answer.

use std::fs;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    apps::{Nghttpd, Nginx},
    client::curl,
    frames,
    process::{self, TempDir, soon},
    proxy::{Proxy, UNPROBED},
};

const H2C: &str = "--http2-prior-knowledge";

#[tokio::test]
async fn one_port_speaks_to_the_app_as_each_caller_speaks() {
    let nghttpd = Nghttpd::start(&[]).await;
    nghttpd.file("file", "text\n");
    let proxy = Proxy::start(nghttpd.address, &[]).await;
    let url = proxy.url("/file");
    let answer = curl(&[H2C, "-v", &url]).await;
    assert_eq!(answer.received()[0], "HTTP/2 200", "{answer:?}");
    assert_eq!(answer.ok(), "text\n");
    // nghttpd understands nothing but HTTP/2, so this shows that it was spoken to in HTTP/1.1.
    let answer = curl(&["--http1.1", "-v", &url]).await;
    assert_eq!(
        answer.received()[0],
        "HTTP/1.1 502 Bad Gateway",
        "{answer:?}"
    );

    let nginx = Nginx::start(r#"location / { return 200 "$server_protocol\n"; }"#).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let url = proxy.url("/");
    assert_eq!(curl(&["--http1.1", &url]).await.ok(), "HTTP/1.1\n");
    // And nginx here understands HTTP/1 only.
    let answer = curl(&[H2C, "-v", &url]).await;
    assert_eq!(answer.received()[0], "HTTP/2 502", "{answer:?}");
}

#[tokio::test]
async fn nginx_is_spoken_to_in_http2() {
    let echo = r#"location / { return 200 "$server_protocol $request_uri $http_host\n"; }"#;
    let nginx = Nginx::in_directory(TempDir::new(), "http2", echo).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let url = proxy.url("/a/../b?c=%2F");
    let answer = curl(&[H2C, "--path-as-is", "-H", "Host: shop.example", &url]).await;
    assert_eq!(answer.ok(), "HTTP/2.0 /a/../b?c=%2F shop.example\n");
}

#[tokio::test]
async fn sixteen_connections_with_thirty_two_streams_each_succeed() {
    let nginx = Nginx::in_directory(TempDir::new(), "http2", "location / { return 200 ok; }").await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let load = ["-n", "5120", "-c", "16", "-m", "32", &proxy.url("/")];
    let printed = process::run("h2load", &load).await;
    assert!(
        printed.contains("5120 succeeded, 0 failed, 0 errored"),
        "{printed}"
    );
    assert!(printed.contains("5120 2xx"), "{printed}");
}

/// Such a stream was not looked at, so that sending it again does no harm (RFC 9113, 8.7). nghttpd
/// refuses too (with `-m 4`), where it is slower to say its limit than we are to go over it.
#[tokio::test]
async fn a_stream_that_the_app_refused_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let is_request = |frame: &frames::Frame| frame.kind == frames::HEADERS;
    let app = async {
        let (mut app, _) = soon(listener.accept()).await.unwrap();
        soon(app.read_exact(&mut [0; frames::PREFACE.len()]))
            .await
            .unwrap();
        let first = frames::read_until(&mut app, is_request).await;
        let second = frames::read_until(&mut app, is_request).await;
        let one_stream = frames::settings(&[(3, 1)]);
        let refused = frames::REFUSED_STREAM.to_be_bytes();
        let flags = frames::END_HEADERS | frames::END_STREAM;
        let answer = |stream| frames::frame(frames::HEADERS, flags, stream, frames::STATUS_200);
        let said = [
            frames::frame(frames::SETTINGS, 0, 0, &one_stream),
            frames::frame(frames::RST_STREAM, 0, second.stream, &refused),
            answer(first.stream),
        ];
        app.write_all(&said.concat()).await.unwrap();
        let third = frames::read_until(&mut app, is_request).await;
        app.write_all(&answer(third.stream)).await.unwrap();
        frames::read(&mut app).await;
    };
    let (one, two) = (proxy.url("/1"), proxy.url("/2"));
    let calls = ["-v", &one, &two];
    let answered = process::run("nghttp", &calls);
    let printed = tokio::select! {
        printed = answered => printed,
        () = app => panic!("the app was left alone"),
    };
    assert_eq!(printed.matches(":status: 200").count(), 2, "{printed}");
}

#[tokio::test]
async fn an_app_that_allows_few_streams_is_not_sent_more() {
    let nghttpd = Nghttpd::start(&["-m", "4"]).await;
    nghttpd.file("file", "text\n");
    let proxy = Proxy::start(nghttpd.address, &[]).await;
    let url = proxy.url("/file");
    // After this the limit is known.
    curl(&[H2C, &url]).await.ok();
    let load = ["-n", "500", "-c", "2", "-m", "32", &url];
    let printed = process::run("h2load", &load).await;
    assert!(
        printed.contains("500 succeeded, 0 failed, 0 errored"),
        "{printed}"
    );
    assert!(printed.contains("500 2xx"), "{printed}");
}

#[tokio::test]
async fn nghttp_sends_and_gets_trailers() {
    let nghttpd = Nghttpd::start(&["--echo-upload", "--trailer", "x-sum: 1"]).await;
    let proxy = Proxy::start(nghttpd.address, &[]).await;
    let file = nghttpd.directory.path().join("upload");
    fs::write(&file, "up and down").unwrap();
    let data = ["-d", file.to_str().unwrap(), "--trailer", "x-check: 7"];
    let url = proxy.url("/");
    let printed = process::run("nghttp", &[&["-v"], &data[..], &[&url]].concat()).await;
    assert!(printed.contains("up and down"), "{printed}");
    assert!(printed.contains("x-sum: 1"), "{printed}");
    let received = nghttpd.received();
    assert_eq!(received.last().unwrap(), "x-check: 7", "{received:?}");
    assert!(
        received.contains(&":method: POST".to_owned()),
        "{received:?}"
    );
}

#[tokio::test]
async fn bodies_come_back_from_nghttpd_as_curl_sent_them() {
    let nghttpd = Nghttpd::start(&["--echo-upload"]).await;
    let proxy = Proxy::start(nghttpd.address, &[]).await;
    let sent: String = (0..700_000).map(|number| format!("{number}\n")).collect();
    let file = nghttpd.directory.path().join("upload");
    fs::write(&file, &sent).unwrap();
    let data = format!("@{}", file.display());
    let url = proxy.url("/");
    let answer = curl(&[H2C, "--data-binary", &data, &url]).await;
    assert!(answer.ok() == sent, "curl got something else");
    let length = format!("content-length: {}", sent.len());
    assert!(nghttpd.received().contains(&length));
}

#[tokio::test]
async fn pseudo_headers_and_cookie_crumbs_arrive_as_sent() {
    let nghttpd = Nghttpd::start(&[]).await;
    nghttpd.file("file", "text");
    let proxy = Proxy::start(nghttpd.address, &[]).await;
    let headers = [
        "Host: Shop.Example:81",
        "Cookie: a=1",
        "X-Two: b",
        "Cookie: c=3",
        "X-Two: a",
    ];
    let headers: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
    let url = proxy.url("/file?a=%2f//b");
    curl(&[&[H2C, "-A", "ua"], &headers[..], &[&url]].concat())
        .await
        .ok();
    let received = nghttpd.received();
    let value = |name: &str| -> Vec<String> {
        let lines = received
            .iter()
            .filter_map(|line| line.strip_prefix(&format!("{name}: ")));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(value(":authority"), ["Shop.Example:81"]);
    assert_eq!(value(":path"), ["/file?a=%2f//b"]);
    assert_eq!(value(":scheme"), ["http"]);
    assert_eq!(value("cookie"), ["a=1", "c=3"]);
    assert_eq!(value("x-two"), ["b", "a"]);
    assert_eq!(value("user-agent"), ["ua"]);
    assert_eq!(value("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(value("host").len(), 0, "{received:?}");
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let locations = "location = /none { return 204; } location / { etag on; }";
    let nginx = Nginx::in_directory(TempDir::new(), "http2", locations).await;
    fs::write(nginx.directory.path().join("file"), "x".repeat(1234)).unwrap();
    let proxy = Proxy::start(nginx.address, &[]).await;
    let (none, file) = (proxy.url("/none"), proxy.url("/file"));
    // Debian 12's curl can't send two HEADs over one HTTP/2 connection, to nginx neither.
    let head = curl(&[H2C, "-v", "-I", &file]).await;
    let length = "content-length: 1234";
    let lengths = head
        .received()
        .iter()
        .filter(|line| **line == length)
        .count();
    assert_eq!(lengths, 1, "{head:?}");
    let tag = head
        .received()
        .into_iter()
        .find(|line| line.starts_with("etag: "));
    let same = tag.unwrap().replace("etag: ", "If-None-Match: ");
    for (url, status) in [(&none, "HTTP/2 204"), (&file, "HTTP/2 304")] {
        let answer = curl(&[H2C, "-v", "-H", &same, url]).await;
        assert_eq!(answer.received()[0], status, "{answer:?}");
        assert_eq!(answer.ok(), "");
    }
}

#[tokio::test]
async fn a_caller_that_would_like_to_upgrade_to_http2_is_answered_in_http1() {
    let nginx =
        Nginx::start(r#"location / { return 200 "$server_protocol $http_upgrade\n"; }"#).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let answer = curl(&["--http2", "-v", &proxy.url("/")]).await;
    assert!(answer.sent().contains(&"Upgrade: h2c"), "{answer:?}");
    assert_eq!(answer.received()[0], "HTTP/1.1 200 OK", "{answer:?}");
    assert_eq!(answer.ok(), "HTTP/1.1 \n");
}

#[tokio::test]
async fn padding_is_understood() {
    let nghttpd = Nghttpd::start(&["-b", "100"]).await;
    nghttpd.file("file", "text\n");
    let proxy = Proxy::start(nghttpd.address, &[]).await;
    let url = proxy.url("/file");
    let printed = process::run("nghttp", &["-v", "-b", "200", &url]).await;
    assert!(printed.contains(":status: 200"), "{printed}");
    assert!(printed.contains("text"), "{printed}");
}

/// nghttp's headers, of 18 KiB, take two CONTINUATION frames.
#[tokio::test]
async fn continuation_frames_are_understood() {
    let nghttpd = Nghttpd::start(&[]).await;
    nghttpd.file("file", "text\n");
    let proxy = Proxy::start(nghttpd.address, &[]).await;
    let url = proxy.url("/file");
    let printed = process::run("nghttp", &["-v", "--continuation", &url]).await;
    assert!(printed.contains(":status: 200"), "{}", &printed[..2000]);
}
