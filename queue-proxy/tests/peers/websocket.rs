//! WebSocket over HTTP/1.1: tungstenite calls, tungstenite answers.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt, future::join_all};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{
    client::read_to,
    process::soon,
    proxy::{Proxy, UNPROBED},
};

type Socket = WebSocketStream<TcpStream>;

/// Answers every message with itself and closes when told to.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

async fn open(proxy: &Proxy) -> Socket {
    let stream = proxy.connect().await;
    let (socket, _) = soon(client_async("ws://shop/socket", stream))
        .await
        .unwrap();
    socket
}

async fn next(socket: &mut Socket) -> Message {
    soon(socket.next())
        .await
        .expect("the socket ended")
        .unwrap()
}

#[tokio::test]
async fn messages_come_back() {
    let proxy = Proxy::start(echo().await, &[UNPROBED]).await;
    let mut socket = open(&proxy).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    for message in [
        Message::text("grüezi"),
        Message::binary(all_bytes),
        Message::text(""),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await, message);
    }
    proxy.in_flight(1).await;
    assert_eq!(proxy.report().await.load.requests, 1);
}

#[tokio::test]
async fn large_messages_come_back_also_many_at_once() {
    let proxy = Proxy::start(echo().await, &[UNPROBED]).await;
    let socket = open(&proxy).await;
    let messages: Vec<Message> = (0..8u8)
        .map(|fill| Message::binary(vec![fill; 1 << 20]))
        .collect();
    let (mut send, mut receive) = socket.split();
    let sending = async {
        for message in &messages {
            send.send(message.clone()).await.unwrap();
        }
    };
    let receiving = async {
        for message in &messages {
            let received = soon(receive.next()).await.unwrap().unwrap();
            assert!(received == *message, "another message came back");
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn a_ping_is_answered_by_the_app() {
    let proxy = Proxy::start(echo().await, &[UNPROBED]).await;
    let mut socket = open(&proxy).await;
    socket
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    assert_eq!(
        next(&mut socket).await,
        Message::Pong("are you there".into())
    );
}

#[tokio::test]
async fn the_close_handshake_passes_with_its_reason() {
    let proxy = Proxy::start(echo().await, &[UNPROBED]).await;
    let mut socket = open(&proxy).await;
    let frame = CloseFrame {
        code: CloseCode::Library(4321),
        reason: "enough".into(),
    };
    socket.close(Some(frame.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Close(Some(frame)));
    assert!(
        soon(socket.next()).await.is_none(),
        "it goes on after its end"
    );
    drop(socket);
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn a_hundred_sockets_are_open_at_once() {
    let proxy = Proxy::start(echo().await, &[UNPROBED]).await;
    let mut sockets = join_all((0..100).map(|_| open(&proxy))).await;
    proxy.in_flight(100).await;
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket
            .send(Message::text(number.to_string()))
            .await
            .unwrap();
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(next(socket).await, Message::text(number.to_string()));
    }
    // Also without a handshake of closing.
    drop(sockets);
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn what_the_handshake_asks_for_reaches_the_app_and_its_answer_the_caller() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let mut request = "ws://shop/socket?a=%2F".into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", "chat, superchat".parse().unwrap());
    headers.insert("Origin", "http://shop.example".parse().unwrap());
    let stream = proxy.connect().await;
    let app = async {
        let (mut app, _) = soon(listener.accept()).await.unwrap();
        let head = read_to(&mut app, "\r\n\r\n").await;
        let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: origin\r\n\r\nno";
        app.write_all(refusal).await.unwrap();
        (head.to_lowercase(), app)
    };
    let calling = client_async(request, stream);
    let (answer, (head, _app)) = tokio::join!(calling, app);
    for line in [
        "get /socket?a=%2f http/1.1",
        "sec-websocket-protocol: chat, superchat",
        "origin: http://shop.example",
        "sec-websocket-version: 13",
        "upgrade: websocket",
        "connection: upgrade",
    ] {
        assert!(head.lines().any(|seen| seen == line), "{line}: {head}");
    }
    assert!(head.contains("\r\nsec-websocket-key: "), "{head}");
    let Err(Error::Http(answer)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["x-why"], "origin");
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn only_the_idle_timeout_ends_a_socket() {
    let limits = [
        UNPROBED,
        ("QP_TIMEOUT", "100ms"),
        ("QP_RESPONSE_START_TIMEOUT", "100ms"),
        ("QP_IDLE_TIMEOUT", "500ms"),
    ];
    let proxy = Proxy::start(echo().await, &limits).await;
    let mut socket = open(&proxy).await;
    let begin = Instant::now();
    let mut last = begin;
    // Longer than any of the limits, but never silent for so long.
    while begin.elapsed() < Duration::from_millis(700) {
        socket.send(Message::Ping("x".into())).await.unwrap();
        next(&mut socket).await;
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let end = soon(socket.next()).await;
    assert!(matches!(end, None | Some(Err(_))), "{end:?}");
    let silent = last.elapsed();
    assert!(
        silent >= Duration::from_millis(450),
        "ended after {silent:?}"
    );
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn without_an_idle_timeout_a_silent_socket_stays() {
    let limits = [UNPROBED, ("QP_TIMEOUT", "50ms")];
    let proxy = Proxy::start(echo().await, &limits).await;
    let mut socket = open(&proxy).await;
    let ended = tokio::time::timeout(Duration::from_millis(300), socket.next()).await;
    assert!(ended.is_err(), "{ended:?}");
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still here"));
}
