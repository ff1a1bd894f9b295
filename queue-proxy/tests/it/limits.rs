//! The hard limit and its queue.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, read_to, soon};

const ONE_AND_TWO: [(&str, &str); 2] = [("QP_CONTAINER_CONCURRENCY", "1"), ("QP_QUEUE_DEPTH", "2")];

#[tokio::test]
async fn over_slots_and_queue_a_request_gets_503_at_once() {
    let proxy = Proxy::start(&ONE_AND_TWO).await;
    let first = proxy.spawn_get("/gate/1");
    proxy.inside(1).await;
    let waiting: Vec<_> = (2..4)
        .map(|n| proxy.spawn_get(&format!("/gate/{n}")))
        .collect();
    proxy.queued(2).await;

    let refused = proxy.get("/gate/4").await;
    assert_eq!(refused.status(), 503);
    assert!(
        refused.has("retry-after: 1") && refused.has("lull-reason: queue-full"),
        "{refused:?}"
    );
    assert!(refused.has("lull-error-source: queue-proxy"), "{refused:?}");

    proxy.app.gate.add_permits(3);
    assert_eq!(soon(first).await.unwrap().status(), 200);
    for request in waiting {
        assert_eq!(soon(request).await.unwrap().status(), 200);
    }
    let report = proxy.report().await;
    assert_eq!(
        (report.limit, report.queued, report.load.requests),
        (1, 0, 4)
    );
}

#[tokio::test]
async fn a_fresh_pod_lets_more_wait_than_the_usual_ten_for_each_slot() {
    let proxy = Proxy::start(&[("QP_CONTAINER_CONCURRENCY", "1")]).await;
    let requests: Vec<_> = (0..60).map(|_| proxy.spawn_get("/gate")).collect();
    proxy.queued(59).await;
    proxy.app.gate.add_permits(requests.len());
    for request in requests {
        assert_eq!(soon(request).await.unwrap().status(), 200);
    }
    assert_eq!(proxy.app.most_inside.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_waits_longest_goes_first() {
    let proxy = Proxy::start(&[("QP_CONTAINER_CONCURRENCY", "1")]).await;
    let mut requests = vec![proxy.spawn_get("/gate/0")];
    proxy.inside(1).await;
    for n in 1..6u64 {
        requests.push(proxy.spawn_get(&format!("/gate/{n}")));
        proxy.queued(n).await;
    }
    proxy.app.gate.add_permits(requests.len());
    for request in requests {
        assert_eq!(soon(request).await.unwrap().status(), 200);
    }
    let expected: Vec<String> = (0..6).map(|n| format!("/gate/{n}")).collect();
    assert_eq!(*proxy.app.order.lock(), expected);
    assert!(proxy.metrics().await.contains("queue_wait_seconds_count 6"));
}

#[tokio::test]
async fn a_caller_that_leaves_frees_its_place() {
    let proxy = Proxy::start(&ONE_AND_TWO).await;
    let first = proxy.spawn_get("/gate/1");
    proxy.inside(1).await;
    let (second, third) = (proxy.spawn_get("/gate/2"), proxy.spawn_get("/gate/3"));
    proxy.queued(2).await;
    second.abort();
    proxy.queued(1).await;
    let fourth = proxy.spawn_get("/gate/4");
    proxy.queued(2).await;
    proxy.app.gate.add_permits(3);
    for request in [first, third, fourth] {
        assert_eq!(soon(request).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_slot_is_held_until_the_answer_has_ended() {
    let proxy = Proxy::start(&ONE_AND_TWO).await;
    let mut streaming = proxy.connect().await;
    streaming
        .write_all(b"GET /stall HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut streaming, "begun\r\n").await;
    let next = proxy.spawn_get("/");
    proxy.queued(1).await;
    drop(streaming);
    assert_eq!(soon(next).await.unwrap().status(), 200);
}

#[tokio::test]
async fn never_more_in_the_app_than_the_limit_whatever_callers_do() {
    let limit = [
        ("QP_CONTAINER_CONCURRENCY", "3"),
        ("QP_QUEUE_DEPTH", "1000"),
    ];
    let proxy = Proxy::start(&limit).await;
    proxy.app.gate.add_permits(1_000);
    let requests: Vec<_> = (0..150)
        .map(|n| {
            let path = if n % 3 == 0 { "/chunked" } else { "/gate" };
            (n, proxy.spawn_get(path))
        })
        .collect();
    for (n, request) in requests {
        if n % 10 == 9 {
            // Some leave, wherever they are.
            request.abort();
        } else {
            assert_eq!(soon(request).await.unwrap().status(), 200);
        }
    }
    proxy.in_flight(0).await;
    // The readiness check does not go through the limit, but asks by a connect only.
    let most = proxy.app.most_inside.load(Ordering::SeqCst);
    assert!(most <= 3, "{most} were in the app");
}

#[tokio::test]
async fn an_upgraded_connection_holds_its_slot() {
    let proxy = Proxy::start(&ONE_AND_TWO).await;
    let mut socket = proxy.connect().await;
    socket
        .write_all(
            b"GET /upgrade HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n",
        )
        .await
        .unwrap();
    read_to(&mut socket, "\r\n\r\n").await;
    let next = proxy.spawn_get("/");
    proxy.queued(1).await;
    socket.write_all(b"x").await.unwrap();
    assert_eq!(soon(socket.read_u8()).await.unwrap(), b'X');
    drop(socket);
    assert_eq!(soon(next).await.unwrap().status(), 200);
}
