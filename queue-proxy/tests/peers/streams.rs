//! What is said bit by bit arrives bit by bit: server-sent events, uploads from a pipe.

use std::process::Stdio;

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    sync::mpsc,
};

use crate::{
    client::read_to,
    process::{find, soon},
    proxy::{Proxy, UNPROBED},
};

const EVENTS: usize = 20;

/// curl that prints what arrives as it arrives.
fn streaming(arguments: &[&str]) -> Child {
    Command::new(find("curl"))
        .args([
            "-q",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--no-buffer",
        ])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    soon(lines.next_line()).await.unwrap().expect("curl ended")
}

/// Lets the app say one event after the other, each when curl has printed the one before.
async fn one_by_one(curl: &mut Child, say_tx: mpsc::Sender<usize>) {
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    for number in 0..EVENTS {
        say_tx.send(number).await.unwrap();
        assert_eq!(line(&mut lines).await, format!("data: {number}"));
        assert_eq!(line(&mut lines).await, "");
    }
    drop(say_tx);
    assert_eq!(soon(lines.next_line()).await.unwrap(), None);
    assert!(soon(curl.wait()).await.unwrap().success());
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_said_in_http1() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let (say_tx, mut say_rx) = mpsc::channel::<usize>(1);
    let app = async {
        let (mut app, _) = soon(listener.accept()).await.unwrap();
        read_to(&mut app, "\r\n\r\n").await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
            Transfer-Encoding: chunked\r\n\r\n";
        app.write_all(head.as_bytes()).await.unwrap();
        while let Some(number) = say_rx.recv().await {
            let event = format!("data: {number}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            app.write_all(chunk.as_bytes()).await.unwrap();
        }
        app.write_all(b"0\r\n\r\n").await.unwrap();
    };
    let mut curl = streaming(&[&proxy.url("/events")]);
    tokio::join!(one_by_one(&mut curl, say_tx), app);
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_said_in_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let (say_tx, mut say_rx) = mpsc::channel::<usize>(1);
    let app = async {
        let (app, _) = soon(listener.accept()).await.unwrap();
        let mut connection = h2::server::handshake(app).await.unwrap();
        let (_, mut respond) = soon(connection.accept()).await.unwrap().unwrap();
        let mut stream = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        let saying = async {
            while let Some(number) = say_rx.recv().await {
                let event = format!("data: {number}\n\n");
                stream.send_data(Bytes::from(event), false).unwrap();
            }
            stream.send_data(Bytes::new(), true).unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // The connection moves only while it is asked for more.
            next = connection.accept() => assert!(next.is_none_or(|next| next.is_err())),
            () = saying => {}
        }
    };
    let mut curl = streaming(&["--http2-prior-knowledge", &proxy.url("/events")]);
    let calling = one_by_one(&mut curl, say_tx);
    tokio::select! {
        () = calling => {}
        () = app => panic!("the app was left alone"),
    }
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn each_line_of_an_upload_arrives_before_the_next_is_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    let mut curl = streaming(&["-H", "Expect:", "-T", "-", &proxy.url("/upload")]);
    let mut stdin = curl.stdin.take().unwrap();
    // curl asks its input for the first bytes before it calls.
    stdin.write_all(b"line 0\n").await.unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut app, "\r\n\r\n").await;
    for number in 1..EVENTS {
        let seen = read_to(&mut app, "\n\r\n").await;
        assert!(seen.contains(&format!("line {}\n", number - 1)), "{seen}");
        stdin
            .write_all(format!("line {number}\n").as_bytes())
            .await
            .unwrap();
    }
    drop(stdin);
    read_to(&mut app, "0\r\n\r\n").await;
    app.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .await
        .unwrap();
    assert!(soon(curl.wait()).await.unwrap().success());
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn an_answer_may_begin_before_the_upload_has_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), &[UNPROBED]).await;
    // With a dot for a name curl does not wait for its input alone.
    let mut curl = streaming(&[
        "--no-progress-meter",
        "-H",
        "Expect:",
        "-T",
        ".",
        &proxy.url("/echo"),
    ]);
    let mut stdin = curl.stdin.take().unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    stdin.write_all(b"line 0\n").await.unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    read_to(&mut app, "\r\n\r\n").await;
    app.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    for number in 0..20u8 {
        let mut chunk = read_to(&mut app, "\n\r\n").await;
        chunk.retain(|character| character != '\r');
        assert!(chunk.ends_with(&format!("line {number}\n\n")), "{chunk}");
        let letter = char::from(b'a' + number);
        let answer = format!("2\r\n{letter}\n\r\n");
        app.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(line(&mut lines).await, letter.to_string());
        stdin
            .write_all(format!("line {}\n", number + 1).as_bytes())
            .await
            .unwrap();
    }
    drop(stdin);
    read_to(&mut app, "0\r\n\r\n").await;
    app.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(soon(curl.wait()).await.unwrap().success());
}
