use axum::{body::Body, http::Request as HttpRequest};
use http_body_util::BodyExt;
use lull_cluster_settings::Current;
use lull_contract::{annotations::Defaults, target_resource::TargetResources};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;

struct Rig {
    router: Router,
    registry: Registry,
    settings_tx: watch::Sender<Arc<Current>>,
}

impl Rig {
    fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let image = Image {
            version: "1.0.0".to_owned(),
            reference: "lull/queue-proxy:1".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
        };
        let targets = TargetResources::default().0;
        let (settings_tx, settings) = watch::channel(Arc::default());
        Self {
            router: router((image, None, false), targets, settings, metrics),
            registry,
            settings_tx,
        }
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, String) {
        let request = HttpRequest::post(PATH)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The `response` part of the answer to a review that is understood.
    async fn review(&self, review: &Value) -> Value {
        let (status, body) = self.post(review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// A review as API servers send it.
fn create() -> Value {
    serde_json::from_str(include_str!("../../testdata/review-create.json")).unwrap()
}

fn patched(review: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes: ByteString = serde_json::from_value(response["patch"].clone()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&bytes.0).unwrap();
    let mut object = review["request"]["object"].clone();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

#[tokio::test]
async fn an_opted_in_deployment_is_injected_and_otherwise_kept() {
    let (rig, review) = (Rig::new(), create());
    let response = rig.review(&review).await;
    assert_eq!(response["allowed"], true);
    let mut object = patched(&review, &response);
    assert!(inject::is_injected(&object));
    object["spec"]["template"] = review["request"]["object"]["spec"]["template"].clone();
    assert_eq!(object, review["request"]["object"]);
    let metrics = rig.metrics();
    assert!(
        metrics.contains(r#"lull_webhook_admissions_total{result="injected"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains("lull_webhook_admission_duration_seconds_count 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn changed_settings_are_in_the_next_injection() {
    let (rig, review) = (Rig::new(), create());
    let data = [("timeout".to_owned(), "20s".to_owned())].into();
    let current = Current {
        defaults: Arc::new(Defaults::parse(&data).unwrap()),
        ..Current::default()
    };
    rig.settings_tx.send_replace(Arc::new(current));
    let object = patched(&review, &rig.review(&review).await);
    let record = &object["spec"]["template"]["metadata"]["annotations"]["lull.dev/injected"];
    assert!(
        record.as_str().unwrap().contains(r#""timeout":"20s""#),
        "{record}"
    );
}

#[tokio::test]
async fn an_update_of_the_stored_object_is_not_patched() {
    let (rig, mut review) = (Rig::new(), create());
    let stored = patched(&review, &rig.review(&review).await);
    review["request"]["operation"] = "UPDATE".into();
    review["request"]["object"] = stored.clone();
    review["request"]["oldObject"] = stored;
    let response = rig.review(&review).await;
    assert_eq!(
        response,
        json!({ "uid": review["request"]["uid"], "allowed": true })
    );
}

#[tokio::test]
async fn kept_replicas_come_with_a_warning() {
    let (rig, mut review) = (Rig::new(), create());
    let mut stored = patched(&review, &rig.review(&review).await);
    stored["spec"]["replicas"] = 0.into();
    review["request"]["operation"] = "UPDATE".into();
    review["request"]["oldObject"] = stored;
    let response = rig.review(&review).await;
    assert_eq!(
        response["warnings"][0],
        "spec.replicas=1 is kept at 0: lull.dev scales this workload; use kubectl scale"
    );
    assert_eq!(patched(&review, &response)["spec"]["replicas"], 0);
}

#[tokio::test]
async fn leaving_is_counted_as_uninjected() {
    let (rig, mut review) = (Rig::new(), create());
    let stored = patched(&review, &rig.review(&review).await);
    review["request"]["operation"] = "UPDATE".into();
    review["request"]["object"] = stored.clone();
    review["request"]["oldObject"] = stored;
    review["request"]["object"]["metadata"]["annotations"]["lull.dev/leave"] = "uninject".into();
    let object = patched(&review, &rig.review(&review).await);
    assert_eq!(object["spec"], create()["request"]["object"]["spec"]);
    assert!(rig.metrics().contains(r#"{result="uninjected"} 1"#));
}

#[tokio::test]
async fn every_kind_that_is_configured_is_injected() {
    let (rig, mut review) = (Rig::new(), create());
    review["request"]["resource"]["resource"] = "statefulsets".into();
    assert!(rig.review(&review).await["patch"].is_string());
}

#[tokio::test]
async fn a_service_that_is_applied_again_is_kept() {
    let rig = Rig::new();
    let note = r#"{"ports":[{"port":80,"targetPort":8080}],"selector":{"app":"echo"}}"#;
    let service = |target: Value, annotations: Value| {
        json!({
            "metadata": { "name": "echo", "annotations": annotations },
            "spec": {
                "selector": { "app": "echo" },
                "ports": [{ "port": 80, "targetPort": target }],
            },
        })
    };
    let old = service(json!("lull-8080"), json!({ "lull.dev/original": note }));
    let mut review = create();
    review["request"]["operation"] = "UPDATE".into();
    review["request"]["resource"] = json!({ "group": "", "version": "v1", "resource": "services" });
    review["request"]["oldObject"] = old.clone();
    review["request"]["object"] = service(json!(8080), json!({}));
    assert_eq!(patched(&review, &rig.review(&review).await), old);
    assert!(rig.metrics().contains(r#"{result="kept"} 1"#));
    // A new one has nothing that could be kept.
    review["request"]["operation"] = "CREATE".into();
    assert_eq!(rig.review(&review).await.get("patch"), None);
}

#[tokio::test]
async fn a_wrong_annotation_is_refused() {
    let (rig, mut review) = (Rig::new(), create());
    review["request"]["object"]["metadata"]["annotations"]["lull.dev/window"] = "5s".into();
    let response = rig.review(&review).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response.get("patch"), None);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("deployment echo: annotation lull.dev/window=\"5s\""),
        "{message}"
    );
    assert!(rig.metrics().contains(r#"{result="refused"} 1"#));
}

#[tokio::test]
async fn what_does_not_concern_us_is_allowed() {
    let rig = Rig::new();
    for (pointer, value) in [
        ("/request/operation", "DELETE"),
        ("/request/resource/resource", "daemonsets"),
        ("/request/resource/group", "example.com"),
        ("/request/subResource", "scale"),
    ] {
        let mut review = create();
        *review.pointer_mut(pointer).unwrap() = value.into();
        let response = rig.review(&review).await;
        assert_eq!(
            response,
            json!({ "uid": review["request"]["uid"], "allowed": true })
        );
    }
}

#[tokio::test]
async fn malformed_bodies_are_answered_with_400() {
    let rig = Rig::new();
    let mut old_version = create();
    old_version["apiVersion"] = "admission.k8s.io/v1beta1".into();
    let mut no_object = create();
    no_object["request"]["object"] = Value::Null;
    let mut no_uid = create();
    no_uid["request"]["uid"] = 7.into();
    for body in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "{\"apiVersion\":\"admission.k8s.io/v1\"}".to_owned(),
        "{\"apiVersion\":\"admission.k8s.io/v1\",\"request\":null}".to_owned(),
        "[".repeat(100_000),
        old_version.to_string(),
        no_object.to_string(),
        no_uid.to_string(),
    ] {
        let (status, text) = rig.post(body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    }
    let (status, _) = rig.post(vec![0xff, 0xfe]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        rig.metrics().contains(r#"{result="error"} 11"#),
        "{}",
        rig.metrics()
    );
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_not_read() {
    let (status, _) = Rig::new().post(vec![b' '; MAX_BODY + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn odd_objects_are_allowed() {
    let rig = Rig::new();
    for odd in [
        json!(7),
        json!("x"),
        json!([]),
        json!({}),
        json!({ "metadata": 1 }),
    ] {
        let mut review = create();
        review["request"]["object"] = odd;
        assert_eq!(rig.review(&review).await["allowed"], true);
    }
}
