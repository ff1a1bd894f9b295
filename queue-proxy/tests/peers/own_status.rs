//! What gRPC callers are told where the app did not answer.

use std::{fs, sync::atomic::Ordering};

use tonic::{Code, Request};

use crate::{
    apps,
    client::curl,
    grpc::{app, connect, note, unary},
    process::{self, TempDir, until},
    proxy::Proxy,
};

/// Calls as a gRPC client does, with an empty message; returns what it got of headers.
///
/// Not with curl: Debian 12's takes an answer that comes before the end of its request for an
/// error, now and then.
async fn raw_call(proxy: &Proxy) -> Vec<String> {
    let directory = TempDir::new();
    let message = directory.path().join("message");
    fs::write(&message, [0; 5]).unwrap();
    let headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
    let (message, url) = (message.to_str().unwrap(), proxy.url("/peers.Notes/Hang"));
    let arguments = [&["-v", "-d", message], &headers[..], &[&url]].concat();
    let printed = process::run("nghttp", &arguments).await;
    let received = printed
        .lines()
        .filter_map(|line| line.split_once(" recv (stream_id="));
    let fields = received.filter_map(|(_, rest)| Some(rest.split_once(") ")?.1.to_owned()));
    fields.collect()
}

/// Status and reason of our own answer, both in its head: there is nothing else in it.
fn own_status(answer: &[String]) -> (String, String) {
    assert_eq!(answer[0], ":status: 200", "{answer:?}");
    assert!(
        answer
            .iter()
            .any(|line| line == "content-type: application/grpc"),
        "{answer:?}"
    );
    let value = |name: &str| {
        let line = answer.iter().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {answer:?}"))
            .to_owned()
    };
    assert!(!value("grpc-message: ").is_empty());
    (value("grpc-status: "), value("lull-reason: "))
}

const UNAVAILABLE: &str = "14";
const DEADLINE_EXCEEDED: &str = "4";

#[tokio::test]
async fn an_app_that_is_away_is_told_to_a_grpc_caller_as_unavailable() {
    // Nobody listens there, and nobody else will.
    let (_reserved, address) = apps::reserve();
    let proxy = Proxy::start(address, &[]).await;
    let answer = raw_call(&proxy).await;
    assert_eq!(
        own_status(&answer),
        (UNAVAILABLE.into(), "app-refused".into())
    );
    // Other callers are told as before.
    let plain = curl(&["-v", "--http2-prior-knowledge", &proxy.url("/")]).await;
    assert_eq!(plain.received()[0], "HTTP/2 502");
}

#[tokio::test]
async fn a_timeout_is_told_to_a_grpc_caller_as_its_deadline() {
    let (address, _) = app().await;
    let proxy = Proxy::start(address, &[("QP_TIMEOUT", "100ms")]).await;
    let answer = raw_call(&proxy).await;
    assert_eq!(
        own_status(&answer),
        (DEADLINE_EXCEEDED.into(), "timeout".into())
    );
    let mut client = connect(&proxy).await;
    let status = unary(&mut client, "Hang", Request::new(note(1)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_full_queue_is_told_to_a_grpc_caller_as_unavailable() {
    let (address, notes) = app().await;
    let limits = [("QP_CONTAINER_CONCURRENCY", "1"), ("QP_QUEUE_DEPTH", "0")];
    let proxy = Proxy::start(address, &limits).await;
    let mut client = connect(&proxy).await;
    let _first =
        tokio::spawn(async move { unary(&mut client, "Hang", Request::new(note(1))).await });
    until(|| async { notes.inside.load(Ordering::SeqCst) == 1 }).await;
    let answer = raw_call(&proxy).await;
    // What clients may try again, as where Envoy answers with 503.
    assert_eq!(
        own_status(&answer),
        (UNAVAILABLE.into(), "queue-full".into())
    );
}
