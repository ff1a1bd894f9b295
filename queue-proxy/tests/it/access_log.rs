//! The access log of the program itself.

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{get, h2_get, h2c, read_to, soon, until},
    program::Program,
};

const ON: (&str, &str) = ("QP_ACCESS_LOG", "true");

async fn line(program: &mut Program) -> Value {
    let mut line = String::new();
    soon(program.stdout.read_line(&mut line)).await.unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
}

#[tokio::test]
async fn each_request_is_a_line_at_its_end() {
    let mut program = Program::start(&[ON, ("QP_CONTAINER_CONCURRENCY", "1")]).await;
    let mut stream = TcpStream::connect(program.traffic).await.unwrap();
    stream
        .write_all(
            b"POST /echo?token=secret HTTP/1.1\r\nhost: shop\r\nuser-agent: test/1 \"x\"\r\n\
              x-request-id: r-1\r\ncontent-length: 4\r\n\
              traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\nbody",
        )
        .await
        .unwrap();
    read_to(&mut stream, "\r\n\r\nbody").await;
    let entry = line(&mut program).await;
    for (field, expected) in [
        ("peer", Value::from("127.0.0.1")),
        ("protocol", "http1".into()),
        ("method", "POST".into()),
        ("path", "/echo".into()),
        ("status", 200.into()),
        ("bytes", 4.into()),
        ("user_agent", "test/1 \"x\"".into()),
        ("request_id", "r-1".into()),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
        ("reason", Value::Null),
    ] {
        assert_eq!(entry[field], expected, "{field} in {entry}");
    }
    let (duration, queued) = (&entry["duration_ms"], &entry["queue_ms"]);
    assert!(duration.as_f64() > queued.as_f64(), "{entry}");
    let time = entry["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{entry}");

    let (mut sender, _connection) = h2c(program.traffic).await;
    soon(sender.send_request(h2_get("/chunked"))).await.unwrap();
    let entry = line(&mut program).await;
    assert_eq!(entry["protocol"], "h2c", "{entry}");
}

#[tokio::test]
async fn our_own_errors_have_their_reason() {
    let mut program = Program::start(&[ON, ("QP_RESPONSE_START_TIMEOUT", "50ms")]).await;
    assert_eq!(get(program.traffic, "/gate").await.status(), 504);
    let entry = line(&mut program).await;
    assert_eq!(
        (&entry["status"], &entry["reason"], &entry["source"]),
        (&504.into(), &"timeout".into(), &"app".into())
    );
}

#[tokio::test]
async fn a_byte_stream_is_a_line_without_http() {
    let mut program = Program::start(&[ON]).await;
    let mut stream = TcpStream::connect(program.traffic).await.unwrap();
    stream.write_all(&[0x16, 3, 1]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    let entry = line(&mut program).await;
    assert_eq!(entry["protocol"], "tls", "{entry}");
    assert_eq!(entry["method"], Value::Null, "{entry}");
}

#[tokio::test]
async fn a_request_that_the_end_cuts_off_has_its_line() {
    let mut program = Program::start(&[ON, ("QP_GRACE", "3100ms")]).await;
    let mut stream = TcpStream::connect(program.traffic).await.unwrap();
    stream
        .write_all(b"GET /stall HTTP/1.1\r\nhost: shop\r\n\r\n")
        .await
        .unwrap();
    read_to(&mut stream, "begun\r\n").await;
    program.end().await;
    let entry = line(&mut program).await;
    assert_eq!(entry["path"], "/stall", "{entry}");
    assert_eq!(entry["bytes"], 5, "{entry}");
}

#[tokio::test]
async fn nothing_is_written_unless_it_is_asked_for() {
    let mut program = Program::start(&[]).await;
    assert_eq!(get(program.traffic, "/").await.status(), 200);
    program.end().await;
    let mut said = String::new();
    soon(program.stdout.read_to_string(&mut said))
        .await
        .unwrap();
    assert_eq!(said, "");
}

#[tokio::test]
async fn an_output_that_nobody_reads_costs_lines_and_no_request() {
    // A pipe holds 64 KiB, the queue about a thousand lines.
    const REQUESTS: usize = 3_000;
    let mut program = Program::start(&[ON]).await;
    let mut stream = TcpStream::connect(program.traffic).await.unwrap();
    for number in 0..REQUESTS {
        let request = format!("GET /{number} HTTP/1.1\r\nhost: shop\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to(&mut stream, "\r\n\r\nhello").await;
    }
    // The last one has its end when it is not in flight any more.
    let idle = || async { program.metrics().await.contains("in_flight 0\n") };
    until(idle).await;
    let metrics = program.metrics().await;
    let dropped: usize = metrics
        .lines()
        .find_map(|line| line.strip_prefix("lull_queue_proxy_access_log_dropped_total "))
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..REQUESTS).contains(&dropped), "{dropped}");
    // What was kept comes whole and in order when somebody reads again.
    let mut last = None;
    for _ in dropped..REQUESTS {
        let entry = line(&mut program).await;
        let number: usize = entry["path"].as_str().unwrap()[1..].parse().unwrap();
        assert!(last < Some(number), "{number} after {last:?}");
        last = Some(number);
    }
    assert_eq!(get(program.traffic, "/again").await.status(), 200);
    assert_eq!(line(&mut program).await["path"], "/again");
}
