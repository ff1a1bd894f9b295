//! Putting the sidecar into a template that has none of our parts.

use lull_contract::{
    annotations::SidecarResources,
    injected::Sidecar,
    names::{
        INJECTED_ANNOTATION, ISTIO_EXCLUDE_INBOUND_PORTS, ISTIO_INCLUDE_INBOUND_PORTS, OS_LABEL,
        POD_LABEL, QUEUE_PROXY_CONTAINER, WAIT_FOR_DRAIN, label_value,
    },
    ports::traffic_port_name,
};
use lull_injection::{
    Image, Included, Record, Renumbered,
    parts::{excluded_ports, included_ports, lifecycle_place},
    resources::{PodResources, Resources, of_sidecar},
    shape,
};
use serde_json::{Map, Value, json};

use super::{
    classic,
    ports::{self, Allocation},
    probes,
};

/// Kubernetes' default of `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECS: u64 = 30;
/// The image's nonroot user.
const USER: u32 = 65532;
/// On a node that is short of CPU a probe may wait for seconds, and an app that serves would leave the
/// endpoints for it. An end needs no probe to be seen: a pod that is deleted leaves at once, and so does
/// one whose sidecar has died.
const PROBE_TIMEOUT_SECONDS: u32 = 5;

/// What goes into a template.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// What the sidecar is told.
    pub(super) sidecar: &'a Sidecar,
    /// Numbers that ports had, by which they are called, too.
    pub(super) renumbered: Vec<Renumbered>,
    /// The sidecar's image.
    pub(super) image: &'a Image,
    /// Istio's container is an ordinary one, where the template doesn't say what it is.
    pub(super) classic_proxies: bool,
}

/// `base`, which [`shape::understood`] has passed, with the sidecar; `id` is what Lull calls the
/// workload.
///
/// # Errors
/// Why this template can't carry one.
pub(super) fn render(base: &Value, id: &str, parts: Parts<'_>) -> Result<Value, String> {
    let Parts { sidecar, image, .. } = parts;
    if base.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return Err(
            "spec.template.spec.hostNetwork is true: the sidecar's ports would be the node's, \
             and pods could not share a node; take hostNetwork or lull.dev/scale away"
                .to_owned(),
        );
    }
    if is_for_windows(base) {
        return Err(
            "spec.template.spec is for nodes with Windows, where the sidecar does not run; take \
             lull.dev/scale away"
                .to_owned(),
        );
    }
    let allocation =
        ports::allocate(&sidecar.ports, base).ok_or("no port number is left for the sidecar")?;
    let mut record = Record {
        image: image.clone(),
        sidecar: sidecar.clone(),
        small_ports: allocation.small,
        renumbered: parts.renumbered,
        pre_stop: Vec::new(),
        exclude_inbound_ports: None,
        excluded_traffic: Vec::new(),
        include_inbound_ports: None,
        classic: classic::needed(base, parts.classic_proxies, grace_secs(base)),
        keep_empty: Vec::new(),
    };
    let container = container(base, &record, &allocation)?;
    let mut template = base.clone();
    if let Some(containers) = template
        .pointer_mut("/spec/containers")
        .and_then(Value::as_array_mut)
    {
        for app in containers.iter_mut() {
            add_pre_stop(app, &mut record);
        }
        containers.push(container);
    }
    add_metadata(&mut template, id, (&mut record, &allocation))?;
    Ok(template)
}

/// The plan asks the same of the workload.
fn is_for_windows(base: &Value) -> bool {
    let selected = base.pointer("/spec/nodeSelector");
    let selected = selected.and_then(|labels| labels.get(OS_LABEL));
    let named = base.pointer("/spec/os/name").or(selected);
    named.and_then(Value::as_str) == Some("windows")
}

fn add_pre_stop(container: &mut Value, record: &mut Record) {
    if !shape::is_app(container) {
        return;
    }
    let Some(name) = shape::container_name(container).map(str::to_owned) else {
        return;
    };
    let Some(container) = container.as_object_mut() else {
        return;
    };
    let has_one = container
        .get("lifecycle")
        .is_some_and(|lifecycle| lifecycle.get("preStop").is_some());
    let port = record.small_ports.admin;
    let hook = match &record.classic {
        None => Some(json!({ "httpGet": { "path": WAIT_FOR_DRAIN, "port": port } })),
        Some(classic) => classic::pre_stop(classic),
    };
    let Some(hook) = hook.filter(|_| !has_one) else {
        return;
    };
    if let Some(lifecycle) = entry(container, "lifecycle", &lifecycle_place(&name), record) {
        lifecycle.insert("preStop".to_owned(), hook);
        record.pre_stop.push(name);
    }
}

fn add_metadata(
    template: &mut Value,
    id: &str,
    (record, allocation): (&mut Record, &Allocation),
) -> Result<(), String> {
    let not_understood = || "spec.template.metadata is not an object".to_owned();
    let template = template.as_object_mut().ok_or_else(not_understood)?;
    let metadata = entry(template, "metadata", "metadata", record).ok_or_else(not_understood)?;
    entry(metadata, "labels", "labels", record)
        .ok_or_else(not_understood)?
        .insert(POD_LABEL.to_owned(), label_value(id).into());
    let annotations =
        entry(metadata, "annotations", "annotations", record).ok_or_else(not_understood)?;
    record.exclude_inbound_ports = annotations
        .get(ISTIO_EXCLUDE_INBOUND_PORTS)
        .and_then(Value::as_str)
        .map(str::to_owned);
    let before = record.exclude_inbound_ports.as_deref();
    record.excluded_traffic = stand_ins(before.unwrap_or_default(), &record.sidecar, allocation);
    let excluded = excluded_ports(before, &record.excluded_ports());
    annotations.insert(ISTIO_EXCLUDE_INBOUND_PORTS.to_owned(), excluded.into());
    if let Some(included) = included(annotations, record, allocation) {
        annotations.insert(
            ISTIO_INCLUDE_INBOUND_PORTS.to_owned(),
            included_ports(&included).into(),
        );
        record.include_inbound_ports = Some(included);
    }
    if let Some(classic) = &mut record.classic {
        classic.proxy_config = classic::tell_proxy(annotations, classic.hold_secs);
    }
    let text = serde_json::to_string(record).map_err(|error| error.to_string())?;
    annotations.insert(INJECTED_ANNOTATION.to_owned(), text.into());
    Ok(())
}

/// The map at `key`, made where there is none; one that is there but empty is noted.
fn entry<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
    place: &str,
    record: &mut Record,
) -> Option<&'a mut Map<String, Value>> {
    if parent
        .get(key)
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty)
    {
        record.keep_empty.push(place.to_owned());
    }
    parent
        .entry(key)
        .or_insert_with(|| json!({}))
        .as_object_mut()
}

/// What a list of captured ports, where there is one, gets of our traffic ports. What the user keeps
/// out of the mesh stays out.
fn included(
    annotations: &Map<String, Value>,
    record: &Record,
    allocation: &Allocation,
) -> Option<Included> {
    let before = annotations.get(ISTIO_INCLUDE_INBOUND_PORTS)?.as_str()?;
    let added = stand_ins(before, &record.sidecar, allocation);
    // `*` stands for all of them.
    let has_all = listed(before).any(|item| item == "*");
    (!added.is_empty() && !has_all).then(|| Included {
        before: before.to_owned(),
        added,
    })
}

/// Those of our traffic ports that Istio's `list` of ports lacks although it has their app ports: what
/// it says of these must hold where their traffic comes in now.
fn stand_ins(list: &str, sidecar: &Sidecar, allocation: &Allocation) -> Vec<u16> {
    let has = |port: u16| listed(list).any(|item| item == port.to_string());
    let pairs = sidecar.ports.iter().zip(&allocation.traffic);
    pairs
        .filter(|(app, ours)| has(app.number) && !has(**ours))
        .map(|(_, ours)| *ours)
        .collect()
}

fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

fn container(base: &Value, record: &Record, allocation: &Allocation) -> Result<Value, String> {
    let (sidecar, image, small) = (&record.sidecar, &record.image, allocation.small);
    let mut container = json!({
        "name": QUEUE_PROXY_CONTAINER,
        "image": image.reference,
        "imagePullPolicy": image.pull_policy,
        "ports": container_ports(record, allocation),
        "env": environment(base, sidecar, allocation)?,
        "resources": resources(&sidecar.resources, base),
        "readinessProbe": {
            "httpGet": { "path": "/ready", "port": small.admin },
            "periodSeconds": 1,
            "failureThreshold": 3,
            "timeoutSeconds": PROBE_TIMEOUT_SECONDS,
        },
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    if record.classic.is_none() {
        // Only a note, so that the app's containers wait for the drain however late the signal that
        // begins it comes. An exec would be a process more to start just then.
        container["lifecycle"] =
            json!({ "preStop": { "httpGet": { "path": "/stopping", "port": small.admin } } });
    }
    Ok(container)
}

fn container_ports(record: &Record, allocation: &Allocation) -> Vec<Value> {
    let small = allocation.small;
    let doors = || record.sidecar.ports.iter().zip(&allocation.traffic);
    let traffic = doors().map(|(app, number)| (traffic_port_name(app.number), *number));
    // The same number again, under the name that older pods have.
    let earlier = record.renumbered.iter().filter_map(|port| {
        let (_, number) = doors().find(|(app, _)| app.number == port.is)?;
        Some((traffic_port_name(port.was), *number))
    });
    traffic
        .chain(earlier)
        .chain([
            ("lull-admin".to_owned(), small.admin),
            ("lull-report".to_owned(), small.report),
            ("lull-metrics".to_owned(), small.metrics),
        ])
        .map(|(name, number)| json!({ "name": name, "containerPort": number, "protocol": "TCP" }))
        .collect()
}

fn environment(
    base: &Value,
    sidecar: &Sidecar,
    allocation: &Allocation,
) -> Result<Vec<Value>, String> {
    let traffic: Vec<String> = sidecar
        .ports
        .iter()
        .zip(&allocation.traffic)
        .map(|(app, number)| format!("{number}={}/{}", app.number, app.protocol))
        .collect();
    let grace = grace_secs(base);
    let no_json = |error: serde_json::Error| error.to_string();
    let mut values = vec![
        ("QP_PORTS", traffic.join(",")),
        ("QP_ADMIN_PORT", allocation.small.admin.to_string()),
        ("QP_REPORT_PORT", allocation.small.report.to_string()),
        ("QP_METRICS_PORT", allocation.small.metrics.to_string()),
        (
            "QP_CONTAINER_CONCURRENCY",
            sidecar.container_concurrency.to_string(),
        ),
        ("QP_QUEUE_DEPTH", sidecar.queue_depth.to_string()),
        ("QP_TIMEOUT", sidecar.timeout.to_string()),
    ];
    let optional = [
        ("QP_RESPONSE_START_TIMEOUT", sidecar.response_start_timeout),
        ("QP_IDLE_TIMEOUT", sidecar.idle_timeout),
    ];
    values.extend(
        optional
            .iter()
            .filter_map(|(k, v)| Some((*k, v.as_ref()?.to_string()))),
    );
    let ignore = serde_json::to_string(&sidecar.ignore).map_err(no_json)?;
    values.push(("QP_IGNORE", ignore));
    if sidecar.access_log {
        values.push(("QP_ACCESS_LOG", true.to_string()));
    }
    if !sidecar.name_callers {
        values.push(("QP_NAME_CALLERS", false.to_string()));
    }
    if let Some(endpoint) = &sidecar.otlp_endpoint {
        values.push(("QP_OTLP_ENDPOINT", endpoint.clone()));
    }
    values.extend(app_checks(base, sidecar).map_err(no_json)?);
    values.push(("QP_GRACE", format!("{grace}s")));
    let plain = values.into_iter().map(|(name, value)| {
        // The kubelet expands $(NAME) in values; $$ is how a dollar is written.
        json!({ "name": name, "value": value.replace('$', "$$") })
    });
    Ok(plain.chain(identity()).collect())
}

/// How long a pod has to end.
fn grace_secs(base: &Value) -> u64 {
    let grace = base.pointer("/spec/terminationGracePeriodSeconds");
    grace.and_then(Value::as_u64).unwrap_or(DEFAULT_GRACE_SECS)
}

/// What the queue-proxy asks the app: always, and until it has started.
fn app_checks(base: &Value, sidecar: &Sidecar) -> serde_json::Result<Vec<(&'static str, String)>> {
    let always = probes::app_probes(base, &sidecar.ports);
    let mut at_start = probes::startup_probes(base);
    // What must pass always need not be asked twice.
    at_start.retain(|probe| !always.contains(probe));
    let mut checks = vec![("QP_APP_PROBES", serde_json::to_string(&always)?)];
    if !at_start.is_empty() {
        // A variable of its own, which a sidecar that is older does not look at.
        checks.push(("QP_STARTUP_PROBES", serde_json::to_string(&at_start)?));
    }
    Ok(checks)
}

/// Who the pod is, by the downward API.
fn identity() -> impl Iterator<Item = Value> {
    [
        ("QP_POD_IP", "status.podIP"),
        ("QP_POD_NAME", "metadata.name"),
        ("QP_POD_NAMESPACE", "metadata.namespace"),
    ]
    .into_iter()
    .map(|(name, path)| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } }))
}

/// What the sidecar asks for in a template without it.
fn resources<'a>(sidecar: &'a SidecarResources, base: &Value) -> Resources<&'a str> {
    let containers = shape::containers(base).chain(shape::init_containers(base));
    let whole = Resources::read(base.get("spec").unwrap_or(&Value::Null));
    of_sidecar(
        sidecar.into(),
        PodResources::of(containers.map(Resources::read), &whole),
    )
}
