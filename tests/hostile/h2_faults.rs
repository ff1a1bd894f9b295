//! HTTP/2 that breaks its rules (RFC 9113): a connection or a stream must end by it.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, field, frame,
};

const WHOLE: u8 = END_HEADERS | END_STREAM;

/// What became of stream 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered with this first byte of a header block: 0x88 is 200.
    Answered(u8),
    /// It, or its connection, ended.
    Ended,
}

/// Sends `bytes` after the preface and settings.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> Fate {
    let mut caller = frames::connect(address).await;
    caller.write_all(bytes).await.unwrap();
    fate(&mut caller).await
}

pub(crate) async fn fate(caller: &mut TcpStream) -> Fate {
    while let Some(frame) = frames::read(caller).await {
        match frame.kind {
            HEADERS if frame.stream == 1 => return Fate::Answered(frame.payload[0]),
            RST_STREAM if frame.stream == 1 => return Fate::Ended,
            GOAWAY => return Fate::Ended,
            _ => {}
        }
    }
    Fate::Ended
}

/// A request for `/` with more fields.
pub(crate) fn get(more: &[u8]) -> Vec<u8> {
    frame(
        HEADERS,
        WHOLE,
        1,
        &[&frames::request("GET", "/"), more].concat(),
    )
}

fn pseudo(fields: &[(&str, &str)]) -> Vec<u8> {
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect();
    frame(HEADERS, WHOLE, 1, &block)
}

/// What each breaks, and its bytes: the connection ends.
pub(crate) fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let block = frames::request("GET", "/");
    let open = frame(HEADERS, END_HEADERS, 1, &frames::request("POST", "/"));
    let max = 0x7fff_ffff_u32.to_be_bytes();
    vec![
        ("too large", frame(DATA, 0, 1, &[0; 16_385])),
        ("headers on stream 0", frame(HEADERS, WHOLE, 0, &block)),
        ("an even stream", frame(HEADERS, WHOLE, 2, &block)),
        ("data on stream 0", frame(DATA, 0, 0, b"x")),
        ("data on an idle stream", frame(DATA, 0, 1, b"x")),
        ("reset of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4])),
        ("reset of stream 0", frame(RST_STREAM, 0, 0, &[0; 4])),
        (
            "reset of a wrong length",
            [&open[..], &frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        ),
        ("settings of a wrong length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
        (
            "settings out of range",
            frame(SETTINGS, 0, 0, &frames::settings(&[(4, u32::MAX)])),
        ),
        (
            "a frame size out of range",
            frame(SETTINGS, 0, 0, &frames::settings(&[(5, 1)])),
        ),
        ("ping of a wrong length", frame(PING, 0, 0, &[0; 7])),
        ("ping on a stream", frame(PING, 0, 1, &[0; 8])),
        (
            "a window above its most",
            frame(WINDOW_UPDATE, 0, 0, &max).repeat(2),
        ),
        ("a window by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &block),
        ),
        (
            "a frame between",
            [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        (
            "another stream between",
            [frame(HEADERS, 0, 1, &block), frame(CONTINUATION, 4, 3, &[])].concat(),
        ),
        ("a push", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        (
            "padding longer than the frame",
            frame(HEADERS, WHOLE | 8, 1, &[200, 0]),
        ),
        (
            "a table's entry that is not there",
            frame(HEADERS, WHOLE, 1, &[0xff, 0xff, 0x0f]),
        ),
        (
            "a number without end",
            frame(HEADERS, WHOLE, 1, &[0xff; 40]),
        ),
        (
            "huffman code of nothing",
            frame(HEADERS, WHOLE, 1, &[0, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
    ]
}

/// What each breaks, and its bytes: stream 1 ends, at least.
pub(crate) fn broken_requests() -> Vec<(&'static str, Vec<u8>)> {
    let host = (":authority", "shop");
    let (method, scheme, path) = ((":method", "GET"), (":scheme", "http"), (":path", "/"));
    vec![
        ("an upper case name", get(&field("X", "1"))),
        ("an empty name", get(&field("", "1"))),
        ("a space in a name", get(&field("x y", "1"))),
        ("a colon in a name", get(&field("x:y", "1"))),
        ("a line in a name", get(&field("x: 1\r\ny", "1"))),
        ("a line in a value", get(&field("x", "1\r\ny: 2"))),
        ("an LF in a value", get(&field("x", "1\ny: 2"))),
        ("a NUL in a value", get(&field("x", "1\0"))),
        ("connection", get(&field("connection", "close"))),
        ("keep-alive", get(&field("keep-alive", "1"))),
        ("proxy-connection", get(&field("proxy-connection", "close"))),
        (
            "transfer-encoding",
            get(&field("transfer-encoding", "chunked")),
        ),
        ("upgrade", get(&field("upgrade", "websocket"))),
        ("te", get(&field("te", "gzip"))),
        (
            "a pseudo-header at the end",
            get(&[field("x", "1"), field(":path", "/")].concat()),
        ),
        ("an unknown pseudo-header", get(&field(":x", "1"))),
        ("one of answers", get(&field(":status", "200"))),
        ("two paths", get(&field(":path", "/"))),
        ("two methods", get(&field(":method", "GET"))),
        ("no path", pseudo(&[method, scheme, host])),
        ("no method", pseudo(&[scheme, path, host])),
        ("no scheme", pseudo(&[method, path, host])),
        (
            "an empty path",
            pseudo(&[method, scheme, (":path", ""), host]),
        ),
        (
            "a path without a slash",
            pseudo(&[method, scheme, (":path", "x"), host]),
        ),
        (
            "a space in a path",
            pseudo(&[method, scheme, (":path", "/ HTTP/1.1"), host]),
        ),
        (
            "a line in a path",
            pseudo(&[method, scheme, (":path", "/\r\nx: 1"), host]),
        ),
        (
            "a line in an authority",
            pseudo(&[method, scheme, path, (":authority", "a\r\nx: 1")]),
        ),
        (
            "a space in a method",
            pseudo(&[(":method", "GET /"), scheme, path, host]),
        ),
        (
            "a length without a body",
            get(&field("content-length", "5")),
        ),
        (
            "two lengths",
            get(&[field("content-length", "0"), field("content-length", "5")].concat()),
        ),
        ("no length", get(&field("content-length", "x"))),
    ]
}

/// Two requests, in streams 1 and 3: a field of 4 KB is put into the table once and named 16,000 times,
/// which are 64 MB of headers.
pub(crate) fn large_when_unpacked() -> [Vec<u8>; 2] {
    // A literal that is to be kept: name of 1 byte, value of 4000, whose length takes two bytes
    // more (RFC 7541, 5.1: 127, then 3873 in groups of seven bits).
    let kept = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
    let first = [frames::request("GET", "/"), kept].concat();
    let named = [frames::request("GET", "/"), vec![0x80 | 62; 16_000]].concat();
    [
        frame(HEADERS, WHOLE, 1, &first),
        frame(HEADERS, WHOLE, 3, &named),
    ]
}
