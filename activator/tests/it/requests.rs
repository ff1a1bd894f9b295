//! Plain HTTP, by request.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lull_contract::{AppProtocol, HumanDuration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use activator::Pod;

use crate::harness::{
    Activator, FakePod, get, loopback, read_all, settings, soon, until, workload,
};

#[tokio::test]
async fn a_request_is_held_without_a_pod_and_answered_when_one_appears() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let caller = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    let raw = soon(caller).await.unwrap();
    raw.assert_status(200);
    assert_eq!(raw.body, "shop-1 HTTP/1.1 any.example 127.0.0.1 ");
    let timing = raw
        .head
        .lines()
        .find(|line| line.starts_with("server-timing: lull;dur="));
    let phases = ["created", "scheduled", "running", "listening", "answering"];
    assert!(
        timing.is_some_and(|line| phases
            .iter()
            .all(|phase| line.contains(&format!("lull-{phase};dur=")))),
        "{raw:?}"
    );
    let woken = r#"lull_activator_wake_seconds_count{phase="first-byte"} 1"#;
    assert!(activator.metrics().await.contains(woken));
    activator.until_held(0).await;
    until(|| async { activator.forwarding().await == 0 }).await;
    activator.stop().await;
}

#[tokio::test]
async fn callers_of_both_families_reach_pods_of_either() {
    const FAMILIES: [&str; 2] = ["127.0.0.1", "::1"];
    for ip in FAMILIES {
        let (activator, port) = Activator::with(workload("shop")).await;
        let callers = FAMILIES.map(|from| {
            let address = SocketAddr::new(from.parse().unwrap(), port.port());
            let caller = tokio::spawn(async move { get(address, "/", "").await });
            (from, caller)
        });
        activator.until_held(2).await;
        let pod = FakePod::start_at("shop-1", ip.parse().unwrap()).await;
        activator.add_pod(&pod);
        for (from, caller) in callers {
            let raw = soon(caller).await.unwrap();
            raw.assert_status(200);
            let expected = format!("shop-1 HTTP/1.1 any.example {from} ");
            assert_eq!(raw.body, expected, "to {ip}");
        }
        activator.stop().await;
    }
}

#[tokio::test]
async fn the_report_names_who_began_a_wake_and_who_was_held() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let caller = tokio::spawn(async move { get(port, "/cart?token=secret", "").await });
    activator.until_held(1).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    soon(caller).await.unwrap().assert_status(200);
    // Nobody had to wait for this one.
    get(port, "/later", "").await.assert_status(200);
    let report = activator.report("").await;
    let shop = report.workloads.first().unwrap();
    let by = shop.woken.as_ref().and_then(|woken| woken.by.as_ref());
    let by = by.unwrap();
    assert_eq!(
        (by.address.as_str(), by.asked.as_str()),
        ("127.0.0.1", "GET any.example/cart")
    );
    let [caller] = shop.callers.as_slice() else {
        panic!("{:?}", shop.callers);
    };
    assert_eq!((caller.address.as_str(), caller.holds), ("127.0.0.1", 1));
    activator.stop().await;
}

#[tokio::test]
async fn a_hundred_at_once_are_all_answered() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let callers: Vec<_> = (0..100)
        .map(|_| tokio::spawn(async move { get(port, "/", "").await }))
        .collect();
    activator.until_held(100).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    for caller in callers {
        soon(caller).await.unwrap().assert_status(200);
    }
    assert_eq!(pod.served(), 100);
    assert!(
        activator
            .metrics()
            .await
            .contains("lull_activator_hold_seconds_count 100")
    );
    activator.stop().await;
}

#[tokio::test]
async fn a_body_is_not_read_while_held_and_arrives_whole() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let caller = tokio::spawn(async move {
        let mut stream = TcpStream::connect(port).await.unwrap();
        let body = "x".repeat(1 << 20);
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    });
    activator.until_held(1).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    let raw = soon(caller).await.unwrap();
    raw.assert_status(200);
    assert!(raw.body.ends_with(&"x".repeat(1000)) || raw.body.contains(&"x".repeat(1000)));
    activator.stop().await;
}

#[tokio::test]
async fn nobody_in_time_is_504_with_reason_and_name() {
    let mut entry = workload("shop");
    entry.settings.hold_timeout = HumanDuration(Duration::from_millis(50));
    let (activator, port) = Activator::with(entry).await;
    let raw = get(port, "/", "").await;
    raw.assert_status(504);
    assert!(raw.has("lull-reason: hold-timeout"), "{raw:?}");
    assert!(raw.has("lull-error-source: app"), "{raw:?}");
    assert_eq!(
        raw.body,
        "no pod of default/shop became ready within 50ms\n"
    );
    activator.stop().await;
}

#[tokio::test]
async fn a_full_line_is_503_and_says_when_to_come_again() {
    let activator = Activator::start(&[("ACTIVATOR_MAX_HELD_PER_WORKLOAD", "1")]).await;
    let port = activator.add(workload("shop")).await;
    let held = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    let raw = get(port, "/", "").await;
    raw.assert_status(503);
    for header in [
        "lull-reason: hold-full",
        "lull-error-source: activator",
        "retry-after: 1",
    ] {
        assert!(raw.has(header), "{header}: {raw:?}");
    }
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    soon(held).await.unwrap().assert_status(200);
    activator.stop().await;
}

#[tokio::test]
async fn what_is_ignored_wakes_nobody_and_a_scrape_is_told() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    get(port, "/", "user-agent: kube-probe/1.37\r\n")
        .await
        .assert_status(200);
    let scrape = get(port, "/metrics", "user-agent: Prometheus/3.0\r\n").await;
    scrape.assert_status(503);
    assert!(scrape.has("lull-reason: asleep"), "{scrape:?}");
    let report = activator.report("").await;
    assert_eq!((report.edge, report.workloads[0].held.requests), (edge, 0));
    // With a pod it is the app that answers.
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    get(port, "/", "").await.assert_status(200);
    let probe = get(port, "/", "user-agent: kube-probe/1.37\r\n").await;
    assert!(probe.body.starts_with("shop-1"), "{probe:?}");
    activator.stop().await;
}

#[tokio::test]
async fn what_is_ignored_wakes_nobody_where_its_pod_can_not_be_reached() {
    let (activator, port) = Activator::with(workload("shop")).await;
    // Its queue-proxy says ready, but nothing listens for traffic.
    let (listener, nobody) = loopback().await;
    drop(listener);
    activator.add_pod(&FakePod::before("shop-1", nobody).await);
    let trusted = || async {
        let page = activator.page("/workloads").await;
        page.body.contains(r#""podsTrusted":1"#)
    };
    until(trusted).await;
    let edge = activator.report("").await.edge;
    let probe = get(port, "/", "user-agent: kube-probe/1.37\r\n").await;
    probe.assert_status(200);
    let report = activator.report("").await;
    assert_eq!((report.edge, report.workloads[0].held.requests), (edge, 0));
    assert!(
        activator
            .metrics()
            .await
            .contains("lull_activator_connect_failures_total 1\n")
    );
    activator.stop().await;
}

#[tokio::test]
async fn what_is_ignored_is_not_told_as_under_way() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    get(port, "/", "").await.assert_status(200);
    let agent = "user-agent: kube-probe/1.37\r\n";
    let probe = tokio::spawn(async move { get(port, "/slow", agent).await });
    until(|| async { pod.served() == 2 }).await;
    assert_eq!(activator.forwarding().await, 0);
    soon(probe).await.unwrap().assert_status(200);
    // Nor is it taken off when it has ended.
    let request = tokio::spawn(async move { get(port, "/slow", "").await });
    until(|| async { activator.forwarding().await == 1 }).await;
    soon(request).await.unwrap().assert_status(200);
    activator.stop().await;
}

#[tokio::test]
async fn the_next_request_may_come_before_the_answer() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.set_nodelay(true).unwrap();
    let request =
        |name: &str, more: &str| format!("GET /{name} HTTP/1.1\r\nhost: {name}\r\n{more}\r\n");
    // Two at once, and one while the first is under way.
    let both = [request("slow", ""), request("b", "")].concat();
    caller.write_all(both.as_bytes()).await.unwrap();
    until(|| async { activator.forwarding().await == 1 }).await;
    let last = request("c", "connection: close\r\n");
    caller.write_all(last.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    soon(caller.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let place = |name: &str| text.find(&format!("shop-1 HTTP/1.1 {name} "));
    let places = ["slow", "b", "c"].map(place);
    assert!(places[0].is_some() && places.is_sorted(), "{text}");
    activator.stop().await;
}

#[tokio::test]
async fn who_writes_all_before_it_reads_sees_that_it_was_refused() {
    let activator = Activator::start(&[("ACTIVATOR_MAX_HELD_PER_WORKLOAD", "1")]).await;
    let port = activator.add(workload("shop")).await;
    let held = tokio::spawn(async move { get(port, "/", "").await });
    activator.until_held(1).await;
    let body = vec![b'x'; 16 << 20];
    let mut caller = TcpStream::connect(port).await.unwrap();
    let length = body.len();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    caller.write_all(head.as_bytes()).await.unwrap();
    soon(caller.write_all(&body)).await.unwrap();
    let raw = read_all(&mut caller).await;
    raw.assert_status(503);
    assert!(raw.has("retry-after: 1"), "{raw:?}");
    held.abort();
    activator.stop().await;
}

#[tokio::test]
async fn a_caller_that_leaves_is_dropped() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let mut stream = TcpStream::connect(port).await.unwrap();
    // With the beginning of a body, which must not hide the end.
    let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nxxx";
    stream.write_all(request).await.unwrap();
    activator.until_held(1).await;
    drop(stream);
    activator.until_held(0).await;
    activator.stop().await;
}

#[tokio::test]
async fn h2c_goes_through_as_h2c() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let stream = TcpStream::connect(port).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = || {
        let builder = Request::post("http://any.example/x").version(Version::HTTP_2);
        builder
            .body(Full::new(Bytes::from_static(b"hello")))
            .unwrap()
    };
    let answers = [
        tokio::spawn(sender.send_request(request())),
        tokio::spawn(sender.send_request(request())),
    ];
    activator.until_held(2).await;
    // One that gives up is dropped, and the others of its connection stay.
    let third = tokio::spawn(sender.send_request(request()));
    activator.until_held(3).await;
    third.abort();
    activator.until_held(2).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    for answer in answers {
        let response = soon(answer).await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().contains_key("server-timing"));
        let body = soon(response.into_body().collect())
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(body, "shop-1 HTTP/2.0 any.example 127.0.0.1 hello");
    }
    drop(sender);
    activator.stop().await;
}

#[tokio::test]
async fn connections_stay_open_in_proxy_mode_and_close_in_serve_mode() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    let mut stream = TcpStream::connect(port).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(request).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.contains("connection: keep-alive"), "{head}");
    }
    let mut entry = workload("shop");
    entry.serve = true;
    activator.directory.apply_workload(entry);
    stream.write_all(request).await.unwrap();
    let raw = read_all(&mut stream).await;
    assert!(raw.has("connection: close"), "{raw:?}");
    activator.stop().await;
}

/// Reads an answer whose body has a length.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        let mut buffer = [0; 4096];
        let length = soon(stream.read(&mut buffer)).await.unwrap();
        assert_ne!(length, 0, "the connection ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]).to_ascii_lowercase());
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let wanted = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        if body.len() == wanted.unwrap().parse::<usize>().unwrap() {
            return head.to_owned();
        }
    }
}

#[tokio::test]
async fn a_websocket_passes() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let (listener, address) = crate::harness::loopback().await;
    let app = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).await.unwrap();
        let head = String::from_utf8_lossy(&buffer[..length]).to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket"), "{head}");
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let length = stream.read(&mut buffer).await.unwrap();
        stream.write_all(&buffer[..length]).await.unwrap();
    });
    activator.add_pod(&FakePod::before("shop-1", address).await);
    let mut stream = TcpStream::connect(port).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut buffer = [0; 1024];
    let length = soon(stream.read(&mut buffer)).await.unwrap();
    assert!(buffer[..length].starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"ping").await.unwrap();
    let length = soon(stream.read(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"ping");
    soon(app).await.unwrap();
    drop(stream);
    activator.stop().await;
}

#[tokio::test]
async fn slots_bound_what_is_in_one_pod() {
    let mut entry = workload("shop");
    entry.settings.container_concurrency = 1;
    assert_eq!(entry.ports[0].protocol, AppProtocol::Http);
    assert_eq!(entry.settings.hold_timeout, settings().hold_timeout);
    let (activator, port) = Activator::with(entry).await;
    let pods = [
        FakePod::start("shop-1").await,
        FakePod::start("shop-2").await,
    ];
    pods.iter().for_each(|pod| activator.add_pod(pod));
    let callers: Vec<_> = (0..6)
        .map(|_| tokio::spawn(async move { get(port, "/slow", "").await }))
        .collect();
    until(|| async { activator.forwarding().await == 2 && activator.held().await == 4 }).await;
    for caller in callers {
        soon(caller).await.unwrap().assert_status(200);
    }
    assert_eq!((pods[0].served(), pods[1].served()), (3, 3));
    activator.stop().await;
}

#[tokio::test]
async fn slots_are_divided_among_the_activators_and_divided_anew() {
    let mut entry = workload("shop");
    entry.settings.container_concurrency = 4;
    let (activator, port) = Activator::with(entry).await;
    let peer = Pod {
        ready: true,
        ..FakePod::start("activator-0").await.entry()
    };
    activator.directory.apply_activator(&peer);
    let (listener, address) = loopback().await;
    activator.add_pod(&FakePod::before("shop-1", address).await);
    // The pod takes requests and answers none.
    let pod = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    let callers: Vec<_> = (0..6)
        .map(|_| tokio::spawn(async move { get(port, "/", "").await }))
        .collect();
    until(|| async { activator.forwarding().await == 2 }).await;
    activator.until_held(4).await;
    // The other one goes: its slots are ours, and who is held for them goes through at once.
    activator.directory.remove_activator("activator-0");
    until(|| async { activator.forwarding().await == 4 }).await;
    activator.until_held(2).await;
    for caller in callers {
        caller.abort();
    }
    pod.abort();
    activator.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let mut caller = TcpStream::connect(port).await.unwrap();
    let long = "x".repeat(60 << 10);
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {long}\r\n\r\n");
    // One after the other is as long as it may be, and so is one with a body.
    for _ in 0..3 {
        caller.write_all(request.as_bytes()).await.unwrap();
        read_head(&mut caller).await;
    }
    let with_body = request.replace("host: a", "host: a\r\ncontent-length: 65536");
    caller.write_all(with_body.as_bytes()).await.unwrap();
    caller.write_all(&[b'x'; 1 << 16]).await.unwrap();
    read_head(&mut caller).await;
    activator.directory.remove_pod("default", "shop-1");
    let edge = activator.report("").await.edge;
    let endless = format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {long}{long}");
    caller.write_all(endless.as_bytes()).await.unwrap();
    let mut answer = [0; 512];
    let length = soon(caller.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(activator.report("").await.edge, edge);
    activator.stop().await;
}

#[tokio::test]
async fn a_flood_for_one_workload_leaves_room_for_another() {
    for (bound, shown, fit) in [
        // By number: half of four.
        (
            ("ACTIVATOR_MAX_HELD_TOTAL", "4"),
            "lull_activator_held_limit 4\n",
            2,
        ),
        // By memory: seven heads of 62 KiB leave less than eight take.
        (
            ("ACTIVATOR_MAX_HELD_MIB", "1"),
            "lull_activator_held_bytes_limit 1048576\n",
            7,
        ),
    ] {
        let activator = Activator::start(&[bound]).await;
        let metrics = activator.metrics().await;
        assert!(metrics.contains(shown), "no {shown}in {metrics}");
        let flooded = activator.add(workload("flooded")).await;
        let other = activator.add(workload("other")).await;
        let large = format!("x-large: {}\r\n", "x".repeat(62 << 10));
        let mut held = Vec::new();
        for count in 1..=fit {
            let large = large.clone();
            held.push(tokio::spawn(async move { get(flooded, "/", &large).await }));
            activator.until_held(count).await;
        }
        let refused = get(flooded, "/", &large).await;
        refused.assert_status(503);
        assert!(refused.has("lull-reason: hold-full"), "{refused:?}");
        held.push(tokio::spawn(async move { get(other, "/", "").await }));
        activator.until_held(fit + 1).await;
        for caller in held {
            caller.abort();
        }
        // What has left is no longer counted.
        activator.until_held(0).await;
        until(|| async {
            activator
                .metrics()
                .await
                .contains("lull_activator_held_bytes 0")
        })
        .await;
        activator.stop().await;
    }
}

#[tokio::test]
async fn a_workload_can_keep_its_timing_to_itself() {
    let mut entry = workload("shop");
    entry.settings.server_timing = false;
    let (activator, port) = Activator::with(entry).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let raw = get(port, "/", "").await;
    raw.assert_status(200);
    assert!(!raw.head.contains("server-timing"), "{raw:?}");
    activator.stop().await;
}
