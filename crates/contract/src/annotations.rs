//! The `lull.dev/*` annotations on a workload: keys, allowed values, and how they become
//! [`Settings`].
//!
//! [`parse`] reads everything and reports every fault at once, each with key, value and what is
//! allowed; the webhook turns the list into the refusal that the user sees.

use std::collections::BTreeMap;

use crate::{
    HumanDuration,
    settings::{
        AppPort, AppProtocol, Class, DEFAULT_BURST_CAPACITY_WITH_LIMIT, DEFAULT_TARGET_RPS, Ignore,
        MIN_TARGET, Metric, QUEUE_DEPTH_PER_SLOT, Settings,
    },
};

/// Prefix of all our annotations and labels.
pub const PREFIX: &str = "lull.dev/";
/// The one annotation that turns Lull on.
pub const SCALE: &str = "lull.dev/scale";
/// Which app ports Lull serves.
pub const PORTS: &str = "lull.dev/ports";
/// Set by the autoscaler while a workload leaves: see [`Leave`].
pub const LEAVE: &str = "lull.dev/leave";

/// Keys under our prefix on a workload that are not settings.
const INTERNAL_KEYS: [&str; 2] = [LEAVE, crate::names::ORIGINAL_ANNOTATION];

/// Longest annotation value that is looked at, bytes.
const MAX_VALUE: usize = 4096;

/// What the annotations of one workload say.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The resolved settings.
    pub settings: Settings,
    /// App ports, where the user named them; else the template's declared ports count.
    pub ports: Option<Vec<AppPort>>,
    /// Resources of the sidecar.
    pub sidecar: SidecarResources,
    /// Whether the sidecar writes a line for each request.
    pub access_log: bool,
}

/// Requests and limits of the injected queue-proxy, as Kubernetes quantities.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarResources {
    /// CPU request.
    pub cpu_request: String,
    /// Memory request.
    pub memory_request: String,
    /// CPU limit; none by default, so that the sidecar is never throttled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<String>,
    /// Memory limit.
    pub memory_limit: String,
}

/// How far a workload has got on its way out of Lull (value of [`LEAVE`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Somebody (the uninstall hook) asked; the autoscaler wakes it and restores its Services.
    Requested,
    /// Services are restored: the webhook takes the sidecar out of the template.
    Uninject,
}

/// One wrong annotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}={value:?}: {allowed}")]
pub struct AnnotationError {
    /// The whole key.
    pub key: String,
    /// The value as given.
    pub value: String,
    /// What is allowed, as a sentence part.
    pub allowed: String,
}

type Annotations = BTreeMap<String, String>;

/// The progress of leaving that the annotations state.
#[must_use]
pub fn leave(annotations: &Annotations) -> Option<Leave> {
    match annotations.get(LEAVE)?.as_str() {
        "uninject" => Some(Leave::Uninject),
        _ => Some(Leave::Requested),
    }
}

/// Whether the workload asks to be run by Lull and is not on its way out.
#[must_use]
pub fn opted_in(annotations: &Annotations) -> bool {
    annotations.get(SCALE).is_some_and(|value| value == "true") && leave(annotations).is_none()
}

/// Reads every `lull.dev/` annotation of a workload.
///
/// # Errors
/// Every wrong value and every unknown key, in the order of the keys' names.
pub fn parse(annotations: &Annotations) -> Result<Wanted, Vec<AnnotationError>> {
    let mut reader = Reader {
        annotations,
        errors: Vec::new(),
        known: INTERNAL_KEYS.to_vec(),
    };
    reader.read(SCALE, "must be \"true\" or \"false\"", |v| {
        matches!(v, "true" | "false").then_some(())
    });
    let ports = reader.read(
        PORTS,
        "must be a comma-separated list of different port numbers 1-65535, each with /tcp behind it \
         where its bytes are not HTTP, for instance \"8080,5432/tcp\"",
        parse_ports,
    );
    let settings = read_settings(&mut reader);
    let sidecar = read_sidecar(&mut reader);
    let access_log = reader.read_or(
        "lull.dev/access-log",
        false,
        "must be \"true\" or \"false\"",
        |v| v.parse().ok(),
    );
    reader.refuse_unknown();
    if reader.errors.is_empty() {
        Ok(Wanted {
            settings,
            ports,
            sidecar,
            access_log,
        })
    } else {
        reader.errors.sort_by(|a, b| a.key.cmp(&b.key));
        Err(reader.errors)
    }
}

struct Reader<'a> {
    annotations: &'a Annotations,
    errors: Vec<AnnotationError>,
    known: Vec<&'static str>,
}

// === impl Reader ===

impl Reader<'_> {
    /// The value of `key` if it is there and right; a wrong one is kept as an error.
    fn read<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.annotations.get(key)?;
        let parsed = if value.len() <= MAX_VALUE {
            parse(value)
        } else {
            None
        };
        if parsed.is_none() {
            self.fail(key, value, allowed);
        }
        parsed
    }

    fn read_or<T>(
        &mut self,
        key: &'static str,
        default: T,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        self.read(key, allowed, parse).unwrap_or(default)
    }

    fn count(&mut self, key: &'static str, default: u32, min: u32) -> u32 {
        let allowed = format!("must be a whole number from {min} to {}", i32::MAX);
        self.read_or(key, default, &allowed, |v| {
            whole(v).filter(|n| (min..=i32::MAX.unsigned_abs()).contains(n))
        })
    }

    fn duration(&mut self, key: &'static str, min: u64, max: u64) -> Option<HumanDuration> {
        let (low, high) = (HumanDuration::from_secs(min), HumanDuration::from_secs(max));
        let allowed = format!("must be a duration from {low} to {high}, for instance \"90s\"");
        self.read(key, &allowed, |v| {
            v.parse::<HumanDuration>()
                .ok()
                .filter(|d| (low..=high).contains(d))
        })
    }

    fn percentage(&mut self, key: &'static str, default: f64, min: f64, max: f64) -> f64 {
        let allowed = format!("must be a number from {min} to {max} (percent, without the sign)");
        self.read_or(key, default, &allowed, |v| {
            number(v).filter(|n| (min..=max).contains(n))
        })
    }

    fn fail(&mut self, key: &str, value: &str, allowed: &str) {
        let shown: String = value.chars().take(80).collect();
        self.errors.push(AnnotationError {
            key: key.to_owned(),
            value: shown,
            allowed: allowed.to_owned(),
        });
    }

    fn refuse_unknown(&mut self) {
        let unknown: Vec<(String, String)> = self
            .annotations
            .iter()
            .filter(|(key, _)| key.starts_with(PREFIX) && !self.known.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let mut names: Vec<&str> = self
            .known
            .iter()
            .filter(|key| !INTERNAL_KEYS.contains(key))
            .filter_map(|key| key.strip_prefix(PREFIX))
            .collect();
        names.sort_unstable();
        let allowed = format!(
            "is not a key that Lull knows; known are {}",
            names.join(", ")
        );
        for (key, value) in unknown {
            self.fail(&key, &value, &allowed);
        }
    }
}

fn whole(value: &str) -> Option<u32> {
    // `parse` alone would take "+3".
    value
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| value.parse().ok())
        .flatten()
}

fn number(value: &str) -> Option<f64> {
    value.parse::<f64>().ok().filter(|n| n.is_finite())
}

/// A day: no request, hold or delay is meant to last longer.
const DAY_SECS: u64 = 86_400;

fn read_settings(r: &mut Reader<'_>) -> Settings {
    let defaults = Settings::default();
    let metric = r.read_or(
        "lull.dev/metric",
        Metric::Concurrency,
        "must be concurrency or rps",
        |v| match v {
            "concurrency" => Some(Metric::Concurrency),
            "rps" => Some(Metric::Rps),
            _ => None,
        },
    );
    let default_target = if metric == Metric::Rps {
        DEFAULT_TARGET_RPS
    } else {
        defaults.target
    };
    let limit = r.count("lull.dev/container-concurrency", 0, 0);
    let default_burst = if limit > 0 {
        DEFAULT_BURST_CAPACITY_WITH_LIMIT
    } else {
        0
    };
    let timeout = r
        .duration("lull.dev/timeout", 1, DAY_SECS)
        .unwrap_or(defaults.timeout);
    let hold = r.duration("lull.dev/hold-timeout", 1, 3600);
    let settings = Settings {
        class: r.read_or(
            "lull.dev/class",
            Class::Kpa,
            "must be kpa, hpa or none",
            |v| match v {
                "kpa" => Some(Class::Kpa),
                "hpa" => Some(Class::Hpa),
                "none" => Some(Class::None),
                _ => None,
            },
        ),
        min_scale: r.count("lull.dev/min-scale", defaults.min_scale, 0),
        max_scale: r.count("lull.dev/max-scale", defaults.max_scale, 0),
        initial_scale: r.count("lull.dev/initial-scale", defaults.initial_scale, 1),
        activation_scale: r.count("lull.dev/activation-scale", defaults.activation_scale, 1),
        metric,
        target: r.read_or(
            "lull.dev/target",
            default_target,
            "must be a number of at least 0.01",
            |v| number(v).filter(|n| (MIN_TARGET..=1e9).contains(n)),
        ),
        target_utilization_percentage: r.percentage(
            "lull.dev/target-utilization-percentage",
            defaults.target_utilization_percentage,
            1.0,
            100.0,
        ),
        window: r
            .duration("lull.dev/window", 6, 3600)
            .unwrap_or(defaults.window),
        panic_window_percentage: r.percentage(
            "lull.dev/panic-window-percentage",
            defaults.panic_window_percentage,
            1.0,
            100.0,
        ),
        panic_threshold_percentage: r.percentage(
            "lull.dev/panic-threshold-percentage",
            defaults.panic_threshold_percentage,
            110.0,
            1000.0,
        ),
        scale_down_delay: r
            .duration("lull.dev/scale-down-delay", 0, 3600)
            .unwrap_or(defaults.scale_down_delay),
        scale_to_zero_pod_retention_period: r
            .duration("lull.dev/scale-to-zero-pod-retention-period", 0, DAY_SECS)
            .unwrap_or(defaults.scale_to_zero_pod_retention_period),
        target_burst_capacity: r.read_or(
            "lull.dev/target-burst-capacity",
            default_burst,
            "must be -1 (activators always in the path) or a whole number from 0",
            |v| {
                if v == "-1" {
                    Some(-1)
                } else {
                    whole(v).map(i64::from)
                }
            },
        ),
        container_concurrency: limit,
        queue_depth: r.count(
            "lull.dev/queue-depth",
            limit.saturating_mul(QUEUE_DEPTH_PER_SLOT),
            1,
        ),
        timeout,
        response_start_timeout: r.duration("lull.dev/response-start-timeout", 1, DAY_SECS),
        idle_timeout: r.duration("lull.dev/idle-timeout", 1, DAY_SECS),
        hold_timeout: hold.unwrap_or(timeout),
        connection_hold_timeout: hold.unwrap_or(defaults.connection_hold_timeout),
        server_timing: r.read_or(
            "lull.dev/server-timing",
            defaults.server_timing,
            "must be \"true\" or \"false\"",
            |v| v.parse().ok(),
        ),
        splice_max_age: r.duration("lull.dev/splice-max-age", 1, DAY_SECS),
        ignore: read_ignore(r, &defaults),
    };
    check_bounds(r, &settings);
    settings
}

/// Rules between two keys.
fn check_bounds(r: &mut Reader<'_>, settings: &Settings) {
    let max = settings.max_scale;
    if max == 0 {
        return;
    }
    for (key, value) in [
        ("lull.dev/min-scale", settings.min_scale),
        ("lull.dev/activation-scale", settings.activation_scale),
        ("lull.dev/initial-scale", settings.initial_scale),
    ] {
        if value > max {
            let allowed = format!("must not be more than lull.dev/max-scale, which is {max}");
            r.fail(key, &value.to_string(), &allowed);
        }
    }
}

/// `lull.dev/ignore`: items that start with `/` are paths, others User-Agent prefixes.
fn read_ignore(r: &mut Reader<'_>, defaults: &Settings) -> Ignore {
    r.read_or(
        "lull.dev/ignore",
        defaults.ignore.clone(),
        "must be a comma-separated list of request paths (starting with /) and User-Agent prefixes, \
         for instance \"/healthz,kube-probe/\"",
        |value| {
            let (mut paths, mut user_agents) = (Vec::new(), Vec::new());
            for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
                if item.chars().any(char::is_control) {
                    return None;
                }
                if item.starts_with('/') { &mut paths } else { &mut user_agents }
                    .push(item.to_owned());
            }
            Some(Ignore { paths, user_agents })
        },
    )
}

fn read_sidecar(r: &mut Reader<'_>) -> SidecarResources {
    let mut quantity = |key, default: &str| {
        r.read(
            key,
            "must be a Kubernetes quantity such as \"25m\" or \"64Mi\"",
            parse_quantity,
        )
        .unwrap_or_else(|| default.to_owned())
    };
    SidecarResources {
        cpu_request: quantity("lull.dev/sidecar-cpu-request", "25m"),
        memory_request: quantity("lull.dev/sidecar-memory-request", "16Mi"),
        memory_limit: quantity("lull.dev/sidecar-memory-limit", "256Mi"),
        cpu_limit: Some(quantity("lull.dev/sidecar-cpu-limit", "")).filter(|v| !v.is_empty()),
    }
}

fn parse_ports(value: &str) -> Option<Vec<AppPort>> {
    let mut ports: Vec<AppPort> = Vec::new();
    for item in value.split(',').map(str::trim) {
        let (number, protocol) = match item.strip_suffix("/tcp") {
            Some(number) => (number, AppProtocol::Tcp),
            None => (
                item.strip_suffix("/http").unwrap_or(item),
                AppProtocol::Http,
            ),
        };
        let number = whole(number)
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)?;
        if ports.iter().any(|port| port.number == number) {
            return None;
        }
        ports.push(AppPort { number, protocol });
    }
    Some(ports)
}

/// A positive quantity with Kubernetes' common suffixes.
fn parse_quantity(value: &str) -> Option<String> {
    const SUFFIXES: [&str; 10] = ["m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", ""];
    let digits = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let positive = number(&value[..digits]).is_some_and(|n| n > 0.0);
    (positive && SUFFIXES.contains(&&value[digits..])).then(|| value.to_owned())
}

#[cfg(test)]
mod tests;
