//! Readiness, reports, drain.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use queue_proxy::control::{self, DrainEnd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};

use crate::{
    app::App,
    harness::{Proxy, UNCLAIMED_WAIT, body, config, h2_get, h2c, read_to, soon, until},
};

#[tokio::test]
async fn ready_follows_an_app_that_listens_late_and_goes_away() {
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .unwrap();
    let port = reserved.local_addr().unwrap().port();
    let proxy = Proxy::before(App::new(), &format!("0={port}/http"), &[]).await;
    let answer = proxy.admin("/ready").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.body.contains("not ready"), "{answer:?}");
    assert!(!proxy.report().await.app_ready);

    let listener = reserved.listen(64).unwrap();
    let app = tokio::spawn(std::sync::Arc::clone(&proxy.app).serve(listener));
    until(|| async { proxy.admin("/ready").await.status() == 200 }).await;
    assert!(proxy.report().await.app_ready);
    assert!(proxy.metrics().await.contains("app_up 1"));

    app.abort();
    until(|| async { proxy.admin("/ready").await.status() == 503 }).await;
}

#[tokio::test]
async fn an_http_probe_decides_by_the_status() {
    let (app, address) = App::start().await;
    app.healthy.store(false, Ordering::SeqCst);
    let port = address.port();
    let probes = format!(r#"[{{"port":{port},"path":"/health","timeoutMs":1000}}]"#);
    let overrides = [("QP_APP_PROBES", probes.as_str())];
    let proxy = Proxy::before(app, &format!("0={port}/http"), &overrides).await;
    until(|| async { proxy.admin("/ready").await.body.contains("answered 503") }).await;
    proxy.app.healthy.store(true, Ordering::SeqCst);
    until(|| async { proxy.admin("/ready").await.status() == 200 }).await;
}

#[tokio::test]
async fn an_app_that_listens_is_not_ready_before_its_startup_probe_passes() {
    let (app, address) = App::start().await;
    app.healthy.store(false, Ordering::SeqCst);
    let port = address.port();
    let probes = format!(r#"[{{"port":{port},"path":"/health"}}]"#);
    let overrides = [("QP_STARTUP_PROBES", probes.as_str())];
    let proxy = Proxy::before(app, &format!("0={port}/http"), &overrides).await;
    until(|| async { proxy.admin("/ready").await.body.contains("answered 503") }).await;
    proxy.app.healthy.store(true, Ordering::SeqCst);
    until(|| async { proxy.admin("/ready").await.status() == 200 }).await;
}

#[tokio::test]
async fn what_is_ignored_is_served_and_not_counted() {
    let ignore = r#"{"paths":["/ping"],"userAgents":["kube-probe/"]}"#;
    let proxy = Proxy::start(&[("QP_IGNORE", ignore)]).await;
    let before = proxy.report().await;
    assert_eq!(proxy.get("/ping").await.status(), 200);
    assert_eq!(proxy.get("/").await.status(), 200);
    proxy.in_flight(0).await;
    let after = proxy.report().await;
    assert_eq!(after.load.requests, 1);
    assert_eq!((after.pod.as_str(), after.boot), ("shop-1", before.boot));
    assert!(after.now_us > before.now_us);
}

#[tokio::test]
async fn the_integral_is_the_time_that_a_request_took() {
    let proxy = Proxy::start(&[]).await;
    let request = proxy.spawn_get("/gate");
    proxy.inside(1).await;
    let (first, second) = (proxy.report().await, proxy.report().await);
    let (grown, passed) = (
        second.load.in_flight_us - first.load.in_flight_us,
        second.now_us - first.now_us,
    );
    assert_eq!(grown, passed, "one request in flight all the time");
    proxy.app.gate.add_permits(1);
    soon(request).await.unwrap();
}

#[tokio::test]
async fn connections_that_go_round_the_proxy_are_reported() {
    let (app, address) = App::start().await;
    let proxy = Proxy::before(app, &format!("0={}/http", address.port()), &[]).await;
    let request = proxy.spawn_get("/gate");
    proxy.inside(1).await;
    assert_eq!(proxy.report().await.bypass, 0);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    let round = socket.connect(address).await.unwrap();
    assert_eq!(proxy.report().await.bypass, 1);
    // As short as one of kubelet's checks, and in the middle of a report.
    let (report, ()) = tokio::join!(proxy.report(), async { drop(round) });
    assert_eq!(report.bypass, 0);
    proxy.app.gate.add_permits(1);
    soon(request).await.unwrap();
}

/// Of the pod's address on this machine.
const POD_IP: [u8; 4] = [127, 0, 0, 2];

/// An app that listens at `at` alone, behind a proxy of a pod at [`POD_IP`], and its port.
async fn listening_at(at: [u8; 4]) -> (Proxy, u16) {
    let listener = TcpListener::bind(SocketAddr::from((at, 0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = App::new();
    tokio::spawn(std::sync::Arc::clone(&app).serve(listener));
    let pod_ip = [("QP_POD_IP", "127.0.0.2")];
    let proxy = Proxy::before(app, &format!("0={port}/http"), &pod_ip).await;
    (proxy, port)
}

#[tokio::test]
async fn an_app_that_listens_at_loopback_alone_is_not_ready_and_it_is_told_why() {
    let (proxy, port) = listening_at([127, 0, 0, 1]).await;
    let report = proxy.report().await;
    assert_eq!(
        (report.app_ready, report.loopback_only),
        (false, vec![port])
    );
    until(|| async {
        let ready = proxy.admin("/ready").await;
        ready.status() == 503 && ready.body.contains("at 127.0.0.1 alone")
    })
    .await;
}

#[tokio::test]
async fn an_app_that_listens_at_the_pods_address_alone_is_reached() {
    let (proxy, _) = listening_at(POD_IP).await;
    until(|| async { proxy.admin("/ready").await.status() == 200 }).await;
    let report = proxy.report().await;
    assert!(report.app_ready && report.loopback_only.is_empty());
    assert_eq!(proxy.get("/").await.status(), 200);
}

#[tokio::test]
async fn admin_pages_only_answer_reads() {
    let proxy = Proxy::start(&[]).await;
    assert_eq!(proxy.admin("/live").await.status(), 200);
    assert!(
        proxy
            .admin("/config")
            .await
            .body
            .contains(r#""podName":"shop-1""#)
    );
    assert_eq!(proxy.admin("/drain").await.status(), 404);
    let mut stream = TcpStream::connect(crate::harness::local(proxy.addresses.admin))
        .await
        .unwrap();
    stream
        .write_all(b"POST /wait-for-drain HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(read_to(&mut stream, "\r\n").await.contains("405"));
}

#[tokio::test]
async fn wait_for_drain_returns_where_none_begins_and_begins_none() {
    let proxy = Proxy::start(&[]).await;
    let begin = Instant::now();
    assert_eq!(proxy.admin("/wait-for-drain").await.status(), 200);
    assert!(
        begin.elapsed() >= Duration::from_millis(100),
        "{:?}",
        begin.elapsed()
    );
    assert!(!proxy.report().await.draining);
}

#[tokio::test]
async fn an_announced_end_keeps_the_app_until_the_drain_that_comes_late_is_over() {
    let proxy = Proxy::start(&[("QP_DRAIN_QUIET", "300ms")]).await;
    assert_eq!(proxy.admin("/stopping").await.status(), 200);
    assert!(!proxy.report().await.draining, "it begins none");
    let socket = proxy.socket.clone();
    let drain = async {
        // Three times as long as the app would wait if nothing had been announced.
        tokio::time::sleep(UNCLAIMED_WAIT * 3).await;
        control::drain(&socket).await.unwrap()
    };
    let (waited, _) = tokio::join!(proxy.admin("/wait-for-drain"), drain);
    assert_eq!(waited.body, "drained\n");
}

#[test]
fn wait_for_drain_waits_two_seconds_by_default() {
    assert_eq!(config("0=8080/http", &[]).unclaimed_wait.to_string(), "2s");
}

#[tokio::test]
async fn drain_serves_late_requests_and_tells_callers_to_go() {
    let proxy = Proxy::start(&[("QP_DRAIN_QUIET", "300ms")]).await;
    let mut kept = proxy.connect().await;
    let request = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n";
    kept.write_all(request).await.unwrap();
    let early = read_to(&mut kept, "hello").await;
    assert!(
        !early.to_lowercase().contains("connection: close"),
        "{early}"
    );
    until(|| async { proxy.admin("/ready").await.status() == 200 }).await;
    let busy = proxy.spawn_get("/gate");
    proxy.inside(1).await;

    let socket = proxy.socket.clone();
    let drain = tokio::spawn(async move { control::drain(&socket).await.unwrap() });
    until(|| async { proxy.report().await.draining }).await;
    let ready = proxy.admin("/ready").await;
    assert_eq!((ready.status(), ready.body.as_str()), (503, "draining\n"));

    // On a connection from before, and on a new one.
    kept.write_all(request).await.unwrap();
    let mut late = String::new();
    soon(kept.read_to_string(&mut late)).await.unwrap();
    assert!(
        late.contains("connection: close") && late.ends_with("hello"),
        "{late}"
    );
    let mut new = proxy.connect().await;
    new.write_all(request).await.unwrap();
    let mut late = String::new();
    soon(new.read_to_string(&mut late)).await.unwrap();
    assert!(
        late.contains("connection: close") && late.ends_with("hello"),
        "{late}"
    );
    let last = Instant::now();

    assert!(!drain.is_finished(), "a request is in flight");
    let waiting = proxy.admin("/wait-for-drain");
    proxy.app.gate.add_permits(1);
    assert_eq!(soon(busy).await.unwrap().status(), 200);
    assert_eq!(soon(drain).await.unwrap(), DrainEnd::Done);
    assert!(
        last.elapsed() >= Duration::from_millis(290),
        "{:?}",
        last.elapsed()
    );
    assert_eq!(waiting.await.body, "drained\n");

    // A drain that is over leaves nothing to do at SIGTERM, and nobody stops serving before it.
    assert_eq!(proxy.get("/").await.status(), 200);
    proxy.shutdown.cancel();
    soon(proxy.task).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_ends_with_the_drain_and_not_in_the_middle_of_its_next_request() {
    let proxy = Proxy::start(&[]).await;
    let mut idle = proxy.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut idle, "hello").await;
    let drained = soon(control::drain(&proxy.socket)).await.unwrap();
    assert_eq!(drained, DrainEnd::Done);
    assert_eq!(soon(idle.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn what_arrives_after_the_drain_is_answered_before_the_process_ends() {
    let mut proxy = Proxy::start(&[]).await;
    let drained = soon(control::drain(&proxy.socket)).await.unwrap();
    assert_eq!(drained, DrainEnd::Done);
    let late = proxy.spawn_get("/gate");
    proxy.inside(1).await;
    proxy.shutdown.cancel();
    let ends = tokio::time::timeout(Duration::from_millis(100), &mut proxy.task);
    assert!(ends.await.is_err(), "it left with a request in flight");
    proxy.app.gate.add_permits(1);
    assert_eq!(soon(late).await.unwrap().status(), 200);
    soon(proxy.task).await.unwrap();
}

#[tokio::test]
async fn an_http2_connection_is_told_to_go_and_a_new_one_is_served_first() {
    let proxy = Proxy::start(&[("QP_DRAIN_QUIET", "10s")]).await;
    let (mut old, old_ended) = h2c::<Full<Bytes>>(proxy.traffic()).await;
    soon(old.send_request(h2_get("/"))).await.unwrap();
    let mut gated = old.clone();
    let busy = tokio::spawn(async move { gated.send_request(h2_get("/gate")).await.unwrap() });
    proxy.inside(1).await;
    proxy.shutdown.cancel();
    until(|| async { proxy.report().await.draining }).await;

    let (mut new, new_ended) = h2c::<Full<Bytes>>(proxy.traffic()).await;
    let late = soon(new.send_request(h2_get("/"))).await.unwrap();
    assert_eq!(body(late).await, "hello");
    soon(new_ended).await.unwrap().unwrap();

    proxy.app.gate.add_permits(1);
    assert_eq!(body(soon(busy).await.unwrap()).await, "through the gate");
    soon(old_ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn sigterm_without_a_drain_drains_first() {
    let proxy = Proxy::start(&[]).await;
    let busy = proxy.spawn_get("/gate");
    proxy.inside(1).await;
    proxy.shutdown.cancel();
    until(|| async { proxy.report().await.draining }).await;
    let waiting = proxy.admin("/wait-for-drain");
    proxy.app.gate.add_permits(1);
    let (waited, busy) = tokio::join!(waiting, busy);
    assert_eq!(
        (waited.body.as_str(), busy.unwrap().status()),
        ("drained\n", 200)
    );
    soon(proxy.task).await.unwrap();
}

#[tokio::test]
async fn the_grace_period_ends_a_drain_whatever_is_in_flight() {
    let proxy = Proxy::start(&[("QP_GRACE", "3200ms")]).await;
    let _busy = proxy.spawn_get("/gate");
    proxy.inside(1).await;
    assert_eq!(
        soon(control::drain(&proxy.socket)).await.unwrap(),
        DrainEnd::Done
    );
    proxy.shutdown.cancel();
    soon(proxy.task).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("[::]:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = config(&format!("{port}=8080/http"), &[]);
    let error = queue_proxy::build(config).await.unwrap_err().to_string();
    assert!(error.contains(&format!("port {port}")), "{error}");
}
