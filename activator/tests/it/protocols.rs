//! What comes by plain HTTP/1.1, held first and then let through: each side hears the other at once, and
//! nothing is said in the pod's place.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::harness::{Activator, FakePod, loopback, read_all, soon, workload};

/// Both ends of a request that was held, and has just reached its pod.
struct Through {
    activator: Activator,
    caller: TcpStream,
    pod: TcpStream,
    /// The request's head as the pod got it, in small letters.
    head: String,
}

// === impl Through ===

impl Through {
    /// Holds `request`, during which its caller hears nothing.
    async fn held(request: &str) -> Self {
        let (activator, port) = Activator::with(workload("shop")).await;
        let mut caller = TcpStream::connect(port).await.unwrap();
        caller.set_nodelay(true).unwrap();
        caller.write_all(request.as_bytes()).await.unwrap();
        activator.until_held(1).await;
        let heard = caller.try_read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(heard, Err(io::ErrorKind::WouldBlock));
        let (pod, asked) = by_hand().await;
        activator.add_pod(&pod);
        let (pod, head) = soon(asked).await.unwrap();
        Self {
            activator,
            caller,
            pod,
            head,
        }
    }

    /// The pod says it, and the caller hears it, up to `end`.
    async fn says(&mut self, bytes: &str, end: &str) -> String {
        self.pod.write_all(bytes.as_bytes()).await.unwrap();
        read_to(&mut self.caller, end).await
    }

    /// The caller says it, and the pod hears just that.
    async fn is_told(&mut self, bytes: &str) {
        self.caller.write_all(bytes.as_bytes()).await.unwrap();
        assert!(read_to(&mut self.pod, bytes).await.ends_with(bytes));
    }

    async fn end(self) {
        drop((self.caller, self.pod));
        self.activator.stop().await;
    }
}

/// A pod whose app is the test, once the head of a request has come.
async fn by_hand() -> (FakePod, JoinHandle<(TcpStream, String)>) {
    let (listener, address) = loopback().await;
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = read_to(&mut stream, "\r\n\r\n").await;
        (stream, head.to_ascii_lowercase())
    });
    (FakePod::before("shop-1", address).await, asked)
}

/// Reads until what was read ends with `end`.
async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn a_websocket_is_held_and_then_open_both_ways() {
    let mut socket = Through::held(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    for header in ["upgrade: websocket", "sec-websocket-version: 13"] {
        assert!(socket.head.contains(header), "{}", socket.head);
    }
    let accepts = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\n\r\n";
    let head = socket.says(accepts, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The server may speak first.
    for number in 0..3 {
        let word = format!("server {number}");
        assert_eq!(socket.says(&word, &word).await, word);
        socket.is_told(&format!("client {number}")).await;
    }
    socket.pod.shutdown().await.unwrap();
    assert_eq!(soon(socket.caller.read(&mut [0])).await.unwrap(), 0);
    socket.end().await;
}

#[tokio::test]
async fn events_are_held_and_then_passed_one_by_one() {
    let mut events = Through::held(
        "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nLast-Event-ID: 7\r\n\r\n",
    )
    .await;
    assert!(events.head.contains("last-event-id: 7"), "{}", events.head);
    let begins = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                  Transfer-Encoding: chunked\r\n\r\n";
    // Before there is any.
    let head = events.says(begins, "\r\n\r\n").await;
    assert!(head.contains("text/event-stream"), "{head}");
    for number in 8..11 {
        let event = format!("id: {number}\ndata: x\n\n");
        let chunk = format!("{:X}\r\n{event}\r\n", event.len());
        let heard = events.says(&chunk, "\n\n\r\n").await;
        assert!(heard.contains(&event), "{heard}");
    }
    let heard = events.says("0\r\n\r\n", "0\r\n\r\n").await;
    assert_eq!(heard, "0\r\n\r\n");
    events.end().await;
}

#[tokio::test]
async fn an_answer_of_a_known_length_is_passed_as_it_comes() {
    let mut slow = Through::held("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let begins = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    let head = slow.says(begins, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for half in ["hello", "world"] {
        assert_eq!(slow.says(half, half).await, half);
    }
    slow.end().await;
}

#[tokio::test]
async fn hints_come_before_the_answer() {
    let mut hinted = Through::held("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let head = hinted.says(hints, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 103 "), "{head}");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let head = hinted.says(answer, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    hinted.end().await;
}

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[tokio::test]
async fn who_asks_whether_to_go_on_hears_it_from_the_pod() {
    let mut upload = Through::held(EXPECTING).await;
    assert!(
        upload.head.contains("expect: 100-continue"),
        "{}",
        upload.head
    );
    let goes_on = upload
        .says("HTTP/1.1 100 Continue\r\n\r\n", "\r\n\r\n")
        .await;
    assert!(goes_on.starts_with("HTTP/1.1 100 "), "{goes_on}");
    upload.is_told("hello").await;
    let head = upload
        .says(
            "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
            "\r\n\r\n",
        )
        .await;
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    upload.end().await;
}

#[tokio::test]
async fn who_asks_whether_to_go_on_may_be_refused_by_the_pod() {
    let mut upload = Through::held(EXPECTING).await;
    let refusal = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n";
    let head = upload.says(refusal, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 417 "), "{head}");
    // The body that is still due makes the connection useless.
    let head = head.to_ascii_lowercase();
    assert!(head.contains("connection: close\r\n"), "{head}");
    upload.end().await;
}

#[tokio::test]
async fn who_was_told_to_go_on_hears_that_the_pod_broke_off() {
    let mut upload = Through::held(EXPECTING).await;
    let goes_on = "HTTP/1.1 100 Continue\r\n\r\n";
    upload.says(goes_on, "\r\n\r\n").await;
    let Through {
        activator,
        mut caller,
        pod,
        ..
    } = upload;
    drop(pod);
    let raw = read_all(&mut caller).await;
    raw.assert_status(502);
    assert!(raw.has("lull-reason: pod-error"), "{raw:?}");
    activator.stop().await;
}

/// Without a length or chunks its end is that of the connection.
#[tokio::test]
async fn an_answer_to_http_1_0_that_breaks_off_ends_with_a_reset() {
    let mut old = Through::held("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let part = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let heard = old.says(part, "hello").await;
    assert!(heard.ends_with("\r\n\r\nhello"), "{heard}");
    let Through {
        activator,
        mut caller,
        pod,
        ..
    } = old;
    drop(pod);
    let end = soon(caller.read(&mut [0])).await;
    let end = end.map_err(|error| error.kind());
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    activator.stop().await;
}

#[tokio::test]
async fn bodies_arrive_whole_and_their_trailers_do_not() {
    let mut post = Through::held(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    .await;
    assert_eq!(
        read_to(&mut post.pod, "0\r\n\r\n").await,
        "5\r\nhello\r\n0\r\n\r\n"
    );
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5\r\nworld\r\n0\r\nX-Sum: 2\r\n\r\n";
    let heard = post.says(answer, "0\r\n\r\n").await;
    assert!(heard.ends_with("5\r\nworld\r\n0\r\n\r\n"), "{heard}");
    post.end().await;
}
