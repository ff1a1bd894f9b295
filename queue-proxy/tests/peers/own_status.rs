//! What gRPC callers are told where the app did not answer.

use std::sync::atomic::Ordering;

use tokio::net::TcpListener;
use tonic::{Code, Request};

use crate::{
    client::{curl, curl_with},
    grpc::{app, connect, note, unary},
    process::until,
    proxy::Proxy,
};

/// Calls as a gRPC client does, with an empty message.
async fn raw_call(proxy: &Proxy) -> Vec<String> {
    let url = proxy.url("/peers.Notes/Hang");
    let headers = ["-H", "Content-Type: application/grpc", "-H", "TE: trailers"];
    let message = ["-H", "Expect:", "--data-binary", "@-"];
    let http2 = ["--http2-prior-knowledge", "-v"];
    let arguments = [&http2[..], &headers, &message, &[&url]].concat();
    let answer = curl_with(&arguments, Some(&[0; 5])).await;
    answer.received().into_iter().map(str::to_owned).collect()
}

/// Status and reason of our own answer, both in its head: there is nothing else in it.
fn own_status(answer: &[String]) -> (String, String) {
    assert_eq!(answer[0], "HTTP/2 200", "{answer:?}");
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
