use axum::routing::get;
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::certs::{Authority, Resolver, server_config, service_names};

/// Longest time that a test waits for what must come.
const CAP: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

struct Rig {
    authority: Authority,
    resolver: Arc<Resolver>,
    addr: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Rig {
    async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (resolver, stop) = (Arc::new(Resolver::default()), CancellationToken::new());
        let tls = server_config(Arc::clone(&resolver)).unwrap();
        let task = tokio::spawn(serve(listener, tls, router, stop.clone()));
        let authority = Authority::generate(Timestamp::now(), "").unwrap();
        let rig = Self {
            authority,
            resolver,
            addr,
            stop,
            task,
        };
        rig.mint();
        rig
    }

    fn mint(&self) {
        let names = service_names("lull-webhook", "lull");
        let leaf = self.authority.mint(&names, Timestamp::now()).unwrap();
        self.resolver.set(leaf.certified);
    }

    async fn connect(
        &self,
        authority: &Authority,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(authority.bundle().as_bytes()) {
            roots.add(der.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect(self.addr).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

async fn read(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = String::new();
    // The server may close TCP without a TLS close; what came before counts.
    let _ = timeout(CAP, stream.read_to_string(&mut answer))
        .await
        .expect("an answer");
    answer
}

#[tokio::test]
async fn callers_that_trust_the_bundle_are_served() {
    let rig = Rig::start(Router::new().route("/", get(|| async { "hello" }))).await;
    let mut first = rig
        .connect(&rig.authority, "lull-webhook.lull.svc")
        .await
        .unwrap();
    rig.mint();
    let mut second = rig
        .connect(&rig.authority, "lull-webhook.lull.svc")
        .await
        .unwrap();
    let certificate =
        |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_ne!(
        certificate(&first),
        certificate(&second),
        "the new leaf is served at once"
    );
    for stream in [&mut first, &mut second] {
        stream.write_all(REQUEST).await.unwrap();
        assert!(read(stream).await.ends_with("hello"));
    }
}

#[tokio::test]
async fn strangers_and_other_names_fail_the_handshake() {
    let rig = Rig::start(Router::new()).await;
    let stranger = Authority::generate(Timestamp::now(), "").unwrap();
    assert!(
        rig.connect(&stranger, "lull-webhook.lull.svc")
            .await
            .is_err()
    );
    assert!(rig.connect(&rig.authority, "other.lull.svc").await.is_err());
    // Neither a failed handshake nor plain text harms the next caller.
    let mut plain = TcpStream::connect(rig.addr).await.unwrap();
    plain.write_all(REQUEST).await.unwrap();
    assert!(
        rig.connect(&rig.authority, "lull-webhook.lull.svc")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_request_in_flight_is_finished_at_the_end() {
    let (arrived_tx, mut arrived_rx) = mpsc::channel::<()>(1);
    let go_on = CancellationToken::new();
    let waits = go_on.clone();
    let router = Router::new().route(
        "/",
        get(move || async move {
            let _ = arrived_tx.send(()).await;
            waits.cancelled().await;
            "late"
        }),
    );
    let rig = Rig::start(router).await;
    let mut stream = rig
        .connect(&rig.authority, "lull-webhook.lull.svc")
        .await
        .unwrap();
    stream.write_all(REQUEST).await.unwrap();
    timeout(CAP, arrived_rx.recv()).await.expect("it arrived");
    rig.stop.cancel();
    go_on.cancel();
    assert!(read(&mut stream).await.ends_with("late"));
    timeout(CAP, rig.task)
        .await
        .expect("the server ends")
        .unwrap();
    assert!(
        TcpStream::connect(rig.addr).await.is_err(),
        "nobody listens any more"
    );
}
