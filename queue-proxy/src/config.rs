//! Configuration: read once from the environment, fixed for the pod's life.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use lull_contract::{
    AppProtocol, HumanDuration, ports,
    settings::{self, DRAIN_MIN, QUEUE_DEPTH_PER_SLOT},
};
use lull_process::{
    env::{EnvSource, Faults, Reader},
    logging::LogFilter,
    otlp::Endpoint,
};
use serde::{Deserialize, Serialize, Serializer};

/// Name of the abstract unix socket on which `queue-proxy drain` finds the proxy.
pub const DEFAULT_DRAIN_SOCKET: &str = "lull-queue-proxy";
/// Variable with the name of that socket; the subcommand reads nothing else.
pub const DRAIN_SOCKET_KEY: &str = "QP_DRAIN_SOCKET";

/// Longest time for a whole request (Knative's `revision-timeout-seconds`).
const DEFAULT_TIMEOUT: HumanDuration = HumanDuration::from_secs(300);
/// No new request for so long: nobody sends here any more.
const DEFAULT_DRAIN_QUIET: HumanDuration = HumanDuration::from_secs(5);
/// Kubernetes' `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: HumanDuration = HumanDuration::from_secs(30);
/// A drain begins within moments of the pod's deletion; later it is a restart of the app alone.
const UNCLAIMED_WAIT: HumanDuration = HumanDuration::from_secs(2);

const PORT_NUMBER: &str = "must be a port, 0 (any free one) to 65535";
const DURATION: &str = "must be a duration such as 90s, 1m30s or 500ms";
const POSITIVE: &str = "must be a duration above zero such as 90s or 500ms";
const WHOLE_NUMBER: &str = "must be a whole number, 0 to 4294967295";

/// One traffic port: where we listen and which app port that stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPort {
    /// Port that we listen on; 0 = any free one.
    pub listen: u16,
    /// Port of the app.
    pub app: u16,
    /// How bytes are treated.
    pub protocol: AppProtocol,
}

/// One check of the app; without a path it is a TCP connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppProbe {
    /// Port of the app.
    pub port: u16,
    /// Path of an HTTP GET.
    #[serde(default)]
    pub path: Option<String>,
    /// `Host` header of the GET; the pod's address and port where there is none.
    #[serde(default)]
    pub host: Option<String>,
    /// Further headers of the GET, name and value; shown without their values, of which one may be a
    /// secret.
    #[serde(default, serialize_with = "names_alone")]
    pub headers: Vec<(String, String)>,
    /// Longest time of one try, milliseconds.
    #[serde(default = "default_probe_timeout_ms")]
    pub timeout_ms: u64,
}

/// Everything that the queue-proxy can be told.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Traffic ports, at least one.
    pub ports: Vec<TrafficPort>,
    /// Address at which the app is dialled: the pod's, because databases and admin pages trust
    /// loopback.
    pub pod_ip: IpAddr,
    /// Name of the pod.
    pub pod_name: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Hard limit of requests in the app; 0 = none.
    pub container_concurrency: u32,
    /// Requests that may wait for a slot.
    pub queue_depth: u32,
    /// Longest time from a request's arrival to the end of its answer.
    pub timeout: HumanDuration,
    /// Longest time to the start of the answer.
    pub response_start_timeout: Option<HumanDuration>,
    /// Longest time without a byte in either direction.
    pub idle_timeout: Option<HumanDuration>,
    /// What is served but not counted.
    pub ignore: settings::Ignore,
    /// What makes the app ready; never empty (a connect per port where nothing is given).
    pub app_probes: Vec<AppProbe>,
    /// What must have passed once before the app is ready; mostly empty.
    pub startup_probes: Vec<AppProbe>,
    /// Shortest drain.
    pub drain_min: HumanDuration,
    /// Time without a new request after which a drain may end.
    pub drain_quiet: HumanDuration,
    /// The pod's termination grace period.
    pub grace: HumanDuration,
    /// How long `/wait-for-drain` waits for a drain to begin; not configurable, shorter in tests.
    pub unclaimed_wait: HumanDuration,
    /// Log filter.
    pub log: LogFilter,
    /// Log lines as JSON.
    pub log_json: bool,
    /// A line on standard output for each request.
    pub access_log: bool,
    /// Whether the report names callers.
    pub name_callers: bool,
    /// Collector that gets spans of requests whose trace is kept; `None` = off.
    pub otlp_endpoint: Option<Endpoint>,
    /// Port of `/ready`, `/live`, `/config` and `/wait-for-drain`.
    pub admin_port: u16,
    /// Port of the autoscaler's report.
    pub report_port: u16,
    /// Port of Prometheus' text.
    pub metrics_port: u16,
    /// Name of the abstract unix socket of `queue-proxy drain`.
    pub drain_socket: String,
}

// === impl Config ===

impl Config {
    /// Reads every `QP_` variable.
    ///
    /// # Errors
    /// Every variable that is missing or wrong, with what is allowed.
    pub fn read(source: &dyn EnvSource) -> Result<Self, Faults> {
        let mut reader = Reader::new(source);
        let ports = read_ports(&mut reader, source);
        let concurrency = reader.read_or("QP_CONTAINER_CONCURRENCY", 0u32, WHOLE_NUMBER);
        let depth = concurrency.saturating_mul(QUEUE_DEPTH_PER_SLOT);
        let config = Self {
            pod_ip: reader.require(
                "QP_POD_IP",
                IpAddr::from(Ipv4Addr::UNSPECIFIED),
                "must be the pod's IP address",
            ),
            pod_name: reader.require("QP_POD_NAME", String::new(), "must be the pod's name"),
            pod_namespace: reader.require(
                "QP_POD_NAMESPACE",
                String::new(),
                "must be the pod's namespace",
            ),
            container_concurrency: concurrency,
            queue_depth: reader.read_or("QP_QUEUE_DEPTH", depth, WHOLE_NUMBER),
            timeout: positive(&mut reader, "QP_TIMEOUT").unwrap_or(DEFAULT_TIMEOUT),
            response_start_timeout: positive(&mut reader, "QP_RESPONSE_START_TIMEOUT"),
            idle_timeout: positive(&mut reader, "QP_IDLE_TIMEOUT"),
            ignore: read_ignore(&mut reader),
            app_probes: read_app_probes(&mut reader, &ports),
            startup_probes: read_probes(&mut reader, "QP_STARTUP_PROBES").unwrap_or_default(),
            drain_min: reader.read_or("QP_DRAIN_MIN", DRAIN_MIN, DURATION),
            drain_quiet: reader.read_or("QP_DRAIN_QUIET", DEFAULT_DRAIN_QUIET, DURATION),
            grace: reader.read_or("QP_GRACE", DEFAULT_GRACE, DURATION),
            unclaimed_wait: UNCLAIMED_WAIT,
            log: reader.read_or("QP_LOG", LogFilter::info(), LogFilter::ALLOWED),
            log_json: reader.read_or("QP_LOG_JSON", false, "must be true or false"),
            access_log: reader.read_or("QP_ACCESS_LOG", false, "must be true or false"),
            name_callers: reader.read_or("QP_NAME_CALLERS", true, "must be true or false"),
            otlp_endpoint: reader.read_with("QP_OTLP_ENDPOINT", Endpoint::ALLOWED, |text| {
                text.parse().ok()
            }),
            admin_port: reader.read_or("QP_ADMIN_PORT", ports::ADMIN, PORT_NUMBER),
            report_port: reader.read_or("QP_REPORT_PORT", ports::REPORT, PORT_NUMBER),
            metrics_port: reader.read_or("QP_METRICS_PORT", ports::METRICS, PORT_NUMBER),
            drain_socket: drain_socket(source),
            ports,
        };
        config.validate(&mut reader);
        reader.finish(config)
    }

    fn validate(&self, reader: &mut Reader<'_>) {
        let own = [
            ("QP_ADMIN_PORT", self.admin_port),
            ("QP_REPORT_PORT", self.report_port),
            ("QP_METRICS_PORT", self.metrics_port),
        ];
        let listens = self.ports.iter().map(|port| ("QP_PORTS", port.listen));
        let mut taken: Vec<u16> = self.ports.iter().map(|port| port.app).collect();
        for (key, number) in listens.chain(own) {
            if number == 0 {
                continue;
            }
            if taken.contains(&number) {
                let allowed = "must differ from every other port of the app and the queue-proxy";
                reader.fault(key, Some(number.to_string()), allowed);
            }
            taken.push(number);
        }
    }
}

/// Name of the abstract socket: the one thing that the `drain` subcommand needs to know.
#[must_use]
pub fn drain_socket(source: &dyn EnvSource) -> String {
    source
        .get(DRAIN_SOCKET_KEY)
        .unwrap_or_else(|| DEFAULT_DRAIN_SOCKET.to_owned())
}

fn read_ports(reader: &mut Reader<'_>, source: &dyn EnvSource) -> Vec<TrafficPort> {
    let allowed = "must list listen=app/protocol by commas, as in 8012=8080/http,8013=5432/tcp";
    if source.get("QP_PORTS").is_none() {
        reader.fault("QP_PORTS", None, allowed);
    }
    reader
        .read_with("QP_PORTS", allowed, |text| {
            text.split(',')
                .map(|part| part.trim().parse().ok())
                .collect()
        })
        .unwrap_or_default()
}

fn read_ignore(reader: &mut Reader<'_>) -> settings::Ignore {
    let allowed = r#"must be JSON such as {"paths":["/ping"],"userAgents":["kube-probe/"]}"#;
    reader
        .read_with("QP_IGNORE", allowed, |text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| settings::Settings::default().ignore)
}

fn read_app_probes(reader: &mut Reader<'_>, ports: &[TrafficPort]) -> Vec<AppProbe> {
    match read_probes(reader, "QP_APP_PROBES") {
        Some(probes) if !probes.is_empty() => probes,
        _ => ports
            .iter()
            .map(|port| AppProbe::connect(port.app))
            .collect(),
    }
}

fn read_probes(reader: &mut Reader<'_>, key: &str) -> Option<Vec<AppProbe>> {
    let allowed =
        r#"must be a JSON list such as [{"port":8080,"path":"/healthz","timeoutMs":1000}]"#;
    reader.read_with(key, allowed, |text| {
        let probes: Vec<AppProbe> = serde_json::from_str(text).ok()?;
        probes.iter().all(AppProbe::is_valid).then_some(probes)
    })
}

fn positive(reader: &mut Reader<'_>, key: &str) -> Option<HumanDuration> {
    reader.read_with(key, POSITIVE, |text| {
        let duration: HumanDuration = text.parse().ok()?;
        (!duration.0.is_zero()).then_some(duration)
    })
}

/// Kubernetes' `timeoutSeconds`.
fn default_probe_timeout_ms() -> u64 {
    1_000
}

fn names_alone<S: Serializer>(
    headers: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.iter().map(|(name, _)| name))
}

// === impl AppProbe ===

impl AppProbe {
    /// A TCP connect to `port`.
    #[must_use]
    pub fn connect(port: u16) -> Self {
        Self {
            port,
            path: None,
            host: None,
            headers: Vec::new(),
            timeout_ms: default_probe_timeout_ms(),
        }
    }

    fn is_valid(&self) -> bool {
        self.port != 0 && self.timeout_ms != 0
    }
}

// === impl TrafficPort ===

impl FromStr for TrafficPort {
    type Err = ();

    /// Reads `8012=8080/http`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (listen, rest) = text.split_once('=').ok_or(())?;
        let (app, protocol) = rest.split_once('/').ok_or(())?;
        let app: u16 = app.parse().map_err(drop)?;
        let protocol = match protocol {
            "http" => AppProtocol::Http,
            "tcp" => AppProtocol::Tcp,
            _ => return Err(()),
        };
        let listen = listen.parse().map_err(drop)?;
        if app == 0 {
            return Err(());
        }
        Ok(Self {
            listen,
            app,
            protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(own).collect()
    }

    fn required() -> BTreeMap<String, String> {
        env(&[
            ("QP_PORTS", "8012=8080/http,8013=5432/tcp"),
            ("QP_POD_IP", "10.0.0.7"),
            ("QP_POD_NAME", "shop-1"),
            ("QP_POD_NAMESPACE", "default"),
        ])
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let config = Config::read(&required()).unwrap();
        assert_eq!(config.ports[1].app, 5432);
        assert_eq!(config.ports[1].protocol, AppProtocol::Tcp);
        assert_eq!((config.container_concurrency, config.queue_depth), (0, 0));
        assert_eq!(config.timeout, DEFAULT_TIMEOUT);
        assert_eq!(
            config.app_probes,
            [AppProbe::connect(8080), AppProbe::connect(5432)]
        );
        assert!(config.ignore.matches("/", Some("kube-probe/1.37")));
        assert_eq!(config.drain_socket, DEFAULT_DRAIN_SOCKET);
    }

    #[test]
    fn the_queue_is_ten_times_the_limit_unless_set() {
        let mut vars = required();
        vars.extend(env(&[("QP_CONTAINER_CONCURRENCY", "7")]));
        assert_eq!(Config::read(&vars).unwrap().queue_depth, 70);
        vars.extend(env(&[("QP_QUEUE_DEPTH", "0")]));
        assert_eq!(Config::read(&vars).unwrap().queue_depth, 0);
    }

    #[test]
    fn probes_and_ignore_are_read_from_json() {
        let mut vars = required();
        let probes = r#"[{"port":8080,"path":"/healthz","host":null,"headers":[["k","v"]],"timeoutMs":700},
            {"port":5432}]"#;
        vars.extend(env(&[
            ("QP_APP_PROBES", probes),
            ("QP_IGNORE", r#"{"paths":["/ping"],"userAgents":[]}"#),
        ]));
        let config = Config::read(&vars).unwrap();
        assert_eq!(config.app_probes[0].timeout_ms, 700);
        assert_eq!(config.app_probes[0].headers, [("k".into(), "v".into())]);
        assert_eq!(config.app_probes[1], AppProbe::connect(5432));
        assert!(config.ignore.matches("/ping", None));
    }

    #[test]
    fn a_probes_headers_are_shown_without_their_values() {
        let mut vars = required();
        let probes = r#"[{"port":8080,"path":"/","headers":[["Authorization","Bearer secret"]]}]"#;
        vars.extend(env(&[("QP_APP_PROBES", probes)]));
        let shown = serde_json::to_string(&Config::read(&vars).unwrap()).unwrap();
        assert!(shown.contains(r#""headers":["Authorization"]"#), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let vars = env(&[
            ("QP_PORTS", "8012=8080/udp"),
            ("QP_POD_IP", "localhost"),
            ("QP_CONTAINER_CONCURRENCY", "ten"),
            ("QP_QUEUE_DEPTH", "-1"),
            ("QP_TIMEOUT", "0s"),
            ("QP_RESPONSE_START_TIMEOUT", "5"),
            ("QP_IDLE_TIMEOUT", "x"),
            ("QP_IGNORE", "/ping"),
            ("QP_APP_PROBES", r#"[{"port":0}]"#),
            ("QP_STARTUP_PROBES", "{}"),
            ("QP_DRAIN_MIN", "1x"),
            ("QP_DRAIN_QUIET", "1x"),
            ("QP_GRACE", "1x"),
            ("QP_LOG", "loud"),
            ("QP_LOG_JSON", "yes"),
            ("QP_ACCESS_LOG", "1"),
            ("QP_NAME_CALLERS", "0"),
            ("QP_OTLP_ENDPOINT", "collector:4318"),
            ("QP_ADMIN_PORT", "70000"),
            ("QP_REPORT_PORT", "a"),
            ("QP_METRICS_PORT", "b"),
        ]);
        let faults = Config::read(&vars).unwrap_err();
        let mut keys: Vec<&str> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
        keys.sort_unstable();
        let mut expected: Vec<&str> = vars.keys().map(String::as_str).collect();
        expected.extend(["QP_POD_NAME", "QP_POD_NAMESPACE"]);
        expected.sort_unstable();
        assert_eq!(keys, expected);
    }

    #[test]
    fn ports_that_collide_are_refused() {
        let mut vars = required();
        vars.extend(env(&[
            ("QP_PORTS", "8012=8080/http,8012=8081/http,8080=9/tcp"),
            ("QP_ADMIN_PORT", "9090"),
        ]));
        let text = Config::read(&vars).unwrap_err().to_string();
        assert!(
            text.contains("QP_PORTS=\"8012\"") && text.contains("QP_PORTS=\"8080\""),
            "{text}"
        );
        assert!(text.contains("QP_REPORT_PORT=\"9090\""), "{text}");
    }
}
