//! Which pods are used, and when.

use std::sync::atomic::Ordering;

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
