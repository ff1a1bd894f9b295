//! Configuration: read once from the environment.

use std::net::{IpAddr, Ipv4Addr};

use lull_contract::{HumanDuration, ports, settings};
use lull_process::{
    env::{EnvSource, Faults, Reader},
    logging::LogFilter,
    otlp::Endpoint,
};
use serde::Serialize;

/// One workload alone gets half of it at most; at 8 KiB each all take 391 MiB.
const DEFAULT_MAX_HELD_TOTAL: usize = 50_000;
/// Below the chart's memory limit of 512 MiB by what the process needs besides.
const DEFAULT_MAX_HELD_MIB: usize = 400;
/// Endpoint changes reach every client within this time on the clusters that were measured.
const DEFAULT_DRAIN_MIN: HumanDuration = HumanDuration::from_secs(10);
/// Whoever still comes later than this after the last one did not hear of the change in time.
const DEFAULT_DRAIN_QUIET: HumanDuration = HumanDuration::from_secs(3);
/// The chart's `terminationGracePeriodSeconds`: room for a slow wake.
const DEFAULT_GRACE: HumanDuration = HumanDuration::from_secs(60);

/// The chart's labels of an activator.
const DEFAULT_PEERS: &str = "app.kubernetes.io/part-of=lull,app.kubernetes.io/component=activator";

const PORT_NUMBER: &str = "must be a port, 0 (any free one) to 65535";
const DURATION: &str = "must be a duration such as 90s, 1m30s or 500ms";
const COUNT: &str = "must be a whole number, 1 or more";

/// Everything that the activator can be told.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Name of the pod.
    pub pod_name: String,
    /// Address of the pod.
    pub pod_ip: IpAddr,
    /// Most requests and connections held for one workload.
    pub max_held_per_workload: usize,
    /// Most requests and connections held in all.
    pub max_held_total: usize,
    /// Most memory that they may take, MiB.
    pub max_held_mib: usize,
    /// Where the other activators are; `None` = this is the only one.
    pub namespace: Option<String>,
    /// Labels of the other activators.
    pub peers: String,
    /// Collector that gets traces of wakes and requests; `None` = off.
    pub otlp_endpoint: Option<Endpoint>,
    /// Shortest time from SIGTERM until the listeners close.
    pub drain_min: HumanDuration,
    /// The listeners stay open until nobody has come for so long.
    pub drain_quiet: HumanDuration,
    /// The pod's termination grace period.
    pub grace: HumanDuration,
    /// Log filter.
    pub log: LogFilter,
    /// Log lines as JSON.
    pub log_json: bool,
    /// Port of `/ready`, `/live`, `/workloads` and `/config`.
    pub admin_port: u16,
    /// Port of the autoscaler's report.
    pub report_port: u16,
    /// Port of Prometheus' text.
    pub metrics_port: u16,
}

// === impl Config ===

impl Config {
    /// Reads every `ACTIVATOR_` variable.
    ///
    /// # Errors
    /// Every variable that is missing or wrong, with what is allowed.
    pub fn read(source: &dyn EnvSource) -> Result<Self, Faults> {
        let mut reader = Reader::new(source);
        let config = Self {
            pod_name: reader.require(
                "ACTIVATOR_POD_NAME",
                String::new(),
                "must be the pod's name",
            ),
            pod_ip: reader.require(
                "ACTIVATOR_POD_IP",
                IpAddr::from(Ipv4Addr::UNSPECIFIED),
                "must be the pod's IP address",
            ),
            max_held_per_workload: count(
                &mut reader,
                "ACTIVATOR_MAX_HELD_PER_WORKLOAD",
                settings::MAX_HELD_PER_WORKLOAD,
            ),
            max_held_total: count(
                &mut reader,
                "ACTIVATOR_MAX_HELD_TOTAL",
                DEFAULT_MAX_HELD_TOTAL,
            ),
            max_held_mib: count(&mut reader, "ACTIVATOR_MAX_HELD_MIB", DEFAULT_MAX_HELD_MIB),
            namespace: reader.read_with("ACTIVATOR_NAMESPACE", "must be a namespace", |text| {
                Some(text.to_owned())
            }),
            peers: reader.read_or(
                "ACTIVATOR_PEERS",
                DEFAULT_PEERS.to_owned(),
                "must be a label selector",
            ),
            otlp_endpoint: reader.read_with("ACTIVATOR_OTLP_ENDPOINT", Endpoint::ALLOWED, |text| {
                text.parse().ok()
            }),
            drain_min: reader.read_or("ACTIVATOR_DRAIN_MIN", DEFAULT_DRAIN_MIN, DURATION),
            drain_quiet: reader.read_or("ACTIVATOR_DRAIN_QUIET", DEFAULT_DRAIN_QUIET, DURATION),
            grace: reader.read_or("ACTIVATOR_GRACE", DEFAULT_GRACE, DURATION),
            log: reader.read_or("ACTIVATOR_LOG", LogFilter::info(), LogFilter::ALLOWED),
            log_json: reader.read_or("ACTIVATOR_LOG_JSON", false, "must be true or false"),
            admin_port: reader.read_or("ACTIVATOR_ADMIN_PORT", ports::ADMIN, PORT_NUMBER),
            report_port: reader.read_or("ACTIVATOR_REPORT_PORT", ports::REPORT, PORT_NUMBER),
            metrics_port: reader.read_or("ACTIVATOR_METRICS_PORT", ports::METRICS, PORT_NUMBER),
        };
        config.validate(&mut reader);
        reader.finish(config)
    }

    fn validate(&self, reader: &mut Reader<'_>) {
        let mut taken = Vec::new();
        for (key, number) in [
            ("ACTIVATOR_ADMIN_PORT", self.admin_port),
            ("ACTIVATOR_REPORT_PORT", self.report_port),
            ("ACTIVATOR_METRICS_PORT", self.metrics_port),
        ] {
            if number != 0 && taken.contains(&number) {
                let allowed = "must differ from the activator's other ports";
                reader.fault(key, Some(number.to_string()), allowed);
            }
            taken.push(number);
        }
    }
}

fn count(reader: &mut Reader<'_>, key: &str, default: usize) -> usize {
    reader
        .read_with(key, COUNT, |text| text.parse().ok().filter(|n| *n > 0))
        .unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let vars = env(&[
            ("ACTIVATOR_POD_NAME", "a-1"),
            ("ACTIVATOR_POD_IP", "10.0.0.7"),
        ]);
        let config = Config::read(&vars).unwrap();
        assert_eq!(config.max_held_per_workload, 10_000);
        assert_eq!(config.max_held_total, 50_000);
        assert_eq!(
            (config.admin_port, config.report_port, config.metrics_port),
            (8022, 9090, 9091)
        );
    }

    #[test]
    fn the_documentation_lists_every_variable_with_its_default() {
        let documented = include_str!("../../docs/config.md");
        let required = env(&[
            ("ACTIVATOR_POD_NAME", "a-1"),
            ("ACTIVATOR_POD_IP", "10.0.0.7"),
        ]);
        let place = ("activator", "ACTIVATOR_");
        let differences =
            lull_process::docs::config_differences(documented, place, &required, Config::read);
        assert_eq!(differences, [""; 0]);
    }

    #[test]
    fn every_fault_is_listed_at_once() {
        let vars = env(&[
            ("ACTIVATOR_POD_IP", "x"),
            ("ACTIVATOR_MAX_HELD_PER_WORKLOAD", "0"),
            ("ACTIVATOR_MAX_HELD_TOTAL", "-1"),
            ("ACTIVATOR_MAX_HELD_MIB", "1GiB"),
            ("ACTIVATOR_OTLP_ENDPOINT", "https://collector"),
            ("ACTIVATOR_DRAIN_MIN", "1"),
            ("ACTIVATOR_DRAIN_QUIET", "1"),
            ("ACTIVATOR_GRACE", "1"),
            ("ACTIVATOR_LOG", "loud"),
            ("ACTIVATOR_LOG_JSON", "yes"),
            ("ACTIVATOR_ADMIN_PORT", "70000"),
            ("ACTIVATOR_REPORT_PORT", "9091"),
        ]);
        let faults = Config::read(&vars).unwrap_err();
        let mut keys: Vec<&str> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
        keys.sort_unstable();
        let mut expected: Vec<&str> = vars.keys().map(String::as_str).collect();
        // The report port takes the metrics port's number: the later one is at fault.
        expected.retain(|key| *key != "ACTIVATOR_REPORT_PORT");
        expected.extend(["ACTIVATOR_POD_NAME", "ACTIVATOR_METRICS_PORT"]);
        expected.sort_unstable();
        assert_eq!(keys, expected);
    }
}
