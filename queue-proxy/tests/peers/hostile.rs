//! HTTP/1 callers that send too much, too slowly, or nothing: each gets a clear end, and nobody
//! beside feels it.

use std::process::Command;

use futures::future::join_all;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Duration,
};

use crate::{
    beside::Hello,
    client::{Raw, exchange, get, read_to},
    process::{soon, until},
    proxy::{Proxy, UNPROBED},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
const HEAD: &str = "GET / HTTP/1.1\r\nHost: shop\r\n";
const MIB: usize = 1 << 20;

/// Sends `begin` and then `more` again and again, until the proxy has had enough or 64 MiB have
/// been sent; returns what it said.
async fn endless(hello: &Hello, begin: &str, more: &str) -> Raw {
    let stream = hello.proxy.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let block = more.repeat(65_536 / more.len());
    let writing = async {
        writer.write_all(begin.as_bytes()).await?;
        for _ in 0..64 * MIB / block.len() {
            writer.write_all(block.as_bytes()).await?;
        }
        std::io::Result::Ok(())
    };
    let mut answer = Vec::new();
    let reading = async {
        let _ = reader.read_to_end(&mut answer).await;
    };
    let written = soon(async {
        tokio::select! {
            written = writing => written.is_ok(),
            () = reading => false,
        }
    })
    .await;
    assert!(!written, "it takes everything");
    // What it said before it closed may still be on its way.
    let _ = soon(reader.read_to_end(&mut answer)).await;
    Raw::parse(&answer)
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    let mut numbered = String::new();
    for number in 0..5_000 {
        numbered.push_str(&format!("X-{number}: 1\r\n"));
    }
    for (begin, more) in [
        (HEAD, "X: 1\r\n"),
        (HEAD, numbered.as_str()),
        (HEAD, "xxxxxxxxxxxxxxxx"),
        ("GET / HTTP/1.1\r\nHost: shop\r\nX: ", "xxxxxxxxxxxxxxxx"),
        ("GET /", "xxxxxxxxxxxxxxxx"),
        ("", "xxxxxxxxxxxxxxxx"),
        ("", "\r\n"),
    ] {
        let answer = endless(&hello, begin, more).await;
        let refused = answer.head.is_empty() || (400..500).contains(&answer.status());
        assert!(refused, "{begin:?} {:?}: {answer:?}", &more[..6]);
    }
    beside.unharmed().await;
    assert_eq!(hello.proxy.report().await.load.in_flight, 0);
    hello.assert_peak_below(40);
}

#[tokio::test]
async fn one_header_too_many_is_431() {
    let hello = Hello::start(&[]).await;
    let lines: String = (0..500)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    let answer = exchange(hello.traffic(), format!("{HEAD}{lines}\r\n").as_bytes()).await;
    assert_eq!(Raw::parse(&answer).status(), 431);
    let long = "x".repeat(MIB);
    let answer = exchange(
        hello.traffic(),
        format!("{HEAD}X: {long}\r\n\r\n").as_bytes(),
    )
    .await;
    // Where bytes are left unread, the answer may be lost with the connection.
    assert!(answer.is_empty() || Raw::parse(&answer).status() == 431);
    assert_eq!(hello.seen(), 0);
}

#[tokio::test]
async fn trailers_without_end_are_refused() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
    for more in ["X: 1\r\n", "xxxxxxxxxxxxxxxx"] {
        // Hello answers before it has seen the end, so 200 is possible, too.
        endless(&hello, post, more).await;
    }
    beside.unharmed().await;
    hello.proxy.in_flight(0).await;
    hello.assert_peak_below(40);
}

#[tokio::test]
async fn chunks_that_are_all_frame_are_refused() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n";
    for more in ["1;xxxxxxxxxxxxxxxx\r\nx\r\n", "1;x", "x=\"xxxxxxxxxx"] {
        endless(&hello, post, more).await;
    }
    beside.unharmed().await;
    hello.proxy.in_flight(0).await;
    hello.assert_peak_below(40);
}

#[tokio::test]
async fn a_thousand_callers_that_never_finish_their_heads_take_no_place() {
    let hello = Hello::start(&[("QP_CONTAINER_CONCURRENCY", "2")]).await;
    let mut slow = join_all((0..1_000).map(|_| hello.proxy.connect())).await;
    for (number, stream) in slow.iter_mut().enumerate() {
        let begun = &HEAD[..=number % (HEAD.len() - 1)];
        stream.write_all(begun.as_bytes()).await.unwrap();
    }
    let beside = hello.beside();
    for stream in &mut slow {
        let _ = stream.write_all(b"X").await;
    }
    assert!(beside.unharmed().await >= 2);
    hello.assert_peak_below(40);
}

#[tokio::test]
async fn callers_that_never_finish_their_bodies_are_answered_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The app waits for whole bodies, as most do, and answers nobody before.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    let limits = [UNPROBED, ("QP_IDLE_TIMEOUT", "500ms")];
    let proxy = Proxy::start(address, &limits).await;
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000\r\n\r\nslow";
    let callers = (0..300).map(|_| exchange(proxy.traffic(), post.as_bytes()));
    for answer in join_all(callers).await {
        assert_eq!(Raw::parse(&answer).status(), 504);
    }
    proxy.in_flight(0).await;
    let peak = proxy.process.peak_kib();
    assert!(peak < 40 << 10, "{peak} KiB");
}

/// Lets this process, and those that it starts, have `wanted` files open.
fn allow_files(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        let raised = setrlimit(Resource::Nofile, limit);
        assert!(
            raised.is_ok(),
            "raise the limit of open files: ulimit -n {wanted}"
        );
    }
}

/// A build without optimisation has larger futures.
const IDLE_AFTER_A_REQUEST_MIB: u64 = if cfg!(debug_assertions) { 240 } else { 160 };

#[tokio::test]
async fn ten_thousand_idle_connections_are_cheap() {
    allow_files(12_000);
    let hello = Hello::start(&[]).await;
    let mut idle = Vec::with_capacity(10_000);
    for number in 0..10_000 {
        idle.push(hello.proxy.connect().await);
        if number % 100 == 0 {
            // It has accepted those before: no more of them wait than the kernel has room for.
            get(hello.traffic(), "/").await;
        }
    }
    hello.assert_peak_below(60);
    for some in idle.chunks_mut(50) {
        for stream in &mut *some {
            stream.write_all(GET).await.unwrap();
        }
        for stream in some {
            read_to(stream, "\r\n\r\nhello").await;
        }
    }
    hello.assert_peak_below(IDLE_AFTER_A_REQUEST_MIB);
    hello.beside().unharmed().await;
    drop(idle);
    until(|| async { hello.proxy.process.open_files() < 100 }).await;
}

#[tokio::test]
async fn without_files_it_waits_until_there_are_some() {
    let hello = Hello::start(&[]).await;
    let binary = env!("CARGO_BIN_EXE_queue-proxy");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\"", binary]);
    let app = hello.address();
    let ports = [(app.port(), "http")];
    let proxy = Proxy::spawn(command, app.ip(), &ports, &[UNPROBED]).await;
    let many = join_all((0..100).map(|_| proxy.connect())).await;
    until(|| async { proxy.process.open_files() >= 64 }).await;
    drop(many);
    assert_eq!(get(proxy.traffic(), "/").await.body, "hello");
}

/// Where the kernel has no room for a connection, its caller waits a second and tries again.
#[tokio::test]
async fn a_thousand_connections_wait_while_it_is_busy() {
    let hello = Hello::start(&[]).await;
    let id = Pid::from_raw(i32::try_from(hello.proxy.process.id()).unwrap()).unwrap();
    kill_process(id, Signal::STOP).unwrap();
    let all = join_all((0..1_000).map(|_| hello.proxy.connect()));
    let connected = tokio::time::timeout(Duration::from_millis(900), all).await;
    kill_process(id, Signal::CONT).unwrap();
    assert!(connected.is_ok(), "some were sent away");
}
