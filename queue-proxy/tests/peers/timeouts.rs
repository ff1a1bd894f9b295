//! Requests that take too long, and answers that break off: no caller may take what it got for
//! the whole.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    client::{Raw, curl, exchange, read_to},
    frames,
    process::soon,
    proxy::{Proxy, UNPROBED},
};

const H2C: &str = "--http2-prior-knowledge";
/// curl's exit codes.
const PARTIAL_FILE: i32 = 18;
const EMPTY_REPLY: i32 = 52;
const RECEIVE_ERROR: i32 = 56;
const HTTP2_STREAM: i32 = 92;

/// How an answer is begun that has no end.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun";
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nbegun";

/// What an app does after it has said something.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Hang,
    Close,
    Reset,
}

/// An app that says `what` on each connection once it was asked, in HTTP/1.
async fn app(what: &'static str, then: Then) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(say(stream, what, then));
        }
    });
    address
}

async fn say(mut stream: TcpStream, what: &str, then: Then) {
    read_to(&mut stream, "\r\n\r\n").await;
    stream.write_all(what.as_bytes()).await.unwrap();
    match then {
        Then::Hang => while let Ok(1..) = stream.read(&mut [0; 1024]).await {},
        Then::Close => {}
        Then::Reset => stream.set_zero_linger().unwrap(),
    }
}

/// An app that begins an answer of 5 bytes in HTTP/2 and never ends it.
async fn http2_app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut begun = Vec::new();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut stream = respond
                        .send_response(http::Response::new(()), false)
                        .unwrap();
                    stream.send_data("begun".into(), false).unwrap();
                    begun.push(stream);
                }
            });
        }
    });
    address
}

async fn silent() -> SocketAddr {
    app("", Then::Hang).await
}

#[tokio::test]
async fn what_has_not_begun_in_time_is_504_with_the_reason() {
    for key in ["QP_TIMEOUT", "QP_RESPONSE_START_TIMEOUT", "QP_IDLE_TIMEOUT"] {
        let proxy = Proxy::start(silent().await, &[UNPROBED, (key, "100ms")]).await;
        let url = proxy.url("/");
        for (version, status) in [
            ("--http1.1", "HTTP/1.1 504 Gateway Timeout"),
            (H2C, "HTTP/2 504"),
        ] {
            let answer = curl(&[version, "-v", &url]).await;
            assert_eq!(answer.received()[0], status, "{key}");
            assert!(
                answer.received().contains(&"lull-reason: timeout"),
                "{answer:?}"
            );
            assert_eq!(answer.code, 0);
        }
        proxy.in_flight(0).await;
        let metrics = proxy.metrics().await;
        assert!(
            metrics.contains(r#"rejected_total{reason="timeout",source="app"} 2"#),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn what_has_begun_is_never_taken_for_whole() {
    let timeouts = [("QP_TIMEOUT", "150ms"), ("QP_IDLE_TIMEOUT", "150ms")];
    for (limit, what, code) in timeouts.into_iter().flat_map(|limit| {
        [
            (limit, CHUNKED, PARTIAL_FILE),
            (limit, LENGTH, PARTIAL_FILE),
            (limit, UNTIL_CLOSE, PARTIAL_FILE),
        ]
    }) {
        let proxy = Proxy::start(app(what, Then::Hang).await, &[UNPROBED, limit]).await;
        let answer = curl(&["-w", "%{http_code}", &proxy.url("/")]).await;
        assert_eq!(
            (answer.code, answer.stdout.as_str()),
            (code, "begun200"),
            "{limit:?} {what}"
        );
        proxy.in_flight(0).await;
    }
}

#[tokio::test]
async fn in_http2_only_the_stream_is_reset() {
    for limit in [("QP_TIMEOUT", "150ms"), ("QP_IDLE_TIMEOUT", "150ms")] {
        let proxy = Proxy::start(http2_app().await, &[UNPROBED, limit]).await;
        let answer = curl(&[H2C, "-w", "%{http_code}", &proxy.url("/")]).await;
        assert_eq!(
            (answer.code, answer.stdout.as_str()),
            (HTTP2_STREAM, "begun200"),
            "{answer:?}"
        );
        assert!(answer.stderr.contains("INTERNAL_ERROR"), "{answer:?}");
        proxy.in_flight(0).await;
    }
}

#[tokio::test]
async fn response_start_timeout_leaves_alone_what_has_begun() {
    let limits = [
        UNPROBED,
        ("QP_RESPONSE_START_TIMEOUT", "100ms"),
        ("QP_TIMEOUT", "600ms"),
    ];
    let proxy = Proxy::start(app(CHUNKED, Then::Hang).await, &limits).await;
    let answer = curl(&["-w", "%{time_total}", &proxy.url("/")]).await;
    assert_eq!(answer.code, PARTIAL_FILE, "{answer:?}");
    let seconds: f64 = answer
        .stdout
        .strip_prefix("begun")
        .unwrap()
        .parse()
        .unwrap();
    assert!(seconds > 0.5, "{seconds} s");
}

/// All of these break off, in a way that a caller can tell from the end.
const BREAKS: [(&str, Then); 5] = [
    (CHUNKED, Then::Close),
    (CHUNKED, Then::Reset),
    (LENGTH, Then::Close),
    (LENGTH, Then::Reset),
    // Without a length, only a reset tells it.
    (UNTIL_CLOSE, Then::Reset),
];

#[tokio::test]
async fn an_app_that_breaks_off_is_not_taken_for_one_that_ended() {
    for (what, then) in BREAKS {
        let proxy = Proxy::start(app(what, then).await, &[UNPROBED]).await;
        let answer = curl(&[&proxy.url("/")]).await;
        let codes = [PARTIAL_FILE, EMPTY_REPLY, RECEIVE_ERROR];
        assert!(codes.contains(&answer.code), "{then:?} {what} {answer:?}");
        proxy.in_flight(0).await;
    }
    let proxy = Proxy::start(app(UNTIL_CLOSE, Then::Close).await, &[UNPROBED]).await;
    assert_eq!(curl(&[&proxy.url("/")]).await.ok(), "begun");
}

/// A connection that ends without a word invites callers to try again, also what must not be
/// done twice.
#[tokio::test]
async fn what_an_app_said_before_it_broke_off_is_passed_on() {
    for (what, then) in BREAKS.into_iter().filter(|(_, then)| *then == Then::Close) {
        let proxy = Proxy::start(app(what, then).await, &[UNPROBED]).await;
        let answer = curl(&["-w", "%{http_code}", &proxy.url("/")]).await;
        assert_eq!(
            (answer.code, answer.stdout.as_str()),
            (PARTIAL_FILE, "begun200"),
            "{what}"
        );
    }
}

#[tokio::test]
async fn an_app_that_breaks_off_before_its_answer_is_502() {
    for then in [Then::Close, Then::Reset] {
        for what in [
            "",
            "HTTP/1.1 200 OK\r\nContent-",
            "rubbish\r\n\r\n",
            "HTTP/9.9 200 OK\r\n\r\n",
        ] {
            let proxy = Proxy::start(app(what, then).await, &[UNPROBED]).await;
            let answer = curl(&["-v", &proxy.url("/")]).await;
            assert_eq!(
                answer.received()[0],
                "HTTP/1.1 502 Bad Gateway",
                "{then:?} {what}"
            );
            assert!(
                answer.received().contains(&"lull-reason: app-failed"),
                "{answer:?}"
            );
            proxy.in_flight(0).await;
        }
    }
}

#[tokio::test]
async fn an_upload_that_stops_is_answered_and_its_connection_not_used_again() {
    for key in ["QP_TIMEOUT", "QP_IDLE_TIMEOUT"] {
        let proxy = Proxy::start(silent().await, &[UNPROBED, (key, "150ms")]).await;
        let request = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000\r\n\r\nbegun";
        let answer = Raw::parse(&exchange(proxy.traffic(), request).await);
        assert_eq!(answer.status(), 504, "{answer:?}");
        proxy.in_flight(0).await;
    }
}

#[tokio::test]
async fn bytes_now_and_then_keep_the_idle_timeout_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = [UNPROBED, ("QP_IDLE_TIMEOUT", "400ms")];
    let proxy = Proxy::start(listener.local_addr().unwrap(), &limits).await;
    let app = async {
        let (mut app, _) = soon(listener.accept()).await.unwrap();
        read_to(&mut app, "\r\n\r\n").await;
        app.write_all(CHUNKED.as_bytes()).await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(80)).await;
            app.write_all(b"1\r\nx\r\n").await.unwrap();
        }
        app.write_all(b"0\r\n\r\n").await.unwrap();
        app
    };
    let url = proxy.url("/");
    let arguments = [url.as_str()];
    let (answer, _app) = tokio::join!(curl(&arguments), app);
    assert_eq!(answer.ok(), "begunxxxxxxxxxx");
}

/// An app that says more than all buffers hold, after `head`.
async fn endless(head: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_to(&mut stream, "\r\n\r\n").await;
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
            });
        }
    });
    address
}

#[tokio::test]
async fn a_caller_that_does_not_read_loses_its_place_after_the_timeout() {
    let app = endless("HTTP/1.1 200 OK\r\n\r\n").await;
    let proxy = Proxy::start(app, &[UNPROBED, ("QP_TIMEOUT", "300ms")]).await;
    let mut caller = proxy.connect().await;
    caller
        .write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
        .await
        .unwrap();
    proxy.in_flight(1).await;
    proxy.in_flight(0).await;
    drop(caller);
}

#[tokio::test]
async fn a_caller_that_does_not_read_what_it_has_switched_to_keeps_it_after_the_timeout() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
    let proxy = Proxy::start(endless(head).await, &[UNPROBED, ("QP_TIMEOUT", "300ms")]).await;
    let mut caller = proxy.connect().await;
    let request = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
    caller.write_all(request).await.unwrap();
    proxy.in_flight(1).await;
    // The kernel asks a caller without room twice before it gives up, 0.6 s after.
    let ended = tokio::time::timeout(Duration::from_secs(3), proxy.in_flight(0)).await;
    assert!(ended.is_err(), "it was closed");
    read_to(&mut caller, "xxx").await;
}

#[tokio::test]
async fn a_caller_that_gives_no_window_loses_its_place_after_the_timeout() {
    let proxy = Proxy::start(http2_app().await, &[UNPROBED, ("QP_TIMEOUT", "300ms")]).await;
    let mut caller = frames::connect(proxy.traffic()).await;
    let none = frames::settings(&[(4, 0)]);
    let head = frames::request("GET", "/");
    let flags = frames::END_HEADERS | frames::END_STREAM;
    let request = [
        frames::frame(frames::SETTINGS, 0, 0, &none),
        frames::frame(frames::HEADERS, flags, 1, &head),
    ];
    caller.write_all(&request.concat()).await.unwrap();
    proxy.in_flight(1).await;
    proxy.in_flight(0).await;
    drop(caller);
}

/// Such an answer ends with its connection, so only a reset can tell that it was cut.
#[tokio::test]
async fn an_http10_caller_does_not_take_a_cut_answer_for_whole() {
    let proxy = Proxy::start(
        app(CHUNKED, Then::Hang).await,
        &[UNPROBED, ("QP_TIMEOUT", "150ms")],
    )
    .await;
    let answer = curl(&["-0", &proxy.url("/")]).await;
    assert_eq!(answer.code, RECEIVE_ERROR, "{answer:?}");
    let proxy = Proxy::start(app(CHUNKED, Then::Close).await, &[UNPROBED]).await;
    let answer = curl(&["-0", &proxy.url("/")]).await;
    assert_eq!(answer.code, RECEIVE_ERROR, "{answer:?}");
}
