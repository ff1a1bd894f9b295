//! Sidecars: which ports a pod's Envoy has listeners for, and which hosts callers' Envoys know.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DynamicObject;
use serde_json::Value;

use super::{Kind, Labels, items, labels, place_of, selects, texts};
use crate::{cache::Keys, mesh::Host, stores::Touched};

/// Protocol of an egress listener that is a proxy for all ports.
const HTTP_PROXY: &str = "HTTP_PROXY";

/// A Sidecar, as much of it as Lull reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// When it was made.
    pub created: Option<Time>,
    /// The ports that pods' Envoys listen on; empty: as the Services say.
    pub ingress: Vec<Ingress>,
    /// It has no selector at all: those that have one, an empty one too, go before it.
    pub is_default: bool,
    /// What is known of other hosts; empty: all of them.
    egress: Vec<Egress>,
    selector: Option<Labels>,
}

/// A port that pods' Envoys listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// The port.
    pub port: u16,
    /// Where it leads, if not to the same port of the pod.
    pub elsewhere: Option<String>,
}

/// Hosts that callers' Envoys know.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Egress {
    /// The one port of theirs that is known; `None`: all.
    port: Option<u16>,
    /// As `namespace/host`, and `~namespace/host` for those that are not known after all.
    hosts: Vec<String>,
}

// === impl Sidecar ===

impl Sidecar {
    pub(super) const KIND: Kind<Self> = Kind {
        group: "networking.istio.io",
        kind: "Sidecar",
        plural: "sidecars",
        keys: Keys {
            place: |sidecar| (sidecar.namespace.clone(), sidecar.name.clone()),
            group: |_| None,
            part: |sidecar| &sidecar.namespace,
            alike: |a, b| a == b,
        },
        touched: |sidecar| Touched::Namespace(sidecar.namespace.clone()),
        kept: Self::from_object,
    };

    /// What is kept of `object`.
    pub(crate) fn from_object(object: &DynamicObject) -> Self {
        let (namespace, name) = place_of(object);
        let spec = &object.data["spec"];
        Self {
            namespace,
            name,
            created: object.metadata.creation_timestamp.clone(),
            ingress: items(&spec["ingress"])
                .iter()
                .filter_map(Ingress::read)
                .collect(),
            is_default: spec["workloadSelector"].is_null(),
            egress: items(&spec["egress"]).iter().map(Egress::read).collect(),
            selector: labels(&spec["workloadSelector"]["labels"]),
        }
    }

    /// Whether it is for all pods of its namespace.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.selector.is_none()
    }

    /// Whether it is for pods with these labels.
    #[must_use]
    pub fn selects(&self, pods: &Labels) -> bool {
        selects(self.selector.as_ref(), pods)
    }

    /// Whether callers that it is for know `port` of the Service called `name` in `namespace`, where they
    /// are in that namespace too.
    #[must_use]
    pub fn knows(&self, (namespace, name): (&str, &str), port: u16) -> bool {
        let mut listeners = self.egress.iter();
        self.egress.is_empty() || listeners.any(|listener| listener.knows((namespace, name), port))
    }
}

// === impl Ingress ===

impl Ingress {
    fn read(listener: &Value) -> Option<Self> {
        let port = port(listener)?;
        let to = listener["defaultEndpoint"].as_str().unwrap_or_default();
        let is_same = to.is_empty() || to.rsplit(':').next() == Some(port.to_string().as_str());
        Some(Self {
            port,
            elsewhere: (!is_same).then(|| to.to_owned()),
        })
    }
}

// === impl Egress ===

impl Egress {
    fn read(listener: &Value) -> Self {
        // A proxy for all of them, whatever its own port is.
        let is_proxy = listener["port"]["protocol"] == HTTP_PROXY;
        Self {
            port: port(listener).filter(|port| *port != 0 && !is_proxy),
            hosts: texts(&listener["hosts"]),
        }
    }

    fn knows(&self, service: (&str, &str), port: u16) -> bool {
        let meant = self.hosts.iter().filter_map(|host| import(host, service));
        let meant: Vec<bool> = meant.collect();
        let is_port = self.port.is_none_or(|own| own == port);
        is_port && !meant.is_empty() && meant.iter().all(|is_known| *is_known)
    }
}

/// Whether `host` lets callers of the Service's own namespace know it; `None` where it is not about it.
fn import(host: &str, (namespace, name): (&str, &str)) -> Option<bool> {
    let (of, host) = host.split_once('/')?;
    let excluded = of.strip_prefix('~');
    let is_there = match excluded.unwrap_or(of) {
        "" => excluded.is_some(),
        "*" | "." => true,
        other => other == namespace,
    };
    // Istio completes no short names here.
    let is_whole = host == "*" || host.contains('.');
    let is_meant = || Host::read(&Value::from(host), namespace).is_for(namespace, name);
    (is_there && is_whole && is_meant()).then_some(excluded.is_none())
}

/// The port of a listener.
fn port(listener: &Value) -> Option<u16> {
    u16::try_from(listener["port"]["number"].as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mesh::rules::tests::object;

    fn sidecar(spec: &Value) -> Sidecar {
        let metadata = json!({ "name": "default", "namespace": "team" });
        Sidecar::from_object(&object(&json!({ "metadata": metadata, "spec": spec })))
    }

    #[test]
    fn hosts_are_known_by_namespace_and_name() {
        let rows = [
            (json!(["*/*"]), true),
            (json!(["./*"]), true),
            (json!(["team/shop.team.svc.cluster.local"]), true),
            (json!(["./bank.team.svc.cluster.local"]), false),
            (json!(["istio-system/*"]), false),
            (json!(["~/*"]), false),
            // What is taken out is out, whatever else lets it in.
            (json!(["*/*", "~./shop.team.svc.cluster.local"]), false),
            (json!(["*/*", "~team/*"]), false),
            (json!(["*/*", "~istio-system/*"]), true),
            // Neither is completed, nor read as any namespace.
            (json!(["./shop"]), false),
            (json!(["shop.team.svc.cluster.local"]), false),
        ];
        for (hosts, expected) in rows {
            let spec = json!({ "egress": [{ "hosts": hosts }] });
            let is_known = sidecar(&spec).knows(("team", "shop"), 80);
            assert_eq!(is_known, expected, "{hosts}");
        }
        assert!(sidecar(&json!({})).knows(("team", "shop"), 80));
    }

    #[test]
    fn a_listener_with_a_port_knows_that_one_alone() {
        let of_port = |protocol: &str| {
            let port = json!({ "number": 80, "protocol": protocol });
            let hidden = json!({ "hosts": ["istio-system/*"] });
            sidecar(&json!({ "egress": [{ "port": port, "hosts": ["./*"] }, hidden] }))
        };
        let knows = |sidecar: &Sidecar| [80, 81].map(|port| sidecar.knows(("team", "shop"), port));
        assert_eq!(knows(&of_port("HTTP")), [true, false]);
        assert_eq!(knows(&of_port("HTTP_PROXY")), [true, true]);
    }

    #[test]
    fn listeners_are_read_with_where_they_lead() {
        let rows = [
            (Value::Null, None),
            (json!("127.0.0.1:8012"), None),
            (json!("0.0.0.0:8012"), None),
            (json!("[::1]:8012"), None),
            (json!("127.0.0.1:8080"), Some("127.0.0.1:8080")),
            (json!("unix:///var/run/app"), Some("unix:///var/run/app")),
        ];
        for (endpoint, expected) in rows {
            let ingress = json!([{ "port": { "number": 8012 }, "defaultEndpoint": endpoint }]);
            let read = sidecar(&json!({ "ingress": ingress })).ingress;
            let expected = Ingress {
                port: 8012,
                elsewhere: expected.map(ToOwned::to_owned),
            };
            assert_eq!(read, [expected], "{endpoint}");
        }
    }

    #[test]
    fn without_a_selector_it_is_the_default_and_with_an_empty_one_it_is_for_all() {
        let of = |selector: Value| sidecar(&json!({ "workloadSelector": selector }));
        let rows = [
            (Value::Null, [true, true]),
            (json!({ "labels": {} }), [false, true]),
            (json!({ "labels": { "app": "shop" } }), [false, false]),
        ];
        for (selector, expected) in rows {
            let read = of(selector);
            assert_eq!([read.is_default, read.is_for_all()], expected, "{read:?}");
        }
    }
}
