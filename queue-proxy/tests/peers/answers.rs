//! Answers that two readers may take for two different things, and apps that say more than they
//! were asked: no other caller may get what was left over.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    client::{Raw, exchange, read_to},
    process::soon,
    proxy::{Proxy, UNPROBED},
};

/// What is left over where an answer ends before the app does.
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// An app that says what it is told to, to whoever asks, and keeps its connections.
struct App {
    address: SocketAddr,
    says: Arc<Mutex<String>>,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::<Mutex<String>>::default();
        let said = Arc::clone(&says);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, Arc::clone(&said)));
            }
        });
        Self { address, says }
    }
}

async fn connection(mut stream: TcpStream, says: Arc<Mutex<String>>) {
    let mut seen = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut seen).await {
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            let answer = says.lock().clone();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

/// Asks once with `method` where the app says `answer`, then asks again where it says `fine`.
async fn twice(method: &str, answer: &str) -> (Raw, Raw) {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    answer.clone_into(&mut app.says.lock());
    let request =
        |method| format!("{method} / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    let first = exchange(proxy.traffic(), request(method).as_bytes()).await;
    *app.says.lock() = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine".to_owned();
    let second = exchange(proxy.traffic(), request("GET").as_bytes()).await;
    (Raw::parse(&first), Raw::parse(&second))
}

#[tokio::test]
async fn what_an_app_says_too_much_reaches_nobody() {
    for (method, answer, body) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "ok",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", ""),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 60\r\n\r\n",
            "",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "0\r\n\r\n",
        ),
    ] {
        let (first, second) = twice(method, &format!("{answer}{EVIL}")).await;
        assert_eq!(first.body, body, "{method} {answer:?}: {first:?}");
        assert_eq!(second.body, "fine", "{method} {answer:?}: {second:?}");
    }
}

#[tokio::test]
async fn answers_of_two_lengths_are_not_passed_on() {
    for lines in [
        "Content-Length: 2\r\nContent-Length: 66",
        "Content-Length: 2, 66",
        "Content-Length: -2",
        "Content-Length: 2x",
        "Content-Length : 2",
        "X: y\r\n Content-Length: 2\r\nContent-Length : 66",
        "Transfer-Encoding : chunked\r\nContent-Length: 66",
        "X: a\rb\r\nContent-Length: 2",
        "X: a\0b\r\nContent-Length: 2",
    ] {
        let (first, second) = twice(
            "GET",
            &format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nok{EVIL}"),
        )
        .await;
        assert_eq!(first.status(), 502, "{lines:?}: {first:?}");
        assert!(first.has("lull-reason: app-failed"), "{first:?}");
        assert_eq!(second.body, "fine", "{lines:?}: {second:?}");
    }
}

#[tokio::test]
async fn an_answer_with_a_length_and_a_transfer_encoding_has_one_meaning() {
    for lines in [
        "Content-Length: 66\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 66",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n2\r\nok\r\n0\r\n\r\n{EVIL}");
        let (first, second) = twice("GET", &answer).await;
        let lengths = first.head.to_lowercase().matches("content-length").count();
        let refused = first.status() == 502;
        let chunked = first.has("transfer-encoding: chunked") && lengths == 0;
        assert!(
            refused || chunked && first.body == "2\r\nok\r\n0\r\n\r\n",
            "{first:?}"
        );
        assert_eq!(second.body, "fine", "{lines:?}: {second:?}");
    }
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_not_passed_on() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let (first, second) = twice("GET", &format!("{switch}{EVIL}")).await;
    assert_eq!(first.status(), 502, "{first:?}");
    assert_eq!(second.body, "fine", "{second:?}");
}

#[tokio::test]
async fn heads_without_end_are_not_waited_for() {
    let app = App::start().await;
    let proxy = Proxy::start(app.address, &[UNPROBED]).await;
    let lines: String = (0..200_000)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    for head in [format!("HTTP/1.1 200 OK\r\n{lines}"), "x".repeat(2_000_000)] {
        *app.says.lock() = head;
        let request = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
        let answer = Raw::parse(&exchange(proxy.traffic(), request).await);
        assert_eq!(answer.status(), 502);
    }
    let peak = proxy.process.peak_kib();
    assert!(peak < 40 << 10, "{peak} KiB");
}

/// A connection that waits in the pool and gets bytes without having been asked is not used.
#[tokio::test]
async fn a_kept_connection_that_speaks_unasked_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let mut caller = proxy.connect().await;
    let request = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
    caller.write_all(request).await.unwrap();
    let (mut first, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut first, "\r\n\r\n").await;
    first
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut caller, "\r\n\r\n").await;
    first.write_all(EVIL.as_bytes()).await.unwrap();
    caller.write_all(request).await.unwrap();
    let (mut second, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut second, "\r\n\r\n").await;
    second
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
        .await
        .unwrap();
    read_to(&mut caller, "\r\n\r\nfine").await;
    let mut rest = Vec::new();
    let _ = soon(first.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

/// Such a switch would take what follows out of our sight: one request that never ends.
#[tokio::test]
async fn a_switch_to_h2c_does_not_hide_behind_another() {
    for upgrade in [
        "Upgrade: websocket, h2c",
        "Upgrade: h2c, websocket",
        "Upgrade: h2c\r\nUpgrade: websocket",
        "Upgrade: websocket\r\nUpgrade: h2c",
    ] {
        let recorder = crate::recorder::Recorder::start().await;
        let proxy = Proxy::start(recorder.address, &[UNPROBED]).await;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n{upgrade}\r\n\r\n"
        );
        exchange(proxy.traffic(), request.as_bytes()).await;
        let seen = recorder.only();
        let upgrades: Vec<_> = seen.values("upgrade").concat();
        let upgrades = String::from_utf8(upgrades).unwrap();
        assert!(!upgrades.contains("h2c"), "{upgrade}: {upgrades}");
        assert_eq!(seen.values("http2-settings").len(), 0, "{upgrade}");
    }
}
