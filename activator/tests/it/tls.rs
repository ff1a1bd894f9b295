//! Callers of TLS and their pods, as far as bytes go.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::harness::{Activator, FakePod, loopback, soon};

/// What a server says first to a hello.
pub(crate) const SERVER_HELLO: &[u8] = b"\x16\x03\x03\x00\x04\x02\x00\x00\x00";
/// SNI by which Istio names the workload of the tests.
pub(crate) const ISTIO_NAME: &str = "outbound_.80_._.shop.default.svc.cluster.local";

/// A small ClientHello; without a server name where that is empty.
pub(crate) fn hello(server_name: &str) -> Vec<u8> {
    let short = |bytes: &[u8]| -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let name = short(&[&[0][..], &short(server_name.as_bytes())].concat());
    let extension = [&[0, 0][..], &short(&name)].concat();
    let mut body = [vec![3; 34], vec![0, 0, 2, 0x13, 1, 1, 0]].concat();
    if !server_name.is_empty() {
        body.extend(short(&extension));
    }
    let message = [&[1, 0][..], &short(&body)].concat();
    [&[0x16, 3, 1][..], &short(&message)].concat()
}

/// A caller that has sent a hello and is held.
pub(crate) async fn held_tls(activator: &Activator, port: SocketAddr) -> TcpStream {
    let caller = tls_caller(port, ISTIO_NAME).await;
    activator.until_held(1).await;
    caller
}

/// A caller that has sent a hello with this server name.
pub(crate) async fn tls_caller(port: SocketAddr, server_name: &str) -> TcpStream {
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(&hello(server_name)).await.unwrap();
    caller
}

/// The next connection that comes to a pod, after it has said `expected`.
pub(crate) async fn taken(listener: &TcpListener, expected: &[u8]) -> TcpStream {
    let (mut pod, _) = soon(listener.accept()).await.unwrap();
    expect(&mut pod, expected).await;
    pod
}

pub(crate) async fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut seen = vec![0; expected.len()];
    soon(stream.read_exact(&mut seen)).await.unwrap();
    assert_eq!(seen, expected);
}

pub(crate) async fn add_pod(activator: &Activator, name: &str) -> TcpListener {
    let (listener, address) = loopback().await;
    activator.add_pod(&FakePod::before(name, address).await);
    listener
}

/// Caller and pod of a TLS connection that the pod has answered.
pub(crate) async fn spliced(activator: &Activator, port: SocketAddr) -> (TcpStream, TcpStream) {
    let mut caller = tls_caller(port, ISTIO_NAME).await;
    let listener = add_pod(activator, "shop-1").await;
    let mut pod = taken(&listener, &hello(ISTIO_NAME)).await;
    pod.write_all(SERVER_HELLO).await.unwrap();
    expect(&mut caller, SERVER_HELLO).await;
    (caller, pod)
}

pub(crate) async fn assert_metric(activator: &Activator, line: &str) {
    let metrics = activator.metrics().await;
    assert!(metrics.contains(line), "no {line} in {metrics}");
}
