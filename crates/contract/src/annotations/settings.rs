//! How values by key become [`Settings`].

use super::{
    BOOLEAN, CONNECT_TIMEOUT, HOLD_TIMEOUT, STANDBY, TIMEOUT,
    reader::{Origin, Reader, number, whole},
};
use crate::{
    injected::Sidecar,
    settings::{
        Class, DEFAULT_BURST_CAPACITY_WITH_LIMIT, DEFAULT_TARGET_CONCURRENCY, DEFAULT_TARGET_RPS,
        Ignore, MAX_CONNECT_TIMEOUT, MESH_CONNECT_TIMEOUT, MIN_TARGET, Metric,
        QUEUE_DEPTH_PER_SLOT, Settings,
    },
};

// Keys that are named more than once.
const METRIC: &str = "lull.dev/metric";
const TARGET: &str = "lull.dev/target";
const MAX_SCALE: &str = "lull.dev/max-scale";

/// A day: no request, hold or delay is meant to last longer.
const DAY_SECS: u64 = 86_400;

/// The settings of who reads with `r` and runs with `injected`, where it runs.
pub(super) fn read(r: &mut Reader<'_>, injected: Option<&Sidecar>) -> Settings {
    let defaults = Settings::default();
    let metric = r.read_or(
        METRIC,
        defaults.metric,
        "must be concurrency or rps",
        parse_metric,
    );
    let limit = r.count("lull.dev/container-concurrency", 0, 0);
    let limit = injected.map_or(limit, |sidecar| sidecar.container_concurrency);
    let default_burst = if limit > 0 {
        DEFAULT_BURST_CAPACITY_WITH_LIMIT
    } else {
        0
    };
    let timeout = r.duration(TIMEOUT, 1, DAY_SECS).unwrap_or(defaults.timeout);
    let timeout = injected.map_or(timeout, |sidecar| sidecar.timeout);
    let hold = r.duration(HOLD_TIMEOUT, 1, 3600);
    let (least, most) = (MESH_CONNECT_TIMEOUT.0, MAX_CONNECT_TIMEOUT.0);
    let connect = r.duration(CONNECT_TIMEOUT, least.as_secs(), most.as_secs());
    // Who may wait for longer is held for longer; a shorter time would end holds that get through.
    let default_hold = defaults.connection_hold_timeout;
    let default_hold = connect.map_or(default_hold, |connect| connect.max(default_hold));
    let mut settings = Settings {
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
        max_scale: r.count(MAX_SCALE, defaults.max_scale, 0),
        initial_scale: r.count("lull.dev/initial-scale", defaults.initial_scale, 1),
        activation_scale: r.count("lull.dev/activation-scale", defaults.activation_scale, 1),
        metric,
        target: read_target(r, metric),
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
        connection_hold_timeout: hold.unwrap_or(default_hold),
        connect_timeout: connect,
        standby: r.read_or(STANDBY, defaults.standby, BOOLEAN, |v| v.parse().ok()),
        server_timing: r.read_or(
            "lull.dev/server-timing",
            defaults.server_timing,
            BOOLEAN,
            |v| v.parse().ok(),
        ),
        splice_max_age: r.duration("lull.dev/splice-max-age", 1, DAY_SECS),
        ignore: read_ignore(r, &defaults),
    };
    if let Some(sidecar) = injected {
        settings.queue_depth = sidecar.queue_depth;
        settings.response_start_timeout = sidecar.response_start_timeout;
        settings.idle_timeout = sidecar.idle_timeout;
        settings.ignore = sidecar.ignore.clone();
    }
    keep_bounds(r, &mut settings);
    settings
}

fn parse_metric(value: &str) -> Option<Metric> {
    match value {
        "concurrency" => Some(Metric::Concurrency),
        "rps" => Some(Metric::Rps),
        _ => None,
    }
}

fn read_target(r: &mut Reader<'_>, metric: Metric) -> f64 {
    let built_in = match metric {
        Metric::Concurrency => DEFAULT_TARGET_CONCURRENCY,
        Metric::Rps => DEFAULT_TARGET_RPS,
    };
    let target = r.read_or(TARGET, built_in, "must be a number of at least 0.01", |v| {
        number(v).filter(|n| (MIN_TARGET..=1e9).contains(n))
    });
    // A cluster-wide target is one of the cluster-wide metric.
    let meant_for = r.cluster_wide(METRIC).and_then(parse_metric);
    let meant_for = meant_for.unwrap_or(Metric::Concurrency);
    if r.origin(TARGET) == Origin::ClusterWide && meant_for != metric {
        return built_in;
    }
    target
}

/// Rules between the counts.
fn keep_bounds(r: &mut Reader<'_>, settings: &mut Settings) {
    let Settings {
        max_scale,
        min_scale,
        activation_scale,
        initial_scale,
        ..
    } = settings;
    if *max_scale == 0 {
        return;
    }
    for (key, scale) in [
        ("lull.dev/min-scale", min_scale),
        ("lull.dev/activation-scale", activation_scale),
        ("lull.dev/initial-scale", initial_scale),
    ] {
        let max = (MAX_SCALE, &mut *max_scale);
        r.keep_order((key, scale), max, |n| f64::from(*n));
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
