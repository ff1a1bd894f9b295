//! Ports declared TCP, and several ports in one pod.

use std::net::{IpAddr, Ipv4Addr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    apps::{Nghttpd, Nginx},
    client::curl,
    process::soon,
    proxy::{Proxy, UNPROBED},
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn each_side_sends_all_it_has_and_ends_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = Proxy::with_ports(LOOPBACK, &[(port, "tcp")], &[UNPROBED]).await;
    // Every byte value, and what another port would take for TLS or HTTP.
    let mut sent = b"\x16\x03\x01GET / HTTP/1.1\r\n\r\nPRI * HTTP/2.0\r\n\r\n".to_vec();
    sent.extend((0..8_000_000u32).map(|number| u8::try_from(number % 256).unwrap()));
    let app = async {
        let (mut app, _) = soon(listener.accept()).await.unwrap();
        let mut received = Vec::new();
        soon(app.read_to_end(&mut received)).await.unwrap();
        received.reverse();
        app.write_all(&received).await.unwrap();
    };
    let caller = async {
        let mut caller = TcpStream::connect(proxy.traffic()).await.unwrap();
        caller.write_all(&sent).await.unwrap();
        proxy.in_flight(1).await;
        caller.shutdown().await.unwrap();
        let mut received = Vec::new();
        soon(caller.read_to_end(&mut received)).await.unwrap();
        received
    };
    let (mut received, ()) = tokio::join!(caller, app);
    received.reverse();
    assert!(received == sent, "other bytes came back");
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn a_caller_that_breaks_off_is_broken_off_at_the_app() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = Proxy::with_ports(LOOPBACK, &[(port, "tcp")], &[UNPROBED]).await;
    let mut caller = TcpStream::connect(proxy.traffic()).await.unwrap();
    caller.write_all(b"begun").await.unwrap();
    let (mut app, _) = soon(listener.accept()).await.unwrap();
    soon(app.read_exact(&mut [0; 5])).await.unwrap();
    // A reset, as of a caller that crashed.
    caller.set_zero_linger().unwrap();
    drop(caller);
    let mut rest = Vec::new();
    let _ = soon(app.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    drop(app);
    proxy.in_flight(0).await;
}

#[tokio::test]
async fn every_port_of_a_pod_reaches_its_own_port_of_the_app() {
    let nginx = Nginx::start("location / { return 200 nginx; }").await;
    let nghttpd = Nghttpd::start(&[]).await;
    nghttpd.file("file", "nghttpd");
    let ports = [
        (nginx.address.port(), "http"),
        (nghttpd.address.port(), "http"),
        (nginx.address.port(), "tcp"),
    ];
    let proxy = Proxy::with_ports(LOOPBACK, &ports, &[]).await;
    let url = |index| format!("http://{}/file", proxy.port(index));
    assert_eq!(curl(&[&url(0)]).await.ok(), "nginx");
    assert_eq!(
        curl(&["--http2-prior-knowledge", &url(1)]).await.ok(),
        "nghttpd"
    );
    assert_eq!(curl(&[&url(2)]).await.ok(), "nginx");
    let metrics = proxy.metrics().await;
    for kind in ["http1", "h2c", "tcp"] {
        let line = format!(r#"connections_total{{kind="{kind}"}} 1"#);
        assert!(metrics.contains(&line), "{metrics}");
    }
}
