//! What a connection is by its first bytes, and those that are closed before they wake anybody.

use std::time::Duration;

use lull_contract::report::Ways;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{
    harness::{Activator, get, soon, tcp_workload, until, workload},
    http2,
    tls::{ISTIO_NAME, add_pod, assert_metric, held_tls, hello, taken, tls_caller},
};

/// The activator closes `caller`, wakes nobody and counts it as `reason`.
async fn assert_refused(activator: &Activator, mut caller: TcpStream, reason: &str) {
    // What it has sent may be unread, so it may also be reset.
    let end = soon(caller.read(&mut [0; 8])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let line = format!(r#"rejected_total{{reason="{reason}"}} 1"#);
    until(|| async { activator.metrics().await.contains(&line) }).await;
    let report = activator.report("").await;
    // The only edges are those of the ports.
    let ports: u64 = report.workloads.iter().map(|w| w.ports.len() as u64).sum();
    let held: u64 = report.workloads.iter().map(|w| w.held.requests).sum();
    assert_eq!((report.edge, held), (ports, 0));
}

#[tokio::test]
async fn istios_name_of_another_namespace_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let name = "outbound_.80_.v1_.shop.other.svc.cluster.local";
    let caller = tls_caller(port, name).await;
    assert_refused(&activator, caller, "wrong-sni").await;
    activator.stop().await;
}

#[tokio::test]
async fn istios_name_of_another_workloads_service_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add(workload("bank")).await;
    let name = |service| format!("outbound_.80_._.{service}.default.svc.cluster.local");
    let caller = tls_caller(port, &name("bank")).await;
    assert_refused(&activator, caller, "wrong-sni").await;
    // A Service that nobody knows yet may be a new one of shop.
    let caller = tls_caller(port, &name("new")).await;
    activator.until_held(1).await;
    drop(caller);
    activator.stop().await;
}

#[tokio::test]
async fn a_broken_hello_is_closed_at_once_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    let start = Instant::now();
    caller
        .write_all(b"\x16\x03\x01\x00\x05hello")
        .await
        .unwrap();
    assert_refused(&activator, caller, "bad-hello").await;
    assert!(start.elapsed() < Duration::from_secs(4));
    activator.stop().await;
}

#[tokio::test]
async fn a_hello_that_is_not_whole_in_time_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    let hello = hello(ISTIO_NAME);
    caller.write_all(&hello[..hello.len() - 1]).await.unwrap();
    // Closed by the activator: it takes the 5 s that a caller has.
    assert_refused(&activator, caller, "bad-hello").await;
    activator.stop().await;
}

#[tokio::test]
async fn garbage_is_closed_at_once_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    let start = Instant::now();
    caller.write_all(b"\x00\x00\x00\x55SMB").await.unwrap();
    assert_refused(&activator, caller, "garbage").await;
    assert!(start.elapsed() < Duration::from_secs(4));
    activator.stop().await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let caller = TcpStream::connect(port).await.unwrap();
    // Closed by the activator: it takes the 5 s that a caller has.
    assert_refused(&activator, caller, "silent").await;
    activator.stop().await;
}

#[tokio::test]
async fn a_port_check_on_a_tcp_port_wakes_nobody() {
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let edge = activator.report("").await.edge;
    drop(TcpStream::connect(port).await.unwrap());
    // A second one, to know that the first is done with.
    let caller = TcpStream::connect(port).await.unwrap();
    activator.until_held(1).await;
    let report = activator.report("").await;
    assert_eq!(report.edge, edge + 1);
    assert_eq!(report.workloads[0].held.requests, 1);
    drop(caller);
    activator.directory.remove_workload("default", "shop");
    activator.task.abort();
}

#[tokio::test]
async fn a_request_whose_head_is_not_whole_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    let mut slow = TcpStream::connect(port).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    let mut slower = TcpStream::connect(port).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nhost: any.example\r\n";
    slower.write_all(head).await.unwrap();
    let counted = r#"connections_total{kind="http1"} 2"#;
    until(|| async { activator.metrics().await.contains(counted) }).await;
    // One that comes later and is held, to know that the others were looked at.
    let tls = held_tls(&activator, port).await;
    let report = activator.report("").await;
    assert_eq!(
        (report.edge, report.workloads[0].held.requests),
        (edge + 1, 1)
    );
    // And the rest of the head does wake.
    slower.write_all(b"\r\n").await.unwrap();
    activator.until_held(2).await;
    drop((slow, slower, tls));
    activator.until_held(0).await;
    activator.stop().await;
}

#[tokio::test]
async fn an_http2_preface_in_parts_is_one_preface() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.set_nodelay(true).unwrap();
    for part in ["P", "RI * HTTP/2.0\r\n", "\r\nSM\r\n\r"] {
        caller.write_all(part.as_bytes()).await.unwrap();
        assert_eq!(activator.held().await, 0);
    }
    // With the client's SETTINGS, which are empty.
    caller
        .write_all(b"\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        .await
        .unwrap();
    let mut frame = [0; 9];
    soon(caller.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[3], 4, "the server's SETTINGS come first: {frame:?}");
    assert_metric(&activator, r#"connections_total{kind="h2c"} 1"#).await;
    drop(caller);
    activator.stop().await;
}

#[tokio::test]
async fn a_hello_in_three_parts_is_one_hello() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.set_nodelay(true).unwrap();
    let hello = hello(ISTIO_NAME);
    let (parts, last) = hello.split_at(hello.len() - 1);
    for part in [&parts[..1], &parts[1..9], &parts[9..]] {
        caller.write_all(part).await.unwrap();
        // The question takes longer than the part.
        assert_eq!(activator.held().await, 0);
    }
    caller.write_all(last).await.unwrap();
    activator.until_held(1).await;
    let listener = add_pod(&activator, "shop-1").await;
    drop(taken(&listener, &hello).await);
    drop(caller);
    activator.stop().await;
}

#[tokio::test]
async fn how_callers_come_is_counted_for_each_workload() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let bytes = activator.add(tcp_workload("bank")).await;
    let (_sender, _connection) = http2::connect(port).await;
    let tls = tls_caller(port, ISTIO_NAME).await;
    let tcp = TcpStream::connect(bytes).await.unwrap();
    let http = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(3).await;
    for counts in [
        r#""connections":{"http1":1,"h2c":1,"tls":1,"tcp":0}"#,
        r#""connections":{"http1":0,"h2c":0,"tls":0,"tcp":1}"#,
    ] {
        until(|| async { activator.page("/workloads").await.body.contains(counts) }).await;
    }
    let report = activator.report("").await;
    let told = |name: &str| {
        let found = report.workloads.iter().find(|it| it.name == name);
        found.map(|it| it.ways)
    };
    let ways = Ways {
        http1: 1,
        h2c: 1,
        tls: 1,
        tcp: 0,
    };
    assert_eq!(told("shop"), Some(ways));
    let ways = Ways {
        tcp: 1,
        ..Ways::default()
    };
    assert_eq!(told("bank"), Some(ways));
    http.abort();
    // A client of bytes may end its side and wait on.
    tcp.set_zero_linger().unwrap();
    drop((tls, tcp));
    activator.until_held(0).await;
    activator.stop().await;
}
