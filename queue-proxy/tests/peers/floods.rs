//! HTTP/2 callers that mean harm by sending much of what is allowed in little: each is bounded or
//! ended, and nobody beside feels it.

use std::future::pending;

use tokio::{io::AsyncWriteExt, time::Duration};

use crate::{
    beside::Hello,
    frames::{
        self, ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, field, frame, open,
    },
    process::soon,
};

const MIB: usize = 1 << 20;
/// What the proxy may have at most while others do harm.
const MEMORY_MIB: u64 = 40;
/// Who sends more than this is let go on.
const MUCH: usize = 4 * MIB;

/// How a caller that sends too much was treated.
#[derive(Debug, PartialEq)]
enum End {
    Closed,
    /// Nobody took what it sent any more, as it did not take what it was sent.
    Stuck,
    /// Everything was taken.
    Taken,
}

/// Sends `begin` and then what `more` makes of one number after the other.
async fn flood(hello: &Hello, reads: bool, begin: &[u8], more: fn(u32) -> Vec<u8>) -> End {
    let stream = frames::connect(hello.traffic()).await;
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        let mut bytes = begin.to_vec();
        let (mut sent, mut number) = (0, 0);
        while sent < MUCH {
            while bytes.len() < 65_536 {
                bytes.extend(more(number));
                number += 1;
            }
            let quiet = Duration::from_secs(1);
            match tokio::time::timeout(quiet, writer.write_all(&bytes)).await {
                Err(_) => return End::Stuck,
                Ok(Err(_)) => return End::Closed,
                Ok(Ok(())) => sent += bytes.len(),
            }
            bytes.clear();
        }
        End::Taken
    };
    let reading = async {
        if !reads {
            pending::<()>().await;
        }
        let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
    };
    soon(async {
        tokio::select! {
            end = writing => end,
            () = reading => End::Closed,
        }
    })
    .await
}

/// Floods, and fails where the end is none of `ends` or somebody else felt it.
async fn check(begin: &[u8], more: fn(u32) -> Vec<u8>, ends: &[End]) {
    let hello = Hello::start(&[]).await;
    for reads in [true, false] {
        let beside = hello.beside();
        let end = flood(&hello, reads, begin, more).await;
        let asked = beside.unharmed().await;
        assert!(ends.contains(&end), "{end:?}");
        assert!(
            hello.seen() < asked + 1_000,
            "{} reached the app",
            hello.seen()
        );
        hello.proxy.in_flight(0).await;
    }
    hello.assert_peak_below(MEMORY_MIB);
}

/// CVE-2023-44487.
#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_opened() {
    let more = |number| {
        let stream = 2 * number + 1;
        let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        [open(stream, "GET", END_HEADERS | END_STREAM), reset].concat()
    };
    check(&[], more, &[End::Closed]).await;
}

/// CVE-2025-8671.
#[tokio::test]
async fn streams_that_the_proxy_is_made_to_reset() {
    let more = |number| {
        let stream = 2 * number + 1;
        let fault = frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
        [open(stream, "POST", END_HEADERS), fault].concat()
    };
    check(&[], more, &[End::Closed]).await;
}

#[tokio::test]
async fn more_streams_than_are_allowed() {
    let get = |number| open(2 * number + 1, "GET", END_HEADERS | END_STREAM);
    check(&[], get, &[End::Closed]).await;
    let post = |number| open(2 * number + 1, "POST", END_HEADERS);
    check(&[], post, &[End::Closed]).await;
}

/// CVE-2024-27316.
#[tokio::test]
async fn heads_without_end() {
    let begin = open(1, "GET", 0);
    let more = |_| frame(CONTINUATION, 0, 1, &field("x", "1").repeat(100));
    check(&begin, more, &[End::Closed]).await;
    let empty = |_| frame(CONTINUATION, 0, 1, &[]);
    check(&begin, empty, &[End::Closed]).await;
}

#[tokio::test]
async fn trailers_without_end() {
    let post = open(1, "POST", END_HEADERS);
    let begin = [post, frame(HEADERS, END_STREAM, 1, &field("x", "1"))].concat();
    let more = |_| frame(CONTINUATION, 0, 1, &field("x", "1").repeat(100));
    check(&begin, more, &[End::Closed]).await;
}

/// CVE-2019-9518.
#[tokio::test]
async fn data_frames_without_data() {
    let begin = open(1, "POST", END_HEADERS);
    check(&begin, |_| frame(DATA, 0, 1, &[]), &[End::Closed]).await;
}

/// CVE-2019-9512 and 9515: each of these asks for an answer.
#[tokio::test]
async fn frames_that_want_an_answer() {
    let ends = [End::Closed, End::Stuck, End::Taken];
    check(&[], |_| frame(PING, 0, 0, &[0; 8]), &ends).await;
    check(&[], |_| frame(SETTINGS, 0, 0, &[]), &ends).await;
    let window = |number| frame(SETTINGS, 0, 0, &frames::settings(&[(4, number % 100_000)]));
    check(&[], window, &ends).await;
}

#[tokio::test]
async fn frames_that_nobody_waits_for() {
    check(&[], |_| frame(SETTINGS, ACK, 0, &[]), &[End::Closed]).await;
    let ends = [End::Closed, End::Taken];
    check(&[], |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), &ends).await;
    let priority = |number| frame(PRIORITY, 0, 2 * number + 1, &[0, 0, 0, 0, 1]);
    check(&[], priority, &ends).await;
    check(&[], |_| frame(99, 0, 0, &[0; 100]), &ends).await;
}

/// A field of 4 KB is put into the table once and named 16,000 times: 64 MB of headers.
#[tokio::test]
async fn a_head_that_is_large_when_unpacked() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    let mut caller = frames::connect(hello.traffic()).await;
    // A literal that is to be kept: name of 1 byte, value of 4000, whose length takes two bytes
    // more (RFC 7541, 5.1: 127, then 3873 in groups of seven bits).
    let kept = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4_000]].concat();
    let first = [frames::request("GET", "/"), kept].concat();
    let named = [frames::request("GET", "/"), vec![0x80 | 62; 16_000]].concat();
    let flags = END_HEADERS | END_STREAM;
    caller
        .write_all(&frame(HEADERS, flags, 1, &first))
        .await
        .unwrap();
    let answer = frames::read_until(&mut caller, |frame| frame.stream == 1).await;
    let (kind, status) = (answer.kind, answer.payload[0]);
    assert_eq!((kind, status), (HEADERS, frames::STATUS_200[0]));
    caller
        .write_all(&frame(HEADERS, flags, 3, &named))
        .await
        .unwrap();
    while let Some(answer) = frames::read(&mut caller).await {
        // Status as literal, its name from the table.
        let refused = answer.kind == RST_STREAM || answer.payload.ends_with(b"431");
        if answer.stream == 3 {
            assert!(refused, "{answer:?}");
            break;
        }
    }
    let asked = beside.unharmed().await;
    assert_eq!(hello.seen(), asked + 1);
    hello.assert_peak_below(MEMORY_MIB);
}
