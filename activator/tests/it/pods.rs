//! Which pods are used, and when.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::Ordering,
};

use activator::Pod;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

use crate::harness::{Activator, FakePod, get, loopback, soon, until, workload};

async fn page_says(activator: &Activator, text: &str) -> bool {
    activator.page("/workloads").await.body.contains(text)
}

#[tokio::test]
async fn a_pod_that_cannot_be_reached_is_passed_over() {
    let (activator, port) = Activator::with(workload("shop")).await;
    // Its queue-proxy says ready, but nothing listens for traffic.
    let (listener, nobody) = loopback().await;
    drop(listener);
    activator.add_pod(&FakePod::before("shop-1", nobody).await);
    let caller = tokio::spawn(async move { get(port, "/", "").await });
    until(|| async {
        !activator
            .metrics()
            .await
            .contains("connect_failures_total 0")
    })
    .await;
    let pod = FakePod::start("shop-2").await;
    activator.add_pod(&pod);
    let raw = soon(caller).await.unwrap();
    raw.assert_status(200);
    assert!(raw.body.starts_with("shop-2"), "{raw:?}");
    activator.stop().await;
}

#[tokio::test]
async fn who_is_held_is_let_through_to_a_pod_without_a_queue_proxy() {
    let pod = FakePod::start("plain").await;
    let mut entry = workload("shop");
    entry.ports[0].app_port = pod.app.port();
    let (activator, port) = Activator::with(entry.clone()).await;
    let caller = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    let none = entry.clone();
    entry.plain = vec![Ipv4Addr::LOCALHOST.into()];
    activator.directory.apply_workload(entry);
    let raw = soon(caller).await.unwrap();
    raw.assert_status(200);
    assert!(raw.body.starts_with("plain"), "{raw:?}");
    assert!(page_says(&activator, r#""podsKnown":1"#).await);
    activator.directory.apply_workload(none);
    assert!(page_says(&activator, r#""podsKnown":0"#).await);
    activator.stop().await;
}

#[tokio::test]
async fn a_wake_goes_on_where_its_pod_can_not_be_reached_at_first() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let caller = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    let (listener, address) = loopback().await;
    drop(listener);
    activator.add_pod(&FakePod::before("shop-1", address).await);
    let none = "connect_failures_total 0\n";
    until(|| async { !activator.metrics().await.contains(none) }).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let pod = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    });
    let raw = soon(caller).await.unwrap();
    raw.assert_status(200);
    for phase in ["created", "scheduled", "running", "listening", "answering"] {
        assert!(raw.head.contains(&format!("lull-{phase};dur=")), "{raw:?}");
    }
    soon(pod).await.unwrap();
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_is_used_when_its_queue_proxy_says_ready_and_not_before() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let pod = FakePod::start("shop-1").await;
    pod.ready.store(false, Ordering::Relaxed);
    activator.add_pod(&pod);
    let caller = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    assert!(page_says(&activator, r#""podsKnown":1,"podsTrusted":0"#).await);
    pod.ready.store(true, Ordering::Relaxed);
    soon(caller).await.unwrap().assert_status(200);
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_that_was_ready_and_is_not_is_probed_again() {
    let (activator, _) = Activator::with(workload("shop")).await;
    let pod = FakePod::start("shop-1").await;
    let mut entry = pod.entry();
    entry.ready = true;
    activator.directory.apply_pod(entry);
    until(|| page_says(&activator, r#""podsTrusted":1"#)).await;
    pod.ready.store(false, Ordering::Relaxed);
    activator.directory.apply_pod(pod.entry());
    until(|| page_says(&activator, r#""podsTrusted":0"#)).await;
    pod.ready.store(true, Ordering::Relaxed);
    until(|| page_says(&activator, r#""podsTrusted":1"#)).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_that_is_leaving_gets_nothing_more() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let pods = [
        FakePod::start("shop-1").await,
        FakePod::start("shop-2").await,
    ];
    pods.iter().for_each(|pod| activator.add_pod(pod));
    until(|| page_says(&activator, r#""podsTrusted":2"#)).await;
    let mut entry = pods[0].entry();
    entry.leaving = true;
    activator.directory.apply_pod(entry);
    for _ in 0..4 {
        get(port, "/", "").await.assert_status(200);
    }
    assert_eq!((pods[0].served(), pods[1].served()), (0, 4));
    activator.directory.remove_pod("default", "shop-2");
    assert!(page_says(&activator, r#""podsKnown":0"#).await);
    activator.stop().await;
}

/// A workload whose pods take one request each, and two activators: the slot of the first pod is the
/// other one's, that of the second is ours.
async fn one_slot_for_each_of_two() -> (Activator, SocketAddr, [FakePod; 2]) {
    let mut entry = workload("shop");
    entry.settings.container_concurrency = 1;
    let (activator, port) = Activator::with(entry).await;
    let peer = Pod {
        ready: true,
        ..FakePod::start("activator-0").await.entry()
    };
    activator.directory.apply_activator(&peer);
    let pods = [
        FakePod::start("shop-1").await,
        FakePod::start("shop-2").await,
    ];
    pods[1].ready.store(false, Ordering::Relaxed);
    (activator, port, pods)
}

#[tokio::test]
async fn who_is_held_for_a_slot_of_a_pod_that_goes_gets_one_of_the_others() {
    let (activator, port, [first, second]) = one_slot_for_each_of_two().await;
    activator.add_pod(&second);
    let caller = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    activator.add_pod(&first);
    until(|| page_says(&activator, r#""podsKnown":2,"podsTrusted":1"#)).await;
    activator.directory.remove_pod("default", "shop-2");
    let raw = soon(caller).await.unwrap();
    raw.assert_status(200);
    assert!(raw.body.starts_with("shop-1"), "{raw:?}");
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_that_never_gets_ready_does_not_shut_out_who_came_by_us() {
    let (activator, port, pods) = one_slot_for_each_of_two().await;
    pods.iter().for_each(|pod| activator.add_pod(pod));
    until(|| page_says(&activator, r#""podsKnown":2,"podsTrusted":1"#)).await;
    for _ in 0..2 {
        let raw = get(port, "/", "").await;
        raw.assert_status(200);
        assert!(raw.body.starts_with("shop-1"), "{raw:?}");
    }
    activator.stop().await;
}

#[tokio::test]
async fn a_line_that_comes_and_goes_while_pods_are_there_is_told_of_now_and_then() {
    let mut entry = workload("shop");
    entry.settings.container_concurrency = 1;
    let (activator, port) = Activator::with(entry).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    until(|| page_says(&activator, r#""podsTrusted":1"#)).await;
    let (before, begun) = (activator.report("").await.edge, Instant::now());
    for _ in 0..100 {
        let (one, other) = tokio::join!(get(port, "/", ""), get(port, "/", ""));
        one.assert_status(200);
        other.assert_status(200);
    }
    let edges = u128::from(activator.report("").await.edge - before);
    let most = begun.elapsed().as_millis() / 100 + 1;
    assert!(edges <= most, "{edges} edges, at most {most}");
    activator.stop().await;
}
