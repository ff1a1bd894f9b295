//! Connections that are open for long: those on which nothing moves, and those that are too old.

use std::time::Duration;

use lull_contract::HumanDuration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{
    harness::{Activator, soon, until, workload},
    tls::{assert_metric, expect, spliced},
};

#[tokio::test]
async fn a_connection_on_which_nothing_moves_does_not_count_until_something_does() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let (mut caller, mut pod) = spliced(&activator, port).await;
    assert_eq!(activator.forwarding().await, 1);
    let start = Instant::now();
    until(|| async { activator.forwarding().await == 0 }).await;
    let age = start.elapsed();
    assert!(age >= Duration::from_secs(4), "{age:?}");
    caller.write_all(b"again").await.unwrap();
    expect(&mut pod, b"again").await;
    until(|| async { activator.forwarding().await == 1 }).await;
    until(|| async { activator.forwarding().await == 0 }).await;
    // It ends at rest, and is not taken off twice.
    drop((caller, pod));
    let ended = "lull_activator_splices 0\n";
    until(|| async { activator.metrics().await.contains(ended) }).await;
    assert_eq!(activator.forwarding().await, 0);
    activator.stop().await;
}

#[tokio::test]
async fn an_old_connection_is_closed_when_it_is_quiet() {
    let mut entry = workload("shop");
    entry.settings.splice_max_age = Some(HumanDuration(Duration::from_secs(2)));
    let (activator, port) = Activator::with(entry).await;
    let start = Instant::now();
    let (mut caller, mut pod) = spliced(&activator, port).await;
    assert_eq!(soon(caller.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(soon(pod.read(&mut [0])).await.unwrap(), 0);
    let age = start.elapsed();
    assert!(age >= Duration::from_secs(3), "{age:?}");
    assert_metric(&activator, "lull_activator_splices 0\n").await;
    activator.stop().await;
}

#[tokio::test]
async fn an_old_connection_that_is_never_quiet_is_closed_at_twice_its_age() {
    let mut entry = workload("shop");
    entry.settings.splice_max_age = Some(HumanDuration(Duration::from_secs(1)));
    let (activator, port) = Activator::with(entry).await;
    let (mut caller, mut pod) = spliced(&activator, port).await;
    let start = Instant::now();
    let echo = async {
        let mut byte = [0];
        while let Ok(1) = pod.read(&mut byte).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = pod.write_all(&byte).await;
        }
    };
    let ask = async {
        let mut byte = [7];
        while caller.write_all(&byte).await.is_ok() {
            if !matches!(caller.read(&mut byte).await, Ok(1)) {
                break;
            }
        }
    };
    soon(async { tokio::join!(echo, ask) }).await;
    let age = start.elapsed();
    assert!((1500..4000).contains(&age.as_millis()), "{age:?}");
    activator.stop().await;
}
