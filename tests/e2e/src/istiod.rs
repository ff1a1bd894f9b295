//! Istio's control plane: it can be taken away for a while, and says what it has sent to the Envoys and
//! which endpoints it knows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    Cluster, Workload,
    background::{PlainClient, Program, Scratch, program},
    cluster::{call, is_ready},
    counters, eventually,
};

/// Where it runs.
const NAMESPACE: &str = "istio-system";
/// How many of it its Deployment wants.
const SCALE: &str = "/apis/apps/v1/namespaces/istio-system/deployments/istiod/scale";
/// By which its pods are found.
const PODS: &str = "app=istiod";
/// Where it has its metrics and its debug pages.
const MONITORING: u16 = 15_014;
/// What it says of the health of endpoints that it sends to nobody: not ready, and going. Endpoints that
/// are no pods have none.
const NOT_SENT: [i32; 2] = [2, 4];
/// Where an Envoy's agent has its own.
const AGENT: u16 = 15_020;
/// Longest wait for it to go or to come.
const FOLLOW: Duration = Duration::from_secs(90);
/// What is done without it may take so much longer than its absence.
const SLACK: Duration = Duration::from_secs(120);
/// Counts that don't change for so long are final: it pushes 100 ms after the last change.
const QUIET: Duration = Duration::from_secs(3);

/// Number of pushes by what was pushed: `cds` (clusters), `eds` (endpoints), `lds` (listeners),
/// `rds` (routes).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pushes(pub BTreeMap<&'static str, f64>);

/// Kinds of pushes, in the order of a table's columns.
pub const KINDS: [&str; 4] = ["cds", "eds", "lds", "rds"];

/// Its debug pages. They are for callers on its own loopback alone, so a port of this machine leads there.
#[derive(Debug)]
pub struct DebugPages {
    client: PlainClient,
    /// Stops forwarding when dropped.
    _forwarder: Program,
    _scratch: Scratch,
}

/// Runs `during` without an istiod, which comes back `absence` after it went, whatever came of it.
///
/// It goes at once, as a process that is killed. Envoys keep what they know; nobody gets a new pod into
/// the mesh, and Istio's objects can't be written.
///
/// # Errors
/// Those of `during`, that it took two minutes longer than `absence`, or that istiod doesn't go or come.
pub async fn away<T>(
    cluster: &Cluster,
    absence: Duration,
    during: impl AsyncFnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let scale = cluster.get(SCALE).await?;
    let replicas = scale["spec"]["replicas"].as_u64().unwrap_or(1).max(1);
    let outcome = match stop(cluster).await {
        Ok(()) => {
            let began = Instant::now();
            let (outcome, back) =
                tokio::join!(timeout(absence + SLACK, Box::pin(during())), async {
                    sleep(absence.saturating_sub(began.elapsed())).await;
                    scale_to(cluster, replicas).await
                });
            let late = |_| Err(anyhow!("what was done without istiod took too long"));
            back.and_then(|_| outcome.unwrap_or_else(late))
        }
        Err(error) => scale_to(cluster, replicas).await.and(Err(error)),
    };
    is_there(cluster).await?;
    outcome
}

async fn stop(cluster: &Cluster) -> anyhow::Result<()> {
    scale_to(cluster, 0).await?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let at_once = DeleteParams::default().grace_period(1);
    let its = ListParams::default().labels(PODS);
    let killed = api.delete_collection(&at_once, &its);
    call("kill istiod", killed).await.map(drop)?;
    eventually("istiod to go", FOLLOW, async || {
        let left = pods(cluster).await?.len();
        ensure!(left == 0, "{left} pods");
        Ok(())
    })
    .await
}

async fn scale_to(cluster: &Cluster, replicas: u64) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "replicas": replicas } });
    cluster
        .patch(SCALE, "application/merge-patch+json", &patch)
        .await
}

async fn is_there(cluster: &Cluster) -> anyhow::Result<()> {
    eventually("istiod to be back", FOLLOW, async || {
        let ready = pods(cluster)
            .await?
            .iter()
            .filter(|pod| is_ready(pod))
            .count();
        ensure!(ready > 0, "no pod of it is ready");
        Ok(())
    })
    .await
}

async fn pods(cluster: &Cluster) -> anyhow::Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let its = ListParams::default().labels(PODS);
    Ok(call("list istiod's pods", api.list(&its)).await?.items)
}

/// What all of its pods have sent since they started.
///
/// # Errors
/// Where one can't be asked.
pub async fn pushes(cluster: &Cluster) -> anyhow::Result<Pushes> {
    let text = metrics(cluster).await?;
    let count = |kind: &'static str| {
        let label = format!("type=\"{kind}\"");
        (
            kind,
            counters::sum(&text, "pilot_xds_pushes", &[label.as_str()]),
        )
    };
    Ok(Pushes(KINDS.into_iter().map(count).collect()))
}

/// Number of Envoys that are connected to it.
///
/// # Errors
/// Where it can't be asked.
pub async fn proxies(cluster: &Cluster) -> anyhow::Result<f64> {
    let text = metrics(cluster).await?;
    Ok(counters::sum(&text, "pilot_xds", &[]))
}

async fn metrics(cluster: &Cluster) -> anyhow::Result<String> {
    let mut all = String::new();
    for pod in pods(cluster).await?.iter().filter(|pod| is_ready(pod)) {
        let name = pod.name_any();
        let page = cluster.ask_pod((NAMESPACE, &name), MONITORING, "GET", "metrics");
        all.push_str(&page.await?);
    }
    ensure!(!all.is_empty(), "no istiod is ready");
    Ok(all)
}

/// As [`pushes`], once they have not changed for some seconds.
///
/// # Errors
/// Where they go on for a minute and a half, or can't be read.
pub async fn settled(cluster: &Cluster) -> anyhow::Result<Pushes> {
    let mut last = (pushes(cluster).await?, Instant::now());
    eventually("pushes to end", FOLLOW, async || {
        let now = pushes(cluster).await?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        ensure!(last.1.elapsed() >= QUIET, "so far {:?}", last.0);
        Ok(last.0.clone())
    })
    .await
}

/// Certificates that the Envoy of a pod has asked for since it started.
///
/// # Errors
/// Where its agent doesn't say.
pub async fn certificates(
    cluster: &Cluster,
    (namespace, pod): (&str, &str),
) -> anyhow::Result<f64> {
    let page = cluster.ask_pod((namespace, pod), AGENT, "GET", "stats/prometheus");
    let text = page.await?;
    let name = "istio_agent_num_outgoing_requests";
    let asked = counters::sum(&text, name, &["request_type=\"csr\""]);
    ensure!(asked > 0.0, "{pod} says nothing of {name}");
    Ok(asked)
}

/// The annotation by which a pod's certificates live for `lifetime`; they are renewed after half of it.
#[must_use]
pub fn certificates_for(lifetime: Duration) -> (&'static str, String) {
    let lifetime = format!("{}s", lifetime.as_secs());
    let config: Value = json!({ "proxyMetadata": { "SECRET_TTL": lifetime } });
    ("proxy.istio.io/config", config.to_string())
}

// === impl DebugPages ===

impl DebugPages {
    /// Those of one of its pods.
    ///
    /// # Errors
    /// Where none is ready, or no port of it can be forwarded.
    pub async fn open(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut command = Command::new(program("E2E_KUBECTL")?);
        let pods = pods(cluster).await?;
        let pod = pods.iter().find(|pod| is_ready(pod));
        let pod = format!("pod/{}", pod.context("no istiod is ready")?.name_any());
        let any_to = format!(":{MONITORING}");
        command.args(["port-forward", "--namespace", NAMESPACE]);
        command.args(["--address", "127.0.0.1", pod.as_str(), any_to.as_str()]);
        let scratch = Scratch::try_new("istiod")?;
        let mut forwarder = Program::start("kubectl", command, &scratch)?;
        let address = forwarder.address(&["Forwarding from "]).await?;
        Ok(Self {
            client: PlainClient::try_new(address)?,
            _forwarder: forwarder,
            _scratch: scratch,
        })
    }

    /// The endpoints of `service`, one of the workload's, that callers are told of, in order; one that
    /// istiod has twice is there twice.
    ///
    /// # Errors
    /// Where it doesn't say.
    pub async fn endpoints(
        &self,
        workload: &Workload,
        service: &str,
    ) -> anyhow::Result<Vec<SocketAddr>> {
        let page = self.client.get("/debug/endpointShardz").await?;
        let page: Value = serde_json::from_str(&page).context("read the page of endpoints")?;
        let host = workload.within_cluster(service);
        endpoints(&page, (&host, &workload.namespace))
    }
}

fn endpoints(page: &Value, (host, namespace): (&str, &str)) -> anyhow::Result<Vec<SocketAddr>> {
    // A Service that never had an endpoint isn't there, nor is a shard that has lost them all.
    let shards = page[host][namespace]["Shards"].as_object();
    let shards = shards.into_iter().flat_map(serde_json::Map::values);
    let mut found = Vec::new();
    for endpoint in shards.filter_map(Value::as_array).flatten() {
        if NOT_SENT
            .iter()
            .any(|health| endpoint["HealthStatus"] == *health)
        {
            continue;
        }
        let port = endpoint["EndpointPort"].as_u64();
        let port = u16::try_from(port.context("an endpoint has no port")?)?;
        let addresses = endpoint["Addresses"].as_array();
        for address in addresses.context("an endpoint has no address")? {
            let address: IpAddr = address.as_str().unwrap_or_default().parse()?;
            found.push(SocketAddr::new(address, port));
        }
    }
    found.sort_unstable();
    Ok(found)
}

// === impl Pushes ===

impl Pushes {
    /// Without those that were `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = |kind: &str| before.of(kind);
        let left = self
            .0
            .iter()
            .map(|(kind, now)| (*kind, now - earlier(kind)));
        Self(left.collect())
    }

    /// Of one kind.
    #[must_use]
    pub fn of(&self, kind: &str) -> f64 {
        self.0.get(kind).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_before_does_not_count() {
        let before = Pushes(BTreeMap::from([("eds", 3.0)]));
        let now = Pushes(BTreeMap::from([("eds", 5.0), ("cds", 1.0)]));
        let since = now.since(&before);
        assert_eq!(
            (since.of("eds"), since.of("cds"), since.of("lds")),
            (2.0, 1.0, 0.0)
        );
    }

    #[test]
    fn endpoints_that_callers_are_told_of_are_read_from_all_shards() {
        fn endpoint(address: &str, port: u16, health: i32) -> Value {
            json!({ "Addresses": [address], "EndpointPort": port, "HealthStatus": health })
        }
        let shards = json!({
            "Kubernetes/one": [
                endpoint("10.0.0.2", 8012, 1),
                endpoint("10.0.0.3", 8012, 2),
                endpoint("10.0.0.4", 8012, 4),
                endpoint("10.0.0.1", 10_001, 0),
            ],
            "External/one": [endpoint("10.0.0.1", 10_001, 1)],
        });
        let page = json!({ "shop.ns.svc": { "ns": { "Shards": shards, "ServiceAccounts": {} } } });
        let of = |host: &str| {
            let found = endpoints(&page, (host, "ns")).unwrap();
            let texts = found.iter().map(ToString::to_string);
            texts.collect::<Vec<_>>()
        };
        let activator = "10.0.0.1:10001";
        assert_eq!(of("shop.ns.svc"), [activator, activator, "10.0.0.2:8012"]);
        assert!(of("other.ns.svc").is_empty());
        let odd = json!({ "shop.ns.svc": { "ns": { "Shards": { "a/b": [{}] } } } });
        assert!(endpoints(&odd, ("shop.ns.svc", "ns")).is_err());
    }

    #[test]
    fn a_lifetime_is_given_as_istio_reads_it() {
        let (_, config) = certificates_for(Duration::from_secs(60));
        assert_eq!(config, r#"{"proxyMetadata":{"SECRET_TTL":"60s"}}"#);
    }
}
