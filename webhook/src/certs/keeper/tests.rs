use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::*;

const SECRETS: &str = "/api/v1/namespaces/lull/secrets";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
/// Longest time that a test waits for what must come.
const CAP: Duration = Duration::from_secs(20);

type FakeBody = UnsyncBoxBody<Bytes, Infallible>;

/// The API server, as far as the keeper sees it.
#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<State>>,
    /// Number of patches of the configuration.
    patched_tx: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    version: u64,
    secret: Option<Value>,
    /// What another replica writes right before our next write.
    rival: Option<Value>,
    configuration: Option<Value>,
    events_rx: Option<mpsc::Receiver<Value>>,
}

impl Fake {
    fn new() -> Self {
        Self {
            state: Arc::default(),
            patched_tx: watch::Sender::new(0),
        }
    }

    fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let path = parts.uri.path().to_owned();
                let watching = parts.uri.query().is_some_and(|q| q.contains("watch=true"));
                Ok::<_, Infallible>(fake.answer(&parts.method, &path, watching, &body))
            }
        });
        Client::new(service, "lull")
    }

    fn answer(
        &self,
        method: &Method,
        path: &str,
        watching: bool,
        body: &Value,
    ) -> Response<FakeBody> {
        let mut state = self.state.lock();
        if path.starts_with(SECRETS) {
            return state.secret(method, body);
        }
        assert!(path.starts_with(CONFIGURATIONS), "{method} {path}");
        if method == Method::PATCH {
            let Some(configuration) = state.configuration.as_mut() else {
                return status(StatusCode::NOT_FOUND);
            };
            let patch: json_patch::Patch = serde_json::from_value(body.clone()).unwrap();
            json_patch::patch(configuration, &patch).unwrap();
            let answer = whole(configuration);
            self.patched_tx.send_modify(|n| *n += 1);
            return answer;
        }
        if watching {
            return events(state.events_rx.take());
        }
        whole(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfigurationList",
            "metadata": { "resourceVersion": "1" },
            "items": state.configuration.iter().collect::<Vec<_>>(),
        }))
    }

    fn keeper(&self) -> (Keeper, Readiness, Arc<Resolver>) {
        let (readiness, resolver) = (Readiness::default(), Arc::new(Resolver::default()));
        let names = Names {
            namespace: "lull".to_owned(),
            service: "lull-webhook".to_owned(),
            secret: "lull-webhook-ca".to_owned(),
            configuration: "lull-webhook".to_owned(),
        };
        let served = (Arc::clone(&resolver), Gauge::default());
        let keeper = Keeper::new(&self.client(), names, served, &readiness);
        (keeper, readiness, resolver)
    }

    /// The bundle in the Secret.
    fn stored(&self) -> String {
        let secret = self.state.lock().secret.clone().expect("there is a secret");
        text(&secret["data"]["ca.crt"])
    }

    /// The bundles of the configuration's webhooks.
    fn bundles(&self) -> Vec<String> {
        let configuration = self.state.lock().configuration.clone().unwrap();
        let webhooks = configuration["webhooks"].as_array().unwrap();
        webhooks
            .iter()
            .map(|w| text(&w["clientConfig"]["caBundle"]))
            .collect()
    }

    async fn patched(&self, times: usize) {
        let mut patched_rx = self.patched_tx.subscribe();
        let wait = patched_rx.wait_for(|n| *n >= times);
        timeout(CAP, wait).await.expect("a patch").unwrap();
    }
}

impl State {
    fn secret(&mut self, method: &Method, body: &Value) -> Response<FakeBody> {
        if method != Method::GET
            && let Some(rival) = self.rival.take()
        {
            self.put(rival);
            return status(StatusCode::CONFLICT);
        }
        match (method, self.secret.clone()) {
            (&Method::GET, Some(secret)) => whole(&secret),
            (&Method::GET, None) => status(StatusCode::NOT_FOUND),
            (&Method::POST, None) => {
                self.put(body.clone());
                whole(body)
            }
            (&Method::PATCH, Some(mut secret)) => {
                let seen = &body["metadata"]["resourceVersion"];
                assert_eq!(
                    *seen, secret["metadata"]["resourceVersion"],
                    "no blind write"
                );
                json_patch::merge(&mut secret, body);
                self.put(secret.clone());
                whole(&secret)
            }
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, mut secret: Value) {
        self.version += 1;
        secret["metadata"]["name"] = "lull-webhook-ca".into();
        secret["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.secret = Some(secret);
    }
}

fn whole(value: &Value) -> Response<FakeBody> {
    Response::new(Full::from(value.to_string()).boxed_unsync())
}

fn status(code: StatusCode) -> Response<FakeBody> {
    let mut response = whole(&json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code.as_u16(), "message": "test",
        "reason": if code == StatusCode::CONFLICT { "Conflict" } else { "NotFound" },
    }));
    *response.status_mut() = code;
    response
}

/// A watch: the events of the channel, then silence.
fn events(events_rx: Option<mpsc::Receiver<Value>>) -> Response<FakeBody> {
    let frames = stream::unfold(events_rx, |rx| async move {
        let Some(mut rx) = rx else {
            return futures::future::pending().await;
        };
        let event = rx.recv().await?;
        Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), Some(rx)))
    });
    Response::new(UnsyncBoxBody::new(StreamBody::new(frames)))
}

fn text(base64: &Value) -> String {
    let bytes: ByteString = serde_json::from_value(base64.clone()).unwrap_or_default();
    String::from_utf8(bytes.0).unwrap()
}

fn configuration(names: &[&str]) -> Value {
    let webhooks: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({
                "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": { "service": { "namespace": "lull", "name": "lull-webhook" } },
            })
        })
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": "lull-webhook", "resourceVersion": "1" },
        "webhooks": webhooks,
    })
}

fn secret_of(authority: &Authority) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {},
        "data": serde_json::Map::from_iter(
            contents(authority).map(|(key, value)| (key.to_owned(), json!(value))),
        ),
    })
}

fn authority() -> Authority {
    Authority::generate(Timestamp::now(), "").unwrap()
}

#[tokio::test]
async fn an_absent_secret_is_made_and_kept() {
    let fake = Fake::new();
    let (mut keeper, readiness, _) = fake.keeper();
    assert_eq!(readiness.missing(), ["ca-bundle", "certificate"]);
    keeper.refresh().await.unwrap();
    assert_eq!(readiness.missing(), ["ca-bundle"]);
    let first = fake.stored();
    keeper.refresh().await.unwrap();
    let (mut second, _, _) = fake.keeper();
    second.refresh().await.unwrap();
    assert_eq!(fake.stored(), first);
    assert_eq!(second.authority.unwrap().bundle(), first);
}

#[tokio::test]
async fn the_end_of_the_served_certificate_is_told() {
    let fake = Fake::new();
    let (mut keeper, _, _) = fake.keeper();
    assert_eq!(keeper.end.get(), 0, "none is served yet");
    let before = Timestamp::now().as_second();
    keeper.refresh().await.unwrap();
    let life = keeper.end.get() - before;
    let month = 30 * 24 * 3600;
    assert!((month..month + 60).contains(&life), "{life} s");
}

#[tokio::test]
async fn the_replica_that_comes_second_takes_the_firsts_authority() {
    let rival = authority();
    for existing in [
        None,
        Some(json!({ "metadata": {}, "data": { "ca.crt": "eA==" } })),
    ] {
        let fake = Fake::new();
        if let Some(existing) = existing {
            fake.state.lock().put(existing);
        }
        fake.state.lock().rival = Some(secret_of(&rival));
        let (mut keeper, _, _) = fake.keeper();
        keeper.refresh().await.unwrap();
        assert_eq!(keeper.authority.unwrap().bundle(), rival.bundle());
        assert_eq!(fake.stored(), rival.bundle());
    }
}

#[tokio::test]
async fn unusable_contents_are_replaced_by_what_callers_trust_already() {
    let fake = Fake::new();
    let (mut keeper, _, _) = fake.keeper();
    keeper.refresh().await.unwrap();
    let trusted = fake.stored();
    for broken in [
        json!({ "metadata": {} }),
        json!({ "metadata": {}, "data": { "ca.crt": "eA==", "ca.key": "/w==" } }),
    ] {
        fake.state.lock().put(broken);
        keeper.refresh().await.unwrap();
        assert_eq!(fake.stored(), trusted);
    }
    fake.state.lock().secret = None;
    keeper.refresh().await.unwrap();
    assert_eq!(fake.stored(), trusted);
}

#[tokio::test]
async fn an_authority_near_its_end_is_renewed_and_the_leaf_stays() {
    let fake = Fake::new();
    // So old that 60 days of it are left.
    let hours = 24 * (3652 - 60);
    let made = Timestamp::now() - jiff::SignedDuration::from_hours(hours);
    let old = Authority::generate(made, "").unwrap();
    fake.state.lock().put(secret_of(&old));
    let (mut keeper, _, _) = fake.keeper();
    let names = service_names("lull-webhook", "lull");
    keeper.leaf = Some(old.mint(&names, Timestamp::now()).unwrap());
    let served = Arc::clone(&keeper.leaf.as_ref().unwrap().certified);
    keeper.refresh().await.unwrap();
    let bundle = fake.stored();
    assert!(bundle.contains(old.bundle().trim_end()));
    assert_ne!(bundle, old.bundle());
    assert!(Arc::ptr_eq(&served, &keeper.leaf.unwrap().certified));
}

#[tokio::test]
async fn every_bundle_is_set_and_later_ones_are_set_again() {
    let fake = Fake::new();
    let (events_tx, events_rx) = mpsc::channel(4);
    {
        let mut state = fake.state.lock();
        state.configuration = Some(configuration(&["a.lull.dev", "b.lull.dev"]));
        state.events_rx = Some(events_rx);
    }
    let (keeper, readiness, _) = fake.keeper();
    let stop = CancellationToken::new();
    let task = tokio::spawn(keeper.run(stop.clone()));
    fake.patched(1).await;
    assert_eq!(fake.bundles(), [fake.stored(), fake.stored()]);

    // Deleted and made again, with one webhook.
    let again = configuration(&["c.lull.dev"]);
    fake.state.lock().configuration = Some(again.clone());
    for kind in ["DELETED", "ADDED"] {
        let event = json!({ "type": kind, "object": again });
        events_tx.send(event).await.unwrap();
    }
    fake.patched(2).await;
    assert_eq!(fake.bundles(), [fake.stored()]);
    stop.cancel();
    timeout(CAP, task).await.expect("it stops").unwrap();
    assert!(readiness.missing().is_empty());
}

#[tokio::test]
async fn a_right_bundle_is_not_written() {
    let fake = Fake::new();
    let (mut keeper, readiness, _) = fake.keeper();
    keeper.refresh().await.unwrap();
    let mut right = configuration(&["a.lull.dev"]);
    let bundle = ByteString(fake.stored().into());
    right["webhooks"][0]["clientConfig"]["caBundle"] = json!(bundle);
    keeper.configuration = Some(serde_json::from_value(right).unwrap());
    keeper.spread().await.unwrap();
    assert_eq!(*fake.patched_tx.borrow(), 0);
    assert!(readiness.missing().is_empty());
}

#[tokio::test]
async fn a_replica_with_a_stale_authority_does_not_fight() {
    let fake = Fake::new();
    let (mut keeper, _, resolver) = fake.keeper();
    keeper.refresh().await.unwrap();
    let before = resolver.current();
    let newer = authority();
    fake.state.lock().put(secret_of(&newer));
    let mut set = configuration(&["a.lull.dev"]);
    set["webhooks"][0]["clientConfig"]["caBundle"] = json!(ByteString(newer.bundle().into()));
    keeper.configuration = Some(serde_json::from_value(set).unwrap());
    keeper.spread().await.unwrap();
    assert_eq!(*fake.patched_tx.borrow(), 0);
    assert!(
        !Arc::ptr_eq(&before, &resolver.current()),
        "the leaf is of the new authority"
    );
}

#[tokio::test]
async fn without_a_configuration_it_is_not_ready() {
    let fake = Fake::new();
    let (mut keeper, readiness, _) = fake.keeper();
    keeper.check().await.unwrap();
    assert_eq!(readiness.missing(), ["ca-bundle"]);
}
