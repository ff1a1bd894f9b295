//! What istiod itself is told, as far as sleep depends on it: its Deployments' environment, and the
//! mesh's configuration beside them.
//!
//! Both are looked for in the root namespace. Of an istiod elsewhere, and without the rights, nothing
//! is known, and nothing is said.

use std::{collections::BTreeMap, fmt::Debug};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, PodSpec},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
};
use kube::{
    Api, Resource, ResourceExt,
    core::{Expression, Selector, SelectorExt},
    runtime::watcher,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Start,
    destination_rule::{Distribution, distributions},
};
use crate::{
    cache::{Cache, Keys, Writer},
    config::NAMESPACE_NAME_LABEL,
    mesh::{API_VERSION, MeshMode, entries, kinds::until_served},
    stores::{Teller, Touched, Watch},
};

/// Labels of istiod's Deployments and pods, as Istio's own installations set them.
pub const ISTIOD: &str = "app=istiod";
/// Name of the mesh's configuration, but for that of a revision: rights on it are by its name.
pub const MESH_CONFIG: &str = "istio";
/// Istiod's variable for whether Services select WorkloadEntries; on by default.
pub const SELECT_ENTRIES: &str = "PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES";
/// Istiod's variable for whether its container is a native sidecar in pods that don't say it.
pub const NATIVE_SIDECARS: &str = "ENABLE_NATIVE_SIDECARS";

/// Istiod's variable for its cluster's name.
const CLUSTER_ID: &str = "CLUSTER_ID";
/// That name where nobody has given another, as for a mesh of several clusters one has to.
const ONLY_CLUSTER: &str = "Kubernetes";

/// A Deployment of istiod's, as much of it as Lull reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Istiod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// By it Services select pods alone.
    pub ignores_entries: bool,
    /// It is told to make its container an ordinary one in pods that don't say what they want.
    pub is_classic: bool,
    /// Its cluster's name, where it has been given one.
    pub cluster: Option<String>,
    /// Since when enough of its pods have been available; `None` where they aren't, or nobody says so.
    pub available_since: Option<Timestamp>,
}

/// The mesh's configuration, as much of it as Lull reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The namespaces that istiod looks at: those that any of these selects. Empty: all.
    discovery: Vec<Selector>,
    /// Callers of a locality are sent to endpoints of some localities alone.
    pub distributions: Vec<Distribution>,
}

/// The same as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    discovery_selectors: Option<Vec<LabelSelector>>,
    locality_lb_setting: Value,
}

/// Whether an istiod with such pods lets Services select pods alone.
#[must_use]
pub fn ignores_entries(istiod: &PodSpec) -> bool {
    says_no(istiod, SELECT_ENTRIES)
}

/// Whether a variable is a no as istiod reads it; whatever else there is leaves its default.
fn says_no(istiod: &PodSpec, name: &str) -> bool {
    let value = variable(istiod, name).unwrap_or_default();
    let mut no = ["0", "f", "false"].iter();
    no.any(|no| value.eq_ignore_ascii_case(no))
}

/// What a container's variable of this name says; `None` also where it is read from elsewhere.
fn variable<'a>(pods: &'a PodSpec, name: &str) -> Option<&'a str> {
    let containers = pods.containers.iter();
    let mut variables = containers.flat_map(|container| container.env.iter().flatten());
    // Of two of one name, as charts write them, the last one holds.
    let variable = variables.rfind(|variable| variable.name == name)?;
    variable.value.as_deref()
}

// === impl Istiod ===

impl Istiod {
    pub(super) const KEYS: Keys<Self> = Keys {
        place: |istiod| (istiod.namespace.clone(), istiod.name.clone()),
        group: |_| None,
        part: |istiod| &istiod.namespace,
        alike: Self::is_planned_alike,
    };

    /// Whether plans are made from the same of both.
    fn is_planned_alike(&self, other: &Self) -> bool {
        let is = |istiod: &Self| Self {
            available_since: None,
            ..istiod.clone()
        };
        is(self) == is(other)
    }

    /// Those of the namespace `root`.
    pub(super) fn watch(start: &Start<'_>, root: &str) -> Cache<Self> {
        let api = Api::<Deployment>::namespaced(start.client.clone(), root);
        let labelled = lull_kubernetes::watched().labels(ISTIOD);
        watch(start, "istiods", (api, labelled), Self::KEYS)
    }
}

impl From<Deployment> for Istiod {
    fn from(istiod: Deployment) -> Self {
        let (namespace, name) = (istiod.namespace().unwrap_or_default(), istiod.name_any());
        let conditions = istiod.status.and_then(|status| status.conditions);
        let mut conditions = conditions.into_iter().flatten();
        let available = conditions.find(|c| c.type_ == "Available" && c.status == "True");
        let available_since = available.and_then(|condition| condition.last_transition_time);
        // One without pods tells nobody anything.
        let spec = istiod.spec.filter(|spec| spec.replicas != Some(0));
        let pods = spec.and_then(|spec| spec.template.spec);
        let cluster = pods.as_ref().and_then(|pods| variable(pods, CLUSTER_ID));
        let cluster = cluster.filter(|name| !name.is_empty() && *name != ONLY_CLUSTER);
        Self {
            namespace,
            name,
            ignores_entries: pods.as_ref().is_some_and(ignores_entries),
            is_classic: pods
                .as_ref()
                .is_some_and(|pods| says_no(pods, NATIVE_SIDECARS)),
            cluster: cluster.map(ToOwned::to_owned),
            available_since: available_since.map(|Time(since)| since),
        }
    }
}

// === impl MeshConfig ===

impl MeshConfig {
    pub(super) const KEYS: Keys<Self> = Keys {
        place: |config| (config.namespace.clone(), config.name.clone()),
        group: |_| None,
        part: |config| &config.namespace,
        alike: |a, b| a == b,
    };

    /// That of the namespace `root`.
    pub(super) fn watch(start: &Start<'_>, root: &str) -> Cache<Self> {
        let api = Api::<ConfigMap>::namespaced(start.client.clone(), root);
        let named = lull_kubernetes::watched().fields(&format!("metadata.name={MESH_CONFIG}"));
        watch(start, "meshconfig", (api, named), Self::KEYS)
    }

    /// Whether istiod looks at `namespace` for certain: of its labels only that of its name is known.
    #[must_use]
    pub fn discovers(&self, namespace: &str) -> bool {
        let name = (NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned());
        let labels = BTreeMap::from([name]);
        let is_by_name = |selector: &Selector| {
            let mut parts = selector.clone().into_iter();
            parts.all(|part| key(&part) == NAMESPACE_NAME_LABEL)
        };
        let mut selectors = self.discovery.iter();
        self.discovery.is_empty()
            || selectors.any(|selector| is_by_name(selector) && selector.matches(&labels))
    }

    /// The selectors of namespaces, for people.
    #[must_use]
    pub fn selectors(&self) -> String {
        let selectors: Vec<String> = self.discovery.iter().map(ToString::to_string).collect();
        selectors.join(" or ")
    }
}

impl From<ConfigMap> for MeshConfig {
    fn from(config: ConfigMap) -> Self {
        let (namespace, name) = (config.namespace().unwrap_or_default(), config.name_any());
        let text = config.data.as_ref().and_then(|data| data.get("mesh"));
        // What can't be read istiod doesn't take either.
        let written: Option<Written> = text.and_then(|text| serde_saphyr::from_str(text).ok());
        let written = written.unwrap_or_default();
        let selectors = written.discovery_selectors.into_iter().flatten();
        Self {
            namespace,
            name,
            discovery: selectors.filter_map(|s| s.try_into().ok()).collect(),
            distributions: distributions(&written.locality_lb_setting),
        }
    }
}

/// The label that `expression` is about.
fn key(expression: &Expression) -> &str {
    match expression {
        Expression::In(key, _)
        | Expression::NotIn(key, _)
        | Expression::Equal(key, _)
        | Expression::NotEqual(key, _)
        | Expression::Exists(key)
        | Expression::DoesNotExist(key) => key,
    }
}

/// Starts to watch these objects once the cluster has a mesh; nothing waits for what may not be read.
fn watch<R, K>(
    start: &Start<'_>,
    name: &str,
    what: (Api<R>, watcher::Config),
    keys: Keys<K>,
) -> Cache<K>
where
    R: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K: From<R> + Send + Sync + 'static,
{
    let writer = Writer::new(keys);
    let cache = writer.cache();
    if start.mode == MeshMode::None {
        return cache;
    }
    let pending = start.readiness.expect(name);
    let teller = Teller::new(name, start.on_touched);
    let (client, mode) = (start.client.clone(), start.mode);
    tokio::spawn(async move {
        let kind = (API_VERSION, entries::PLURAL);
        let pending = until_served(&client, kind, mode, pending).await;
        let watch = Watch {
            teller,
            pending,
            touched: |_: &K| Touched::Workloads,
            is_vital: false,
            unplanned: Some(|_| None),
        };
        let kept = <K as From<R>>::from;
        watch.run(what, writer, kept, || {}).await;
    });
    cache
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn istiod(spec: &Value) -> Istiod {
        let metadata = json!({ "name": "istiod", "namespace": "istio-system" });
        let istiod = json!({ "metadata": metadata, "spec": spec });
        serde_json::from_value::<Deployment>(istiod).unwrap().into()
    }

    /// Of an istiod with this variable.
    fn with(name: &str, value: &str) -> Value {
        let env = json!([{ "name": "REVISION" }, { "name": name, "value": value }]);
        let pods = json!({ "containers": [{ "name": "discovery", "env": env }] });
        json!({ "template": { "spec": pods } })
    }

    #[test]
    fn entries_are_ignored_where_istiod_reads_a_no() {
        for (value, expected) in [
            ("false", true),
            ("False", true),
            ("0", true),
            ("f", true),
            ("true", false),
            ("1", false),
            ("no", false),
            ("", false),
        ] {
            let read = istiod(&with(SELECT_ENTRIES, value));
            assert_eq!(read.ignores_entries, expected, "{value:?}");
            let read = istiod(&with(NATIVE_SIDECARS, value));
            assert_eq!(read.is_classic, expected, "{value:?}");
        }
        let mut asleep = with(SELECT_ENTRIES, "false");
        asleep["replicas"] = json!(0);
        assert!(!istiod(&asleep).ignores_entries);
        assert!(!istiod(&json!({})).ignores_entries);
    }

    #[test]
    fn a_cluster_has_a_name_where_it_is_not_the_default() {
        for (value, expected) in [
            ("Kubernetes", None),
            ("", None),
            ("east", Some("east".to_owned())),
        ] {
            assert_eq!(istiod(&with(CLUSTER_ID, value)).cluster, expected);
        }
    }

    fn config(mesh: Option<&str>) -> MeshConfig {
        let metadata = json!({ "name": "istio", "namespace": "istio-system" });
        let data = mesh.map(|mesh| json!({ "mesh": mesh, "meshNetworks": "networks: {}" }));
        let config = json!({ "metadata": metadata, "data": data });
        serde_json::from_value::<ConfigMap>(config).unwrap().into()
    }

    #[test]
    fn a_namespace_is_discovered_where_no_other_label_than_its_name_can_change_it() {
        let rows = [
            ("", true),
            ("trustDomain: cluster.local", true),
            ("discoverySelectors:", true),
            ("discoverySelectors: []", true),
            ("discoverySelectors: [{}]", true),
            (
                "discoverySelectors: [{ matchLabels: { team: shop } }]",
                false,
            ),
            (
                "discoverySelectors: [{ matchLabels: { mesh: true } }]",
                false,
            ),
            (
                "discoverySelectors: [{ matchLabels: { kubernetes.io/metadata.name: shop } }]",
                true,
            ),
            (
                "discoverySelectors: [{ matchLabels: { kubernetes.io/metadata.name: bank } }]",
                false,
            ),
            (
                "discoverySelectors:\n- matchLabels: { team: shop }\n- matchExpressions:\n  \
                 - { key: kubernetes.io/metadata.name, operator: NotIn, values: [bank] }",
                true,
            ),
            // It may have the label.
            (
                "discoverySelectors:\n- matchExpressions:\n  - { key: legacy, operator: DoesNotExist }",
                false,
            ),
            ("discoverySelectors: [", true),
        ];
        for (mesh, expected) in rows {
            assert_eq!(config(Some(mesh)).discovers("shop"), expected, "{mesh}");
        }
        assert!(config(None).discovers("shop"));
        let two =
            "discoverySelectors: [{ matchLabels: { team: a } }, { matchLabels: { team: b } }]";
        assert_eq!(config(Some(two)).selectors(), "team=a or team=b");
    }
}
