//! What becomes of a request whose pod breaks off.

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::{
    harness::{Activator, FakePod, Raw, get, loopback, read_all, soon, until, workload},
    http2,
    tls::assert_metric,
};

/// What comes with every request that has a body.
const BODY: &str = "hello";

/// A pod that closes its first connections when a request has come on them.
struct Breaking {
    pod: FakePod,
    /// The requests that have come, as they were.
    asked: Arc<Mutex<Vec<String>>>,
    app: JoinHandle<()>,
}

// === impl Breaking ===

impl Breaking {
    /// On so many connections it says `last_words` and closes; on the others it answers.
    async fn start(name: &str, times: usize, last_words: &'static str) -> Self {
        let (listener, address) = loopback().await;
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (shared, body) = (Arc::clone(&asked), name.to_owned());
        let app = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                let count = {
                    let mut asked = shared.lock();
                    asked.push(request);
                    asked.len()
                };
                let answer = match count > times {
                    true => format!(
                        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                    false => last_words.to_owned(),
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self {
            pod: FakePod::before(name, address).await,
            asked,
            app,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

impl Drop for Breaking {
    fn drop(&mut self) {
        self.app.abort();
    }
}

/// Reads a request's head and the body that it announces.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(soon(stream.read_buf(&mut bytes)).await.unwrap(), 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let has_body = text.to_ascii_lowercase().contains("content-length: ");
        let end = if has_body { BODY } else { "" };
        if text.ends_with(&format!("\r\n\r\n{end}")) {
            return text;
        }
    }
}

/// Asks with `method`, and with a body where it has one.
async fn ask(port: SocketAddr, method: &str) -> Raw {
    let (length, body) = match method {
        "PUT" | "POST" => (format!("content-length: {}\r\n", BODY.len()), BODY),
        _ => (String::new(), ""),
    };
    let mut stream = TcpStream::connect(port).await.unwrap();
    let head = format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{length}\r\n{body}");
    stream.write_all(head.as_bytes()).await.unwrap();
    read_all(&mut stream).await
}

#[tokio::test]
async fn what_may_be_repeated_is_sent_anew_with_its_body_where_nothing_was_heard() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"] {
        let (activator, port) = Activator::with(workload("shop")).await;
        let breaking = Breaking::start("shop-1", 1, "").await;
        activator.add_pod(&breaking.pod);
        ask(port, method).await.assert_status(200);
        let asked = breaking.asked();
        assert_eq!(asked.len(), 2, "{method}: {asked:?}");
        assert_eq!(asked[0], asked[1]);
        assert_metric(&activator, "redials_total 1\n").await;
        activator.stop().await;
    }
}

#[tokio::test]
async fn what_may_not_be_repeated_is_502_and_goes_out_once() {
    for method in ["POST", "PATCH"] {
        let (activator, port) = Activator::with(workload("shop")).await;
        let breaking = Breaking::start("shop-1", 1, "").await;
        activator.add_pod(&breaking.pod);
        let raw = ask(port, method).await;
        raw.assert_status(502);
        assert!(raw.has("lull-reason: pod-error"), "{raw:?}");
        assert_eq!(breaking.asked().len(), 1, "{method}");
        activator.stop().await;
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_twice_is_502() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let breaking = Breaking::start("shop-1", usize::MAX, "").await;
    activator.add_pod(&breaking.pod);
    let raw = ask(port, "GET").await;
    raw.assert_status(502);
    assert!(raw.has("lull-reason: pod-error"), "{raw:?}");
    assert_eq!(breaking.asked().len(), 2);
    activator.stop().await;
}

#[tokio::test]
async fn what_was_answered_in_part_is_not_repeated() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart";
    let breaking = Breaking::start("shop-1", 1, part).await;
    activator.add_pod(&breaking.pod);
    // How much of it gets through is another matter.
    let raw = ask(port, "GET").await;
    assert!(!raw.head.contains("502") && raw.body.len() <= 4, "{raw:?}");
    assert_eq!(breaking.asked().len(), 1);
    activator.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_502_and_the_request_is_not_repeated() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let breaking = Breaking::start("shop-1", 1, "nonsense\r\n\r\n").await;
    activator.add_pod(&breaking.pod);
    ask(port, "GET").await.assert_status(502);
    assert_eq!(breaking.asked().len(), 1);
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_that_breaks_off_is_left_for_one_that_does_not() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let breaking = Breaking::start("shop-1", usize::MAX, "").await;
    let sound = FakePod::start("shop-2").await;
    activator.add_pod(&breaking.pod);
    activator.add_pod(&sound);
    let trusted = || async {
        let page = activator.page("/workloads").await;
        page.body.contains(r#""podsTrusted":2"#)
    };
    until(trusted).await;
    for _ in 0..4 {
        let raw = get(port, "/", "").await;
        raw.assert_status(200);
        assert!(raw.body.starts_with("shop-2"), "{raw:?}");
    }
    activator.stop().await;
}

#[tokio::test]
async fn over_http2_what_may_be_repeated_is_sent_anew_too() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let (listener, address) = loopback().await;
    let app = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut first = h2::server::handshake(stream).await.unwrap();
        let request = first.accept().await;
        // Without a word about it.
        drop(first);
        drop(request);
        let (stream, _) = listener.accept().await.unwrap();
        let mut second = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_request, mut answer))) = second.accept().await {
            answer.send_response(Response::new(()), true).unwrap();
        }
    });
    activator.add_pod(&FakePod::before("shop-1", address).await);
    let (mut sender, _connection) = http2::connect(port).await;
    let request = Request::get("http://any.example/x").body(http2::whole(0));
    let response = soon(sender.send_request(request.unwrap())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    app.abort();
    activator.stop().await;
}
