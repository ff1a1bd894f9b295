//! Requests that two readers may take for two different things. Of each the app must get one
//! request, whole, or none; and the caller beside must get its own answer.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    client::{exchange, read_to},
    proxy::{Proxy, UNPROBED},
    recorder::Recorder,
};

/// What another reader may take for a request of its own.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n";

/// What may become of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// 4xx, or 501, and the end of the connection; nothing whole reaches the app.
    Refused,
    /// The same, though the app may have seen the beginning.
    Broken,
    /// One request with this body reaches the app.
    Passed(&'static str),
    /// Either is right.
    Either(&'static str),
}

use Fate::{Broken, Either, Passed, Refused};

struct Beside {
    proxy: Proxy,
    recorder: Recorder,
    /// A caller that keeps its connection.
    caller: TcpStream,
}

impl Beside {
    async fn start() -> Self {
        let recorder = Recorder::start().await;
        let proxy = Proxy::start(recorder.address, &[UNPROBED]).await;
        let caller = proxy.connect().await;
        Self {
            proxy,
            recorder,
            caller,
        }
    }

    /// Sends `request` and returns what is wrong with what became of it.
    async fn check(&mut self, request: &[u8], fate: Fate) -> Result<(), String> {
        let before = self.recorder.messages().len();
        let answer = exchange(self.proxy.traffic(), request).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let seen = self.recorder.messages().split_off(before);
        let bodies: Vec<_> = seen
            .iter()
            .map(|seen| String::from_utf8_lossy(&seen.body))
            .collect();
        let passed = |body| bodies == [body] && answer.starts_with("HTTP/1.1 200");
        let said = |status: &str| answer.starts_with(&format!("HTTP/1.1 {status}"));
        let refused = bodies.is_empty() && (answer.is_empty() || said("4") || said("501"));
        let right = match fate {
            Refused => refused,
            Broken => refused || (bodies.is_empty() && said("502")),
            Passed(body) => passed(body),
            Either(body) => passed(body) || refused,
        };
        self.caller
            .write_all(b"GET /beside HTTP/1.1\r\nHost: shop\r\n\r\n")
            .await
            .unwrap();
        let beside = read_to(&mut self.caller, "\r\n\r\n/beside").await;
        assert!(beside.starts_with("HTTP/1.1 200"), "{beside}");
        if right && answer.matches("HTTP/1.1 ").count() <= 1 {
            return Ok(());
        }
        let targets: Vec<_> = seen
            .iter()
            .map(|seen| String::from_utf8_lossy(seen.target()))
            .collect();
        Err(format!(
            "{fate:?}, but the app got {targets:?} {bodies:?}, the caller {answer:?}"
        ))
    }
}

/// Checks every request; each is `Connection: close` at its end if it is taken.
async fn check(requests: Vec<(String, Fate)>) {
    let mut beside = Beside::start().await;
    let mut wrong = Vec::new();
    for (request, fate) in requests {
        if let Err(what) = beside.check(request.as_bytes(), fate).await {
            let shown: String = request.chars().take(300).collect();
            wrong.push(format!("{shown:?}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// The same of many header lines.
fn posts(lines: &[(&str, Fate)], body: &str) -> Vec<(String, Fate)> {
    let request = |(line, fate): &(&str, Fate)| (post(&format!("{line}\r\n"), body), *fate);
    lines.iter().map(request).collect()
}

#[tokio::test]
async fn lengths() {
    let one = [
        ("Content-Length: 5", Passed("hello")),
        ("Content-Length:5", Passed("hello")),
        ("content-length: \t5\t ", Passed("hello")),
        ("Content-Length: 05", Either("hello")),
        ("Content-Length: 5\r\nContent-Length: 5", Either("hello")),
        ("Content-Length: 5, 5", Either("hello")),
        ("Content-Length: 5\r\nContent-Length: 44", Refused),
        ("Content-Length: 44\r\nContent-Length: 5", Refused),
        ("Content-Length: 5\r\nContent-Length: 05", Either("hello")),
        ("Content-Length: 5, 44", Refused),
        ("Content-Length: +5", Refused),
        ("Content-Length: -5", Refused),
        ("Content-Length: 0x5", Refused),
        ("Content-Length: 5.0", Refused),
        ("Content-Length: 5 4", Refused),
        ("Content-Length: 5;", Refused),
        ("Content-Length: ", Refused),
        ("Content-Length: five", Refused),
        ("Content-Length: 18446744073709551621", Refused),
        ("Content-Length: 5\r\n 4", Refused),
        ("Content-Length : 5", Refused),
        ("Content-Length\t: 5", Refused),
        (
            "Connection: Content-Length\r\nContent-Length: 5",
            Passed("hello"),
        ),
    ];
    check(posts(&one, "hello")).await;
}

const CHUNKED: &str = "5\r\nhello\r\n0\r\n\r\n";

#[tokio::test]
async fn transfer_encodings() {
    let lines = [
        ("Transfer-Encoding: chunked", Passed("hello")),
        ("Transfer-Encoding:\tChUnKeD ", Passed("hello")),
        ("Transfer-Encoding: xchunked", Refused),
        ("Transfer-Encoding: chunked, identity", Refused),
        ("Transfer-Encoding: identity", Refused),
        ("Transfer-Encoding: gzip", Refused),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            Refused,
        ),
        ("Transfer-Encoding: \"chunked\"", Refused),
        ("Transfer-Encoding: 'chunked'", Refused),
        ("Transfer-Encoding: chunked;q=1", Refused),
        ("Transfer-Encoding: chunked,", Either("hello")),
        ("Transfer-Encoding: ,chunked", Either("hello")),
        ("Transfer-Encoding: \u{b}chunked", Refused),
        ("Transfer-Encoding: chunk\u{e9}d", Refused),
        ("Transfer-Encoding: ", Refused),
        ("Transfer-Encoding : chunked", Refused),
        ("Transfer-Encoding\t: chunked", Refused),
        ("Transfer-Encoding\r\n: chunked", Refused),
        ("X: y\r\n Transfer-Encoding: chunked", Refused),
        ("Transfer-Encoding:\r\n chunked", Refused),
        (
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
            Passed("hello"),
        ),
    ];
    check(posts(&lines, CHUNKED)).await;
    let old =
        format!("POST / HTTP/1.0\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}");
    check(vec![(old, Refused)]).await;
}

#[tokio::test]
async fn both_a_length_and_a_transfer_encoding() {
    let body = format!("0\r\n\r\n{HIDDEN}");
    let all = body.len();
    let mut requests = Vec::new();
    for (length, coding, fate) in [
        (all, "Transfer-Encoding: chunked", Either("")),
        (5, "Transfer-Encoding: chunked", Either("")),
        (0, "Transfer-Encoding: chunked", Either("")),
        (all, "Transfer-Encoding: xchunked", Refused),
        (all, "Transfer-Encoding: identity", Refused),
        (all, "Transfer-Encoding : chunked", Refused),
        (all, "X: y\r\n Transfer-Encoding: chunked", Refused),
        (all, "X: y\rTransfer-Encoding: chunked", Refused),
        (all, "X: y\nTransfer-Encoding: chunked", Either("")),
        (
            all,
            "Connection: Content-Length\r\nTransfer-Encoding: chunked",
            Either(""),
        ),
    ] {
        let length = format!("Content-Length: {length}\r\n");
        requests.push((post(&format!("{length}{coding}\r\n"), &body), fate));
        requests.push((post(&format!("{coding}\r\n{length}"), &body), fate));
    }
    check(requests).await;
}

#[tokio::test]
async fn chunks() {
    let chunked = |chunks: &str| post("Transfer-Encoding: chunked\r\n", chunks);
    let many = "1\r\na\r\n".repeat(3);
    let end = "0\r\n\r\n";
    let requests = [
        (format!("{many}{end}"), Passed("aaa")),
        (format!("A\r\n0123456789\r\n{end}"), Passed("0123456789")),
        (format!("0005\r\nhello\r\n{end}"), Either("hello")),
        (format!("5;name=value\r\nhello\r\n{end}"), Either("hello")),
        (
            format!("5 ;name=\"value\"\r\nhello\r\n{end}"),
            Either("hello"),
        ),
        ("5\r\nhello\r\n0;last\r\n\r\n".to_owned(), Either("hello")),
        (format!("5;\nhello\r\n{end}"), Broken),
        (format!("5;a\nb\r\nhello\r\n{end}"), Broken),
        (format!("5;a\rb\r\nhello\r\n{end}"), Broken),
        (format!("5 \r\nhello\r\n{end}"), Either("hello")),
        (format!(" 5\r\nhello\r\n{end}"), Broken),
        (format!("+5\r\nhello\r\n{end}"), Broken),
        (format!("-5\r\nhello\r\n{end}"), Broken),
        (format!("0x5\r\nhello\r\n{end}"), Broken),
        (format!("5h\r\nhello\r\n{end}"), Broken),
        (format!("\r\nhello\r\n{end}"), Broken),
        (format!(";a\r\nhello\r\n{end}"), Broken),
        (format!("5\nhello\n{end}"), Broken),
        (format!("5\rhello\r\n{end}"), Broken),
        (format!("5\r\nhelloX\r\n{end}"), Broken),
        (format!("5\r\nhello{end}"), Broken),
        (format!("5\r\nhello\n{end}"), Broken),
        (format!("4\r\nhello\r\n{end}"), Broken),
        (format!("fffffffffffffffff\r\nhello\r\n{end}"), Broken),
        (format!("10000000000000005\r\nhello\r\n{end}"), Broken),
        (
            format!("{}5\r\nhello\r\n{end}", "0".repeat(100_000)),
            Either("hello"),
        ),
        (
            format!("5;{}\r\nhello\r\n{end}", "x".repeat(100_000)),
            Broken,
        ),
        (
            "5\r\nhello\r\n0\r\nX: 1\r\nContent-Length: 9\r\n\r\n".to_owned(),
            Either("hello"),
        ),
        ("5\r\nhello\r\n0\r\nbad header\r\n\r\n".to_owned(), Broken),
        ("5\r\nhello\r\n0\r\n folded: 1\r\n\r\n".to_owned(), Broken),
    ];
    let request = |(chunks, fate): (String, Fate)| (chunked(&chunks), fate);
    check(requests.into_iter().map(request).collect()).await;
}

#[tokio::test]
async fn lines_and_names() {
    let close = "Host: shop\r\nConnection: close\r\n";
    let first = |line: &str| format!("{line}\r\n{close}\r\n");
    let header = |line: &str| format!("GET / HTTP/1.1\r\n{close}{line}\r\n\r\n");
    let requests = [
        (first("GET / HTTP/1.1"), Passed("")),
        (first("\r\nGET / HTTP/1.1"), Either("")),
        (first("GET / HTTP/1.2"), Refused),
        (first("GET / HTTP/2.0"), Refused),
        (first("GET / HTTP/3"), Refused),
        (first("GET / http/1.1"), Refused),
        (first("GET / HTTP/1.1 "), Refused),
        (first("GET  / HTTP/1.1"), Refused),
        (first("GET /  HTTP/1.1"), Refused),
        (first("GET\t/ HTTP/1.1"), Refused),
        (first("GET / x HTTP/1.1"), Refused),
        (first(" GET / HTTP/1.1"), Refused),
        (first("GET /\rX HTTP/1.1"), Refused),
        (first("GET /"), Refused),
        (first("G(T / HTTP/1.1"), Refused),
        (first("GET smuggled HTTP/1.1"), Either("")),
        (first(" / HTTP/1.1"), Refused),
        (header("X: 1"), Passed("")),
        (header("X : 1"), Refused),
        (header("X\t: 1"), Refused),
        (header(": 1"), Refused),
        (header("X"), Refused),
        (header("X Y: 1"), Refused),
        (header("X(: 1"), Refused),
        (header("X\u{e9}: 1"), Refused),
        (header("X: 1\r\n folded"), Refused),
        (header("X: 1\r\n\tfolded: 2"), Refused),
        (header("X: a\rb"), Refused),
        (header("X: a\r\r\nY: 1"), Refused),
        (header("X: a\0b"), Refused),
        (header("X\0: 1"), Refused),
        (header("X: a\u{7f}"), Refused),
        (format!("GET / HTTP/1.1\r\n X: 1\r\n{close}\r\n"), Refused),
        (
            "GET / HTTP/1.1\nHost: shop\nConnection: close\n\n".to_owned(),
            Either(""),
        ),
        (header("X: a\nGET /smuggled HTTP/1.1\nHost: b"), Refused),
    ];
    check(requests.into_iter().collect()).await;
}

/// The connection can't be trusted any more: who sent this may mean another end (RFC 9112, 6.1).
#[tokio::test]
async fn after_a_length_and_a_transfer_encoding_the_connection_ends() {
    let beside = Beside::start().await;
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let request = format!(
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\n{hidden}",
        hidden.len() + 5
    );
    let answer = exchange(beside.proxy.traffic(), request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let targets: Vec<_> = beside
        .recorder
        .messages()
        .iter()
        .map(|seen| seen.target().to_vec())
        .collect();
    assert!(!targets.contains(&b"/smuggled".to_vec()));
}

/// What the app would get is still coded, but nothing would say so.
#[tokio::test]
async fn transfer_encodings_beside_chunked() {
    let lines = [
        ("Transfer-Encoding: gzip, chunked", Refused),
        ("Transfer-Encoding: identity, chunked", Refused),
        ("Transfer-Encoding: chunked, chunked", Refused),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            Refused,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Refused,
        ),
    ];
    check(posts(&lines, CHUNKED)).await;
}

#[tokio::test]
async fn a_bad_chunk_is_the_callers_fault() {
    let chunks = ["0x5\r\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n"];
    let request = |chunks: &str| (post("Transfer-Encoding: chunked\r\n", chunks), Refused);
    check(chunks.into_iter().map(request).collect()).await;
}

/// RFC 9112, 3.2: which Host counts is for nobody to guess.
#[tokio::test]
async fn hosts() {
    let request = |hosts: &str| format!("GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
    let requests = [
        (request(""), Refused),
        (request("Host: a\r\nHost: b\r\n"), Refused),
        (request("Host: a\r\nHost: a\r\n"), Refused),
        (request("Connection: Host\r\nHost: a\r\n"), Passed("")),
    ];
    check(requests.into_iter().collect()).await;
}
