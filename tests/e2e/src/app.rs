//! The app under test: a workload and its Service, made from the sample app's image.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use lull_contract::annotations::SCALE;
use serde_json::{Value, json};

use crate::{Kind, Namespace, Workload, workload::peers};

mod pods;

/// Image of app and agent unless `E2E_IMAGE` names another.
const IMAGE: &str = "lull-test/sample-app:dev";
/// Name of the app's container.
pub const CONTAINER: &str = "app";
/// Annotation with the fewest pods of a workload.
const MIN_SCALE: &str = "lull.dev/min-scale";
/// Label on the app's pods.
pub const APP_LABEL: &str = "app";

/// One port of the app and of its Service.
#[derive(Debug, Clone)]
pub struct Port {
    /// Name on both sides.
    pub name: &'static str,
    /// Where the app listens.
    pub container: u16,
    /// Where the Service listens.
    pub service: u16,
    /// The Service names its target instead of numbering it.
    pub by_name: bool,
    /// The Service's `appProtocol`.
    pub app_protocol: Option<&'static str>,
}

/// A builder for a workload, a Deployment unless told otherwise, and its Service.
#[derive(Debug, Clone)]
pub struct App {
    name: String,
    kind: Kind,
    replicas: u32,
    annotations: BTreeMap<String, String>,
    pod_annotations: BTreeMap<String, String>,
    pod_labels: BTreeMap<String, String>,
    /// The sample app's unless it says another.
    image: Option<String>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    ports: Vec<Port>,
    /// Names and ports of containers behind the app's.
    beside: Vec<(&'static str, u16)>,
    /// `ipFamilyPolicy` and `ipFamilies` of the Service.
    families: Option<(&'static str, Vec<&'static str>)>,
    readiness: bool,
    liveness: bool,
    /// Seconds of a preStop.
    lingers: Option<u32>,
    /// Seconds that pods may take to end.
    grace: Option<u32>,
}

/// The sample app's image.
#[must_use]
pub fn image() -> String {
    let named = std::env::var("E2E_IMAGE")
        .ok()
        .filter(|name: &String| !name.is_empty());
    named.unwrap_or_else(|| IMAGE.to_owned())
}

/// What every container of the suite runs as: nothing it doesn't need.
#[must_use]
pub fn security_context() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

// === impl Port ===

impl Port {
    /// Service port 80 to the app's 8080.
    #[must_use]
    pub fn http() -> Self {
        Self {
            name: "http",
            container: 8080,
            service: 80,
            by_name: false,
            app_protocol: None,
        }
    }
}

// === impl App ===

impl App {
    /// One replica with a readiness probe and one HTTP port, run by Lull with the shortest window.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::plain(name)
            .annotate(SCALE, "true")
            .annotate("lull.dev/window", "6s")
    }

    /// The same without Lull.
    #[must_use]
    pub fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Deployment,
            replicas: 1,
            annotations: BTreeMap::new(),
            pod_annotations: BTreeMap::new(),
            pod_labels: BTreeMap::new(),
            image: None,
            args: vec!["serve".to_owned()],
            env: BTreeMap::new(),
            ports: vec![Port::http()],
            beside: Vec::new(),
            families: None,
            readiness: true,
            liveness: false,
            lingers: None,
            grace: None,
        }
    }

    /// Makes it a workload of another kind.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds an annotation to the workload.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation to the pods' template.
    #[must_use]
    pub fn annotate_pods(mut self, key: &str, value: &str) -> Self {
        self.pod_annotations
            .insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an argument of `sample-app serve`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets the replicas that the workload starts with.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Replaces the ports.
    #[must_use]
    pub fn ports(mut self, ports: impl Into<Vec<Port>>) -> Self {
        self.ports = ports.into();
        self
    }

    /// Asks for the Service's address families by a policy and by their names; without names the cluster
    /// chooses them.
    #[must_use]
    pub fn families(mut self, policy: &'static str, names: &[&'static str]) -> Self {
        self.families = Some((policy, names.to_vec()));
        self
    }

    /// Leaves the readiness probe out.
    #[must_use]
    pub fn without_readiness_probe(mut self) -> Self {
        self.readiness = false;
        self
    }

    /// Adds a liveness probe every second that restarts at the first failure.
    #[must_use]
    pub fn with_liveness_probe(mut self) -> Self {
        self.liveness = true;
        self
    }

    /// Adds a preStop that only lets `seconds` pass, and time to end after it: so callers hear of the pod's
    /// end before its app does.
    #[must_use]
    pub fn lingering(mut self, seconds: u32) -> Self {
        self.lingers = Some(seconds);
        self
    }

    /// Sets the seconds that pods may take to end; else they have 30, or what a preStop needs besides.
    #[must_use]
    pub fn grace(mut self, seconds: u32) -> Self {
        self.grace = Some(seconds);
        self
    }

    /// Creates the workload and its Services.
    ///
    /// # Errors
    /// Where the API server refuses one.
    pub async fn deploy(&self, namespace: &Namespace) -> anyhow::Result<Workload> {
        for (path, object) in self.manifests(&namespace.name) {
            namespace.cluster.create(&path, &object).await?;
        }
        Ok(Workload::of(self.kind, namespace, &self.name))
    }

    /// What is deployed, Services first, each with the path of its kind's objects in `namespace`.
    #[must_use]
    pub fn manifests(&self, namespace: &str) -> Vec<(String, Value)> {
        let services = format!("/api/v1/namespaces/{namespace}/services");
        let mut manifests = vec![(services.clone(), self.service())];
        if self.kind == Kind::StatefulSet {
            manifests.push((services, self.headless_service()));
        }
        manifests.push((self.kind.path(namespace), self.object()));
        manifests
    }

    /// Creates the workload and its Services and waits until the workload has been put to sleep.
    ///
    /// # Errors
    /// Where it can't be created or doesn't fall asleep.
    pub async fn deploy_asleep(&self, namespace: &Namespace) -> anyhow::Result<Workload> {
        let workload = self.deploy(namespace).await?;
        workload.enrolled().await?;
        workload.asleep().await?;
        Ok(workload)
    }

    /// Creates the workload and its Services and waits until the workload carries traffic; it does
    /// not fall asleep before [`Workload::put_to_sleep`].
    ///
    /// # Errors
    /// Where it can't be created or isn't enrolled.
    pub async fn deploy_awake(self, namespace: &Namespace) -> anyhow::Result<Workload> {
        let workload = self.annotate(MIN_SCALE, "1").deploy(namespace).await?;
        workload.enrolled().await?;
        workload.rolled_out().await?;
        Ok(workload)
    }

    /// The workload as a Deployment.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn deployment(&self) -> serde_json::Result<Deployment> {
        serde_json::from_value(self.object())
    }

    fn object(&self) -> Value {
        let selected = json!({ APP_LABEL: self.name });
        let mut labels = json!(self.pod_labels);
        labels[APP_LABEL] = json!(self.name);
        let beside = self.beside.iter().map(|one| pods::idle(*one));
        let containers: Vec<Value> = [self.container()].into_iter().chain(beside).collect();
        let mut object = json!({
            "apiVersion": self.kind.api_version(),
            "kind": self.kind.name(),
            "metadata": { "name": self.name, "annotations": self.annotations },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": selected },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": containers },
                },
            },
        });
        // As long again as Kubernetes' own grace period.
        let lingering = self.lingers.map(|seconds| seconds + 30);
        if let Some(seconds) = self.grace.or(lingering) {
            object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(seconds);
        }
        if !self.pod_annotations.is_empty() {
            object["spec"]["template"]["metadata"]["annotations"] = json!(self.pod_annotations);
        }
        if self.kind == Kind::StatefulSet {
            object["spec"]["serviceName"] = json!(peers(&self.name));
        }
        object
    }

    /// The app's container, as it stands in a pod's template.
    pub(crate) fn container(&self) -> Value {
        let env: Vec<Value> = self
            .env
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect();
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| json!({ "name": port.name, "containerPort": port.container }))
            .collect();
        let mut container = json!({
            "name": CONTAINER,
            "image": self.image.clone().unwrap_or_else(image),
            "imagePullPolicy": "IfNotPresent",
            "args": self.args,
            "env": env,
            "ports": ports,
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
            "securityContext": security_context(),
        });
        let port = self.ports.first().map_or(8080, |port| port.container);
        if self.readiness {
            container["readinessProbe"] = match self.image {
                None => probe("/healthz", port),
                Some(_) => json!({ "tcpSocket": { "port": port }, "periodSeconds": 1 }),
            };
        }
        if self.liveness {
            container["livenessProbe"] = probe("/live", port);
        }
        if let Some(seconds) = self.lingers {
            container["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": seconds } } });
        }
        container
    }

    fn service(&self) -> Value {
        let ports: Vec<Value> = self.ports.iter().map(service_port).collect();
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.name, "labels": { APP_LABEL: self.name } },
            "spec": { "selector": { APP_LABEL: self.name }, "ports": ports },
        });
        if let Some((policy, names)) = &self.families {
            service["spec"]["ipFamilyPolicy"] = json!(policy);
            if !names.is_empty() {
                service["spec"]["ipFamilies"] = json!(names);
            }
        }
        service
    }

    /// Gives each pod of a StatefulSet a name of its own.
    fn headless_service(&self) -> Value {
        let mut service = self.service();
        service["metadata"]["name"] = json!(peers(&self.name));
        service["spec"]["clusterIP"] = json!("None");
        service
    }
}

// === impl Workload ===

impl Workload {
    /// Lets a workload sleep that was [deployed awake](App::deploy_awake), and waits until it does and
    /// no pod is left.
    ///
    /// # Errors
    /// Where either takes longer than two minutes.
    pub async fn put_to_sleep(&self) -> anyhow::Result<()> {
        self.annotate(&[(MIN_SCALE, None)]).await?;
        self.asleep().await?;
        self.pods_gone().await
    }
}

fn probe(path: &str, port: u16) -> Value {
    json!({
        "httpGet": { "path": path, "port": port },
        "periodSeconds": 1,
        "failureThreshold": 1,
        // What it says is meant; that it is slow is the machine's load.
        "timeoutSeconds": 5,
    })
}

fn service_port(port: &Port) -> Value {
    let target = if port.by_name {
        json!(port.name)
    } else {
        json!(port.container)
    };
    let mut value = json!({ "name": port.name, "port": port.service, "targetPort": target });
    if let Some(app_protocol) = port.app_protocol {
        value["appProtocol"] = json!(app_protocol);
    }
    value
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Service};

    use super::*;

    #[test]
    fn what_is_built_is_a_deployment_and_a_service_with_every_option() {
        let named = Port {
            by_name: true,
            app_protocol: Some("kubernetes.io/h2c"),
            ..Port::http()
        };
        let app = App::new("shop")
            .env("A", "1")
            .arg("--port=8080")
            .ports([named])
            .replicas(3);
        let deployment = app.with_liveness_probe().deployment().unwrap();
        assert_eq!(deployment.metadata.annotations.unwrap()[SCALE], "true");
        let container = &deployment.spec.unwrap().template.spec.unwrap().containers[0];
        assert!(container.liveness_probe.is_some() && container.readiness_probe.is_some());
        let service: Service =
            serde_json::from_value(App::plain("shop").ports([Port::http()]).service()).unwrap();
        let spec = service.spec.unwrap();
        assert_eq!(spec.ports.unwrap()[0].port, 80);
        assert_eq!((spec.ip_family_policy, spec.ip_families), (None, None));
    }

    #[test]
    fn a_service_asks_for_families_where_it_is_told_which() {
        let spec = |app: App| app.service()["spec"].clone();
        let named = spec(App::plain("shop").families("SingleStack", &["IPv6"]));
        assert_eq!(named["ipFamilyPolicy"], "SingleStack");
        assert_eq!(named["ipFamilies"], json!(["IPv6"]));
        let unnamed = spec(App::plain("shop").families("PreferDualStack", &[]));
        assert_eq!(unnamed["ipFamilies"], Value::Null);
    }

    #[test]
    fn a_stateful_set_names_its_headless_service() {
        let app = App::new("store").kind(Kind::StatefulSet);
        let headless: Service = serde_json::from_value(app.headless_service()).unwrap();
        let set: StatefulSet = serde_json::from_value(app.object()).unwrap();
        assert_eq!(set.spec.unwrap().service_name, headless.metadata.name);
        assert_eq!(headless.spec.unwrap().cluster_ip.unwrap(), "None");
        assert!(app.deployment().is_err());
    }
}
