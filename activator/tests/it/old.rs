//! Callers of HTTP/1.0, which may leave out Host and know no chunks: checks of load balancers, and old tools.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    harness::{APP, Activator, FakePod, Raw, read_all, workload},
    recorder::Recorder,
};

async fn ask(port: SocketAddr, head: &str) -> Raw {
    let mut stream = TcpStream::connect(port).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    read_all(&mut stream).await
}

#[tokio::test]
async fn a_request_of_http_1_0_that_names_no_host_reaches_the_app_with_the_pods_address() {
    let (activator, port) = Activator::with(workload("shop")).await;
    activator.add_pod(&FakePod::start("shop-1").await);
    for (head, host) in [
        ("GET / HTTP/1.0\r\n\r\n", format!("127.0.0.1:{APP}")),
        ("GET / HTTP/1.0\r\nHost: shop\r\n\r\n", "shop".to_owned()),
        ("GET http://shop/ HTTP/1.0\r\n\r\n", "shop".to_owned()),
    ] {
        let raw = ask(port, head).await;
        raw.assert_status(200);
        let expected = format!("shop-1 HTTP/1.1 {host} ");
        assert!(raw.body.starts_with(&expected), "{head:?}: {raw:?}");
    }
    activator.stop().await;
}

#[tokio::test]
async fn an_answer_in_chunks_comes_without_them_and_ends_with_the_connection() {
    let (activator, port) = Activator::with(workload("shop")).await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let recorder = Recorder::answering(move |_| chunked.into()).await;
    activator.add_pod(&FakePod::before("shop-1", recorder.address).await);
    let raw = ask(
        port,
        "GET / HTTP/1.0\r\nHost: shop\r\nConnection: keep-alive\r\n\r\n",
    )
    .await;
    raw.assert_status(200);
    assert_eq!(raw.body, "hello");
    assert!(raw.has("connection: close"), "{raw:?}");
    assert!(!raw.head.contains("transfer-encoding"), "{raw:?}");
    activator.stop().await;
}
