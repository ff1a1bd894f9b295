//! Requests that two readers may take for two different things. Of each the app must get one
//! request, whole, or none; and the caller beside must get its own answer.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    client::{exchange, read_to},
    proxy::{Proxy, UNPROBED},
    recorder::Recorder,
    requests::{
        self,
        Fate::{self, Broken, Either, Passed, Refused},
    },
};

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

#[tokio::test]
async fn lengths() {
    check(requests::lengths()).await;
}

#[tokio::test]
async fn transfer_encodings() {
    check(requests::transfer_encodings()).await;
}

#[tokio::test]
async fn both_a_length_and_a_transfer_encoding() {
    check(requests::both()).await;
}

#[tokio::test]
async fn chunks() {
    check(requests::chunks()).await;
}

#[tokio::test]
async fn lines_and_names() {
    check(requests::lines_and_names()).await;
}

#[tokio::test]
async fn transfer_encodings_beside_chunked() {
    check(requests::codings_beside_chunked()).await;
}

#[tokio::test]
async fn a_bad_chunk_is_the_callers_fault() {
    check(requests::bad_chunks()).await;
}

#[tokio::test]
async fn hosts() {
    check(requests::hosts()).await;
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
