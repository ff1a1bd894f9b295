//! `helm test`: a workload of its own goes through sleep and wake, then it is taken away again.
//!
//! ```text
//! Deployment and Service -> ScaledWorkload -> Asleep -> GET by the Service's address -> 200 -> nothing left
//! ```

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use http::StatusCode;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use lull_contract::scaled_workload::{ScaledWorkload, State};
use lull_process::{server, shutdown};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    config::{API_TIMEOUT, CanaryArgs},
    pull::Puller,
    uninstall::ignore_not_found,
};

/// Name of the Deployment, its Service and so of its ScaledWorkload; the chart's Role names it too.
const NAME: &str = "lull-canary";
/// What the canary answers.
const BODY: &str = "awake\n";
/// Most bytes of an answer that are read.
const MAX_BODY: usize = 1024;
/// The Service's port.
const PORT: u16 = 80;
/// The pod's port.
const APP_PORT: u16 = 8080;
/// Between two looks at the workload.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait until the canary has gone: its Service is given back before.
const GONE_WITHIN: Duration = Duration::from_secs(60);

struct Canary {
    deployments: Api<Deployment>,
    services: Api<Service>,
    workloads: Api<ScaledWorkload>,
    /// Longest wait for sleep, and again for the answer.
    patience: Duration,
}

/// Sends a canary through sleep and wake, says how long the wake took, and takes it away whatever
/// came of it.
///
/// # Errors
/// What did not come about in time, with what is known about it, or what the API server refused.
pub async fn run(args: &CanaryArgs, lull_namespace: &str) -> anyhow::Result<()> {
    ensure!(
        args.into != lull_namespace,
        "the webhook leaves Lull's own namespace {lull_namespace} alone: set test.namespace to another one"
    );
    let client = lull_kubernetes::connect()
        .await
        .context("no access to a Kubernetes API server")?;
    let canary = Canary::new(&client, args);
    canary
        .remove()
        .await
        .context("removing an earlier canary")?;
    let outcome = canary.sleep_and_wake(args).await;
    let removed = canary.remove().await;
    outcome?;
    removed.context("removing the canary")
}

/// The canary's own process: 200 to every request, until it is told to stop.
///
/// # Errors
/// Where the port is taken or signals can't be had.
pub async fn serve(port: u16) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let listener = server::bind(port)
        .await
        .with_context(|| format!("listening on port {port}"))?;
    server::serve(listener, stop, |_| async {
        server::text(StatusCode::OK, BODY)
    })
    .await;
    Ok(())
}

// === impl Canary ===

impl Canary {
    fn new(client: &Client, args: &CanaryArgs) -> Self {
        Self {
            deployments: Api::namespaced(client.clone(), &args.into),
            services: Api::namespaced(client.clone(), &args.into),
            workloads: Api::namespaced(client.clone(), &args.into),
            patience: args.timeout.0,
        }
    }

    async fn sleep_and_wake(&self, args: &CanaryArgs) -> anyhow::Result<()> {
        let params = PostParams::default();
        let deployment: Deployment = serde_json::from_value(deployment(args))?;
        let service: Service = serde_json::from_value(service())?;
        let create = self.services.create(&params, &service);
        let service = call("creating the Service", create).await?;
        let create = self.deployments.create(&params, &deployment);
        call("creating the Deployment", create).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip);
        let address = address.context("the Service has no ClusterIP")?;

        let began = Instant::now();
        self.until_asleep().await?;
        let slept_after = began.elapsed();
        tracing::info!("asleep {} s after it was made", slept_after.as_secs());

        let began = Instant::now();
        let limits = (self.patience, MAX_BODY);
        let answer = Puller::new().get((&address, PORT), "/", limits).await;
        let answer = answer.context("the request that was to wake it")?;
        let millis = began.elapsed().as_millis();
        ensure!(answer == BODY, "somebody else has answered: {answer:?}");
        tracing::info!("woken and answered 200 after {millis} ms");
        Ok(())
    }

    async fn until_asleep(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut told = String::new();
        loop {
            let get = self.workloads.get_opt(NAME);
            let workload = call("reading the ScaledWorkload", get).await?;
            if state(workload.as_ref()) == Some(State::Asleep) {
                return Ok(());
            }
            let now = describe(workload.as_ref());
            if told != now {
                tracing::info!("not asleep yet: {now}");
                told = now;
            }
            if began.elapsed() > self.patience {
                bail!(
                    "not asleep after {} s: {told}; Events of Deployment {NAME} may say why",
                    self.patience.as_secs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The Service last: while it leaves, Lull gives it back.
    async fn remove(&self) -> anyhow::Result<()> {
        delete("deleting the Deployment", &self.deployments).await?;
        let began = Instant::now();
        loop {
            let deployment = call("reading the Deployment", self.deployments.get_opt(NAME)).await?;
            let get = self.workloads.get_opt(NAME);
            let workload = call("reading the ScaledWorkload", get).await?;
            if deployment.is_none() && workload.is_none() {
                break;
            }
            if began.elapsed() > GONE_WITHIN {
                bail!(
                    "still there after {} s: {}",
                    GONE_WITHIN.as_secs(),
                    if deployment.is_some() {
                        "the Deployment"
                    } else {
                        "the ScaledWorkload, which the autoscaler lets go"
                    }
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        delete("deleting the Service", &self.services).await
    }
}

fn state(workload: Option<&ScaledWorkload>) -> Option<State> {
    let status = workload?.status.as_ref()?;
    Some(status.state)
}

/// What is known about a workload that doesn't sleep.
fn describe(workload: Option<&ScaledWorkload>) -> String {
    match workload {
        None => "there is no ScaledWorkload, which the autoscaler makes".to_owned(),
        Some(workload) => match &workload.status {
            None => "the ScaledWorkload has no status".to_owned(),
            Some(status) => format!("it is {}: {}", status.state, status.reason),
        },
    }
}

async fn call<T>(what: &str, call: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    let answer = timeout(API_TIMEOUT, call).await;
    let answer = answer.with_context(|| format!("{what}: no answer within {API_TIMEOUT:?}"))?;
    answer.with_context(|| what.to_owned())
}

async fn delete<K>(what: &str, api: &Api<K>) -> anyhow::Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = DeleteParams::background();
    let delete = async { ignore_not_found(api.delete(NAME, &params).await.map(drop)) };
    call(what, delete).await
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": NAME })
}

/// The canary itself: this image, out of the mesh, so that it works whatever the mesh asks for.
///
/// What would keep it from sleeping is set, whatever the cluster's defaults are.
fn deployment(args: &CanaryArgs) -> Value {
    let mut pod_labels = labels();
    pod_labels["sidecar.istio.io/inject"] = json!("false");
    json!({
        "metadata": {
            "name": NAME,
            "labels": labels(),
            "annotations": {
                "lull.dev/scale": "true",
                "lull.dev/class": "kpa",
                "lull.dev/min-scale": "0",
                "lull.dev/window": "6s",
                "lull.dev/scale-down-delay": "0s",
                "lull.dev/scale-to-zero-pod-retention-period": "0s",
            },
        },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels() },
            "template": {
                "metadata": { "labels": pod_labels },
                "spec": pod(args),
            },
        },
    })
}

fn pod(args: &CanaryArgs) -> Value {
    json!({
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "canary",
            "image": args.image,
            "imagePullPolicy": args.image_pull_policy,
            "args": ["canary-app", "--port", APP_PORT.to_string()],
            "ports": [{ "containerPort": APP_PORT }],
            "readinessProbe": {
                "httpGet": { "path": "/", "port": APP_PORT },
                "periodSeconds": 1,
            },
            "resources": {
                "requests": { "cpu": "10m", "memory": "16Mi" },
                "limits": { "memory": "64Mi" },
            },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
        }],
    })
}

fn service() -> Value {
    json!({
        "metadata": { "name": NAME, "labels": labels() },
        "spec": {
            "selector": labels(),
            "ports": [{ "name": "http", "port": PORT, "targetPort": APP_PORT }],
        },
    })
}

#[cfg(test)]
mod tests {
    use lull_contract::{annotations, scaled_workload::ScaledWorkloadStatus};

    use super::*;

    fn args() -> CanaryArgs {
        CanaryArgs {
            into: "default".to_owned(),
            image: "lull/autoscaler:dev".to_owned(),
            image_pull_policy: "Never".to_owned(),
            timeout: lull_contract::HumanDuration::from_secs(60),
        }
    }

    #[test]
    fn the_canary_is_a_workload_that_lull_may_put_to_sleep() {
        let made: Deployment = serde_json::from_value(deployment(&args())).unwrap();
        let service: Service = serde_json::from_value(service()).unwrap();
        let wanted = annotations::parse(&made.metadata.annotations.unwrap()).unwrap();
        assert_eq!(wanted.settings.min_scale, 0);
        let template = made.spec.unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        let selected = service.spec.unwrap().selector.unwrap();
        assert!(
            selected
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        );
    }

    #[test]
    fn what_keeps_it_awake_is_told() {
        assert!(describe(None).contains("no ScaledWorkload"));
        let spec = json!({
            "apiVersion": "lull.dev/v1alpha1",
            "kind": "ScaledWorkload",
            "metadata": { "name": NAME },
            "spec": {
                "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": NAME, "uid": "u" },
                "podSelector": {},
                "ports": [],
                "settings": lull_contract::Settings::default(),
                "originalReplicas": 1,
            },
        });
        let mut workload: ScaledWorkload = serde_json::from_value(spec).unwrap();
        assert_eq!(state(Some(&workload)), None);
        workload.status = Some(ScaledWorkloadStatus {
            state: State::Awake,
            reason: "requests in flight".to_owned(),
            ..ScaledWorkloadStatus::default()
        });
        assert_eq!(state(Some(&workload)), Some(State::Awake));
        assert_eq!(describe(Some(&workload)), "it is Awake: requests in flight");
    }
}
