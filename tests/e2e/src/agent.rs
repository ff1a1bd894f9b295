//! The load client in the cluster, driven through the API server's pod proxy.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use lull_contract::names::ISTIO_EXCLUDE_INBOUND_PORTS;
use sample_app::wire::{MAX_SECONDS, Now, ProbeAnswer, ProbeSpec, RunId, RunResult, RunSpec};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    Cluster, Namespace, Workload,
    app::{image, security_context},
    cluster::{call, is_not_found},
    eventually,
};

/// Name of the agent's pod in most namespaces.
const POD: &str = "agent";
/// Longest wait for the agent's pod to come or go.
const START: Duration = Duration::from_secs(120);
/// Longest wait for callers to follow a change of endpoints.
const REACH: Duration = Duration::from_secs(60);

/// The load client of one namespace.
#[derive(Debug, Clone)]
pub struct Agent {
    cluster: Cluster,
    namespace: String,
    pod: &'static str,
}

/// A load that runs.
#[derive(Debug)]
#[must_use = "a run that nobody waits for shows nothing"]
pub struct Run<'a> {
    agent: &'a Agent,
    id: u64,
    cap: Duration,
}

/// Fifty requests to `workload`, each on a connection of its own, for those who may have to wait for a wake.
#[must_use]
pub fn fifty(workload: &Workload) -> RunSpec {
    RunSpec {
        url: workload.url("/"),
        connections: 5,
        requests: Some(50),
        keep_alive: false,
        timeout_ms: 60_000,
        ..RunSpec::default()
    }
}

/// Fails unless every request that was sent got its 2xx or 3xx.
///
/// # Errors
/// With the counts and the failures' texts.
pub fn all_answered(result: &RunResult) -> anyhow::Result<()> {
    ensure!(
        result.done && result.sent > 0 && result.failed == 0 && result.ok == result.sent,
        "of {} requests {} failed (first after {:?} ms, last after {:?} ms): {:?}, by status {:?}",
        result.sent,
        result.failed,
        result.first_failed_ms,
        result.last_failed_ms,
        result.errors,
        result.by_status,
    );
    Ok(())
}

// === impl Agent ===

impl Agent {
    /// Starts the agent's pod and waits until it answers.
    ///
    /// # Errors
    /// Where it doesn't within two minutes.
    pub async fn deploy(namespace: &Namespace) -> anyhow::Result<Self> {
        Self::deploy_as(POD, namespace).await
    }

    /// Like [`Self::deploy`], for one more agent: its connections come from an address of its own.
    ///
    /// # Errors
    /// Where it doesn't answer within two minutes.
    pub async fn deploy_as(name: &'static str, namespace: &Namespace) -> anyhow::Result<Self> {
        Self::deploy_pod((name, None), &[], namespace).await
    }

    /// Like [`Self::deploy`], with more annotations on its pod.
    ///
    /// # Errors
    /// Where it doesn't answer within two minutes.
    pub async fn deploy_annotated(
        annotations: &[(&str, &str)],
        namespace: &Namespace,
    ) -> anyhow::Result<Self> {
        Self::deploy_pod((POD, None), annotations, namespace).await
    }

    /// Like [`Self::deploy_as`], with a service account of the same name: who it is for a mesh.
    ///
    /// # Errors
    /// Where it doesn't answer within two minutes.
    pub async fn deploy_with_account(
        name: &'static str,
        namespace: &Namespace,
    ) -> anyhow::Result<Self> {
        let accounts: Api<ServiceAccount> = namespace.api();
        let account = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        call(
            "create the agent's service account",
            accounts.create(&PostParams::default(), &account),
        )
        .await?;
        Self::deploy_pod((name, Some(name)), &[], namespace).await
    }

    async fn deploy_pod(
        (name, account): (&'static str, Option<&str>),
        more: &[(&str, &str)],
        namespace: &Namespace,
    ) -> anyhow::Result<Self> {
        let pods: Api<Pod> = namespace.api();
        // In a mesh the API server is a caller without a certificate, like any outside.
        let mut annotations = BTreeMap::from([(ISTIO_EXCLUDE_INBOUND_PORTS, "8080")]);
        annotations.extend(more.iter().copied());
        let pod = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": { "app": name },
                "annotations": annotations,
            },
            "spec": {
                "serviceAccountName": account,
                "terminationGracePeriodSeconds": 1,
                // Names are given whole: one question to the DNS, not one per search domain.
                "dnsConfig": { "options": [{ "name": "ndots", "value": "1" }] },
                "containers": [{
                    "name": "agent",
                    "image": image(),
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["agent"],
                    "resources": { "requests": { "cpu": "50m", "memory": "32Mi" } },
                    "securityContext": security_context(),
                }],
            },
        }))?;
        call(
            "create the agent",
            pods.create(&PostParams::default(), &pod),
        )
        .await?;
        let agent = Self {
            cluster: namespace.cluster.clone(),
            namespace: namespace.name.clone(),
            pod: name,
        };
        eventually("the agent to answer", START, async || agent.now().await).await?;
        Ok(agent)
    }

    /// Starts the agent anew: an old one may be of another image.
    ///
    /// # Errors
    /// Where the old one doesn't go or the new one doesn't come within two minutes.
    pub async fn redeploy(namespace: &Namespace) -> anyhow::Result<Self> {
        let pods: Api<Pod> = namespace.api();
        let delete = DeleteParams::default().grace_period(0);
        match call("delete the old agent", pods.delete(POD, &delete)).await {
            Err(error) if !is_not_found(&error) => return Err(error),
            _ => {}
        }
        eventually("the old agent to go", START, async || {
            ensure!(pods.get_opt(POD).await?.is_none(), "it is still there");
            Ok(())
        })
        .await?;
        Self::deploy(namespace).await
    }

    /// Name of its pod.
    #[must_use]
    pub fn pod(&self) -> &str {
        self.pod
    }

    /// Starts a load.
    ///
    /// # Errors
    /// Where the agent refuses it.
    pub async fn start(&self, spec: &RunSpec) -> anyhow::Result<Run<'_>> {
        let RunId { id } = self.ask("POST", "runs", Some(spec)).await?;
        let seconds = spec.seconds.unwrap_or(MAX_SECONDS).min(MAX_SECONDS);
        let (delay, timeout) = (spec.delay_ms, spec.timeout_ms);
        let cap = Duration::from_secs_f64(seconds) + Duration::from_millis(delay + timeout);
        Ok(Run {
            agent: self,
            id,
            cap: cap + Duration::from_secs(5),
        })
    }

    /// Waits until somebody answers there: pods are ready before kube-proxy knows of them, and what a
    /// caller's Envoy knows of a new Service comes from istiod.
    ///
    /// # Errors
    /// Where nobody does.
    pub async fn is_answered(&self, url: &str, within: Duration) -> anyhow::Result<()> {
        let what = format!("{url} to be answered");
        eventually(&what, within, async || self.get(url).await)
            .await
            .map(drop)
    }

    /// Starts `kept`, and the same with a connection of its own for each request; both are under way
    /// when this returns.
    ///
    /// # Errors
    /// Where the agent refuses them or nothing is answered.
    pub async fn start_kept_and_new(&self, kept: RunSpec) -> anyhow::Result<[Run<'_>; 2]> {
        const ENOUGH: u64 = 50;
        self.is_answered(&kept.url, REACH).await?;
        let fresh = RunSpec {
            keep_alive: false,
            ..kept.clone()
        };
        let loads = [self.start(&kept).await?, self.start(&fresh).await?];
        eventually("the loads to be under way", REACH, async || {
            for load in &loads {
                let ok = load.so_far().await?.ok;
                ensure!(ok >= ENOUGH, "{ok} answers");
            }
            Ok(())
        })
        .await?;
        Ok(loads)
    }

    /// Runs a load to its end.
    ///
    /// # Errors
    /// Where the agent refuses it or it doesn't end.
    pub async fn run(&self, spec: &RunSpec) -> anyhow::Result<RunResult> {
        self.start(spec).await?.finished().await
    }

    /// Sends one request.
    ///
    /// # Errors
    /// Where the agent can't be reached; what became of the request is in the answer.
    pub async fn probe(&self, spec: &ProbeSpec) -> anyhow::Result<ProbeAnswer> {
        self.ask("POST", "probe", Some(spec)).await
    }

    /// Waits until new connections reach the workload's ready pods and nothing else.
    ///
    /// The pods before Lull were plain and end at once, also while kube-proxy, which collects changes
    /// for up to a second, still sends connections to them. The kernel remembers for two minutes where
    /// it sent such a connection, and sends the next one from the same address and port there, too: so
    /// this must not be who loads the workload afterwards.
    ///
    /// # Errors
    /// Where that takes longer than a minute.
    pub async fn reaches_alone(&self, workload: &Workload) -> anyhow::Result<()> {
        let spec = RunSpec {
            url: workload.url("/"),
            connections: 10,
            requests: Some(200),
            keep_alive: false,
            // Where a pod was nobody refuses; a short limit leaves the workload no time to fall asleep.
            timeout_ms: 1_000,
            ..RunSpec::default()
        };
        eventually("the plain pods to be out of reach", REACH, async || {
            let ready = workload.ready_pods().await?;
            let result = self.run(&spec).await?;
            all_answered(&result)?;
            ensure!(
                result.by_pod.keys().all(|pod| ready.contains(pod)),
                "ready are {ready:?}, answers came from {:?}",
                result.by_pod
            );
            Ok(())
        })
        .await
    }

    /// Sends one request that must be answered with 2xx or 3xx.
    ///
    /// # Errors
    /// Where it isn't.
    pub async fn get(&self, url: &str) -> anyhow::Result<ProbeAnswer> {
        let answer = self
            .probe(&ProbeSpec {
                url: url.to_owned(),
                ..ProbeSpec::default()
            })
            .await?;
        ensure!(answer.ok, "{url} was not answered: {answer:?}");
        Ok(answer)
    }

    /// What the agent's clock says.
    ///
    /// # Errors
    /// Where it can't be reached.
    pub async fn now(&self) -> anyhow::Result<Now> {
        self.ask::<(), Now>("GET", "now", None).await
    }

    /// How far the agent's clock is ahead of ours, microseconds; exact to half a round trip.
    ///
    /// # Errors
    /// Where it can't be reached.
    pub async fn clock_ahead_us(&self) -> anyhow::Result<i64> {
        let mut best: Option<(u64, i64)> = None;
        for _ in 0..5 {
            let before = sample_app::unix_us();
            let agents = self.now().await?.unix_us;
            let round_trip = sample_app::unix_us().saturating_sub(before);
            let ahead = agents.cast_signed() - (before + round_trip / 2).cast_signed();
            if best.is_none_or(|(shortest, _)| round_trip < shortest) {
                best = Some((round_trip, ahead));
            }
        }
        best.map(|(_, ahead)| ahead)
            .context("the clock was never asked")
    }

    async fn ask<S: Serialize, T: DeserializeOwned>(
        &self,
        method: &str,
        page: &str,
        body: Option<&S>,
    ) -> anyhow::Result<T> {
        let (namespace, pod) = (&self.namespace, self.pod);
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy/{page}");
        let body = body
            .map(serde_json::to_vec)
            .transpose()?
            .unwrap_or_default();
        // Longer than any probe: the API server doesn't limit proxied requests, and we do elsewhere.
        let request = http::Request::builder()
            .method(method)
            .uri(&path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)?;
        let asked = self.cluster.client.request_text(request);
        let text = tokio::time::timeout(Duration::from_secs(120), asked)
            .await
            .with_context(|| format!("{method} {path}: no answer in two minutes"))?
            .with_context(|| format!("{method} {path}"))?;
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: {text}"))
    }
}

// === impl Run ===

impl Run<'_> {
    /// What has come of it so far.
    ///
    /// # Errors
    /// Where the agent can't be reached.
    pub async fn so_far(&self) -> anyhow::Result<RunResult> {
        self.agent
            .ask::<(), RunResult>("GET", &format!("runs/{}", self.id), None)
            .await
    }

    /// Sends nothing new, and waits for what is in flight.
    ///
    /// # Errors
    /// Where it doesn't end.
    pub async fn stop(self) -> anyhow::Result<RunResult> {
        self.agent
            .ask::<(), RunResult>("DELETE", &format!("runs/{}", self.id), None)
            .await?;
        self.finished().await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it doesn't come.
    pub async fn finished(self) -> anyhow::Result<RunResult> {
        eventually("the load to end", self.cap, async || {
            let result = self.so_far().await?;
            ensure!(
                result.done,
                "{} sent, {} answered",
                result.sent,
                result.ok + result.failed
            );
            Ok(result)
        })
        .await
    }
}
