//! A real Istio on a cluster: istiod, the injected Envoys and a gateway, mutual TLS required everywhere.
//!
//! ```text
//! programs, Envoy -> images -> nodes; istio-base -> STRICT -> istiod -> its webhook can be called
//! -> a gateway
//! ```

mod gateway;
mod images;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::api::Api;
use crate::build::{self, Components, MeshComponents};
use crate::exec::{checked, poll};
use crate::image::load_image;
use crate::paths::Paths;
use crate::process::PROXY_VARIABLES;
use crate::report::{note, step};
use crate::state::{Lock, State, find};
use images::{HUB, Images};

const NAMESPACE: &str = "istio-system";
/// A PeerAuthentication: in istiod's own namespace it holds for the whole mesh. `scripts/cluster.sh` has
/// the same on other clusters.
const STRICT: &str = include_str!("../../mesh/strict.json");
/// How long one part may take; see `up`.
const LIMIT: Duration = Duration::from_secs(90);

/// Installs Istio on a running cluster, or finds it there already.
///
/// # Errors
/// When there is no healthy cluster of that name, a part can't be built or something isn't ready in
/// time.
pub fn mesh(name: &str) -> Result<()> {
    let paths = Paths::try_new(name)?;
    let _lock = Lock::cluster(&paths)?;
    let nodes = find(name)?.nodes;
    let state = State::load(&paths)?.context("the cluster has just gone")?;
    if let Some(trouble) = state.trouble(&paths) {
        bail!(
            "cluster {name:?} is broken ({trouble}): lull-cluster up --name {name} makes it anew"
        );
    }
    let components = build::ensure()?;
    let parts = build::ensure_mesh()?;
    let start = Instant::now();
    let images = images::ensure(&parts)?;
    let mesh = Mesh {
        paths: &paths,
        api: state.api(&paths),
        nodes,
        components: &components,
        parts: &parts,
        images: &images,
    };
    if mesh.is_there()? {
        note(format_args!("Istio is on cluster {name:?} already."));
        return gateway::ensure(&mesh);
    }
    note(format_args!("Installing Istio on cluster {name:?}:"));
    mesh.install()
        .with_context(|| format!("Istio is not on cluster {name:?}"))?;
    gateway::ensure(&mesh)?;
    let took = start.elapsed().as_secs_f64();
    note(format_args!("Istio is there after {took:.1} s."));
    Ok(())
}

/// One run of [`mesh`].
#[derive(Debug)]
struct Mesh<'a> {
    paths: &'a Paths,
    api: Api,
    nodes: usize,
    components: &'a Components,
    parts: &'a MeshComponents,
    images: &'a Images,
}

// === impl Mesh ===

impl Mesh<'_> {
    /// Whether the same has been installed before and still runs.
    fn is_there(&self) -> Result<bool> {
        let installed = fs::read_to_string(self.paths.file("istio.stamp")).unwrap_or_default();
        Ok(installed == self.stamp() && self.is_ready()?)
    }

    /// Changes with whatever is installed.
    fn stamp(&self) -> String {
        let (source, values) = (self.parts.source.display(), values(&self.images.tag));
        format!("{source}\n{values}\n")
    }

    fn install(&self) -> Result<()> {
        step("images into the nodes", || self.load())?;
        let charts = self.parts.source.join("manifests/charts");
        let values_file = self.paths.file("istio.json");
        fs::write(&values_file, values(&self.images.tag).to_string())?;
        step("istio-base", || {
            let mut helm = self.helm("istio-base");
            checked(helm.arg(charts.join("base"))).map(drop)
        })?;
        // Before istiod starts: its own webhook for such objects doesn't answer at first.
        step("mutual TLS everywhere", || self.require_mtls())?;
        step("istiod", || {
            let mut helm = self.helm("istiod");
            helm.arg(charts.join("istio-control/istio-discovery"))
                .arg("--values")
                .arg(&values_file);
            checked(&mut helm)?;
            poll("istiod", LIMIT, || Ok(self.is_ready()?.then_some(())))
        })?;
        Ok(fs::write(self.paths.file("istio.stamp"), self.stamp())?)
    }

    fn load(&self) -> Result<()> {
        let mut missing = Vec::new();
        for (name, tar) in &self.images.tars {
            for node in 0..self.nodes {
                if !has_image(self.paths, node, name)? && !missing.contains(tar) {
                    missing.push(tar.clone());
                }
            }
        }
        load_image(&self.paths.name, &missing)
    }

    fn helm(&self, release: &str) -> Command {
        let mut helm = Command::new(&self.components.helm);
        for variable in PROXY_VARIABLES {
            helm.env_remove(variable);
        }
        helm.arg("--kubeconfig")
            .arg(self.paths.kubeconfig())
            .args(["upgrade", "--install", "--create-namespace"])
            .args(["--namespace", NAMESPACE, release]);
        helm
    }

    fn require_mtls(&self) -> Result<()> {
        let path = format!("/apis/security.istio.io/v1/namespaces/{NAMESPACE}/peerauthentications");
        let strict: Value = serde_json::from_str(STRICT)?;
        let mut refused = None;
        // Right after its definition the API server doesn't know the kind yet.
        let created = poll("the mesh-wide PeerAuthentication", LIMIT, || {
            refused = self.api.create(&path, &strict).err();
            Ok(refused.is_none().then_some(()))
        });
        match (created, refused) {
            (Err(late), Some(refused)) => Err(refused.context(late)),
            (created, _) => created,
        }
    }

    /// istiod serves, and has given the API server what it needs to call the injector.
    fn is_ready(&self) -> Result<bool> {
        let deployment = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/istiod");
        let injector = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/\
                        istio-sidecar-injector";
        Ok(is_rolled_out(&self.api.get(&deployment)?.body)
            && is_callable(&self.api.get(injector)?.body))
    }
}

fn has_image(paths: &Paths, node: usize, name: &str) -> Result<bool> {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(paths.socket(node));
    ctr.args(["--namespace", "k8s.io", "images", "list", "--quiet"]);
    Ok(checked(&mut ctr)?.lines().any(|line| line == name))
}

/// Istio's defaults, less what a test machine can't spare and what plain Envoy doesn't have.
fn values(tag: &str) -> Value {
    let requests = |memory: &str| json!({ "requests": { "cpu": "10m", "memory": memory } });
    json!({
        "global": {
            "hub": HUB,
            "tag": tag,
            "imagePullPolicy": "IfNotPresent",
            "proxy": { "resources": requests("64Mi") },
        },
        "pilot": {
            "hub": HUB,
            "tag": tag,
            "autoscaleEnabled": false,
            "resources": requests("128Mi"),
            // Filters of Istio's own build of Envoy.
            "env": {
                "PILOT_ENABLE_METADATA_EXCHANGE": "false",
                "PILOT_ENABLE_ALPN_FILTER": "false",
            },
        },
        "telemetry": { "enabled": false },
    })
}

fn is_rolled_out(deployment: &Value) -> bool {
    let status = &deployment["status"];
    let wanted = deployment["spec"]["replicas"].as_u64();
    let counts = ["replicas", "updatedReplicas", "availableReplicas"];
    wanted.is_some_and(|wanted| wanted > 0)
        && status["observedGeneration"] == deployment["metadata"]["generation"]
        && counts.iter().all(|count| status[count].as_u64() == wanted)
}

fn is_callable(configuration: &Value) -> bool {
    let webhooks = configuration["webhooks"].as_array();
    let has_ca = |webhook: &Value| {
        let ca = webhook["clientConfig"]["caBundle"].as_str();
        ca.is_some_and(|ca| !ca.is_empty())
    };
    webhooks.is_some_and(|all| !all.is_empty() && all.iter().all(has_ca))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_that_is_not_there_or_still_changes_is_not_rolled_out() {
        let deployment = |available: u32| {
            json!({
                "metadata": { "generation": 2 },
                "spec": { "replicas": 1 },
                "status": {
                    "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1,
                    "availableReplicas": available,
                },
            })
        };
        assert!(is_rolled_out(&deployment(1)));
        assert!(!is_rolled_out(&deployment(0)));
        assert!(!is_rolled_out(&json!({ "kind": "Status", "code": 404 })));
    }

    #[test]
    fn mutual_tls_is_required_of_the_whole_mesh() {
        let strict: Value = serde_json::from_str(STRICT).unwrap();
        assert_eq!(strict["metadata"]["namespace"], NAMESPACE);
        assert_eq!(strict["spec"]["mtls"]["mode"], "STRICT");
    }

    #[test]
    fn a_webhook_is_callable_once_every_part_has_a_ca() {
        let configuration = |ca: &str| {
            json!({ "webhooks": [
                { "clientConfig": { "caBundle": "YQ==" } },
                { "clientConfig": { "caBundle": ca } },
            ] })
        };
        assert!(is_callable(&configuration("YQ==")));
        assert!(!is_callable(&configuration("")));
        assert!(!is_callable(
            &json!({ "webhooks": [{ "clientConfig": {} }] })
        ));
        assert!(!is_callable(&json!({})));
    }
}
