//! Starts an activator and pods, and talks to them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use activator::{Addresses, Config, Directory, Pod, WorkloadEntry};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use lull_contract::{
    AppProtocol, HumanDuration, Settings, report::ActivatorReport, scaled_workload::WorkloadPort,
};
use lull_process::server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The app's port in all tests.
pub(crate) const APP: u16 = 8080;

pub(crate) struct Activator {
    pub(crate) addresses: Addresses,
    pub(crate) directory: Directory,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

/// An HTTP/1.1 answer, read to its end.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A pod: an app and a queue-proxy's `/ready`.
pub(crate) struct FakePod {
    pub(crate) name: String,
    pub(crate) app: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) served: Arc<AtomicU32>,
    /// How many connections its app has taken.
    pub(crate) taken: Arc<AtomicU32>,
}

/// `work`, which must end.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it takes too long")
}

/// Waits until `condition` holds.
pub(crate) async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "it never came true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        hold_timeout: HumanDuration(PATIENCE),
        connection_hold_timeout: HumanDuration(PATIENCE),
        ..Settings::default()
    }
}

pub(crate) fn workload(name: &str) -> WorkloadEntry {
    WorkloadEntry {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        ports: vec![WorkloadPort {
            app_port: APP,
            protocol: AppProtocol::Http,
            activator_port: 0,
        }],
        settings: settings(),
        services: vec![name.to_owned()],
        serve: false,
        plain: vec![],
    }
}

pub(crate) fn tcp_workload(name: &str) -> WorkloadEntry {
    let mut entry = workload(name);
    entry.ports[0].protocol = AppProtocol::Tcp;
    entry
}

/// Listens as queue-proxies do. By default 128 wait to be accepted: of more that come at once the kernel
/// has some come again after a second, and where it is late it resets one now and then.
pub(crate) async fn loopback() -> (TcpListener, SocketAddr) {
    listening(Ipv4Addr::LOCALHOST.into()).await
}

/// The same at an address of either family.
async fn listening(ip: IpAddr) -> (TcpListener, SocketAddr) {
    let socket = if ip.is_ipv4() {
        TcpSocket::new_v4().unwrap()
    } else {
        TcpSocket::new_v6().unwrap()
    };
    socket.bind((ip, 0).into()).unwrap();
    let listener = socket.listen(4_096).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(crate) async fn get(address: SocketAddr, path: &str, headers: &str) -> Raw {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: any.example\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_all(&mut stream).await
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> Raw {
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Raw {
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

impl Raw {
    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16) {
        let expected = format!("http/1.1 {status}");
        assert!(self.head.starts_with(&expected), "{self:?}");
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|other| other == line)
    }
}

// === impl Activator ===

impl Activator {
    pub(crate) async fn start(overrides: &[(&str, &str)]) -> Self {
        let mut vars: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in [
            ("ACTIVATOR_POD_NAME", "activator-1"),
            ("ACTIVATOR_POD_IP", "127.0.0.1"),
            ("ACTIVATOR_ADMIN_PORT", "0"),
            ("ACTIVATOR_REPORT_PORT", "0"),
            ("ACTIVATOR_METRICS_PORT", "0"),
            ("ACTIVATOR_DRAIN_MIN", "0s"),
            ("ACTIVATOR_DRAIN_QUIET", "0s"),
        ]
        .iter()
        .chain(overrides)
        {
            vars.insert((*key).to_owned(), (*value).to_owned());
        }
        let bound = activator::build(Config::read(&vars).unwrap())
            .await
            .unwrap();
        let (addresses, directory) = (bound.addresses().clone(), bound.directory());
        let shutdown = CancellationToken::new();
        let run = bound.run(shutdown.clone(), None);
        Self {
            addresses,
            directory,
            shutdown,
            task: tokio::spawn(async move { run.await.unwrap() }),
        }
    }

    /// With one workload, `shop`; its port.
    pub(crate) async fn with(entry: WorkloadEntry) -> (Self, SocketAddr) {
        let activator = Self::start(&[]).await;
        let port = activator.add(entry).await;
        (activator, port)
    }

    /// Adds a workload; its port.
    pub(crate) async fn add(&self, entry: WorkloadEntry) -> SocketAddr {
        let (name, app_port) = (entry.name.clone(), entry.ports[0].app_port);
        self.directory.apply_workload(entry);
        let listening = || self.directory.listening("default", &name, app_port);
        until(|| async { listening().is_some() }).await;
        local(listening().unwrap())
    }

    pub(crate) fn port(&self, name: &str) -> Option<SocketAddr> {
        self.directory.listening("default", name, APP).map(local)
    }

    pub(crate) async fn page(&self, path: &str) -> Raw {
        get(local(self.addresses.admin), path, "").await
    }

    pub(crate) async fn metrics(&self) -> String {
        get(local(self.addresses.metrics), "/metrics", "")
            .await
            .body
    }

    pub(crate) async fn report(&self, query: &str) -> ActivatorReport {
        let path = format!("/report{query}");
        let raw = get(local(self.addresses.report), &path, "").await;
        raw.assert_status(200);
        ActivatorReport::parse(raw.body.as_bytes()).unwrap()
    }

    pub(crate) async fn until_held(&self, count: u64) {
        until(|| async { self.held().await == count }).await;
    }

    pub(crate) async fn held(&self) -> u64 {
        let report = self.report("").await;
        report.workloads.iter().map(|w| w.held.in_flight).sum()
    }

    pub(crate) async fn forwarding(&self) -> u64 {
        let report = self.report("").await;
        report.workloads.iter().map(|w| w.forwarding).sum()
    }

    /// `shop` has this pod from now on.
    pub(crate) fn add_pod(&self, pod: &FakePod) {
        self.directory.apply_pod(pod.entry());
    }

    /// Cancels, and waits for the end.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        soon(self.task).await.unwrap();
    }
}

pub(crate) fn local(address: SocketAddr) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
}

// === impl FakePod ===

impl FakePod {
    /// A pod whose app answers with its own name, the protocol and what it heard.
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at(name, Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at an address of either family.
    pub(crate) async fn start_at(name: &str, ip: IpAddr) -> Self {
        let (listener, app) = listening(ip).await;
        let pod = Self::before(name, app).await;
        let (name, served) = (name.to_owned(), Arc::clone(&pod.served));
        let taken = Arc::clone(&pod.taken);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                taken.fetch_add(1, Ordering::Relaxed);
                let (name, served) = (name.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        served.fetch_add(1, Ordering::Relaxed);
                        answer(name.clone(), request)
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // A caller that breaks off is none of the tests' business.
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        pod
    }

    /// A pod whose traffic port is `app`.
    pub(crate) async fn before(name: &str, app: SocketAddr) -> Self {
        let (listener, admin) = listening(app.ip()).await;
        let ready = Arc::new(AtomicBool::new(true));
        let state = Arc::clone(&ready);
        tokio::spawn(server::serve(
            listener,
            CancellationToken::new(),
            move |_| {
                let status = match state.load(Ordering::Relaxed) {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                async move { server::text(status, "") }
            },
        ));
        Self {
            name: name.to_owned(),
            app,
            admin,
            ready,
            served: Arc::default(),
            taken: Arc::default(),
        }
    }

    pub(crate) fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn entry(&self) -> Pod {
        Pod {
            namespace: "default".to_owned(),
            name: self.name.clone(),
            uid: format!("uid-{}", self.name),
            labels: BTreeMap::from([("app".to_owned(), "shop".to_owned())]),
            ip: Some(self.app.ip()),
            leaving: false,
            ready: false,
            node: Some("node".to_owned()),
            running: true,
            ports: BTreeMap::from([(APP, self.app.port())]),
            admin_port: Some(self.admin.port()),
        }
    }
}

async fn answer(
    pod: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or("-").to_owned()
    };
    let (host, forwarded) = (header("host"), header("x-forwarded-for"));
    let authority = request.uri().authority().map_or(host, ToString::to_string);
    let text = format!("{pod} {:?} {authority} {forwarded} ", request.version());
    let slow = request.uri().path() == "/slow";
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    if slow {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let text = format!("{text}{}", String::from_utf8_lossy(&body));
    Ok(Response::new(Full::new(Bytes::from(text))))
}
