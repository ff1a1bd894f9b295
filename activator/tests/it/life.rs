//! Ports that come and go, the report, admin pages and the end.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Activator, FakePod, get, local, loopback, soon, until, workload};
use crate::tls::hello;

#[tokio::test]
async fn a_long_poll_returns_when_the_first_is_held() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    // A reader that has not seen this edge is answered at once.
    let report = soon(activator.report("?seen=0&wait_ms=30000")).await;
    assert_eq!(report.edge, edge);
    let query = format!("?seen={edge}&wait_ms=30000");
    let poll = activator.report(&query);
    let call = async {
        let mut stream = TcpStream::connect(port).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        stream
    };
    let (report, stream) = soon(async { tokio::join!(poll, call) }).await;
    assert_eq!(report.edge, edge + 1);
    let shop = &report.workloads[0];
    assert_eq!((shop.held.in_flight, shop.held.requests), (1, 1));
    assert_eq!(shop.ports, [port.port()]);
    // Nobody came with a pod: the edge is raised again after a second.
    let query = format!("?seen={}&wait_ms=30000", report.edge);
    let again = soon(activator.report(&query)).await;
    assert_eq!(again.edge, edge + 2);
    assert!(again.workloads[0].held.in_flight_us >= 900_000);
    drop(stream);
    activator.stop().await;
}

#[tokio::test]
async fn a_poll_without_news_ends_in_time() {
    let (activator, _) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    let query = format!("?seen={edge}&wait_ms=10");
    assert_eq!(soon(activator.report(&query)).await.edge, edge);
    activator.stop().await;
}

#[tokio::test]
async fn ports_open_and_close_at_run_time_and_the_port_names_the_workload() {
    let (activator, shop) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    let query = format!("?seen={edge}&wait_ms=30000");
    let (report, bank) =
        soon(async { tokio::join!(activator.report(&query), activator.add(workload("bank"))) })
            .await;
    assert!(report.edge > edge, "a port that opens is news");
    let held = tokio::spawn(async move { get(bank, "/", "").await });
    activator.until_held(1).await;
    // The pod is of shop, whatever Host says.
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    get(shop, "/", "").await.assert_status(200);
    assert!(!held.is_finished());
    activator.directory.remove_workload("default", "bank");
    get(shop, "/", "").await.assert_status(200);
    // It lingers for those who hear of it late.
    assert!(activator.port("bank").is_some());
    TcpStream::connect(bank).await.unwrap();
    held.abort();
    activator.stop().await;
}

#[tokio::test]
async fn a_recreated_workload_takes_over_its_port() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.directory.remove_workload("default", "shop");
    let mut entry = workload("shop");
    entry.uid = "another".to_owned();
    activator.directory.apply_workload(entry);
    until(|| async { activator.port("shop") == Some(port) }).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    get(port, "/", "").await.assert_status(200);
    let report = activator.report("").await;
    assert_eq!(report.workloads.len(), 1);
    assert_eq!(report.workloads[0].uid, "another");
    activator.stop().await;
}

#[tokio::test]
async fn who_is_held_for_a_workload_that_is_recreated_is_answered_by_its_new_pods() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let held = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    activator.directory.remove_workload("default", "shop");
    let mut entry = workload("shop");
    entry.uid = "another".to_owned();
    activator.directory.apply_workload(entry);
    // The new one is woken for it.
    let report = activator.report("").await;
    let told: Vec<(&str, u64)> = report
        .workloads
        .iter()
        .map(|it| (it.uid.as_str(), it.held.in_flight))
        .collect();
    assert_eq!(told, [("another", 1)]);
    activator.add_pod(&FakePod::start("shop-1").await);
    soon(held).await.unwrap().assert_status(200);
    activator.stop().await;
}

#[tokio::test]
async fn two_workloads_that_change_ports_are_both_listened_for() {
    let free = [loopback().await, loopback().await];
    let [first, second] = [0, 1].map(|index: usize| free[index].1.port());
    drop(free);
    let activator = Activator::start(&[]).await;
    let apply = |name, number| {
        let mut entry = workload(name);
        entry.ports[0].activator_port = number;
        activator.directory.apply_workload(entry);
    };
    let listens = |name: &'static str, number: u16| {
        let port = activator.port(name).map(|address| address.port());
        port == Some(number)
    };
    apply("shop", first);
    apply("bank", second);
    until(|| async { listens("shop", first) && listens("bank", second) }).await;
    apply("shop", second);
    apply("bank", first);
    until(|| async { listens("shop", second) && listens("bank", first) }).await;
    // Each port is for its new workload.
    activator.add_pod(&FakePod::start("shop-1").await);
    let shop = activator.port("shop").unwrap();
    get(shop, "/", "").await.assert_status(200);
    activator.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_tried_again() {
    let (listener, address) = crate::harness::loopback().await;
    let activator = Activator::start(&[]).await;
    let mut entry = workload("shop");
    entry.ports[0].activator_port = address.port();
    activator.directory.apply_workload(entry);
    until(|| async { !activator.metrics().await.contains("bind_failures_total 0") }).await;
    assert!(activator.report("").await.workloads[0].ports.is_empty());
    drop(listener);
    until(|| async { activator.port("shop") == Some(address) }).await;
    assert!(
        activator
            .metrics()
            .await
            .contains("lull_activator_listeners 1")
    );
    activator.stop().await;
}

#[tokio::test]
async fn the_admin_pages_answer() {
    let (activator, _) = Activator::with(workload("shop")).await;
    activator.page("/live").await.assert_status(200);
    activator.page("/ready").await.assert_status(200);
    activator.page("/x").await.assert_status(404);
    let config = activator.page("/config").await.body;
    assert!(config.contains(r#""podName":"activator-1""#), "{config}");
    let page = activator.page("/workloads").await.body;
    assert!(
        page.contains(r#""name":"shop","held":0,"heldBytes":0,"forwarding":0"#),
        "{page}"
    );
    let raw = get(local(activator.addresses.report), "/report?seen=x", "").await;
    raw.assert_status(400);
    activator.stop().await;
}

#[tokio::test]
async fn a_drain_says_not_ready_closes_and_finishes_what_it_holds() {
    let activator = Activator::start(&[("ACTIVATOR_DRAIN_MIN", "300ms")]).await;
    let port = activator.add(workload("shop")).await;
    let held = tokio::spawn(async move {
        let mut stream = TcpStream::connect(port).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        crate::harness::read_all(&mut stream).await
    });
    activator.until_held(1).await;
    // Idle connections do not keep it.
    let mut idle = TcpStream::connect(port).await.unwrap();
    activator.shutdown.cancel();
    until(|| async {
        let raw = activator.page("/ready").await;
        raw.body == "draining\n"
    })
    .await;
    // Still open: it is in the slices for a moment.
    TcpStream::connect(port).await.unwrap();
    until(|| async { TcpStream::connect(port).await.is_err() }).await;
    assert!(!held.is_finished());
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    let raw = soon(held).await.unwrap();
    raw.assert_status(200);
    assert!(raw.has("connection: close"), "{raw:?}");
    soon(activator.task).await.unwrap();
    assert!(matches!(idle.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_drain_ends_with_the_grace_period() {
    let activator = Activator::start(&[("ACTIVATOR_GRACE", "5100ms")]).await;
    let port = activator.add(workload("shop")).await;
    let mut stream = TcpStream::connect(port).await.unwrap();
    stream.write_all(&hello("")).await.unwrap();
    activator.until_held(1).await;
    activator.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(4), activator.task)
        .await
        .expect("it ends before what it holds does")
        .unwrap();
}

#[tokio::test]
async fn listeners_stay_open_while_somebody_still_comes() {
    let activator = Activator::start(&[("ACTIVATOR_DRAIN_QUIET", "1s")]).await;
    let port = activator.add(workload("shop")).await;
    drop(TcpStream::connect(port).await.unwrap());
    activator.shutdown.cancel();
    let begun = tokio::time::Instant::now();
    // Twice as long as it would be quiet: each one who comes counts.
    while begun.elapsed() < Duration::from_secs(2) {
        drop(TcpStream::connect(port).await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    soon(activator.task).await.unwrap();
    assert!(TcpStream::connect(port).await.is_err());
}
