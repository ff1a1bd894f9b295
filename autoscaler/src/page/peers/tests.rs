use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use clap::Parser as _;
use http::{Request, Response};
use http_body_util::Full;
use kube::{Client, client::Body, runtime::watcher::Event};
use lull_contract::{
    Settings, Shards,
    scaled_workload::{ScaledWorkload, State},
    view::WorkloadView,
};
use lull_process::{
    readiness::Readiness,
    server::{self, Answer},
};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::{
    cache::{Cache, Keys, Writer},
    config::Args,
    context::{Key, Parts},
    crash::Crash,
    lease::Leadership,
    machine::Delays,
    metrics::{Metrics, Numbers},
    page::{Page, serve},
    pull::Puller,
    shards::{Holder, Holders},
    stores::{OnTouched, PODS, Stores, Watched, by_name},
};

/// Replicas, each by the shard that it leads.
const REPLICAS: [&str; 2] = ["a", "b"];
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);
/// What is in flight for the workload of shard 0, and one more for that of shard 1.
const IN_FLIGHT: u64 = 10;

/// A workload of `shard`, of which there are two.
fn name_in(shard: u16) -> String {
    let shards: Shards = "2".parse().unwrap();
    let mut names = (0..).map(|number| format!("shop-{number}"));
    names.find(|name| shards.of("ns", name) == shard).unwrap()
}

fn scaled_workload(name: &str) -> ScaledWorkload {
    let object = json!({
        "apiVersion": "lull.dev/v1alpha1",
        "kind": "ScaledWorkload",
        "metadata": { "name": name, "namespace": "ns" },
        "spec": {
            "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": "u" },
            "podSelector": {},
            "ports": [],
            "settings": Settings::default(),
            "originalReplicas": 3,
        },
        "status": { "state": "Awake", "mode": "Serve" },
    });
    serde_json::from_value(object).unwrap()
}

fn pod(name: &str, ip: Option<&str>) -> Pod {
    let object = json!({
        "metadata": { "name": name, "namespace": "lull-system" },
        "status": { "podIP": ip },
    });
    Pod::own(serde_json::from_value(object).unwrap())
}

fn cache<K>(keys: Keys<K>, objects: impl IntoIterator<Item = K>) -> Cache<K> {
    let mut writer = Writer::new(keys);
    for object in objects {
        writer.take(Event::Apply(object));
    }
    writer.cache()
}

/// The API server, which nothing here waits for.
async fn no_answer(_: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    std::future::pending().await
}

fn args(replica: &str, peers_port: u16) -> Args {
    let port = peers_port.to_string();
    let args = [
        "--mesh",
        "none",
        "--pod-name",
        replica,
        "--page-port",
        &port,
    ];
    Args::try_parse_from(["autoscaler"].into_iter().chain(args)).unwrap()
}

/// What the replica that leads `shard` has: two workloads, one in each shard, both replicas in the
/// leases, and both pods.
fn context(args: &Args, shard: u16) -> Arc<Context> {
    let client = Client::new(tower::service_fn(no_answer), "lull-system");
    let on_touched: OnTouched = Arc::new(|_| {});
    let mesh = args.mesh_options();
    let watched = Watched {
        namespace: &args.namespace,
        activators: &args.activator_selector,
        autoscalers: &args.peers,
        targets: &[],
        namespaces: &args.namespaces,
        mesh: &mesh,
        unread: &Gauge::default(),
    };
    let workloads = [0, 1].map(|shard| scaled_workload(&name_in(shard)));
    let stores = Stores {
        workloads: cache(by_name(|_| None), workloads),
        autoscalers: cache(PODS, REPLICAS.map(|name| pod(name, Some("127.0.0.1")))),
        ..Stores::start(&client, &watched, &Readiness::default(), &on_touched)
    };
    let leadership = Leadership::new(args.shards);
    leadership.lead(shard, LONG);
    leadership.know(holders(args.shards));
    let ctx = Context::new(Parts {
        client,
        stores,
        leadership,
        settings: watch::channel(Arc::default()).1,
        metrics: Metrics::register(&mut Registry::default()),
        delays: Delays::default(),
        activator_ports: args.activator_ports.clone(),
        reporter: args.pod_name.clone(),
        lull: args.components(),
        name_callers: args.name_callers,
        crash: Crash::default(),
    });
    look_at(&ctx, shard);
    Arc::new(ctx)
}

fn holders(shards: Shards) -> Holders {
    let held = shards.all().zip(REPLICAS);
    held.map(|(shard, replica)| Holder {
        shards,
        shard,
        replica: replica.to_owned(),
    })
    .collect()
}

/// As the task of a workload that is led does.
fn look_at(ctx: &Context, shard: u16) {
    let key = Key {
        namespace: "ns".to_owned(),
        name: name_in(shard),
    };
    let mailbox = ctx.mailboxes().open(&key).unwrap();
    let numbers = Numbers {
        state: State::Awake,
        desired: 2,
        ready: 2,
        in_flight: IN_FLIGHT + u64::from(shard),
        held: 0,
        panicking: false,
        heard: true,
    };
    mailbox.journal.lock().observe(ctx.now(), numbers);
}

async fn get<T: DeserializeOwned>(port: u16, path: &str) -> Result<T, PullError> {
    let address = ("127.0.0.1", port);
    let body = Puller::new().get(address, path, (LONG, MAX_LIST)).await?;
    Ok(serde_json::from_slice(&body).unwrap())
}

async fn bind() -> (TcpListener, u16) {
    let listener = server::bind(0).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// The page of the replica that leads shard 0, which finds the other one's at `peers_port`; with its port
/// and what ends it.
async fn page_beside(peers_port: u16) -> (u16, DropGuard) {
    let (listener, port) = bind().await;
    let (stop, args) = (CancellationToken::new(), args("a", peers_port));
    serve(Page::new(&context(&args, 0), &args), listener, &stop);
    (port, stop.drop_guard())
}

/// Names of all workloads, which replica's numbers are shown of them, and whether live.
fn shown(list: &WorkloadList) -> Vec<(&str, u64, bool)> {
    let shown = list.workloads.iter();
    shown
        .map(|view| (view.name.as_str(), view.in_flight, view.is_live))
        .collect()
}

#[tokio::test]
async fn whichever_replica_is_asked_shows_each_workload_as_its_leader_has_it() {
    let ((a, at_a), (b, at_b)) = (bind().await, bind().await);
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    for (shard, listener, peers_port) in [(0_u16, a, at_b), (1, b, at_a)] {
        let replica = REPLICAS[usize::from(shard)];
        let args = args(replica, peers_port);
        let ctx = context(&args, shard);
        ctx.set_silent_activators(vec![format!("silent-for-{replica}")]);
        serve(Page::new(&ctx, &args), listener, &stop);
    }
    let names = [0, 1].map(name_in);
    let both = [0, 1].map(|shard: u8| {
        let name = names[usize::from(shard)].as_str();
        (name, IN_FLIGHT + u64::from(shard), true)
    });
    for (replica, port) in REPLICAS.into_iter().zip([at_a, at_b]) {
        let list: WorkloadList = get(port, "/workloads").await.unwrap();
        assert_eq!(list.replica, replica);
        let mut all = shown(&list);
        all.sort_by_key(|(_, in_flight, _)| *in_flight);
        assert_eq!(all, both, "{replica}");
        assert_eq!(list.silent_activators, ["silent-for-a", "silent-for-b"]);
        for (leader, name) in REPLICAS.into_iter().zip(&names) {
            let path = format!("/workloads/ns/{name}");
            let detail: WorkloadDetail = get(port, &path).await.unwrap();
            assert_eq!(detail.replica, leader, "{replica} of {name}");
            assert!(detail.workload.is_live && detail.line.len() == 1);
        }
    }
}

#[tokio::test]
async fn one_that_is_asked_for_what_it_leads_tells_nothing_else() {
    let (_nobody, nowhere) = bind().await;
    let (port, _stopped) = page_beside(nowhere).await;
    let list: WorkloadList = get(port, "/workloads?led").await.unwrap();
    assert_eq!(shown(&list), [(name_in(0).as_str(), IN_FLIGHT, true)]);
    for (shard, is_told) in [(0, true), (1, false)] {
        let path = format!("/workloads/ns/{}?led", name_in(shard));
        let detail = get::<WorkloadDetail>(port, &path).await;
        let is_as_expected = match &detail {
            Ok(detail) => is_told && detail.workload.is_live,
            Err(PullError::Status(StatusCode::NOT_FOUND)) => !is_told,
            Err(_) => false,
        };
        assert!(is_as_expected, "{shard}: {detail:?}");
    }
}

/// What the other replica would show of the workload of `shard`.
fn told(shard: u16, is_live: bool) -> WorkloadView {
    WorkloadView {
        namespace: "ns".to_owned(),
        name: name_in(shard),
        is_live,
        in_flight: 99,
        ..WorkloadView::default()
    }
}

#[tokio::test]
async fn whatever_another_replica_answers_the_page_is_there_with_what_is_known() {
    let list = |workloads| {
        server::json(&WorkloadList {
            workloads,
            ..WorkloadList::default()
        })
    };
    let detail = |workload| {
        server::json(&WorkloadDetail {
            replica: "b".to_owned(),
            workload,
            ..WorkloadDetail::default()
        })
    };
    let text = |status| server::text(status, "nothing that is known here\n");
    // What is answered to every question, and whether the other's workload is then live in the list,
    // and by itself.
    let rows: [(Answer, bool, bool); 7] = [
        // As a version tells it that knows nothing of the question.
        (list(vec![told(0, false), told(1, true)]), true, false),
        (list(vec![told(1, false)]), false, false),
        (detail(told(1, true)), false, true),
        (detail(told(1, false)), false, false),
        (detail(told(0, true)), false, false),
        (text(StatusCode::OK), false, false),
        (text(StatusCode::SERVICE_UNAVAILABLE), false, false),
    ];
    for (answer, is_listed, is_detailed) in rows {
        let (listener, peers_port) = bind().await;
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        let case = format!("{answer:?}");
        let handler = move |_| {
            let answer = answer.clone();
            async move { answer }
        };
        tokio::spawn(server::serve(listener, stop, handler));
        // Anew for each question: one that has answered amiss rests.
        let (port, _page) = page_beside(peers_port).await;
        let list: WorkloadList = get(port, "/workloads").await.unwrap();
        let is_live = |shard| {
            let mut views = list.workloads.iter();
            views.any(|view| view.name == name_in(shard) && view.is_live)
        };
        assert_eq!((is_live(0), is_live(1)), (true, is_listed), "{case}");
        assert_eq!(list.workloads.len(), 2, "{case}");
        let (port, _page) = page_beside(peers_port).await;
        let path = format!("/workloads/ns/{}", name_in(1));
        let detail: WorkloadDetail = get(port, &path).await.unwrap();
        assert_eq!(detail.workload.is_live, is_detailed, "{case}");
        assert_eq!(detail.replica == "b", is_detailed, "{case}");
    }
}

#[tokio::test]
async fn one_that_never_answers_is_waited_for_once_and_not_for_long() {
    let (_silent, peers_port) = bind().await;
    let args = args("a", peers_port);
    let peers = Peers::new(context(&args, 0), "a", peers_port);
    assert!(peers.led().await.is_empty());
    let resting = peers.rests.lock().has("b", Instant::now());
    assert!(resting);
    let name = name_in(1);
    let detail = futures::FutureExt::now_or_never(peers.detail("ns", &name));
    assert_eq!(detail, Some(None), "it is not even asked");
}

#[tokio::test]
async fn those_who_come_together_are_told_what_was_asked_once() {
    let (listener, peers_port) = bind().await;
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let handler = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { server::json(&WorkloadList::default()) }
    };
    tokio::spawn(server::serve(listener, stop, handler));
    let args = args("a", peers_port);
    let peers = Peers::new(context(&args, 0), "a", peers_port);
    let told = join_all((0..100).map(|_| peers.led())).await;
    assert!(told.iter().all(|lists| lists.len() == 1));
    // Not one: a machine may be slow.
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..10).contains(&asked), "{asked}");
}

#[test]
fn those_are_asked_who_hold_a_shard_and_have_an_address() {
    let pods = [
        pod("a", Some("10.0.0.1")),
        pod("b", Some("10.0.0.2")),
        pod("c", None),
        pod("d", Some("fd00::4")),
    ];
    let pods = pods.map(Arc::new);
    let rows: [(&[&str], &[&str]); 4] = [
        (&[], &[]),
        (&["a"], &[]),
        (&["a", "b", "c", "gone"], &["b"]),
        (&["b", "d"], &["b", "d"]),
    ];
    for (holders, expected) in rows {
        let names = holders.iter().copied().collect();
        let places = places(&names, "a", &pods);
        let asked: Vec<&str> = places.iter().map(|place| place.replica.as_str()).collect();
        assert_eq!(asked, expected, "{holders:?}");
    }
}

#[test]
fn one_that_has_failed_rests_and_is_forgotten_with_time() {
    let (mut rests, begun) = (Rests::default(), Instant::now());
    assert!(!rests.has("b", begun) && rests.failed("b", begun));
    assert!(rests.has("b", begun));
    let again = begun + REST;
    assert!(!rests.has("b", again));
    assert!(!rests.failed("b", again), "it is no news");
    assert!(rests.answered("b") && !rests.answered("b"));
    assert!(rests.failed("b", again));
    rests.failed("c", again + REST + FORGOTTEN);
    assert_eq!(Vec::from_iter(rests.0.keys()), ["c"]);
}
