//! Callers of plain HTTP/1 that mean harm: nothing is smuggled to an app, nobody is woken for what is no
//! request, and nobody beside feels it.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Activator, FakePod, get, soon, until, workload},
    recorder::Recorder,
    smuggling::{
        self,
        Fate::{self, Broken, Either, Passed, Refused},
    },
};

/// Who has no answer by then is told that its caller has no more to say.
const MOMENT: Duration = Duration::from_secs(2);
/// Longest time of a caller beside; the machine may be busy with other things.
const UNHARMED: Duration = Duration::from_secs(5);
/// Targets that Pingora encodes, where the sidecar refuses them.
const ENCODED: [&str; 3] = ["GET /  HTTP", "GET / x HTTP", "GET /\rX HTTP"];
/// What is sent at most of what has no end, bytes.
const ENDLESS: usize = 16 << 20;

/// Asks for another workload again and again, until told to stop.
pub(crate) struct Beside {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// An activator whose pod keeps what it is sent.
struct Recorded {
    activator: Activator,
    port: SocketAddr,
    recorder: Recorder,
}

// === impl Beside ===

impl Beside {
    /// Adds the other workload, which has a pod.
    pub(crate) async fn start(activator: &Activator) -> Self {
        let port = activator.add(workload("bank")).await;
        let mut pod = FakePod::start("bank-1").await.entry();
        pod.labels.insert("app".to_owned(), "bank".to_owned());
        activator.directory.apply_pod(pod);
        get(port, "/", "").await.assert_status(200);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                let answer = timeout(UNHARMED, get(port, "/", "")).await;
                answer.expect("it takes too long").assert_status(200);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // Once more, after all of it.
            get(port, "/", "").await.assert_status(200);
        });
        Self { stop, task }
    }

    /// Fails where it was not answered well.
    pub(crate) async fn assert_unharmed(self) {
        self.stop.cancel();
        soon(self.task).await.unwrap();
    }
}

// === impl Recorded ===

impl Recorded {
    async fn start() -> Self {
        let (activator, port) = Activator::with(workload("shop")).await;
        let recorder = Recorder::start().await;
        activator.add_pod(&FakePod::before("shop-1", recorder.address).await);
        get(port, "/", "").await.assert_status(200);
        Self {
            activator,
            port,
            recorder,
        }
    }

    /// What is wrong with what becomes of `request`.
    async fn check(&self, request: &str, fate: Fate) -> Result<(), String> {
        let before = self.recorder.messages().len();
        let answer = exchange(self.port, request).await;
        let seen = self.recorder.messages().split_off(before);
        let texts = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let targets: Vec<_> = seen.iter().map(|seen| texts(seen.target())).collect();
        let bodies: Vec<_> = seen.iter().map(|seen| texts(&seen.body)).collect();
        let passed = |body: &str| bodies == [body] && answer.starts_with("HTTP/1.1 200");
        let refused = bodies.is_empty() && is_refusal(&answer);
        let right = match fate {
            Refused => refused,
            // Pingora reads some chunks that are none, and all trailers, as it likes, and writes chunks of
            // its own: one request comes of it at most.
            Broken => bodies.len() <= 1,
            Passed(body) => passed(body),
            Either(body) => passed(body) || refused,
        };
        let answers = answer.matches("HTTP/1.1 ").count();
        let is_smuggled = targets.iter().any(|target| target == "/smuggled");
        if right && answers <= 1 && !is_smuggled {
            return Ok(());
        }
        Err(format!(
            "{fate:?}, but the app got {targets:?} {bodies:?}, the caller {answer:?}"
        ))
    }

    async fn check_all(self, requests: Vec<(String, Fate)>) {
        let beside = Beside::start(&self.activator).await;
        let mut wrong = Vec::new();
        for (request, fate) in requests {
            if let Err(what) = self.check(&request, here(&request, fate)).await {
                let shown: String = request.chars().take(300).collect();
                wrong.push(format!("{shown:?}: {what}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        beside.assert_unharmed().await;
        self.activator.stop().await;
    }
}

/// What is to become of `request` here, where the sidecar does as `fate` says.
fn here(request: &str, fate: Fate) -> Fate {
    match fate {
        Refused if ENCODED.iter().any(|line| request.starts_with(line)) => Either(""),
        // Nobody may take it out of a request.
        Passed(_) if request.contains("Connection: Host\r\n") => Refused,
        fate => fate,
    }
}

/// Whether it was refused; a connection may end without a word, too.
fn is_refusal(answer: &str) -> bool {
    answer.is_empty() || answer.starts_with("HTTP/1.1 4")
}

/// Sends `request` and reads to the connection's end.
async fn exchange(port: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(port).await.unwrap();
    // Who refuses a request may be gone before its end.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    if timeout(MOMENT, read_on(&mut stream, &mut answer))
        .await
        .is_err()
    {
        let _ = stream.shutdown().await;
        soon(read_on(&mut stream, &mut answer)).await;
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until the connection ends, or breaks.
async fn read_on(stream: &mut TcpStream, answer: &mut Vec<u8>) {
    while let Ok(1..) = stream.read_buf(answer).await {}
}

#[tokio::test]
async fn of_two_lengths_one_request_comes_or_none() {
    let recorded = Recorded::start().await;
    recorded.check_all(smuggling::lengths()).await;
}

#[tokio::test]
async fn of_transfer_encodings_one_request_comes_or_none() {
    let recorded = Recorded::start().await;
    let requests = [
        smuggling::transfer_encodings(),
        smuggling::codings_beside_chunked(),
        smuggling::both(),
    ];
    recorded.check_all(requests.concat()).await;
}

#[tokio::test]
async fn of_broken_chunks_one_request_comes_or_none() {
    let recorded = Recorded::start().await;
    let requests = [smuggling::chunks(), smuggling::bad_chunks()];
    recorded.check_all(requests.concat()).await;
}

#[tokio::test]
async fn of_broken_lines_one_request_comes_or_none() {
    let recorded = Recorded::start().await;
    let requests = [smuggling::lines_and_names(), smuggling::hosts()];
    recorded.check_all(requests.concat()).await;
}

/// Other targets than a path, and what they are for.
fn targets() -> Vec<(String, Fate)> {
    let request = |(line, host, fate): (&str, &str, Fate)| {
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        (head, fate)
    };
    let all = [
        ("GET http://shop/a", "shop", Passed("")),
        ("OPTIONS *", "shop", Passed("")),
        ("GET *", "shop", Refused),
        ("GET http://other/a", "shop", Refused),
        ("GET http://a@shop/a", "a@shop", Refused),
        ("GET ftp://shop/a", "shop", Refused),
        ("GET shop:80", "shop:80", Refused),
        ("CONNECT shop:80", "shop:80", Refused),
        ("CONNECT /", "shop", Refused),
    ];
    all.into_iter().map(request).collect()
}

#[tokio::test]
async fn targets_that_are_no_path_are_for_the_app_or_refused() {
    Recorded::start().await.check_all(targets()).await;
}

#[tokio::test]
async fn what_is_no_request_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let edge = activator.report("").await.edge;
    let requests = [
        smuggling::lengths(),
        smuggling::transfer_encodings(),
        smuggling::codings_beside_chunked(),
        smuggling::both(),
        smuggling::lines_and_names(),
        smuggling::hosts(),
        targets(),
    ];
    for (request, fate) in requests.concat() {
        if here(&request, fate) == Refused {
            let answer = exchange(port, &request).await;
            assert!(is_refusal(&answer), "{request:?}: {answer:?}");
        }
    }
    let report = activator.report("").await;
    assert_eq!((report.edge, report.workloads[0].held.requests), (edge, 0));
    activator.stop().await;
}

/// Sends `begin` and then `more` again and again until it is cut off; what was said to it.
async fn endless(port: SocketAddr, begin: &str, more: &str) -> String {
    let stream = TcpStream::connect(port).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let block = more.repeat((64 << 10) / more.len());
    let writing = async {
        writer.write_all(begin.as_bytes()).await?;
        for _ in 0..ENDLESS / block.len() {
            writer.write_all(block.as_bytes()).await?;
        }
        std::io::Result::Ok(())
    };
    let mut answer = Vec::new();
    let reading = async {
        let _ = reader.read_to_end(&mut answer).await;
    };
    let is_taken = soon(async {
        tokio::select! {
            written = writing => written.is_ok(),
            () = reading => false,
        }
    })
    .await;
    assert!(!is_taken, "{begin:?}: it takes everything");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_has_no_end_is_cut_off_and_wakes_nobody() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let beside = Beside::start(&activator).await;
    let held = || async {
        let report = activator.report("").await;
        let shop = report.workloads.iter().find(|it| it.name == "shop");
        shop.map(|shop| shop.held.requests)
    };
    let before = held().await;
    let head = "GET / HTTP/1.1\r\nHost: shop\r\n";
    let value = "GET / HTTP/1.1\r\nHost: shop\r\nX: ";
    let long = "xxxxxxxxxxxxxxxx";
    for (begin, more) in [
        (head, "X: 1\r\n"),
        (head, long),
        (value, long),
        ("GET /", long),
        ("", long),
        ("", "\r\n"),
    ] {
        let answer = endless(port, begin, more).await;
        assert!(is_refusal(&answer), "{begin:?}: {answer:?}");
    }
    assert_eq!(held().await, before);
    beside.assert_unharmed().await;
    activator.stop().await;
}

#[tokio::test]
async fn chunks_and_trailers_without_end_are_cut_off() {
    let recorded = Recorded::start().await;
    let beside = Beside::start(&recorded.activator).await;
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n";
    let last = format!("{post}1\r\nx\r\n0\r\n");
    for (begin, more) in [
        (post, "1;x"),
        (post, "5;x=\"xxxxxxxxxxx"),
        (last.as_str(), "X: 1\r\n"),
        (last.as_str(), "xxxxxxxxxxxxxxxx"),
    ] {
        endless(recorded.port, begin, more).await;
    }
    // The one that showed that the pod is there.
    assert_eq!(recorded.recorder.messages().len(), 1);
    beside.assert_unharmed().await;
    recorded.activator.stop().await;
}

#[tokio::test]
async fn callers_that_never_finish_their_heads_take_no_place() {
    let mut entry = workload("shop");
    entry.settings.container_concurrency = 1;
    let (activator, port) = Activator::with(entry).await;
    let pod = FakePod::start("shop-1").await;
    activator.add_pod(&pod);
    let head = b"GET / HTTP/1.1\r\nHost: shop\r\nX: ";
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(port).await.unwrap();
        let begun = &head[..=number % (head.len() - 1)];
        stream.write_all(begun).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..3 {
        get(port, "/", "").await.assert_status(200);
    }
    assert_eq!(pod.served(), 3);
    drop(slow);
    activator.stop().await;
}

#[tokio::test]
async fn bodies_that_never_end_take_their_slots_and_no_others() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    let head = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000\r\n\r\nslow";
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(port).await.unwrap();
        stream.write_all(head).await.unwrap();
        slow.push(stream);
    }
    until(|| async { activator.forwarding().await == 100 }).await;
    let beside = Beside::start(&activator).await;
    get(port, "/", "").await.assert_status(200);
    beside.assert_unharmed().await;
    // Who leaves gives its slot back.
    drop(slow);
    until(|| async { activator.forwarding().await == 0 }).await;
    activator.stop().await;
}
