//! DestinationRules: how callers' Envoys connect, and when they give an endpoint up.

use std::{collections::BTreeMap, time::Duration};

use kube::{
    ResourceExt,
    core::{ApiResource, DynamicObject},
};
use lull_contract::names::{POD_LABEL, WORKLOAD_LABEL};
use serde_json::Value;

use super::{Kind, OF_USERS, duration, items, place_of, texts, touched_about};
use crate::{
    cache::Keys,
    mesh::{CallerPolicy, Host},
    stores::Touched,
};

/// TLS modes with which callers speak the app's own TLS in place of the mesh's.
const OWN_TLS: [&str; 2] = ["SIMPLE", "MUTUAL"];
/// Limits on what waits for an endpoint or is under way to it. For Istio each of them is unset where it
/// is 0, and then there is no limit (`applyConnectionPool` of its `cluster_traffic_policy.go`).
const LIMITS: [(&str, &str); 3] = [
    ("/tcp/maxConnections", "tcp.maxConnections"),
    (
        "/http/http1MaxPendingRequests",
        "http.http1MaxPendingRequests",
    ),
    ("/http/http2MaxRequests", "http.http2MaxRequests"),
];

/// A DestinationRule, as much of it as matters for endpoints that hold their callers.
///
/// What it says for single ports and subsets is put together with what it says for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRule {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The Services that it is about.
    pub host: Host,
    /// Callers speak TLS of their own with the app.
    pub has_own_tls: bool,
    /// Identities of which the endpoint must have one; empty: what the mesh knows of it.
    pub subject_alt_names: Vec<String>,
    /// Endpoints are left out for a time after failures.
    pub ejects: bool,
    /// Callers of a locality are sent to endpoints of some localities alone.
    pub distributions: Vec<Distribution>,
    /// Limits by name, the lowest of each.
    pub limits: BTreeMap<&'static str, u64>,
    /// The shortest.
    pub connect_timeout: Option<Duration>,
    /// Value of [`POD_LABEL`] of the endpoints that callers prefer to all others, where the rule says
    /// so for the whole host.
    pub pods_first: Option<String>,
    /// Lull has written it.
    pub ours: Option<Ours>,
}

/// Where callers of a locality are sent, and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Locality of the callers.
    pub from: String,
    /// Localities of the endpoints.
    pub to: Vec<String>,
}

/// What is known of a DestinationRule that Lull has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// [`WORKLOAD_LABEL`] of it.
    pub workload: String,
    /// Its uid, as it was read.
    pub uid: Option<String>,
    /// Its version, as it was read.
    pub resource_version: Option<String>,
}

// === impl DestinationRule ===

impl DestinationRule {
    pub(super) const KIND: Kind<Self> = Kind {
        group: "networking.istio.io",
        kind: "DestinationRule",
        plural: "destinationrules",
        keys: Keys {
            place: |rule| (String::new(), format!("{}/{}", rule.namespace, rule.name)),
            group: |rule| rule.host.namespace(),
            part: Self::part,
            alike: |a, b| a == b,
        },
        touched: Self::touched,
        kept: Self::from_object,
    };

    /// What is kept of `object`.
    pub(crate) fn from_object(object: &DynamicObject) -> Self {
        let (namespace, name) = place_of(object);
        let spec = &object.data["spec"];
        let mut rule = Self {
            host: Host::read(&spec["host"], &namespace),
            namespace,
            name,
            has_own_tls: false,
            subject_alt_names: Vec::new(),
            ejects: false,
            distributions: Vec::new(),
            limits: BTreeMap::new(),
            connect_timeout: None,
            pods_first: pods_first(&spec["trafficPolicy"]),
            ours: Ours::of(object),
        };
        rule.add(&spec["trafficPolicy"]);
        for subset in items(&spec["subsets"]) {
            rule.add(&subset["trafficPolicy"]);
        }
        rule
    }

    /// Plans are made from the users' rules. Of those that Lull has written, and of nothing else, it
    /// is seen whether they are still as they were written.
    fn part(&self) -> &str {
        match &self.ours {
            Some(_) => &self.namespace,
            None => OF_USERS,
        }
    }

    fn touched(&self) -> Touched {
        match &self.ours {
            // Nobody else looks at it.
            Some(ours) => Touched::Label(self.namespace.clone(), ours.workload.clone()),
            None => touched_about(std::iter::once(&self.host), &self.namespace),
        }
    }

    /// What the API server is asked for.
    #[must_use]
    pub fn resource() -> ApiResource {
        Self::KIND.resource()
    }

    /// Whether Lull has written it for the workload whose name has this label value.
    #[must_use]
    pub fn is_for_workload(&self, label: &str) -> bool {
        self.ours
            .as_ref()
            .is_some_and(|ours| ours.workload == label)
    }

    /// Whether it says this to callers of `service`, which is of its own namespace.
    #[must_use]
    pub fn says(&self, service: &str, policy: &CallerPolicy) -> bool {
        self.is_about(service)
            && self.connect_timeout == policy.connect_timeout
            && self.pods_first == policy.pods_first
    }

    /// Whether it is about `service`, which is of its own namespace.
    #[must_use]
    pub fn is_about(&self, service: &str) -> bool {
        self.host == Host::Service(self.namespace.clone(), service.to_owned())
    }

    /// Takes note of a policy and of what it says for single ports.
    fn add(&mut self, policy: &Value) {
        self.add_settings(policy);
        for port in items(&policy["portLevelSettings"]) {
            self.add_settings(port);
        }
    }

    fn add_settings(&mut self, settings: &Value) {
        let mode = settings["tls"]["mode"].as_str().unwrap_or_default();
        self.has_own_tls |= OWN_TLS.contains(&mode);
        self.subject_alt_names
            .extend(texts(&settings["tls"]["subjectAltNames"]));
        self.ejects |= ejects(&settings["outlierDetection"]);
        let locality = &settings["loadBalancer"]["localityLbSetting"];
        self.distributions.extend(distributions(locality));
        let pool = &settings["connectionPool"];
        for (pointer, name) in LIMITS {
            let limit = pool.pointer(pointer).and_then(Value::as_u64);
            if let Some(limit) = limit.filter(|limit| *limit > 0) {
                let lowest = self.limits.entry(name).or_insert(limit);
                *lowest = limit.min(*lowest);
            }
        }
        if let Some(timeout) = duration(&pool["tcp"]["connectTimeout"]) {
            let shortest = self.connect_timeout.get_or_insert(timeout);
            *shortest = timeout.min(*shortest);
        }
    }
}

// === impl Ours ===

impl Ours {
    fn of(object: &DynamicObject) -> Option<Self> {
        let workload = object.labels().get(WORKLOAD_LABEL)?.clone();
        Some(Self {
            workload,
            uid: object.uid(),
            resource_version: object.resource_version(),
        })
    }
}

/// What a `localityLbSetting` says, where it is not switched off.
pub(super) fn distributions(setting: &Value) -> Vec<Distribution> {
    if setting["enabled"] == false {
        return Vec::new();
    }
    let all = items(&setting["distribute"]).iter();
    all.map(|one| Distribution {
        from: one["from"].as_str().unwrap_or_default().to_owned(),
        to: one["to"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(to, _)| to.clone())
            .collect(),
    })
    .collect()
}

/// Whom `policy` puts before all others by [`POD_LABEL`]. Istio makes such priorities only where endpoints may
/// be ejected, and nobody is sent to named localities (`ApplyLocalityLoadBalancer` of its `loadbalancer.go`).
fn pods_first(policy: &Value) -> Option<String> {
    let setting = &policy["loadBalancer"]["localityLbSetting"];
    let is_on = setting["enabled"] != false
        && items(&setting["distribute"]).is_empty()
        && policy["outlierDetection"].is_object();
    let first = setting["failoverPriority"][0].as_str()?;
    let (label, value) = first.split_once('=')?;
    (is_on && label == POD_LABEL).then(|| value.to_owned())
}

/// Istio ejects after five failures, where nothing else is said.
fn ejects(detection: &Value) -> bool {
    let Some(detection) = detection.as_object() else {
        return false;
    };
    let count = |key: &str| detection.get(key).and_then(Value::as_u64);
    let others = ["consecutiveGatewayErrors", "consecutiveLocalOriginFailures"];
    count("consecutive5xxErrors") != Some(0) || others.iter().any(|key| count(key).unwrap_or(0) > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mesh::rules::tests::object;

    #[test]
    fn what_ports_and_subsets_say_counts_too_and_the_hardest_limit_holds() {
        let pool = |timeout: &str, connections: u32| {
            let tcp = json!({ "connectTimeout": timeout, "maxConnections": connections });
            json!({ "tcp": tcp })
        };
        let rule = DestinationRule::from_object(&object(&json!({
            "metadata": { "name": "r", "namespace": "team" },
            "spec": {
                "host": "shop",
                "trafficPolicy": {
                    "connectionPool": pool("20s", 9),
                    "portLevelSettings": [{
                        "port": { "number": 80 },
                        "tls": { "mode": "SIMPLE", "subjectAltNames": ["a"] },
                    }],
                },
                "subsets": [{
                    "name": "v1",
                    "trafficPolicy": {
                        "outlierDetection": {}, "connectionPool": pool("3s", 12),
                    },
                }],
            },
        })));
        assert_eq!(rule.host, Host::Service("team".into(), "shop".into()));
        assert!(rule.has_own_tls && rule.ejects);
        assert_eq!(rule.subject_alt_names, ["a"]);
        assert_eq!(rule.connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(rule.limits, BTreeMap::from([("tcp.maxConnections", 9)]));
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let rule = |pool: &Value| {
            DestinationRule::from_object(&object(&json!({
                "metadata": { "name": "r", "namespace": "team" },
                "spec": { "host": "shop", "trafficPolicy": { "connectionPool": pool } },
            })))
        };
        let none = rule(&json!({
            "tcp": { "maxConnections": 0 },
            "http": { "http1MaxPendingRequests": 0, "http2MaxRequests": 0 },
        }));
        assert!(none.limits.is_empty(), "{none:?}");
        let one = rule(&json!({ "tcp": { "maxConnections": 1 } }));
        assert_eq!(one.limits, BTreeMap::from([("tcp.maxConnections", 1)]));
    }

    #[test]
    fn only_outlier_detection_that_counts_something_ejects() {
        let rows = [
            (Value::Null, false),
            (json!({}), true),
            (json!({ "consecutive5xxErrors": 0 }), false),
            (
                json!({ "consecutive5xxErrors": 0, "consecutiveGatewayErrors": 3 }),
                true,
            ),
        ];
        for (detection, expected) in rows {
            assert_eq!(ejects(&detection), expected, "{detection}");
        }
    }

    #[test]
    fn pods_come_first_only_where_istio_makes_priorities_of_it() {
        let label = |value: &str| format!("{POD_LABEL}={value}");
        let policy = |setting: Value| {
            json!({
                "loadBalancer": { "localityLbSetting": setting },
                "outlierDetection": {},
            })
        };
        let first = || policy(json!({ "failoverPriority": [label("shop"), "zone"] }));
        let with = |key: &str, value: Value| {
            let mut policy = first();
            policy["loadBalancer"]["localityLbSetting"][key] = value;
            policy
        };
        let mut undetected = first();
        undetected["outlierDetection"] = Value::Null;
        let to = json!([{ "from": "eu/*", "to": { "eu/*": 100 } }]);
        let rows = [
            (first(), Some("shop")),
            (with("enabled", json!(true)), Some("shop")),
            (with("enabled", json!(false)), None),
            (with("distribute", to), None),
            (undetected, None),
            (
                policy(json!({ "failoverPriority": ["zone", label("shop")] })),
                None,
            ),
            (policy(json!({ "failoverPriority": [POD_LABEL] })), None),
            (policy(json!({})), None),
            (Value::Null, None),
        ];
        for (policy, expected) in rows {
            assert_eq!(pods_first(&policy).as_deref(), expected, "{policy}");
        }
    }

    #[test]
    fn where_callers_are_sent_by_locality_is_kept_unless_it_is_switched_off() {
        let setting = |enabled: Value| {
            let to = json!({ "eu/eu-1/*": 80, "eu/eu-2/*": 20 });
            let distribute = json!([{ "from": "eu/*", "to": to }]);
            let setting = json!({ "enabled": enabled, "distribute": distribute });
            let policy = json!({ "loadBalancer": { "localityLbSetting": setting } });
            DestinationRule::from_object(&object(&json!({
                "metadata": { "name": "r", "namespace": "team" },
                "spec": { "host": "shop", "trafficPolicy": policy },
            })))
        };
        let expected = Distribution {
            from: "eu/*".to_owned(),
            to: vec!["eu/eu-1/*".to_owned(), "eu/eu-2/*".to_owned()],
        };
        assert_eq!(
            setting(Value::Null).distributions,
            std::slice::from_ref(&expected)
        );
        assert_eq!(setting(json!(true)).distributions, [expected]);
        assert!(setting(json!(false)).distributions.is_empty());
    }
}
