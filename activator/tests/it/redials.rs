//! Connections whose pod does not answer: until it has, its hello goes to another one.

use std::time::Duration;

use lull_contract::HumanDuration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{
    harness::{Activator, soon, tcp_workload, until, workload},
    tls::{
        ISTIO_NAME, SERVER_HELLO, add_pod, assert_metric, expect, held_tls, hello, taken,
        tls_caller,
    },
};

#[tokio::test]
async fn a_pod_that_stays_silent_costs_a_second_and_another_gets_the_whole_hello() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = held_tls(&activator, port).await;
    let silent = add_pod(&activator, "shop-1").await;
    let mut first = taken(&silent, &hello(ISTIO_NAME)).await;
    let start = Instant::now();
    let healthy = add_pod(&activator, "shop-2").await;
    let mut pod = taken(&healthy, &hello(ISTIO_NAME)).await;
    let lost = start.elapsed();
    // Less than the 10 s that Istio gives a connection, by far.
    assert!((800..4000).contains(&lost.as_millis()), "{lost:?}");
    assert_eq!(soon(first.read(&mut [0])).await.unwrap(), 0);
    pod.write_all(SERVER_HELLO).await.unwrap();
    expect(&mut caller, SERVER_HELLO).await;
    assert_metric(&activator, "redials_total 1\n").await;
    drop((caller, pod));
    activator.stop().await;
}

#[tokio::test]
async fn a_silent_pod_that_is_alone_is_tried_until_the_time_is_over() {
    let mut entry = workload("shop");
    entry.settings.connection_hold_timeout = HumanDuration(Duration::from_millis(1500));
    let (activator, port) = Activator::with(entry).await;
    let mut caller = held_tls(&activator, port).await;
    let silent = add_pod(&activator, "shop-1").await;
    let first = taken(&silent, &hello(ISTIO_NAME)).await;
    let second = taken(&silent, &hello(ISTIO_NAME)).await;
    assert_eq!(soon(caller.read(&mut [0; 8])).await.unwrap(), 0);
    assert_metric(&activator, r#"rejected_total{reason="hold-timeout"} 1"#).await;
    drop((first, second));
    activator.stop().await;
}

/// A pod that closes each connection once it has read the hello, as an Envoy that isn't ready does.
async fn add_closing_pod(activator: &Activator, name: &str) {
    let listener = add_pod(activator, name).await;
    tokio::spawn(async move {
        loop {
            drop(taken(&listener, &hello(ISTIO_NAME)).await);
        }
    });
}

#[tokio::test]
async fn a_pod_that_closes_without_an_answer_is_left_for_another() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = held_tls(&activator, port).await;
    add_closing_pod(&activator, "shop-1").await;
    until(|| async { !activator.metrics().await.contains("redials_total 0\n") }).await;
    let healthy = add_pod(&activator, "shop-2").await;
    let mut pod = taken(&healthy, &hello(ISTIO_NAME)).await;
    pod.write_all(SERVER_HELLO).await.unwrap();
    expect(&mut caller, SERVER_HELLO).await;
    drop((caller, pod));
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_that_closes_does_not_draw_connections_by_having_none() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let healthy = add_pod(&activator, "shop-1").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut caller = tls_caller(port, ISTIO_NAME).await;
        let mut pod = taken(&healthy, &hello(ISTIO_NAME)).await;
        pod.write_all(SERVER_HELLO).await.unwrap();
        expect(&mut caller, SERVER_HELLO).await;
        open.push((caller, pod));
    }
    add_closing_pod(&activator, "shop-2").await;
    until(|| async {
        let page = activator.page("/workloads").await.body;
        page.contains("\"podsTrusted\":2")
    })
    .await;
    let caller = tls_caller(port, ISTIO_NAME).await;
    drop(taken(&healthy, &hello(ISTIO_NAME)).await);
    assert_metric(&activator, "redials_total 2\n").await;
    drop((caller, open));
    activator.stop().await;
}

#[tokio::test]
async fn a_tls_caller_that_leaves_before_the_pod_answers_is_dropped() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let caller = held_tls(&activator, port).await;
    let silent = add_pod(&activator, "shop-1").await;
    let mut pod = taken(&silent, &hello(ISTIO_NAME)).await;
    drop(caller);
    assert_eq!(soon(pod.read(&mut [0])).await.unwrap(), 0);
    until(|| async { activator.forwarding().await == 0 }).await;
    assert_metric(&activator, "redials_total 0\n").await;
    activator.stop().await;
}

#[tokio::test]
async fn what_was_said_on_a_tcp_port_is_said_once() {
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(b"pay 5").await.unwrap();
    let listener = add_pod(&activator, "shop-1").await;
    drop(taken(&listener, b"pay 5").await);
    assert_eq!(soon(caller.read(&mut [0])).await.unwrap(), 0);
    drop(caller);
    until(|| async { activator.forwarding().await == 0 }).await;
    assert_metric(&activator, "redials_total 0\n").await;
    activator.stop().await;
}
