//! Connections passed on as bytes, and those that say nothing.

use std::time::Duration;

use lull_contract::HumanDuration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Activator, FakePod, loopback, soon, tcp_workload, until, workload};

const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\x05hello";

#[tokio::test]
async fn tls_is_held_and_passed_on_unchanged_with_half_close() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(CLIENT_HELLO).await.unwrap();
    activator.until_held(1).await;
    let (listener, address) = loopback().await;
    activator.add_pod(&FakePod::before("shop-1", address).await);
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    let mut seen = vec![0; CLIENT_HELLO.len()];
    soon(pod.read_exact(&mut seen)).await.unwrap();
    assert_eq!(seen, CLIENT_HELLO);
    assert_eq!(
        (activator.held().await, activator.forwarding().await),
        (0, 1)
    );
    caller.write_all(b"more").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(pod.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"more");
    pod.write_all(b"answer").await.unwrap();
    drop(pod);
    let mut answer = Vec::new();
    soon(caller.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"answer");
    until(|| async { activator.forwarding().await == 0 }).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_tls_caller_that_leaves_is_dropped() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(CLIENT_HELLO).await.unwrap();
    activator.until_held(1).await;
    drop(caller);
    activator.until_held(0).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_held_connection_is_closed_when_its_time_is_over() {
    let mut entry = workload("shop");
    entry.settings.connection_hold_timeout = HumanDuration(Duration::from_millis(50));
    let (activator, port) = Activator::with(entry).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(CLIENT_HELLO).await.unwrap();
    // The bytes are unread, so it may also be reset.
    let end = soon(caller.read(&mut [0; 8])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    assert!(
        activator
            .metrics()
            .await
            .contains(r#"rejected_total{reason="hold-timeout"} 1"#)
    );
    activator.stop().await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_woken_by_a_silent_caller() {
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    activator.until_held(1).await;
    let (listener, address) = loopback().await;
    activator.add_pod(&FakePod::before("shop-1", address).await);
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    pod.write_all(b"220 ready").await.unwrap();
    let mut greeting = [0; 9];
    soon(caller.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 ready");
    caller.write_all(b"QUIT").await.unwrap();
    let mut word = [0; 4];
    soon(pod.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"QUIT");
    drop((caller, pod));
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
async fn a_silent_connection_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    let mut caller = TcpStream::connect(port).await.unwrap();
    // Closed by the activator: it takes the 5 s that a caller has.
    assert_eq!(soon(caller.read(&mut [0; 8])).await.unwrap(), 0);
    let report = activator.report("").await;
    assert_eq!((report.edge, report.workloads[0].held.requests), (edge, 0));
    assert!(
        activator
            .metrics()
            .await
            .contains(r#"rejected_total{reason="silent"} 1"#)
    );
    activator.stop().await;
}
