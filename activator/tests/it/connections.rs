//! Connections passed on as bytes, and those that are closed before they wake anybody.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lull_contract::HumanDuration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};

use crate::harness::{Activator, FakePod, loopback, soon, tcp_workload, until, workload};

/// What a server says first to a hello.
const SERVER_HELLO: &[u8] = b"\x16\x03\x03\x00\x04\x02\x00\x00\x00";
/// SNI by which Istio names the workload of the tests.
const ISTIO_NAME: &str = "outbound_.80_._.shop.default.svc.cluster.local";

/// A small ClientHello; without a server name where that is empty.
pub(crate) fn hello(server_name: &str) -> Vec<u8> {
    let short = |bytes: &[u8]| -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let name = short(&[&[0][..], &short(server_name.as_bytes())].concat());
    let extension = [&[0, 0][..], &short(&name)].concat();
    let mut body = [vec![3; 34], vec![0, 0, 2, 0x13, 1, 1, 0]].concat();
    if !server_name.is_empty() {
        body.extend(short(&extension));
    }
    let message = [&[1, 0][..], &short(&body)].concat();
    [&[0x16, 3, 1][..], &short(&message)].concat()
}

/// A caller that has sent a hello and is held.
async fn held_tls(activator: &Activator, port: SocketAddr) -> TcpStream {
    let caller = tls_caller(port, ISTIO_NAME).await;
    activator.until_held(1).await;
    caller
}

/// A caller that has sent a hello with this server name.
async fn tls_caller(port: SocketAddr, server_name: &str) -> TcpStream {
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(&hello(server_name)).await.unwrap();
    caller
}

/// The next connection that comes to a pod, after it has said `expected`.
async fn taken(listener: &TcpListener, expected: &[u8]) -> TcpStream {
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    expect(&mut pod, expected).await;
    pod
}

async fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut seen = vec![0; expected.len()];
    soon(stream.read_exact(&mut seen)).await.unwrap();
    assert_eq!(seen, expected);
}

async fn add_pod(activator: &Activator, name: &str) -> TcpListener {
    let (listener, address) = loopback().await;
    activator.add_pod(&FakePod::before(name, address).await);
    listener
}

/// Caller and pod of a TLS connection that the pod has answered.
async fn spliced(activator: &Activator, port: SocketAddr) -> (TcpStream, TcpStream) {
    let mut caller = tls_caller(port, ISTIO_NAME).await;
    let listener = add_pod(activator, "shop-1").await;
    let mut pod = taken(&listener, &hello(ISTIO_NAME)).await;
    pod.write_all(SERVER_HELLO).await.unwrap();
    expect(&mut caller, SERVER_HELLO).await;
    (caller, pod)
}

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

async fn assert_metric(activator: &Activator, line: &str) {
    let metrics = activator.metrics().await;
    assert!(metrics.contains(line), "no {line} in {metrics}");
}

/// The activator closes `caller`, wakes nobody and counts it as `reason`.
async fn assert_refused(activator: &Activator, mut caller: TcpStream, reason: &str) {
    // What it has sent may be unread, so it may also be reset.
    let end = soon(caller.read(&mut [0; 8])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let line = format!(r#"rejected_total{{reason="{reason}"}} 1"#);
    until(|| async { activator.metrics().await.contains(&line) }).await;
    let report = activator.report("").await;
    // The only edges are those of the ports.
    let ports: u64 = report.workloads.iter().map(|w| w.ports.len() as u64).sum();
    let held: u64 = report.workloads.iter().map(|w| w.held.requests).sum();
    assert_eq!((report.edge, held), (ports, 0));
}

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
async fn a_hello_in_three_parts_is_one_hello() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.set_nodelay(true).unwrap();
    let hello = hello(ISTIO_NAME);
    let (parts, last) = hello.split_at(hello.len() - 1);
    for part in [&parts[..1], &parts[1..9], &parts[9..]] {
        caller.write_all(part).await.unwrap();
        // The question takes longer than the part.
        assert_eq!(activator.held().await, 0);
    }
    caller.write_all(last).await.unwrap();
    activator.until_held(1).await;
    let listener = add_pod(&activator, "shop-1").await;
    drop(taken(&listener, &hello).await);
    drop(caller);
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
async fn istios_name_of_another_namespace_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let name = "outbound_.80_.v1_.shop.other.svc.cluster.local";
    let caller = tls_caller(port, name).await;
    assert_refused(&activator, caller, "wrong-sni").await;
    activator.stop().await;
}

#[tokio::test]
async fn istios_name_of_another_workloads_service_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add(workload("bank")).await;
    let name = |service| format!("outbound_.80_._.{service}.default.svc.cluster.local");
    let caller = tls_caller(port, &name("bank")).await;
    assert_refused(&activator, caller, "wrong-sni").await;
    // A Service that nobody knows yet may be a new one of shop.
    let caller = tls_caller(port, &name("new")).await;
    activator.until_held(1).await;
    drop(caller);
    activator.stop().await;
}

#[tokio::test]
async fn a_broken_hello_is_closed_at_once_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    let start = Instant::now();
    caller
        .write_all(b"\x16\x03\x01\x00\x05hello")
        .await
        .unwrap();
    assert_refused(&activator, caller, "bad-hello").await;
    assert!(start.elapsed() < Duration::from_secs(4));
    activator.stop().await;
}

#[tokio::test]
async fn a_hello_that_is_not_whole_in_time_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    let hello = hello(ISTIO_NAME);
    caller.write_all(&hello[..hello.len() - 1]).await.unwrap();
    // Closed by the activator: it takes the 5 s that a caller has.
    assert_refused(&activator, caller, "bad-hello").await;
    activator.stop().await;
}

#[tokio::test]
async fn garbage_is_closed_at_once_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    let start = Instant::now();
    caller.write_all(b"\x00\x00\x00\x55SMB").await.unwrap();
    assert_refused(&activator, caller, "garbage").await;
    assert!(start.elapsed() < Duration::from_secs(4));
    activator.stop().await;
}

#[tokio::test]
async fn a_request_whose_head_is_not_whole_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    let mut slow = TcpStream::connect(port).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    let mut slower = TcpStream::connect(port).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nhost: any.example\r\n";
    slower.write_all(head).await.unwrap();
    let counted = r#"connections_total{kind="http1"} 2"#;
    until(|| async { activator.metrics().await.contains(counted) }).await;
    // One that comes later and is held, to know that the others were looked at.
    let tls = held_tls(&activator, port).await;
    let report = activator.report("").await;
    assert_eq!(
        (report.edge, report.workloads[0].held.requests),
        (edge + 1, 1)
    );
    // And the rest of the head does wake.
    slower.write_all(b"\r\n").await.unwrap();
    activator.until_held(2).await;
    drop((slow, slower, tls));
    activator.until_held(0).await;
    activator.stop().await;
}

#[tokio::test]
async fn an_http2_preface_in_parts_is_one_preface() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.set_nodelay(true).unwrap();
    for part in ["P", "RI * HTTP/2.0\r\n", "\r\nSM\r\n\r"] {
        caller.write_all(part.as_bytes()).await.unwrap();
        assert_eq!(activator.held().await, 0);
    }
    // With the client's SETTINGS, which are empty.
    caller
        .write_all(b"\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        .await
        .unwrap();
    let mut frame = [0; 9];
    soon(caller.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[3], 4, "the server's SETTINGS come first: {frame:?}");
    assert_metric(&activator, r#"connections_total{kind="h2c"} 1"#).await;
    drop(caller);
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

/// Blocks of 1 MiB, none like another.
fn block(seed: usize, number: usize) -> Vec<u8> {
    let mut block: Vec<u8> = (0..1_048_576_usize)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()[0])
        .collect();
    block[..16].copy_from_slice(&[seed.to_le_bytes(), number.to_le_bytes()].concat());
    block
}

async fn send(mut stream: impl AsyncWriteExt + Unpin, seed: usize, blocks: usize) {
    for number in 0..blocks {
        stream.write_all(&block(seed, number)).await.unwrap();
    }
    stream.shutdown().await.unwrap();
}

async fn receive(mut stream: impl AsyncReadExt + Unpin, seed: usize, blocks: usize) {
    let mut seen = vec![0; 1_048_576];
    for number in 0..blocks {
        stream.read_exact(&mut seen).await.unwrap();
        assert!(seen == block(seed, number), "block {number} is another");
    }
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_both_ways_at_once_are_unchanged() {
    const BLOCKS: usize = 64;
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(b"!").await.unwrap();
    let listener = add_pod(&activator, "shop-1").await;
    let pod = taken(&listener, b"!").await;
    let (caller_read, caller_write) = caller.into_split();
    let (pod_read, pod_write) = pod.into_split();
    let all = [
        tokio::spawn(send(caller_write, 1, BLOCKS)),
        tokio::spawn(receive(pod_read, 1, BLOCKS)),
        tokio::spawn(send(pod_write, 2, BLOCKS)),
        tokio::spawn(receive(caller_read, 2, BLOCKS)),
    ];
    for one in all {
        tokio::time::timeout(Duration::from_secs(120), one)
            .await
            .unwrap()
            .unwrap();
    }
    until(|| async { activator.forwarding().await == 0 }).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_stops_the_writer_and_loses_nothing() {
    // More than the kernel keeps for four sockets, of which one has little.
    const BLOCKS: usize = 64;
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(b"!").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    activator.add_pod(&FakePod::before("shop-1", address).await);
    let pod = taken(&listener, b"!").await;

    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sender = tokio::spawn(async move {
        for number in 0..BLOCKS {
            caller.write_all(&block(3, number)).await.unwrap();
            count.store(number + 1, Ordering::Relaxed);
        }
        caller.shutdown().await.unwrap();
        caller
    });
    // Nobody reads: the sender comes to a halt when the sockets' buffers are full.
    let mut before = usize::MAX;
    until(|| {
        let now = sent.load(Ordering::Relaxed);
        let stands = now == std::mem::replace(&mut before, now);
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stands
        }
    })
    .await;
    assert!(before < BLOCKS, "{before} MiB were taken in");
    soon(receive(pod, 3, BLOCKS)).await;
    drop(soon(sender).await.unwrap());
    activator.stop().await;
}

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

#[tokio::test]
async fn a_port_check_on_a_tcp_port_wakes_nobody() {
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let edge = activator.report("").await.edge;
    drop(TcpStream::connect(port).await.unwrap());
    // A second one, to know that the first is done with.
    let caller = TcpStream::connect(port).await.unwrap();
    activator.until_held(1).await;
    let report = activator.report("").await;
    assert_eq!(report.edge, edge + 1);
    assert_eq!(report.workloads[0].held.requests, 1);
    drop(caller);
    activator.directory.remove_workload("default", "shop");
    activator.task.abort();
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let caller = TcpStream::connect(port).await.unwrap();
    // Closed by the activator: it takes the 5 s that a caller has.
    assert_refused(&activator, caller, "silent").await;
    activator.stop().await;
}
