//! The admission protocol: an AdmissionReview in, one out.
//!
//! ```text
//! body -> request (uid, object, oldObject) -> inject::mutate or services::keep
//!      -> JSON patch or refusal -> body
//! ```

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use k8s_openapi::ByteString;
use lull_cluster_settings::Settings;
use lull_contract::target_resource::TargetResource;
use lull_process::otlp::Endpoint;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    inject::{self, Image, InjectConfig, Refusal},
    metrics::{Metrics, Outcome},
    services,
};

/// Where the API server posts reviews.
pub const PATH: &str = "/mutate";

/// Kubernetes takes requests of up to 3 MiB; a review holds the old and the new object.
const MAX_BODY: usize = 8 << 20;

/// A body that is no AdmissionReview that we can answer.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Not JSON, or not of the right shape.
    #[error("the body is not an admission.k8s.io/v1 AdmissionReview: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Another version of the protocol.
    #[error("apiVersion {0:?} is not admission.k8s.io/v1")]
    Version(String),
    /// Nothing to decide about.
    #[error("the AdmissionReview has no request.object")]
    NoObject,
    /// The answer can't be written as JSON.
    #[error("the patch can't be written: {0}")]
    Patch(#[source] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    operation: String,
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Default, Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resource: String,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// An object whose template is injected.
    Workload,
    /// A Service that may be switched.
    Service,
}

#[derive(Debug)]
struct Server {
    image: Image,
    otlp_endpoint: Option<Endpoint>,
    classic_proxies: bool,
    targets: Vec<TargetResource>,
    settings: Settings,
    metrics: Metrics,
}

/// The admission server's routes: templates of the kinds `targets` get `image`, whose spans go to the
/// collector, beside an ordinary istio-proxy where `classic_proxies` says so, and workloads what
/// `settings` has at that moment where they don't say it themselves.
pub fn router(
    (image, otlp_endpoint, classic_proxies): (Image, Option<Endpoint>, bool),
    targets: Vec<TargetResource>,
    settings: Settings,
    metrics: Metrics,
) -> Router {
    Router::new()
        .route(PATH, post(handle))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(Server {
            image,
            otlp_endpoint,
            classic_proxies,
            targets,
            settings,
            metrics,
        }))
}

async fn handle(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    let started = Instant::now();
    let config = InjectConfig {
        image: server.image.clone(),
        defaults: Arc::clone(&server.settings.borrow().defaults),
        otlp_endpoint: server.otlp_endpoint.clone(),
        classic_proxies: server.classic_proxies,
    };
    let (outcome, response) = match review(&body, &config, &server.targets) {
        Ok((outcome, answer)) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            (outcome, (json, answer.to_string()).into_response())
        }
        Err(error) => {
            tracing::warn!(%error, "admission request is not understood");
            let status = match error {
                ReviewError::Patch(_) => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            (Outcome::Error, (status, error.to_string()).into_response())
        }
    };
    server.metrics.admitted(outcome, started.elapsed());
    response
}

/// Answers one AdmissionReview.
///
/// # Errors
/// The body is no review, or has no object.
pub fn review(
    body: &[u8],
    config: &InjectConfig,
    targets: &[TargetResource],
) -> Result<(Outcome, Value), ReviewError> {
    let review: Review = serde_json::from_slice(body).map_err(ReviewError::Malformed)?;
    if review.api_version != "admission.k8s.io/v1" {
        return Err(ReviewError::Version(review.api_version));
    }
    let request = review.request;
    let Some(subject) = subject(&request, targets) else {
        return Ok((Outcome::Unchanged, allowed(&request.uid, None, &[])));
    };
    if request.object.is_null() {
        return Err(ReviewError::NoObject);
    }
    let old = Some(&request.old_object).filter(|old| !old.is_null());
    let decided = match subject {
        Subject::Workload => inject::mutate(old, &request.object, config),
        Subject::Service => Ok(services::keep(&request.old_object, &request.object)),
    };
    match decided {
        Ok(mutation) => {
            let patch = json_patch::diff(&request.object, &mutation.object);
            let outcome = outcome(subject, &patch, &mutation.object);
            let patch = if patch.0.is_empty() {
                None
            } else {
                Some(serde_json::to_vec(&patch).map_err(ReviewError::Patch)?)
            };
            log(&request, outcome);
            Ok((outcome, allowed(&request.uid, patch, &mutation.warnings)))
        }
        Err(refusal) => {
            log(&request, Outcome::Refused);
            Ok((Outcome::Refused, refused(&request.uid, &refusal)))
        }
    }
}

/// A webhook configuration that sends more than it should must not break anything.
fn subject(request: &Request, targets: &[TargetResource]) -> Option<Subject> {
    let Resource { group, resource } = &request.resource;
    let is_target = |target: &TargetResource| target.group == *group && target.plural == *resource;
    if !request.sub_resource.is_empty() {
        return None;
    }
    match request.operation.as_str() {
        "CREATE" | "UPDATE" if targets.iter().any(is_target) => Some(Subject::Workload),
        "UPDATE" if group.is_empty() && resource == "services" => Some(Subject::Service),
        _ => None,
    }
}

fn outcome(subject: Subject, patch: &json_patch::Patch, object: &Value) -> Outcome {
    match subject {
        _ if patch.0.is_empty() => Outcome::Unchanged,
        Subject::Service => Outcome::Kept,
        Subject::Workload if inject::is_injected(object) => Outcome::Injected,
        Subject::Workload => Outcome::Uninjected,
    }
}

fn log(request: &Request, outcome: Outcome) {
    if outcome != Outcome::Unchanged {
        tracing::info!(
            namespace = request.namespace,
            resource = request.resource.resource,
            name = request.name,
            operation = request.operation,
            ?outcome,
            "admission"
        );
    }
}

fn allowed(uid: &str, patch: Option<Vec<u8>>, warnings: &[String]) -> Value {
    let mut response = json!({ "uid": uid, "allowed": true });
    if let Some(patch) = patch {
        response["patchType"] = "JSONPatch".into();
        // A ByteString is base64 in JSON, as the protocol wants it.
        response["patch"] = json!(ByteString(patch));
    }
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    answer(&response)
}

fn refused(uid: &str, refusal: &Refusal) -> Value {
    answer(&json!({
        "uid": uid,
        "allowed": false,
        "status": { "code": 400, "reason": "BadRequest", "message": refusal.to_string() },
    }))
}

fn answer(response: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": response,
    })
}

#[cfg(test)]
mod tests;
