//! Requests that two readers may take for two different things, and what may become of each.

/// What another reader may take for a request of its own.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n";

/// What may become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
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

fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// The same of many header lines.
fn posts(lines: &[(&str, Fate)], body: &str) -> Vec<(String, Fate)> {
    let request = |(line, fate): &(&str, Fate)| (post(&format!("{line}\r\n"), body), *fate);
    lines.iter().map(request).collect()
}

pub(crate) fn lengths() -> Vec<(String, Fate)> {
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
    posts(&one, "hello")
}

const CHUNKED: &str = "5\r\nhello\r\n0\r\n\r\n";

pub(crate) fn transfer_encodings() -> Vec<(String, Fate)> {
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
    let mut requests = posts(&lines, CHUNKED);
    let old =
        format!("POST / HTTP/1.0\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}");
    requests.push((old, Refused));
    requests
}

pub(crate) fn both() -> Vec<(String, Fate)> {
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
    requests
}

pub(crate) fn chunks() -> Vec<(String, Fate)> {
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
    requests.into_iter().map(request).collect()
}

pub(crate) fn lines_and_names() -> Vec<(String, Fate)> {
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
    requests.into_iter().collect()
}

/// What the app would get is still coded, but nothing would say so.
pub(crate) fn codings_beside_chunked() -> Vec<(String, Fate)> {
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
    posts(&lines, CHUNKED)
}

pub(crate) fn bad_chunks() -> Vec<(String, Fate)> {
    let chunks = ["0x5\r\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n"];
    let request = |chunks: &str| (post("Transfer-Encoding: chunked\r\n", chunks), Refused);
    chunks.into_iter().map(request).collect()
}

/// RFC 9112, 3.2: which Host counts is for nobody to guess.
pub(crate) fn hosts() -> Vec<(String, Fate)> {
    let request = |hosts: &str| format!("GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
    let requests = [
        (request(""), Refused),
        (request("Host: a\r\nHost: b\r\n"), Refused),
        (request("Host: a\r\nHost: a\r\n"), Refused),
        (request("Connection: Host\r\nHost: a\r\n"), Passed("")),
    ];
    requests.into_iter().collect()
}
