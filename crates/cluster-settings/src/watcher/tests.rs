use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::{client::Body, core::Status};
use lull_contract::HumanDuration;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::*;
use crate::Edit;

/// Longest time that a test waits for what must come.
const CAP: Duration = Duration::from_secs(20);

type FakeBody = UnsyncBoxBody<Bytes, Infallible>;

fn map(version: &str, window: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "lull-settings", "namespace": "lull", "resourceVersion": version },
        "data": { "window": window },
    })
}

/// An API server that lists `first` and then tells the events of `events_rx`.
fn client(first: Value, events_rx: mpsc::Receiver<Value>) -> Client {
    let events_rx = Arc::new(Mutex::new(Some(events_rx)));
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        assert_eq!(request.uri().path(), "/api/v1/namespaces/lull/configmaps");
        assert!(
            query.contains("fieldSelector=metadata.name%3Dlull-settings"),
            "{query}"
        );
        let answer = if query.contains("watch=true") {
            events(events_rx.lock().take())
        } else {
            whole(&json!({
                "apiVersion": "v1",
                "kind": "ConfigMapList",
                "metadata": { "resourceVersion": "1" },
                "items": [first.clone()],
            }))
        };
        async move { Ok::<_, Infallible>(answer) }
    });
    Client::new(service, "lull")
}

fn whole(value: &Value) -> Response<FakeBody> {
    Response::new(Full::from(value.to_string()).boxed_unsync())
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

async fn until(
    settings: &mut Settings,
    condition: impl FnMut(&Arc<Current>) -> bool,
) -> Arc<Current> {
    let found = timeout(CAP, settings.wait_for(condition)).await;
    Arc::clone(&found.expect("it must come").expect("the watcher runs"))
}

fn window(current: &Current) -> HumanDuration {
    current.defaults.effective().settings.window
}

#[tokio::test]
async fn edits_are_told_and_a_wrong_one_and_a_deleted_map_are_counted_and_keep_what_was() {
    let (events_tx, events_rx) = mpsc::channel(4);
    let client = client(map("1", "30s"), events_rx);
    let (readiness, rejected) = (Readiness::default(), Gauge::default());
    let (watcher, mut settings) = Watcher::new(
        &client,
        ("lull", "lull-settings"),
        &readiness,
        rejected.clone(),
    );
    assert_eq!(readiness.missing(), ["settings"]);
    let stop = CancellationToken::new();
    let task = tokio::spawn(watcher.run(stop.clone()));

    let first = until(&mut settings, |now| now.source.is_some()).await;
    assert_eq!(window(&first), HumanDuration::from_secs(30));
    for (kind, object) in [
        ("MODIFIED", map("2", "soon")),
        ("DELETED", map("3", "soon")),
    ] {
        let event = json!({ "type": kind, "object": object });
        events_tx.send(event).await.unwrap();
        if kind == "MODIFIED" {
            let kept = until(&mut settings, |now| now.rejected.is_some()).await;
            assert_eq!(kept.defaults, first.defaults);
            assert_eq!(rejected.get(), 1);
        }
    }
    let is_deleted = |now: &Arc<Current>| {
        let edit = now.rejected.as_ref().map(|rejected| &rejected.edit);
        edit == Some(&Edit::Deleted)
    };
    let kept = until(&mut settings, is_deleted).await;
    assert_eq!(
        (&kept.defaults, &kept.source),
        (&first.defaults, &first.source)
    );
    assert_eq!(rejected.get(), 1);
    stop.cancel();
    timeout(CAP, task).await.expect("it stops").unwrap();
    assert!(readiness.missing().is_empty());
}

#[tokio::test]
async fn a_missing_right_does_not_keep_the_process_unready_and_a_missing_answer_does() {
    let (_events_tx, events_rx) = mpsc::channel(1);
    let readiness = Readiness::default();
    let (mut watcher, settings) = Watcher::new(
        &client(map("1", "30s"), events_rx),
        ("lull", "lull-settings"),
        &readiness,
        Gauge::default(),
    );
    let refused = |code| {
        let status = Status::failure("no", "test").with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    };
    watcher.failed(&refused(503));
    assert_eq!(readiness.missing(), ["settings"]);
    watcher.failed(&refused(403));
    assert!(readiness.missing().is_empty());
    assert_eq!(**settings.borrow(), Current::default());
}
