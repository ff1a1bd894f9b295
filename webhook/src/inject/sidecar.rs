//! What of annotations and defaults reaches the sidecar, and when it does.

use std::collections::BTreeMap;

use lull_contract::{
    annotations::{PORTS, Wanted},
    injected::Sidecar,
};
use lull_process::otlp::Endpoint;
use serde_json::{Value, json};

use super::ports;

type Annotations = BTreeMap<String, String>;

/// The sidecar of a template (without our parts) whose annotations say `wanted`; its spans go to
/// `otlp_endpoint`.
///
/// # Errors
/// The template declares no port and the annotations name none.
pub(super) fn resolve(
    wanted: &Wanted,
    template: &Value,
    otlp_endpoint: Option<&Endpoint>,
) -> Result<Sidecar, String> {
    let settings = &wanted.settings;
    Ok(Sidecar {
        ports: ports::app_ports(wanted.ports.as_deref(), template)?,
        container_concurrency: settings.container_concurrency,
        queue_depth: settings.queue_depth,
        timeout: settings.timeout,
        response_start_timeout: settings.response_start_timeout,
        idle_timeout: settings.idle_timeout,
        ignore: settings.ignore.clone(),
        access_log: wanted.access_log,
        name_callers: wanted.name_callers,
        otlp_endpoint: otlp_endpoint.map(Endpoint::to_string),
        resources: wanted.sidecar.clone(),
    })
}

/// Whether `wanted` differs from the sidecar that runs, if it does, by defaults alone: the user has
/// changed no annotation that reaches it, and each one that is there is in what runs.
///
/// A changed default is no reason for a rollout.
pub(super) fn is_as_the_user_left_it(
    runs: &Sidecar,
    wanted: &Sidecar,
    (old, new): (&Annotations, &Annotations),
) -> bool {
    old.keys().chain(new.keys()).all(|key| {
        let Some(part) = part_of(wanted, key) else {
            return true;
        };
        old.get(key) == new.get(key) && part_of(runs, key) == Some(part)
    })
}

/// What `sidecar` has from the annotation `key`; `None` where that one does not reach it.
fn part_of(sidecar: &Sidecar, key: &str) -> Option<Value> {
    let resources = &sidecar.resources;
    Some(match key {
        PORTS => json!(sidecar.ports),
        "lull.dev/container-concurrency" => json!(sidecar.container_concurrency),
        "lull.dev/queue-depth" => json!(sidecar.queue_depth),
        "lull.dev/timeout" => json!(sidecar.timeout),
        "lull.dev/response-start-timeout" => json!(sidecar.response_start_timeout),
        "lull.dev/idle-timeout" => json!(sidecar.idle_timeout),
        "lull.dev/ignore" => json!(sidecar.ignore),
        "lull.dev/access-log" => json!(sidecar.access_log),
        "lull.dev/name-callers" => json!(sidecar.name_callers),
        "lull.dev/sidecar-cpu-request" => json!(resources.cpu_request),
        "lull.dev/sidecar-cpu-limit" => json!(resources.cpu_limit),
        "lull.dev/sidecar-memory-request" => json!(resources.memory_request),
        "lull.dev/sidecar-memory-limit" => json!(resources.memory_limit),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use lull_contract::annotations;

    use super::*;

    /// Each setting with a value that is not its default.
    const VALUES: [(&str, &str); 31] = [
        ("lull.dev/access-log", "true"),
        ("lull.dev/activation-scale", "2"),
        ("lull.dev/class", "none"),
        ("lull.dev/connect-timeout", "30s"),
        ("lull.dev/container-concurrency", "3"),
        ("lull.dev/hold-timeout", "3s"),
        ("lull.dev/idle-timeout", "3s"),
        ("lull.dev/ignore", "/x"),
        ("lull.dev/initial-scale", "2"),
        ("lull.dev/max-scale", "2"),
        ("lull.dev/metric", "rps"),
        ("lull.dev/min-scale", "2"),
        ("lull.dev/name-callers", "false"),
        ("lull.dev/panic-threshold-percentage", "300"),
        ("lull.dev/panic-window-percentage", "20"),
        ("lull.dev/ports", "7000"),
        ("lull.dev/queue-depth", "3"),
        ("lull.dev/response-start-timeout", "3s"),
        ("lull.dev/scale-down-delay", "3s"),
        ("lull.dev/scale-to-zero-pod-retention-period", "3s"),
        ("lull.dev/sidecar-cpu-limit", "2"),
        ("lull.dev/sidecar-cpu-request", "1"),
        ("lull.dev/sidecar-memory-limit", "1Gi"),
        ("lull.dev/sidecar-memory-request", "1Mi"),
        ("lull.dev/splice-max-age", "3s"),
        ("lull.dev/standby", "true"),
        ("lull.dev/target", "3"),
        ("lull.dev/target-burst-capacity", "3"),
        ("lull.dev/target-utilization-percentage", "50"),
        ("lull.dev/timeout", "3s"),
        ("lull.dev/window", "6s"),
    ];

    #[test]
    fn a_setting_has_a_part_where_it_changes_the_sidecar() {
        let template = json!({ "spec": { "containers": [
            { "name": "app", "ports": [{ "containerPort": 8080 }] },
        ] } });
        let sidecar = |annotations: &Annotations| {
            resolve(&annotations::parse(annotations).unwrap(), &template, None).unwrap()
        };
        let plain = sidecar(&Annotations::new());
        for (key, value) in VALUES {
            let set = sidecar(&Annotations::from([(key.to_owned(), value.to_owned())]));
            let part = part_of(&set, key);
            assert_eq!(part.is_some(), set != plain, "{key}");
            assert!(part.is_none() || part != part_of(&plain, key), "{key}");
        }
    }
}
