//! How those who are held are spread over the pods of one wake, while these come.

use std::time::Duration;

use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    harness::{Activator, FakePod, workload},
    tls::{ISTIO_NAME, add_pod, hello, taken, tls_caller},
};

/// A workload with this target per pod, `count` callers that are held for it, and the first of the
/// two pods that are made for them.
async fn woken(target: f64, count: u64) -> (Activator, Vec<TcpStream>, TcpListener) {
    let mut entry = workload("shop");
    entry.settings.target = target;
    let (activator, port) = Activator::with(entry).await;
    let mut callers = Vec::new();
    for _ in 0..count {
        callers.push(tls_caller(port, ISTIO_NAME).await);
    }
    activator.until_held(count).await;
    announce_pod(&activator, "shop-2").await;
    let first = add_pod(&activator, "shop-1").await;
    (activator, callers, first)
}

/// A pod that Kubernetes is about to start.
async fn announce_pod(activator: &Activator, name: &str) {
    let mut entry = FakePod::before(name, ([127, 0, 0, 1], 1).into())
        .await
        .entry();
    entry.ip = None;
    activator.directory.apply_pod(entry);
}

#[tokio::test]
async fn the_first_pod_of_a_wake_gets_no_more_than_its_target_while_others_come() {
    let (activator, callers, first) = woken(2.0, 4).await;
    let _first = [
        taken(&first, &hello(ISTIO_NAME)).await,
        taken(&first, &hello(ISTIO_NAME)).await,
    ];
    assert_eq!(
        (activator.held().await, activator.forwarding().await),
        (2, 2)
    );
    let second = add_pod(&activator, "shop-2").await;
    let _second = [
        taken(&second, &hello(ISTIO_NAME)).await,
        taken(&second, &hello(ISTIO_NAME)).await,
    ];
    assert_eq!(activator.held().await, 0);
    drop(callers);
    activator.stop().await;
}

#[tokio::test]
async fn the_first_pod_of_a_wake_gets_everybody_where_no_other_comes_in_time() {
    let (activator, callers, first) = woken(1.0, 2).await;
    let _one = taken(&first, &hello(ISTIO_NAME)).await;
    assert_eq!(activator.held().await, 1);
    let _other = taken(&first, &hello(ISTIO_NAME)).await;
    drop(callers);
    activator.stop().await;
}

#[tokio::test]
async fn a_pod_that_was_announced_and_goes_is_not_waited_for() {
    let (activator, callers, first) = woken(1.0, 2).await;
    let _one = taken(&first, &hello(ISTIO_NAME)).await;
    let start = Instant::now();
    activator.directory.remove_pod("default", "shop-2");
    let _other = taken(&first, &hello(ISTIO_NAME)).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    drop(callers);
    activator.stop().await;
}
