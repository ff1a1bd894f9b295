//! A workload's settings after annotations and defaults have been put together.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::HumanDuration;

/// Names of protocols that are neither HTTP nor TLS, as Istio knows them
/// (<https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/>): a port is
/// called so, with or without a `-` and more behind.
const RAW_PREFIXES: [&str; 4] = ["mongo", "mysql", "redis", "tcp"];
/// Names of more such protocols, of ports that are called so and nothing else (`kafka-ui` is a web page).
const RAW_NAMES: [&str; 11] = [
    "amqp",
    "kafka",
    "ldap",
    "memcached",
    "mongodb",
    "mqtt",
    "nats",
    "postgres",
    "postgresql",
    "smtp",
    "ssh",
];

/// Ports of MySQL, PostgreSQL, AMQP, Redis, memcached and MongoDB, in the order of their numbers, by
/// which nobody serves HTTP (<https://www.iana.org/assignments/service-names-port-numbers>).
const RAW_NUMBERS: [u16; 6] = [3306, 5432, 5672, 6379, 11_211, 27_017];

/// What is averaged over the window and compared with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Requests in flight.
    Concurrency,
    /// Requests per second.
    Rps,
}

/// Who decides about the number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Lull, by Knative's pod autoscaler algorithm.
    Kpa,
    /// Lull between 0 and 1, the user's HorizontalPodAutoscaler above.
    Hpa,
    /// Nobody: sidecar and metrics only.
    None,
}

/// How the bytes on an app port are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AppProtocol {
    /// HTTP/1.1, h2c and what upgrades from them; TLS is recognised and passed as bytes.
    Http,
    /// A plain byte stream, also one in which the server speaks first.
    Tcp,
}

/// A port of the app that Lull serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AppPort {
    /// The app's own port number.
    pub number: u16,
    /// How its bytes are treated.
    pub protocol: AppProtocol,
}

/// What neither wakes a workload nor counts as traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Ignore {
    /// Request paths, exact.
    pub paths: Vec<String>,
    /// Prefixes of the `User-Agent` header.
    pub user_agents: Vec<String>,
}

/// Everything that can be set for a workload, resolved. What an older version did not write yet is as
/// it is by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Who decides about the number of pods.
    pub class: Class,
    /// Fewest pods; 0 lets the workload sleep.
    pub min_scale: u32,
    /// Most pods; 0 = no bound.
    pub max_scale: u32,
    /// Pods that the workload keeps until it has been ready once.
    pub initial_scale: u32,
    /// Fewest pods that a wake starts.
    pub activation_scale: u32,
    /// What is averaged.
    pub metric: Metric,
    /// Total per pod: requests in flight or requests per second, by `metric`.
    pub target: f64,
    /// Share of `target` that the autoscaler aims at, percent.
    pub target_utilization_percentage: f64,
    /// The stable window.
    pub window: HumanDuration,
    /// The panic window as a share of the stable one, percent.
    pub panic_window_percentage: f64,
    /// Load over capacity at which panic starts, percent.
    pub panic_threshold_percentage: f64,
    /// How long a lower count must last before it is applied.
    pub scale_down_delay: HumanDuration,
    /// How long the last pod stays after everything else says sleep.
    pub scale_to_zero_pod_retention_period: HumanDuration,
    /// Spare requests in flight below which activators stay in the path; -1 = always.
    pub target_burst_capacity: i64,
    /// Hard limit of requests in flight per pod; 0 = none.
    pub container_concurrency: u32,
    /// Requests that may wait in a pod for a slot (only with a hard limit).
    pub queue_depth: u32,
    /// Longest time from a request's arrival to the end of its answer.
    pub timeout: HumanDuration,
    /// Longest time to the first byte of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_start_timeout: Option<HumanDuration>,
    /// Longest time without a byte in either direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<HumanDuration>,
    /// Longest time an activator holds a plain HTTP request.
    pub hold_timeout: HumanDuration,
    /// Longest time an activator holds a TLS or TCP connection.
    pub connection_hold_timeout: HumanDuration,
    /// Connect timeout that callers' Envoys get from Lull, by a DestinationRule, where they have no
    /// other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<HumanDuration>,
    /// In a mesh, activators stay among the endpoints while the workload is awake, and callers call
    /// them where no pod is left; by the same DestinationRule.
    pub standby: bool,
    /// Answers that came through an activator say how long they were held, and why
    /// (`Server-Timing`).
    pub server_timing: bool,
    /// Age after which an activator closes a TLS or TCP connection that is quiet; at twice the age
    /// it closes it in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub splice_max_age: Option<HumanDuration>,
    /// What neither wakes nor counts.
    pub ignore: Ignore,
}

/// Knative's `container-concurrency-target-default`.
pub const DEFAULT_TARGET_CONCURRENCY: f64 = 100.0;
/// Knative's `requests-per-second-target-default`.
pub const DEFAULT_TARGET_RPS: f64 = 200.0;
/// Knative's smallest target.
pub const MIN_TARGET: f64 = 0.01;
/// With a hard limit, activators stay until this many spare slots are there (Knative: 211).
pub const DEFAULT_BURST_CAPACITY_WITH_LIMIT: i64 = 200;
/// Waiting places per slot in a pod (Knative's factor, there not configurable).
pub const QUEUE_DEPTH_PER_SLOT: u32 = 10;
/// How long Istio's Envoys try to connect, where no DestinationRule says otherwise
/// (`meshConfig.connectTimeout`); a held TLS connection is one that is not made yet.
pub const MESH_CONNECT_TIMEOUT: HumanDuration = HumanDuration::from_secs(10);
/// How often they try it for one HTTP request, where its route says nothing of retries.
pub const MESH_CONNECT_TRIES: u32 = 3;
/// Longest connect timeout that Lull writes: so long a caller also waits for a pod that has vanished
/// while its workload is awake, before it tries the next one.
pub const MAX_CONNECT_TIMEOUT: HumanDuration = HumanDuration::from_secs(60);
/// Most requests and connections that an activator holds for one workload, where it isn't told another
/// number (Knative's), and most that wait in a pod that has just been woken.
pub const MAX_HELD_PER_WORKLOAD: usize = 10_000;
/// Memory limit of the sidecar, MiB, where it isn't given another.
pub const SIDECAR_MEMORY_LIMIT_MIB: u64 = 256;
/// [`MESH_CONNECT_TRIES`] of [`MESH_CONNECT_TIMEOUT`], with room before the last one ends.
pub const DEFAULT_CONNECTION_HOLD: HumanDuration = HumanDuration::from_secs(25);
/// Least time that a queue-proxy drains for late arrivals, where it isn't told another: endpoint
/// changes reach every client within it on the clusters that were measured.
pub const DRAIN_MIN: HumanDuration = HumanDuration::from_secs(10);
/// What a drain leaves of the pod's grace period for the app, whose own stop begins when the drain
/// has ended.
pub const DRAIN_APP_STOP: Duration = Duration::from_secs(3);
/// User agents that neither wake nor count unless the user says otherwise.
pub const DEFAULT_IGNORED_USER_AGENTS: [&str; 4] = [
    "kube-probe/",
    "Prometheus/",
    "ELB-HealthChecker/",
    "GoogleHC/",
];

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            class: Class::Kpa,
            min_scale: 0,
            max_scale: 0,
            initial_scale: 1,
            activation_scale: 1,
            metric: Metric::Concurrency,
            target: DEFAULT_TARGET_CONCURRENCY,
            target_utilization_percentage: 70.0,
            window: HumanDuration::from_secs(60),
            panic_window_percentage: 10.0,
            panic_threshold_percentage: 200.0,
            scale_down_delay: HumanDuration::from_secs(0),
            scale_to_zero_pod_retention_period: HumanDuration::from_secs(0),
            target_burst_capacity: 0,
            container_concurrency: 0,
            queue_depth: 0,
            timeout: HumanDuration::from_secs(300),
            response_start_timeout: None,
            idle_timeout: None,
            hold_timeout: HumanDuration::from_secs(300),
            connection_hold_timeout: DEFAULT_CONNECTION_HOLD,
            connect_timeout: None,
            standby: false,
            server_timing: true,
            splice_max_age: None,
            ignore: Ignore::default(),
        }
    }
}

impl Settings {
    /// Total per pod: `target`, capped by the hard limit where the metric is concurrency.
    #[must_use]
    pub fn total_per_pod(&self) -> f64 {
        match (self.metric, self.container_concurrency) {
            (Metric::Concurrency, limit) if limit > 0 => self.target.min(f64::from(limit)),
            _ => self.target,
        }
    }

    /// What the autoscaler aims at per pod: total x utilisation, at least [`MIN_TARGET`].
    ///
    /// A limit of 1 uses the whole slot: 0.7 requests in flight per pod can't be had.
    #[must_use]
    pub fn target_per_pod(&self) -> f64 {
        let total = self.total_per_pod();
        if self.metric == Metric::Concurrency && self.container_concurrency == 1 {
            return total.max(MIN_TARGET);
        }
        (total * self.target_utilization_percentage / 100.0).max(MIN_TARGET)
    }

    /// The panic window: the stable one by percentage, rounded to a second, at least 1 s.
    #[must_use]
    pub fn panic_window(&self) -> Duration {
        let secs = self.window.0.as_secs_f64() * self.panic_window_percentage / 100.0;
        Duration::from_secs_f64(secs.round().max(1.0))
    }

    /// Whether a request with this path and user agent neither wakes nor counts.
    #[must_use]
    pub fn ignores(&self, path: &str, user_agent: Option<&str>) -> bool {
        self.ignore.matches(path, user_agent)
    }
}

// === impl Ignore ===

impl Default for Ignore {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            user_agents: DEFAULT_IGNORED_USER_AGENTS.map(str::to_owned).to_vec(),
        }
    }
}

impl Ignore {
    /// Whether a request with this path and user agent is named here.
    #[must_use]
    pub fn matches(&self, path: &str, user_agent: Option<&str>) -> bool {
        self.paths.iter().any(|p| p == path)
            || user_agent.is_some_and(|agent| {
                self.user_agents
                    .iter()
                    .any(|p| agent.starts_with(p.as_str()))
            })
    }
}

// === impl AppPort ===

impl AppPort {
    /// The app port that a container port stands for which is called `name` (empty: it has no name)
    /// and has this transport; `None` where it isn't TCP.
    #[must_use]
    pub fn declared(name: &str, number: u16, transport: &str) -> Option<Self> {
        let says_http = name.starts_with("http") || name.starts_with("grpc");
        let protocol = if RAW_NUMBERS.contains(&number) && !says_http {
            AppProtocol::Tcp
        } else {
            AppProtocol::named(name)
        };
        (transport == "TCP").then_some(Self { number, protocol })
    }
}

// === impl AppProtocol ===

impl AppProtocol {
    /// What a port with this name, or this `appProtocol`, speaks.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let (prefix, _) = name.split_once('-').unwrap_or((name.as_str(), ""));
        if RAW_PREFIXES.contains(&prefix) || RAW_NAMES.contains(&name.as_str()) {
            Self::Tcp
        } else {
            Self::Http
        }
    }
}

impl fmt::Display for AppProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(limit: u32, metric: Metric, target: f64, utilization: f64) -> (f64, f64) {
        let settings = Settings {
            container_concurrency: limit,
            metric,
            target,
            target_utilization_percentage: utilization,
            ..Settings::default()
        };
        (settings.target_per_pod(), settings.total_per_pod())
    }

    #[test]
    fn target_follows_knatives_vectors() {
        use Metric::{Concurrency, Rps};
        // Section 5; (row, limit, metric, target, utilisation, target and total per pod). Row 2 is
        // not: a limit of 1 is used whole here.
        let rows = [
            (1, 10, Concurrency, 100.0, 80.0, (8.0, 10.0)),
            (3, 1, Concurrency, 100.0, 100.0, (1.0, 1.0)),
            (4, 10, Concurrency, 100.0, 100.0, (10.0, 10.0)),
            (5, 10, Concurrency, 1.0, 100.0, (1.0, 1.0)),
            (6, 1, Concurrency, 10.0, 100.0, (1.0, 1.0)),
            (7, 1, Rps, 200.0, 70.0, (140.0, 200.0)),
            (8, 1, Rps, 1.0, 70.0, (0.7, 1.0)),
            (8, 0, Rps, 1.0, 70.0, (0.7, 1.0)),
            (9, 1, Rps, 200.0, 75.0, (150.0, 200.0)),
            (9, 0, Rps, 200.0, 75.0, (150.0, 200.0)),
            (10, 1, Rps, 300.0, 70.0, (210.0, 300.0)),
            (10, 0, Rps, 300.0, 70.0, (210.0, 300.0)),
        ];
        for (row, limit, metric, target, utilization, (per_pod, total)) in rows {
            let got = settings(limit, metric, target, utilization);
            let is_near = (got.0 - per_pod).abs() < 1e-9 && (got.1 - total).abs() < 1e-9;
            assert!(is_near, "5, row {row}: {got:?} is not ({per_pod}, {total})");
        }
    }

    #[test]
    fn a_limit_of_one_is_used_whole() {
        assert_eq!(settings(1, Metric::Concurrency, 100.0, 70.0), (1.0, 1.0));
        // Section 5, row 2.
        assert_eq!(settings(1, Metric::Concurrency, 100.0, 80.0), (1.0, 1.0));
    }

    #[test]
    fn panic_window_is_rounded_to_seconds() {
        let panic = |secs, percentage| {
            Settings {
                window: HumanDuration::from_secs(secs),
                panic_window_percentage: percentage,
                ..Settings::default()
            }
            .panic_window()
            .as_secs()
        };
        assert_eq!(panic(10, 10.0), 1);
        assert_eq!(panic(600, 10.0), 60);
        assert_eq!(panic(60, 50.0), 30);
        assert_eq!(panic(60, 51.0), 31);
        assert_eq!(panic(6, 1.0), 1);
    }

    #[test]
    fn a_port_is_read_as_its_name_says() {
        for raw in [
            "tcp",
            "tcp-db",
            "mysql",
            "MySQL-1",
            "redis",
            "mongo",
            "postgresql",
            "amqp",
        ] {
            assert_eq!(AppProtocol::named(raw), AppProtocol::Tcp, "{raw}");
        }
        for http in [
            "", "web", "http", "https", "grpc-web", "tcpdump", "kafka-ui", "h2c",
        ] {
            assert_eq!(AppProtocol::named(http), AppProtocol::Http, "{http}");
        }
        let declared = |name, number| AppPort::declared(name, number, "TCP").unwrap().protocol;
        assert_eq!(declared("", 5432), AppProtocol::Tcp);
        assert_eq!(declared("db", 5432), AppProtocol::Tcp);
        assert_eq!(declared("http-admin", 5432), AppProtocol::Http);
        assert_eq!(declared("", 8080), AppProtocol::Http);
        assert_eq!(AppPort::declared("redis", 6379, "UDP"), None);
    }

    #[test]
    fn probes_are_ignored_by_default_and_people_are_not() {
        let settings = Settings::default();
        assert!(settings.ignores("/", Some("kube-probe/1.37")));
        assert!(!settings.ignores("/", Some("curl/8")));
        assert!(!settings.ignores("/", None));
    }
}
