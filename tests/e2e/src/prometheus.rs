//! A real Prometheus beside the cluster: it scrapes activators, autoscalers, webhooks and a
//! namespace's sidecars, and evaluates the chart's rules.
//!
//! It reaches the pods through the API server's pod proxy by way of `kubectl proxy`: that speaks
//! plain HTTP on this machine and knows every kind of credentials that a kubeconfig has. Debian's
//! Prometheus can't ask Kubernetes for its targets, so it reads them from files that are written here.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Namespace,
    background::{PlainClient, Program, Scratch, program},
    cluster::{call, is_ready},
    dashboard::Series,
};

/// The chart's rules.
const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../charts/lull/rules/*.yaml"
);
/// Between two scrapes, and two evaluations of the rules.
const INTERVAL: &str = "2s";
/// Job of Lull's own pods: its name, their label, and the name of the port with their metrics.
const COMPONENTS: (&str, &str, &str) = ("lull", "app.kubernetes.io/part-of=lull", "metrics");
/// The same for pods of workloads.
const SIDECARS: (&str, &str, &str) = ("sidecars", "lull.dev/pod", "lull-metrics");

/// A running Prometheus. What it has stored goes with it.
#[derive(Debug)]
pub struct Prometheus {
    server: Program,
    proxy: Program,
    proxy_address: SocketAddr,
    client: PlainClient,
    // Last: a folder goes when nobody writes to it any more.
    scratch: Scratch,
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts it without anything to scrape. `E2E_PROMETHEUS` and `E2E_KUBECTL` name the programs.
    ///
    /// # Errors
    /// Where a program is missing or doesn't start.
    pub async fn start() -> anyhow::Result<Self> {
        let scratch = Scratch::try_new("prometheus")?;
        let mut kubectl = Command::new(program("E2E_KUBECTL")?);
        kubectl.args(["proxy", "--port=0"]);
        let mut proxy = Program::start("kubectl-proxy", kubectl, &scratch)?;
        let proxy_address = proxy.address(&["Starting to serve on "]).await?;

        let file = scratch.path().join("prometheus.json");
        let configuration = configuration(scratch.path());
        std::fs::write(&file, configuration.to_string()).context("write the configuration")?;
        let mut command = Command::new(program("E2E_PROMETHEUS")?);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                scratch.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0");
        let mut server = Program::start("prometheus", command, &scratch)?;
        let address = server.address(&["\"Listening on\"", "address="]).await?;
        Ok(Self {
            server,
            proxy,
            proxy_address,
            client: PlainClient::try_new(address)?,
            scratch,
        })
    }

    /// Scrapes, from now on, the pods of Lull and of the workloads in `namespace` that are ready now;
    /// how many there are.
    ///
    /// # Errors
    /// Where they can't be listed or told.
    pub async fn follow(&self, namespace: &Namespace) -> anyhow::Result<usize> {
        let (cluster, own) = (&namespace.cluster, namespace.api());
        let lull = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
        let components = self.follow_job(COMPONENTS, &lull).await?;
        Ok(components + self.follow_job(SIDECARS, &own).await?)
    }

    async fn follow_job(
        &self,
        (job, selector, port): (&str, &str, &str),
        pods: &Api<Pod>,
    ) -> anyhow::Result<usize> {
        let params = ListParams::default().labels(selector);
        let pods = call("list pods to scrape", pods.list(&params)).await?;
        let ready = pods.items.iter().filter(|pod| is_ready(pod));
        let targets: Vec<Value> = ready
            .filter_map(|pod| target(pod, port, self.proxy_address))
            .collect();
        let file = targets_file(self.scratch.path(), job);
        // Never half of a file: Prometheus reads it as soon as it changes.
        let new = file.with_extension("new");
        std::fs::write(&new, json!(targets).to_string()).context("write the targets")?;
        std::fs::rename(&new, &file).context("tell the targets")?;
        Ok(targets.len())
    }

    /// Values of the series that `promql` has now; a missing one is none, or not a number.
    ///
    /// # Errors
    /// Where Prometheus doesn't understand it.
    pub async fn query(&self, promql: &str) -> anyhow::Result<Vec<f64>> {
        let path = format!("/api/v1/query?query={}", escaped(promql));
        let answer = self.data(&path).await?;
        let series = answer["result"].as_array();
        let series = series.with_context(|| format!("no series in {answer}"))?;
        let value = |one: &Value| -> Option<f64> { one["value"][1].as_str()?.parse().ok() };
        let values = series.iter().map(|one| {
            let value = value(one);
            value.with_context(|| format!("no value in {one}"))
        });
        values.collect()
    }

    /// The series that `promql` had in the last `span`, where they were numbers.
    ///
    /// # Errors
    /// Where Prometheus doesn't understand it.
    pub async fn range(&self, promql: &str, span: Duration) -> anyhow::Result<Vec<Series>> {
        let end = sample_app::unix_us() / 1_000_000;
        let start = end.saturating_sub(span.as_secs());
        let query = escaped(promql);
        let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=2");
        let answer = self.data(&path).await?;
        let series = answer["result"].as_array();
        let series = series.with_context(|| format!("no series in {answer}"))?;
        let series = series.iter().map(series_of);
        let all: Option<Vec<Series>> = series.collect();
        all.with_context(|| format!("a series that can't be read in {answer}"))
    }

    /// Health of each rule, by its name: `ok` once it has been evaluated.
    ///
    /// # Errors
    /// Where Prometheus doesn't say.
    pub async fn rules(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let answer = self.data("/api/v1/rules").await?;
        let groups = answer["groups"].as_array();
        let groups = groups.with_context(|| format!("no groups in {answer}"))?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        let health = rules.flatten().filter_map(|rule| {
            let (name, health) = (rule["name"].as_str()?, rule["health"].as_str()?);
            Some((name.to_owned(), health.to_owned()))
        });
        Ok(health.collect())
    }

    /// `data` of its answer.
    async fn data(&self, path: &str) -> anyhow::Result<Value> {
        let text = self.client.get(path).await?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        Ok(answer["data"].take())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where it has ended by itself, or doesn't end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await?;
        self.proxy.stop().await
    }
}

/// A series of an answer over a time.
fn series_of(answer: &Value) -> Option<Series> {
    let labels = answer["metric"].as_object()?.iter();
    let labels = labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let point = |point: &Value| -> Option<(f64, f64)> {
        Some((point[0].as_f64()?, point[1].as_str()?.parse().ok()?))
    };
    let points: Option<Vec<(f64, f64)>> = answer["values"].as_array()?.iter().map(point).collect();
    let mut points = points?;
    points.retain(|(_, value)| value.is_finite());
    Some(Series {
        labels: labels.collect::<Option<_>>()?,
        points,
    })
}

/// JSON, which is YAML too. Files are in `folder`.
fn configuration(folder: &Path) -> Value {
    let job = |name: &str| {
        json!({
            "job_name": name,
            "file_sd_configs": [{ "files": [targets_file(folder, name)] }],
        })
    };
    let (mut components, sidecars) = (job(COMPONENTS.0), job(SIDECARS.0));
    // As the chart's PodMonitor has it.
    components["honor_labels"] = json!(true);
    json!({
        "global": {
            "scrape_interval": INTERVAL,
            "scrape_timeout": INTERVAL,
            "evaluation_interval": INTERVAL,
        },
        "rule_files": [RULES],
        "scrape_configs": [components, sidecars],
    })
}

fn targets_file(folder: &Path, job: &str) -> PathBuf {
    folder.join(format!("targets-{job}.json"))
}

/// How `pod` is scraped at its port called `port`, with the labels that operators give.
fn target(pod: &Pod, port: &str, proxy: SocketAddr) -> Option<Value> {
    let (name, namespace) = (
        pod.metadata.name.as_ref()?,
        pod.metadata.namespace.as_ref()?,
    );
    let containers = pod.spec.as_ref()?.containers.iter();
    let mut ports = containers.filter_map(|c| c.ports.as_ref()).flatten();
    let port = ports.find(|one| one.name.as_deref() == Some(port))?;
    let number = port.container_port;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{number}/proxy/metrics");
    Some(json!({
        "targets": [proxy.to_string()],
        "labels": { "__metrics_path__": path, "instance": name, "namespace": namespace },
    }))
}

/// `text` as a part of a URL.
fn escaped(text: &str) -> String {
    let one = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_may_not_have_is_escaped() {
        assert_eq!(escaped("a_b{c=\"1\"}"), "a%5Fb%7Bc%3D%221%22%7D");
    }

    #[test]
    fn a_series_has_its_labels_and_the_values_that_are_numbers() {
        let answer = json!({
            "metric": { "state": "Asleep" },
            "values": [[1.5, "NaN"], [3.5, "2"], [5.5, "+Inf"]],
        });
        let series = series_of(&answer).unwrap();
        assert_eq!(series.labels["state"], "Asleep");
        assert_eq!(series.points, [(3.5, 2.0)]);
        assert_eq!(series_of(&json!({ "metric": {} })), None);
    }

    #[test]
    fn a_pod_is_scraped_through_the_proxy_at_its_port_for_metrics() {
        let ports = json!([
            { "name": "http", "containerPort": 8080 },
            { "name": "lull-metrics", "containerPort": 9191 },
        ]);
        let pod = json!({
            "metadata": { "name": "shop-1", "namespace": "shops" },
            "spec": { "containers": [{ "name": "app" }, { "name": "sidecar", "ports": ports }] },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let proxy = SocketAddr::from(([127, 0, 0, 1], 8001));
        assert_eq!(target(&pod, "metrics", proxy), None);
        let found = target(&pod, "lull-metrics", proxy).unwrap();
        assert_eq!(found["targets"][0], "127.0.0.1:8001");
        let path = "/api/v1/namespaces/shops/pods/shop-1:9191/proxy/metrics";
        assert_eq!(found["labels"]["__metrics_path__"], path);
    }

    #[test]
    fn our_label_namespace_stays_where_the_charts_pod_monitor_keeps_it() {
        let configuration = configuration(Path::new("/tmp"));
        let [lull, sidecars] = [0, 1].map(|at| &configuration["scrape_configs"][at]);
        assert_eq!(lull["honor_labels"], true);
        assert!(sidecars["honor_labels"].is_null());
    }
}
