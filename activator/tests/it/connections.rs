//! Connections that are held and then passed on as bytes, unchanged, to the end of both ways.

use std::time::Duration;

use lull_contract::HumanDuration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Activator, soon, tcp_workload, until, workload},
    tls::{
        ISTIO_NAME, SERVER_HELLO, add_pod, assert_metric, expect, held_tls, hello, spliced, taken,
        tls_caller,
    },
};

#[tokio::test]
async fn tls_is_held_and_passed_on_unchanged_with_half_close() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = held_tls(&activator, port).await;
    // As early data would come: it waits for the answer, like all that is behind the hello.
    caller.write_all(b"early").await.unwrap();
    let listener = add_pod(&activator, "shop-1").await;
    let mut pod = taken(&listener, &hello(ISTIO_NAME)).await;
    pod.write_all(SERVER_HELLO).await.unwrap();
    expect(&mut caller, SERVER_HELLO).await;
    expect(&mut pod, b"early").await;
    assert_eq!(
        (activator.held().await, activator.forwarding().await),
        (0, 1)
    );
    assert_metric(&activator, "lull_activator_splices 1\n").await;
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
    assert_metric(&activator, "lull_activator_splices 0\n").await;
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_that_ends_first_leaves_the_other_way_open() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let (mut caller, mut pod) = spliced(&activator, port).await;
    pod.write_all(b"bye").await.unwrap();
    pod.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(caller.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"bye");
    caller.write_all(b"not yet").await.unwrap();
    expect(&mut pod, b"not yet").await;
    drop((caller, pod));
    activator.stop().await;
}

#[tokio::test]
async fn a_caller_without_a_server_name_or_with_its_own_is_held() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut callers = Vec::new();
    for (held, name) in [(1, ""), (2, "shop.example.com"), (3, "shop.other.svc")] {
        let caller = tls_caller(port, name).await;
        activator.until_held(held).await;
        callers.push(caller);
    }
    drop(callers);
    activator.until_held(0).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_tls_caller_that_leaves_is_dropped() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let caller = held_tls(&activator, port).await;
    drop(caller);
    activator.until_held(0).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_tcp_caller_that_breaks_off_is_dropped() {
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let caller = TcpStream::connect(port).await.unwrap();
    activator.until_held(1).await;
    caller.set_zero_linger().unwrap();
    drop(caller);
    activator.until_held(0).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_held_connection_is_closed_when_its_time_is_over() {
    let mut entry = workload("shop");
    entry.settings.connection_hold_timeout = HumanDuration(Duration::from_millis(50));
    let (activator, port) = Activator::with(entry).await;
    let mut caller = tls_caller(port, ISTIO_NAME).await;
    assert_eq!(soon(caller.read(&mut [0; 8])).await.unwrap(), 0);
    assert_metric(&activator, r#"rejected_total{reason="hold-timeout"} 1"#).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_that_breaks_off_is_not_taken_for_one_that_ends() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let (mut caller, pod) = spliced(&activator, port).await;
    pod.set_zero_linger().unwrap();
    drop(pod);
    let end = soon(caller.read(&mut [0])).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    until(|| async { activator.forwarding().await == 0 }).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_woken_by_a_silent_caller() {
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    activator.until_held(1).await;
    let listener = add_pod(&activator, "shop-1").await;
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    pod.write_all(b"220 ready").await.unwrap();
    expect(&mut caller, b"220 ready").await;
    caller.write_all(b"QUIT").await.unwrap();
    expect(&mut pod, b"QUIT").await;
    drop((caller, pod));
    activator.stop().await;
}
