//! Ports that come and go, the report, admin pages and the end.

use std::{convert::Infallible, time::Duration};

use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span,
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::connections::hello;
use crate::harness::{Activator, FakePod, get, local, loopback, soon, until, workload};

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

/// A collector: what it was sent comes out as spans.
async fn collector() -> (String, mpsc::Receiver<Vec<Span>>) {
    let (listener, address) = loopback().await;
    let (spans_tx, spans_rx) = mpsc::channel(8);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let spans_tx = spans_tx.clone();
        async move {
            assert_eq!(request.uri().path(), "/v1/traces");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let traces = ExportTraceServiceRequest::decode(body).unwrap();
            let resources = traces.resource_spans.into_iter();
            let scopes = resources.flat_map(|resource| resource.scope_spans);
            let spans = scopes.flat_map(|scope| scope.spans).collect();
            let _ = spans_tx.send(spans).await;
            Ok::<_, Infallible>(http::Response::new(String::new()))
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let http = http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    (format!("http://{address}"), spans_rx)
}

#[tokio::test]
async fn a_wake_is_one_trace_with_a_span_for_each_phase() {
    let (endpoint, mut spans_rx) = collector().await;
    let activator = Activator::start(&[("ACTIVATOR_OTLP_ENDPOINT", &endpoint)]).await;
    let port = activator.add(workload("shop")).await;
    let caller = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    soon(caller).await.unwrap().assert_status(200);
    let spans = soon(spans_rx.recv()).await.unwrap();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let phases = ["created", "scheduled", "running", "answering", "first-byte"];
    assert_eq!(names, [&["wake"], &phases[..]].concat());
    let (wake, phases) = spans.split_first().unwrap();
    assert!(wake.parent_span_id.is_empty());
    let mut end = wake.start_time_unix_nano;
    for phase in phases {
        assert_eq!(phase.trace_id, wake.trace_id);
        assert_eq!(phase.parent_span_id, wake.span_id);
        assert_eq!(phase.start_time_unix_nano, end);
        end = phase.end_time_unix_nano;
    }
    assert_eq!(end, wake.end_time_unix_nano);
    activator.stop().await;
}
