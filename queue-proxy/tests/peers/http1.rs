//! HTTP/1.0 and 1.1: curl and h2load call, nginx answers.

use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    apps::Nginx,
    client::{curl, curl_with, exchange, read_to},
    process::{self, TempDir, soon},
    proxy::{Proxy, UNPROBED},
    recorder::Recorder,
};

/// Says how nginx was asked, and over which of its connections.
const ECHO: &str =
    r#"location / { return 200 "$server_protocol $request_method $request_uri $connection\n"; }"#;
/// Keeps what is PUT, shows it again; in chunks where a page may include others.
const STORE: &str = "client_max_body_size 64m; location / { dav_methods PUT; } \
     location /chunked/ { ssi on; ssi_types *; rewrite ^/chunked(/.*) $1 break; }";

#[tokio::test]
async fn curl_with_http10_is_answered_and_the_connection_ends() {
    let nginx = Nginx::start(ECHO).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let url = proxy.url("/a");
    let answer = curl(&["-0", "-v", &url, &url]).await;
    assert!(answer.received()[0].ends_with(" 200 OK"), "{answer:?}");
    assert_eq!(
        answer.stderr.matches("Connected to").count(),
        2,
        "{answer:?}"
    );
    assert!(answer.ok().starts_with("HTTP/1.1 GET /a "));
}

#[tokio::test]
async fn an_http10_request_without_host_reaches_the_app() {
    let nginx = Nginx::start(r#"location / { return 200 "$http_host\n"; }"#).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let answer = curl(&["-0", "-v", "-H", "Host:", &proxy.url("/")]).await;
    assert!(!answer.stderr.contains("> Host"), "{answer:?}");
    assert_eq!(answer.ok().trim(), nginx.address.to_string());
}

#[tokio::test]
async fn curl_uses_its_connection_again_and_so_do_we() {
    let nginx = Nginx::start(ECHO).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let url = proxy.url("/");
    let printed = curl(&["-w", "%{num_connects}\n", &url, &url, &url])
        .await
        .ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!([lines[1], lines[3], lines[5]], ["1", "0", "0"], "{printed}");
    assert_eq!(
        [lines[2], lines[4]],
        [lines[0]; 2],
        "other connections to nginx"
    );
}

#[tokio::test]
async fn fifty_requests_in_one_write_are_answered_in_their_order() {
    let nginx = Nginx::start(r#"location / { return 200 "$request_uri\n"; }"#).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let requests: String = (0..50)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: shop\r\n\r\n"))
        .collect();
    let mut stream = proxy.connect().await;
    stream.write_all(requests.as_bytes()).await.unwrap();
    for number in 0..50 {
        let head = read_to(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{number}: {head}");
        let body = read_to(&mut stream, "\n").await;
        assert_eq!(body, format!("/{number}\n"));
    }
}

#[tokio::test]
async fn pipelined_bodies_do_not_run_into_the_next_request() {
    let recorder = Recorder::start().await;
    let proxy = Proxy::start(recorder.address, &[UNPROBED]).await;
    let requests = b"POST /1 HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\none\
        POST /2 HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
        GET /3 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let answer = exchange(proxy.traffic(), requests).await;
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
    let seen: Vec<_> = recorder
        .messages()
        .into_iter()
        .map(|message| message.body)
        .collect();
    assert_eq!(seen, [&b"one"[..], b"two", b""]);
}

#[tokio::test]
async fn h2load_pipelines_and_every_request_succeeds() {
    let nginx = Nginx::start(ECHO).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let load = ["--h1", "-n", "2000", "-c", "8", "-m", "16", &proxy.url("/")];
    let printed = process::run("h2load", &load).await;
    assert!(
        printed.contains("2000 succeeded, 0 failed, 0 errored"),
        "{printed}"
    );
    assert!(printed.contains("2000 2xx"), "{printed}");
}

#[tokio::test]
async fn chunks_go_up_and_come_down() {
    let directory = TempDir::new();
    let nginx = Nginx::in_directory(directory, "", STORE).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let sent: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let upload = ["-v", "-T", "-", &proxy.url("/file")];
    let put = curl_with(&upload, Some(sent.as_bytes())).await;
    assert!(
        put.sent().contains(&"Transfer-Encoding: chunked"),
        "{put:?}"
    );
    put.ok();
    let stored = fs::read_to_string(nginx.directory.path().join("file")).unwrap();
    assert!(stored == sent, "nginx got something else");
    let got = curl(&["-v", &proxy.url("/chunked/file")]).await;
    assert!(
        got.received().contains(&"Transfer-Encoding: chunked"),
        "{:?}",
        got.received()
    );
    assert!(got.ok() == sent, "curl got something else");
}

#[tokio::test]
async fn a_length_that_is_known_stays_known() {
    let nginx = Nginx::start(STORE).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let url = proxy.url("/file");
    curl(&[
        "-T",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        &url,
    ])
    .await
    .ok();
    let length = include_str!("../../Cargo.toml").len();
    let got = curl(&["-v", &url]).await;
    let header = format!("Content-Length: {length}");
    assert!(got.received().contains(&header.as_str()), "{got:?}");
    assert_eq!(got.ok(), include_str!("../../Cargo.toml"));
}

#[tokio::test]
async fn head_tells_the_length_and_brings_no_body() {
    let nginx = Nginx::start(STORE).await;
    fs::write(nginx.directory.path().join("file"), "x".repeat(1234)).unwrap();
    let proxy = Proxy::start(nginx.address, &[]).await;
    let url = proxy.url("/file");
    // The second answer comes over the same connection: no byte of a body was in between.
    let answer = curl(&["-v", "-I", &url, &url]).await;
    let length = "Content-Length: 1234";
    let lengths = answer
        .received()
        .iter()
        .filter(|line| **line == length)
        .count();
    assert_eq!(lengths, 2, "{answer:?}");
    assert_eq!(
        answer.stderr.matches("Connected to").count(),
        1,
        "{answer:?}"
    );
    assert_eq!(answer.code, 0);
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let nginx = Nginx::start("location = /none { return 204; } location / { etag on; }").await;
    fs::write(nginx.directory.path().join("file"), "text").unwrap();
    let proxy = Proxy::start(nginx.address, &[]).await;
    let (none, file) = (proxy.url("/none"), proxy.url("/file"));
    let first = curl(&["-v", &file]).await;
    let tag = first
        .received()
        .into_iter()
        .find(|line| line.starts_with("ETag: "));
    let same = tag.unwrap().replace("ETag: ", "If-None-Match: ");
    let answer = curl(&["-v", "-H", &same, &none, &file, &none, &file]).await;
    let received = answer.received();
    let statuses: Vec<&&str> = received
        .iter()
        .filter(|line| line.starts_with("HTTP/"))
        .collect();
    let (none, not_modified) = ("HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified");
    assert_eq!(statuses, [&none, &not_modified, &none, &not_modified]);
    assert_eq!(
        answer.stderr.matches("Connected to").count(),
        1,
        "{answer:?}"
    );
    let framing = ["Content-Length", "Transfer-Encoding"];
    let framed = received
        .iter()
        .find(|line| framing.iter().any(|name| line.starts_with(name)));
    assert_eq!(framed, None);
    assert_eq!(answer.ok(), "");
}

#[tokio::test]
async fn trailers_that_are_announced_come_through_in_both_directions() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum, X-Two\r\nTransfer-Encoding: chunked\r\n\r\n\
          4\r\ndown\r\n0\r\nX-Sum: 1\r\nX-Two: 2\r\n\r\n"
            .to_vec()
    })
    .await;
    let proxy = Proxy::start(recorder.address, &[UNPROBED]).await;
    let request = b"POST / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nConnection: close, TE\r\n\
        Trailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nup\r\n0\r\nX-Check: 7\r\n\r\n";
    let answer = String::from_utf8(exchange(proxy.traffic(), request).await).unwrap();
    let seen = recorder.only();
    assert_eq!(seen.body, b"up");
    assert_eq!(seen.trailers.to_ascii_lowercase(), b"x-check: 7");
    let end = answer.to_lowercase();
    assert!(
        end.contains("x-sum: 1\r\n") && end.ends_with("x-two: 2\r\n\r\n"),
        "{answer}"
    );
    // curl takes trailers for headers.
    let seen = curl(&["-D", "-", "-H", "TE: trailers", &proxy.url("/")])
        .await
        .ok();
    assert!(seen.to_lowercase().contains("x-sum: 1"), "{seen}");
}

#[tokio::test]
async fn the_body_is_whole_also_where_trailers_were_not_announced() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
          4\r\ndown\r\n0\r\nX-Sum: 1\r\n\r\n"
            .to_vec()
    })
    .await;
    let proxy = Proxy::start(recorder.address, &[UNPROBED]).await;
    let request = b"POST / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\
        Transfer-Encoding: chunked\r\n\r\n2\r\nup\r\n0\r\nX-Check: 7\r\n\r\n";
    let answer = String::from_utf8(exchange(proxy.traffic(), request).await).unwrap();
    assert_eq!(recorder.only().body, b"up");
    assert!(answer.contains("4\r\ndown\r\n0\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_early_hint_does_not_disturb_the_answer() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntext"
            .to_vec()
    })
    .await;
    let proxy = Proxy::start(recorder.address, &[UNPROBED]).await;
    let url = proxy.url("/");
    // It is optional for a proxy to pass it on (RFC 9110, 15.2), and we do not.
    let answer = curl(&["-v", &url, &url]).await;
    assert_eq!(
        answer.stderr.matches("103 Early Hints").count(),
        0,
        "{answer:?}"
    );
    assert_eq!(
        answer.stderr.matches("HTTP/1.1 200 OK").count(),
        2,
        "{answer:?}"
    );
    assert_eq!(answer.ok(), "texttext");
}

#[tokio::test]
async fn a_connection_that_the_app_closes_after_each_answer_does_no_harm() {
    let nginx = Nginx::start(&format!("keepalive_timeout 0; {ECHO}")).await;
    let proxy = Proxy::start(nginx.address, &[]).await;
    let load = ["--h1", "-n", "500", "-c", "4", &proxy.url("/")];
    let printed = process::run("h2load", &load).await;
    assert!(
        printed.contains("500 succeeded, 0 failed, 0 errored"),
        "{printed}"
    );
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_passed_on_whole() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let url = proxy.url("/");
    let app = async {
        let (mut app, _) = soon(listener.accept()).await.unwrap();
        read_to(&mut app, "\r\n\r\n").await;
        app.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
        app.write_all(&[b'x'; 100_000]).await.unwrap();
        app.shutdown().await.unwrap();
        let _ = app.read(&mut [0]).await;
    };
    let arguments = [url.as_str()];
    let (answer, ()) = tokio::join!(curl(&arguments), app);
    assert_eq!(answer.ok(), "x".repeat(100_000));
}
