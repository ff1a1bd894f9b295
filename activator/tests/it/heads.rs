//! How long a caller of plain HTTP may take for the head of a request, and that nothing else is cut.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::harness::{Activator, FakePod, Raw, get, read_all, soon, until, workload};
use crate::requests::read_head;

/// The beginning of a head, and its end.
const BEGINNING: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nx-in-";
const END: &[u8] = b"parts: 1\r\n\r\n";

async fn connect(port: SocketAddr) -> TcpStream {
    let caller = TcpStream::connect(port).await.unwrap();
    caller.set_nodelay(true).unwrap();
    caller
}

/// A connection on which a request has been answered.
async fn kept(port: SocketAddr) -> TcpStream {
    let mut caller = connect(port).await;
    caller.write_all(&[BEGINNING, END].concat()).await.unwrap();
    assert_served(&mut caller).await;
    caller
}

async fn assert_served(caller: &mut TcpStream) {
    let head = read_head(caller).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

/// Begins a head and says no more; what comes of it, to the connection's end.
async fn stall(mut caller: TcpStream) -> Raw {
    caller.write_all(BEGINNING).await.unwrap();
    read_all(&mut caller).await
}

#[tokio::test]
async fn a_head_that_stalls_is_cut_on_a_new_connection_and_on_a_kept_one_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let callers = [connect(port).await, kept(port).await];
    activator.directory.remove_pod("default", "shop-1");
    let before = activator.report("").await;
    let begin = Instant::now();
    for caller in callers.map(|caller| tokio::spawn(stall(caller))) {
        let raw = soon(caller).await.unwrap();
        raw.assert_status(408);
        for header in [
            "lull-reason: slow-head",
            "lull-error-source: client",
            "connection: close",
        ] {
            assert!(raw.has(header), "{header}: {raw:?}");
        }
    }
    let lasted = begin.elapsed();
    assert!((4..12).contains(&lasted.as_secs()), "{lasted:?}");
    let counted = r#"rejected_total{reason="slow-head"} 2"#;
    assert!(activator.metrics().await.contains(counted));
    let after = activator.report("").await;
    assert_eq!(after.edge, before.edge);
    assert_eq!(
        after.workloads[0].held.requests,
        before.workloads[0].held.requests
    );
    activator.stop().await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_has_no_more_time() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let mut caller = kept(port).await;
    caller.write_all(BEGINNING).await.unwrap();
    let (mut read, mut write) = caller.into_split();
    let begin = Instant::now();
    let trickle = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // Not to its end: what comes after the cut is answered by a reset.
    let mut answer = [0; 512];
    let length = soon(read.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let lasted = begin.elapsed();
    assert!((4..12).contains(&lasted.as_secs()), "{lasted:?}");
    soon(trickle).await.unwrap();
    activator.stop().await;
}

#[tokio::test]
async fn who_is_idle_or_held_or_sends_a_body_is_not_cut_with_those_who_stall() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    let mut idle = kept(port).await;
    let mut slow = kept(port).await;
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n1";
    slow.write_all(head).await.unwrap();
    until(|| async { pod.served() == 3 }).await;
    let asleep = activator.add(workload("bank")).await;
    let held = tokio::spawn(async move { get(asleep, "/", "").await });
    activator.until_held(1).await;
    // When this one is cut, all of them have waited for longer.
    stall(kept(port).await).await.assert_status(408);
    slow.write_all(b"2").await.unwrap();
    assert_served(&mut slow).await;
    // A head may come in parts, on both of them.
    for caller in [&mut idle, &mut slow] {
        caller.write_all(BEGINNING).await.unwrap();
        assert_eq!(activator.held().await, 1);
        caller.write_all(END).await.unwrap();
        assert_served(caller).await;
    }
    let mut bank = FakePod::start("bank-1").await.entry();
    bank.labels.insert("app".to_owned(), "bank".to_owned());
    activator.directory.apply_pod(bank);
    soon(held).await.unwrap().assert_status(200);
    activator.stop().await;
}
