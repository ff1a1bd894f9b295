use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use activator::{Directory, Pod, WorkloadEntry};
use lull_contract::{AppProtocol, Settings, scaled_workload::WorkloadPort};
use lull_traces::collector::{Collector, Sent, Span};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// The app's port, as the workload says it.
const APP: u16 = 8080;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// `request`, `held`, `wake` and its six phases at the activator; `request` and `queued` behind it.
const SPANS: usize = 11;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// An app on loopback that answers each request with the `traceparent` that it saw; its port.
async fn app() -> u16 {
    let listener = TcpListener::bind(local(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        // The queue-proxy's probe connects, too, and says nothing.
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    port
}

async fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let mut lines = head.lines();
    let seen = lines.find_map(|line| line.strip_prefix("traceparent: "));
    let seen = seen.unwrap_or_default();
    let length = seen.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{seen}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// A queue-proxy before the app; its ports for traffic and probes.
async fn queue_proxy(app: u16, collector: &str) -> (u16, u16) {
    let socket = format!("lull-one-trace-{}-{app}", std::process::id());
    let vars = env(&[
        ("QP_PORTS", &format!("0={app}/http")),
        ("QP_POD_IP", "127.0.0.1"),
        ("QP_POD_NAME", "shop-1"),
        ("QP_POD_NAMESPACE", "default"),
        ("QP_ADMIN_PORT", "0"),
        ("QP_REPORT_PORT", "0"),
        ("QP_METRICS_PORT", "0"),
        ("QP_DRAIN_SOCKET", &socket),
        ("QP_CONTAINER_CONCURRENCY", "1"),
        ("QP_OTLP_ENDPOINT", collector),
    ]);
    let config = queue_proxy::Config::read(&vars).unwrap();
    let bound = queue_proxy::build(config).await.unwrap();
    let addresses = bound.addresses().clone();
    tokio::spawn(async move { bound.run(CancellationToken::new()).await });
    (addresses.traffic[0].port(), addresses.admin.port())
}

/// An activator that listens for `shop`, which has no pod; where, and where its admin pages are.
async fn activator(collector: &str) -> (Directory, SocketAddr, SocketAddr) {
    let vars = env(&[
        ("ACTIVATOR_POD_NAME", "activator-1"),
        ("ACTIVATOR_POD_IP", "127.0.0.1"),
        ("ACTIVATOR_ADMIN_PORT", "0"),
        ("ACTIVATOR_REPORT_PORT", "0"),
        ("ACTIVATOR_METRICS_PORT", "0"),
        ("ACTIVATOR_OTLP_ENDPOINT", collector),
    ]);
    let config = activator::Config::read(&vars).unwrap();
    let bound = activator::build(config).await.unwrap();
    let directory = bound.directory();
    let admin = local(bound.addresses().admin.port());
    tokio::spawn(async move { bound.run(CancellationToken::new(), None).await });
    directory.apply_workload(WorkloadEntry {
        namespace: "default".to_owned(),
        name: "shop".to_owned(),
        uid: "uid-shop".to_owned(),
        plain: Vec::new(),
        selector: BTreeMap::from([("app".to_owned(), "shop".to_owned())]),
        ports: vec![WorkloadPort {
            app_port: APP,
            protocol: AppProtocol::Http,
            activator_port: 0,
        }],
        settings: Settings::default(),
        services: vec!["shop".to_owned()],
        serve: false,
    });
    let listening = async || directory.listening("default", "shop", APP);
    let address = until("it listens", listening).await;
    (directory, local(address.port()), admin)
}

/// What `look` finds, as soon as it does.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, found).await.expect(what)
}

/// `Some` where the activator with the admin pages `admin` holds a request.
async fn held(admin: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let head = b"GET /workloads HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page.contains(r#""held":1"#).then_some(())
}

fn pod((traffic, admin): (u16, u16)) -> Pod {
    Pod {
        namespace: "default".to_owned(),
        name: "shop-1".to_owned(),
        uid: "uid-shop-1".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "shop".to_owned())]),
        ip: Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
        leaving: false,
        ready: false,
        node: Some("node".to_owned()),
        running: true,
        ports: BTreeMap::from([(APP, traffic)]),
        admin_port: Some(admin),
    }
}

fn span<'a>(spans: &'a [Sent], (service, name): (&str, &str)) -> &'a Span {
    let mut all = spans.iter();
    let found = all.find(|(of, span)| of == service && span.name == name);
    let (_, span) = found.unwrap_or_else(|| panic!("no {service} {name} in {spans:?}"));
    span
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_held_request_is_one_trace_from_its_caller_to_the_app() {
    let mut collector = Collector::start().await.unwrap();
    let sidecar = queue_proxy(app().await, &collector.endpoint).await;
    let (directory, port, admin) = activator(&collector.endpoint).await;

    let mut caller = TcpStream::connect(port).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\
         traceparent: 00-{TRACE}-{CALLER}-01\r\n\r\n"
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    until("the request is held", async || held(admin).await).await;
    directory.apply_pod(pod(sidecar));
    let mut answer = String::new();
    let read = timeout(PATIENCE, caller.read_to_string(&mut answer)).await;
    read.expect("an answer").unwrap();

    let spans = collector.spans(SPANS).await;
    for (_, span) in spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
    }
    let (activator, queue_proxy) = ("lull-activator", "lull-queue-proxy");
    let first = span(spans, (activator, "request"));
    let second = span(spans, (queue_proxy, "request"));
    assert_eq!(hex(&first.parent_span_id), CALLER);
    for (part, whole) in [
        (span(spans, (activator, "held")), first),
        (span(spans, (activator, "wake")), first),
        (second, first),
        (span(spans, (queue_proxy, "queued")), second),
    ] {
        assert_eq!(part.parent_span_id, whole.span_id, "{part:?}");
    }
    assert!(second.start_time_unix_nano >= first.start_time_unix_nano);
    let below = format!("00-{TRACE}-{}-01", hex(&second.span_id));
    assert!(answer.ends_with(&below), "the app got another: {answer}");
}
