//! HTTP/2 callers that send much of what is allowed in little.

use std::{future::pending, net::SocketAddr};

use tokio::{io::AsyncWriteExt, time::Duration};

use crate::{
    frames::{
        self, ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, field, frame, open,
    },
    soon,
};

/// Who sends more than this is let go on.
const MUCH: usize = 2 << 20;

/// How a caller that sends too much was treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    /// Nobody took what it sent any more, as it did not take what it was sent.
    Stuck,
    /// Everything was taken.
    Taken,
}

/// Sends `begin` and then what `more` makes of one number after the other.
#[derive(Debug)]
pub(crate) struct Flood {
    pub(crate) name: &'static str,
    begin: Vec<u8>,
    more: fn(u32) -> Vec<u8>,
    /// How it may end.
    pub(crate) ends: &'static [End],
}

// === impl Flood ===

impl Flood {
    /// One that must be closed.
    fn closed(name: &'static str, begin: Vec<u8>, more: fn(u32) -> Vec<u8>) -> Self {
        Self {
            name,
            begin,
            more,
            ends: &[End::Closed],
        }
    }

    /// The same with other ends.
    fn or(self, ends: &'static [End]) -> Self {
        Self { ends, ..self }
    }

    /// Floods; what is sent back is read where it `reads`.
    pub(crate) async fn run(&self, address: SocketAddr, reads: bool) -> End {
        let stream = frames::connect(address).await;
        let (mut reader, mut writer) = stream.into_split();
        let writing = async {
            let mut bytes = self.begin.clone();
            let (mut sent, mut number) = (0, 0);
            let quiet = Duration::from_secs(1);
            loop {
                while bytes.len() < 65_536 {
                    bytes.extend((self.more)(number));
                    number += 1;
                }
                // The kernel may have all of it, and nobody have looked at it: the last part comes later.
                let is_last = sent >= MUCH;
                if is_last {
                    tokio::time::sleep(quiet).await;
                }
                match tokio::time::timeout(quiet, writer.write_all(&bytes)).await {
                    Err(_) => return End::Stuck,
                    Ok(Err(_)) => return End::Closed,
                    Ok(Ok(())) if is_last => return End::Taken,
                    Ok(Ok(())) => sent += bytes.len(),
                }
                bytes.clear();
            }
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
}

/// CVE-2023-44487.
pub(crate) fn resets() -> Vec<Flood> {
    let more = |number| {
        let stream = 2 * number + 1;
        let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        [open(stream, "GET", END_HEADERS | END_STREAM), reset].concat()
    };
    vec![Flood::closed("streams reset at once", Vec::new(), more)]
}

/// CVE-2025-8671.
pub(crate) fn made_resets() -> Vec<Flood> {
    let more = |number| {
        let stream = 2 * number + 1;
        let fault = frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
        [open(stream, "POST", END_HEADERS), fault].concat()
    };
    vec![Flood::closed("streams to be reset", Vec::new(), more)]
}

pub(crate) fn streams() -> Vec<Flood> {
    let get = |number| open(2 * number + 1, "GET", END_HEADERS | END_STREAM);
    let post = |number| open(2 * number + 1, "POST", END_HEADERS);
    vec![
        Flood::closed("too many GETs", Vec::new(), get),
        Flood::closed("too many POSTs", Vec::new(), post),
    ]
}

/// CVE-2024-27316.
pub(crate) fn heads() -> Vec<Flood> {
    let more = |_| frame(CONTINUATION, 0, 1, &field("x", "1").repeat(100));
    let empty = |_| frame(CONTINUATION, 0, 1, &[]);
    vec![
        Flood::closed("a head without end", open(1, "GET", 0), more),
        Flood::closed("a head of nothing without end", open(1, "GET", 0), empty),
    ]
}

pub(crate) fn trailers() -> Vec<Flood> {
    let post = open(1, "POST", END_HEADERS);
    let begin = [post, frame(HEADERS, END_STREAM, 1, &field("x", "1"))].concat();
    let more = |_| frame(CONTINUATION, 0, 1, &field("x", "1").repeat(100));
    vec![Flood::closed("trailers without end", begin, more)]
}

/// CVE-2019-9518.
pub(crate) fn empty_data() -> Vec<Flood> {
    let begin = open(1, "POST", END_HEADERS);
    let more = |_| frame(DATA, 0, 1, &[]);
    vec![Flood::closed("data without data", begin, more)]
}

/// CVE-2019-9512 and 9515: each of these asks for an answer.
pub(crate) fn questions() -> Vec<Flood> {
    const ENDS: &[End] = &[End::Closed, End::Stuck, End::Taken];
    let ping = |_| frame(PING, 0, 0, &[0; 8]);
    let settings = |_| frame(SETTINGS, 0, 0, &[]);
    let window = |number| frame(SETTINGS, 0, 0, &frames::settings(&[(4, number % 100_000)]));
    vec![
        Flood::closed("pings", Vec::new(), ping).or(ENDS),
        Flood::closed("settings", Vec::new(), settings).or(ENDS),
        Flood::closed("other windows", Vec::new(), window).or(ENDS),
    ]
}

pub(crate) fn noise() -> Vec<Flood> {
    const ENDS: &[End] = &[End::Closed, End::Taken];
    let acknowledged = |_| frame(SETTINGS, ACK, 0, &[]);
    let window = |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    let priority = |number| frame(PRIORITY, 0, 2 * number + 1, &[0, 0, 0, 0, 1]);
    let unknown = |_| frame(99, 0, 0, &[0; 100]);
    vec![
        Flood::closed("acknowledgements", Vec::new(), acknowledged),
        Flood::closed("window updates", Vec::new(), window).or(ENDS),
        Flood::closed("priorities", Vec::new(), priority).or(ENDS),
        Flood::closed("frames of no kind", Vec::new(), unknown).or(ENDS),
    ]
}
