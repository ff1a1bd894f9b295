use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    serve::App,
    wire::{Failure, RunResult},
};

async fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let app = App::new("pod-1".into(), Duration::ZERO);
    tokio::spawn(async move {
        app.serve(vec![listener], None, CancellationToken::new())
            .await
    });
    addr
}

fn spec(addr: SocketAddr) -> RunSpec {
    RunSpec {
        url: format!("http://{addr}"),
        timeout_ms: 5_000,
        ..RunSpec::default()
    }
}

async fn finished(spec: RunSpec) -> RunResult {
    spec.check().unwrap();
    let run = Run::start(spec);
    tokio::time::timeout(Duration::from_secs(20), async {
        while !run.is_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the run ends");
    run.result()
}

/// Of all seconds together.
fn failures(result: &RunResult) -> BTreeMap<Failure, u64> {
    let mut all = BTreeMap::new();
    for (failure, count) in result.failed_by_second.values().flatten() {
        *all.entry(*failure).or_default() += count;
    }
    all
}

#[tokio::test]
async fn every_request_is_counted_once_with_pod_status_and_latency() {
    let spec = RunSpec {
        connections: 10,
        requests: Some(200),
        ..spec(app().await)
    };
    let result = finished(spec).await;
    assert_eq!(
        (result.sent, result.ok, result.failed),
        (200, 200, 0),
        "{result:?}"
    );
    assert_eq!(result.by_status[&200], 200);
    assert_eq!(result.by_pod["pod-1"], 200);
    assert!(result.connections_opened <= 10);
    assert!(result.latency_ms.p50 > 0.0 && result.latency_ms.max >= result.latency_ms.p99);
}

#[tokio::test]
async fn each_request_has_its_own_connection_without_keep_alive() {
    let spec = RunSpec {
        connections: 3,
        requests: Some(30),
        keep_alive: false,
        ..spec(app().await)
    };
    let result = finished(spec).await;
    assert_eq!(
        (result.ok, result.connections_opened),
        (30, 30),
        "{result:?}"
    );
}

#[tokio::test]
async fn h2c_is_spoken_where_asked() {
    let addr = app().await;
    let spec = RunSpec {
        connections: 2,
        requests: Some(20),
        h2c: true,
        ..spec(addr)
    };
    assert_eq!(finished(spec).await.ok, 20);
    let url = format!("http://{addr}/?headers=1");
    let answer = probe::probe(&ProbeSpec {
        url,
        h2c: true,
        ..ProbeSpec::default()
    })
    .await;
    assert!(answer.ok && answer.body.contains("HTTP/2.0"), "{answer:?}");
}

#[tokio::test]
async fn streams_share_a_connection_and_calls_of_grpc_count_by_their_status() {
    let spec = RunSpec {
        streams: 20,
        requests: Some(200),
        h2c: true,
        grpc: true,
        ..spec(app().await)
    };
    let result = finished(spec.clone()).await;
    assert_eq!(
        (result.ok, result.connections_opened),
        (200, 1),
        "{result:?}"
    );
    let unfit = RunSpec { h2c: false, ..spec };
    assert!(unfit.check().is_err());
}

#[tokio::test]
async fn streams_are_read_to_their_end_and_end_well() {
    let addr = app().await;
    for grpc in [false, true] {
        let spec = RunSpec {
            path: Some("/stream?ms=250".to_owned()),
            requests: Some(1),
            h2c: grpc,
            grpc,
            ..spec(addr)
        };
        let result = finished(spec).await;
        assert_eq!((result.ok, result.failed), (1, 0), "{result:?}");
        assert!(result.latency_ms.max >= 190.0, "{result:?}");
    }
}

#[tokio::test]
async fn failures_are_told_by_the_second_in_which_they_came() {
    let began = crate::unix_us() / 1_000_000;
    let spec = RunSpec {
        requests: Some(5),
        // No application listens there.
        ..spec(SocketAddr::from(([127, 0, 0, 1], 1)))
    };
    let result = finished(spec).await;
    let (seconds, ended) = (&result.failed_by_second, crate::unix_us() / 1_000_000);
    let failures = failures(&result);
    assert_eq!(failures, [(Failure::Unconnected, 5)].into(), "{result:?}");
    assert_eq!(result.failed, 5);
    let all = began..=ended;
    assert!(
        seconds.keys().all(|second| all.contains(second)),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_rate_bounds_the_requests_and_a_time_ends_the_run() {
    let spec = RunSpec {
        connections: 4,
        seconds: Some(1.0),
        rate: Some(50.0),
        ..spec(app().await)
    };
    let result = finished(spec).await;
    assert!(
        (40..=51).contains(&result.sent) && result.failed == 0,
        "{result:?}"
    );
}

#[tokio::test]
async fn a_delayed_run_begins_later_and_counts_from_then() {
    let spec = RunSpec {
        requests: Some(3),
        delay_ms: 300,
        ..spec(app().await)
    };
    let asked = std::time::Instant::now();
    let result = finished(spec).await;
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert!(
        result.ok == 3 && result.elapsed_ms < 300.0,
        "counted from the beginning: {result:?}"
    );
}

#[tokio::test]
async fn refused_connections_and_unresolved_hosts_are_failures() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let result = finished(RunSpec {
        requests: Some(3),
        ..spec(addr)
    })
    .await;
    assert_eq!(
        (result.sent, result.ok, result.failed),
        (3, 0, 3),
        "{result:?}"
    );
    assert!(
        result
            .errors
            .keys()
            .all(|text| text.starts_with("connect:")),
        "{result:?}"
    );
    let nowhere = RunSpec {
        url: "ftp://127.0.0.1".into(),
        requests: Some(3),
        ..spec(addr)
    };
    assert_eq!(finished(nowhere).await.failed, 1);
}

/// Answers one request per connection, says nothing about closing, and closes when told.
async fn closes_idle_connections(after_reading_more: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await;
                if after_reading_more {
                    let _ = stream.read(&mut buffer).await;
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_no_failure() {
    let addr = closes_idle_connections(false).await;
    let spec = RunSpec {
        requests: Some(20),
        rate: Some(100.0),
        ..spec(addr)
    };
    let result = finished(spec).await;
    assert_eq!((result.ok, result.failed), (20, 0), "{result:?}");
    assert_eq!(result.connections_opened, 20);
}

#[tokio::test]
async fn a_connection_closed_after_the_request_was_written_is_a_failure() {
    let addr = closes_idle_connections(true).await;
    let result = finished(RunSpec {
        requests: Some(2),
        ..spec(addr)
    })
    .await;
    assert_eq!(
        (result.sent, result.ok, result.failed),
        (2, 1, 1),
        "{result:?}"
    );
    assert_eq!(result.reused_connection_retries, 0);
    assert_eq!(failures(&result), [(Failure::Cut, 1)].into());
}

/// Answers every connection's first request with this status line, or never.
async fn answers(status: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let Some(status) = status else {
                    return std::future::pending().await;
                };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn what_an_answer_says_and_a_time_that_is_over_are_told_apart() {
    let rows = [
        (Some("502 Bad Gateway"), Failure::BadGateway),
        (Some("503 Service Unavailable"), Failure::Answered),
        (None, Failure::Late),
    ];
    for (status, expected) in rows {
        let result = finished(RunSpec {
            requests: Some(2),
            keep_alive: false,
            timeout_ms: if status.is_some() { 5_000 } else { 100 },
            ..spec(answers(status).await)
        })
        .await;
        assert_eq!(failures(&result), [(expected, 2)].into(), "{result:?}");
    }
}

/// Tells the first connection of HTTP/2 to go away when its first request has come, and has seen none.
async fn goes_away_once() -> SocketAddr {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(&SETTINGS).await.unwrap();
        first.read_exact(&mut [0; PREFACE]).await.unwrap();
        loop {
            let mut head = [0; 9];
            first.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut frame = vec![0; length as usize];
            first.read_exact(&mut frame).await.unwrap();
            if head[3] == HEADERS {
                break;
            }
        }
        first.write_all(&GOAWAY).await.unwrap();
        let app = App::new("pod-1".into(), Duration::ZERO);
        app.serve(vec![listener], None, CancellationToken::new())
            .await
    });
    addr
}

#[tokio::test]
async fn a_stream_on_a_connection_that_goes_away_is_no_failure() {
    let spec = RunSpec {
        h2c: true,
        requests: Some(20),
        ..spec(goes_away_once().await)
    };
    let result = finished(spec).await;
    assert_eq!((result.ok, result.failed), (20, 0), "{result:?}");
    assert_eq!(result.reused_connection_retries, 1);
}

#[tokio::test]
async fn an_upgrade_is_echoed() {
    let url = format!("http://{}/echo", app().await);
    let send = Some("over the upgraded stream".to_owned());
    let spec = ProbeSpec {
        url,
        upgrade: true,
        send: send.clone(),
        ..ProbeSpec::default()
    };
    let answer = probe::probe(&spec).await;
    assert!(answer.ok && answer.status == Some(101), "{answer:?}");
    assert_eq!(Some(answer.body), send);
}

#[tokio::test]
async fn an_upgraded_stream_is_held() {
    let spec = ProbeSpec {
        url: format!("http://{}/echo", app().await),
        upgrade: true,
        send: Some("again".to_owned()),
        hold_ms: 300,
        ..ProbeSpec::default()
    };
    let answer = probe::probe(&spec).await;
    assert!(answer.ok && answer.ms >= 300.0, "{answer:?}");
}

#[tokio::test]
async fn a_probe_tries_until_somebody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let spec = ProbeSpec {
        url: format!("http://{addr}"),
        until_ok_ms: Some(10_000),
        ..ProbeSpec::default()
    };
    let probing = tokio::spawn(async move { probe::probe(&spec).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let listener = TcpListener::bind(addr).await.unwrap();
    let app = App::new("late".into(), Duration::ZERO);
    tokio::spawn(async move {
        app.serve(vec![listener], None, CancellationToken::new())
            .await
    });
    let answer = probing.await.unwrap();
    assert!(answer.ok && answer.attempts > 1, "{answer:?}");
    assert_eq!(answer.pod.as_deref(), Some("late"));
}

#[tokio::test]
async fn the_agents_pages_start_show_and_stop_a_run() {
    let target = app().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(Agent::default().serve(listener, CancellationToken::new()));
    let ask = async |method: &str, path: &str, send: Option<String>| {
        let url = format!("http://{addr}{path}");
        let spec = ProbeSpec {
            url,
            method: method.to_owned(),
            send,
            ..ProbeSpec::default()
        };
        probe::probe(&spec).await
    };
    let run = RunSpec {
        seconds: Some(600.0),
        rate: Some(100.0),
        ..spec(target)
    };
    let started = ask("POST", "/runs", Some(serde_json::to_string(&run).unwrap())).await;
    let id: RunId = serde_json::from_str(&started.body).unwrap();
    let path = format!("/runs/{}", id.id);
    assert!(
        !serde_json::from_str::<RunResult>(&ask("GET", &path, None).await.body)
            .unwrap()
            .done
    );
    ask("DELETE", &path, None).await;
    let ended = async {
        loop {
            let result: RunResult =
                serde_json::from_str(&ask("GET", &path, None).await.body).unwrap();
            if result.done {
                return result;
            }
        }
    };
    let result = tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .expect("it stops");
    assert_eq!((result.sent, result.failed), (result.ok, 0), "{result:?}");
    let refused = ask("POST", "/runs", Some("{\"url\":\"http://a\"}".into())).await;
    assert_eq!(refused.status, Some(400), "{refused:?}");
}
