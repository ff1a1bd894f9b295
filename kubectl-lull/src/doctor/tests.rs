//! Objects of a cluster on which all is well, and what is found when one of them is not.

use lull_contract::{Settings, Shards};
use serde_json::{Value, json};

use super::*;
use crate::{rights::Place, told::LeftOut};

const NOW: &str = "2026-01-01T00:00:10Z";

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn deployment(component: &str, (wanted, ready): (u32, u32), tag: &str) -> Deployment {
    let labels = json!({ "app.kubernetes.io/component": component });
    let container = json!({ "name": component, "image": format!("lull/{component}:{tag}") });
    object(json!({
        "metadata": { "name": format!("lull-{component}"), "labels": labels },
        "spec": {
            "replicas": wanted, "selector": {},
            "template": { "spec": { "containers": [container] } },
        },
        "status": { "readyReplicas": ready },
    }))
}

fn pod(component: &str, containers: &[&str]) -> Pod {
    let containers: Vec<Value> = containers
        .iter()
        .map(|name| json!({ "name": name }))
        .collect();
    object(json!({
        "metadata": {
            "name": format!("lull-{component}-1"), "namespace": "lull-system",
            "labels": { "app.kubernetes.io/component": component },
        },
        "spec": { "containers": containers },
        "status": { "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }] },
    }))
}

/// One that is ready, with these variables.
fn istiod(env: &Value) -> Pod {
    object(json!({
        "metadata": { "name": "istiod-1", "namespace": "istio-system" },
        "spec": { "containers": [{ "name": "discovery", "env": env }] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    }))
}

fn lease(renewed: &str) -> Lease {
    object(json!({
        "metadata": { "name": "1".parse::<Shards>().unwrap().lease(0) },
        "spec": { "holderIdentity": "lull-autoscaler-1", "renewTime": renewed },
    }))
}

fn slice(service: &str, address: &str) -> EndpointSlice {
    object(json!({
        "metadata": {
            "name": format!("{service}-lull"), "namespace": "web",
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
    }))
}

/// What a replica tells that doesn't hear these activators.
fn list(replica: &str, silent: &[&str]) -> WorkloadList {
    WorkloadList {
        replica: replica.to_owned(),
        silent_activators: silent.iter().map(|name| (*name).to_owned()).collect(),
        ..WorkloadList::default()
    }
}

fn entry(workload: &str, address: &str) -> WorkloadEntry {
    object(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {
            "name": format!("{workload}-1"), "namespace": "web",
            "labels": { "lull.dev/workload": workload },
        },
        "spec": { "address": address },
    }))
}

fn asleep() -> ScaledWorkload {
    object(json!({
        "apiVersion": "lull.dev/v1alpha1", "kind": "ScaledWorkload",
        "metadata": { "name": "shop", "namespace": "web" },
        "spec": {
            "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "1" },
            "podSelector": {}, "ports": [], "settings": Settings::default(),
            "originalReplicas": 1,
        },
        "status": { "mode": "Proxy", "state": "Asleep", "services": ["shop"] },
    }))
}

/// All is well, but for shards: there are as many Leases as the test asks for.
fn well() -> Seen {
    let components = ["activator", "autoscaler", "webhook"];
    Seen {
        namespace: "lull-system".to_owned(),
        now: NOW.parse().unwrap(),
        unknown_fields: Ok(Some(Vec::new())),
        workloads: Ok(Some(vec![asleep()])),
        unread: Unread::new(),
        opted_in: Ok(OptedInKinds::default()),
        deployments: Ok(components.map(|name| deployment(name, (2, 2), "1")).into()),
        pods: Ok(components.map(|name| pod(name, &[name])).into()),
        leases: Err("not looked at".to_owned()),
        renewed: BTreeSet::new(),
        lists: Ok(vec![list("lull-autoscaler-1", &[])]),
        settings: Ok(Vec::new()),
        webhook: Err("not looked at".to_owned()),
        webhook_slices: Ok(vec![slice("lull-webhook", "10.0.0.3")]),
        is_injected: Ok(true),
        lacking: Ok(Vec::new()),
        autoscaler_lacking: Ok(Vec::new()),
        knows_istio: Ok(false),
        istiods: Ok(Vec::new()),
        mesh_mode: MeshMode::Auto,
        missing_kinds: Ok(Vec::new()),
        entries: Ok(Vec::new()),
        slices: Ok(vec![slice("shop", "10.0.0.1")]),
    }
}

/// Fails unless `seen` has a finding of that kind which says `part`.
fn has(seen: &Seen, area: Area, level: Level, part: &str) {
    let findings = findings(seen);
    let is_it = |finding: &&Finding| {
        finding.area == area && finding.level == level && finding.message.contains(part)
    };
    let found = findings.iter().find(is_it);
    let found = found.unwrap_or_else(|| panic!("{area:?} {level:?} {part:?} not in {findings:#?}"));
    assert_eq!(found.fix.is_empty(), level == Level::Good, "{found:?}");
}

#[test]
fn where_all_is_well_nothing_is_wrong() {
    let findings = findings(&well());
    let worst = findings.iter().map(|finding| finding.level).max();
    assert_eq!(worst, Some(Level::Unknown), "{findings:#?}");
    let areas: BTreeSet<Area> = findings.iter().map(|finding| finding.area).collect();
    assert_eq!(areas.len(), 6, "all but certificates: {areas:?}");
}

#[test]
fn what_does_not_run_is_named_with_what_is_without_it() {
    let mut seen = well();
    seen.deployments = Ok(vec![
        deployment("activator", (0, 0), "1"),
        deployment("webhook", (2, 1), "2"),
    ]);
    has(
        &seen,
        Area::Install,
        Level::Problem,
        "activator is scaled to 0",
    );
    has(
        &seen,
        Area::Install,
        Level::Problem,
        "there is no autoscaler",
    );
    has(
        &seen,
        Area::Install,
        Level::Warning,
        "1 of 2 replicas of webhook",
    );
    has(
        &seen,
        Area::Install,
        Level::Warning,
        "different versions: 1, 2",
    );
    seen.deployments = Ok(vec![deployment("webhook", (2, 0), "1")]);
    has(&seen, Area::Install, Level::Problem, "no webhook is ready");
    seen.workloads = Ok(None);
    has(&seen, Area::Install, Level::Problem, "not installed");
}

/// Messages of the problems.
fn problems(seen: &Seen) -> Vec<String> {
    let findings = findings(seen).into_iter();
    let problems = findings.filter(|finding| finding.level == Level::Problem);
    problems.map(|finding| finding.message).collect()
}

/// A cluster on which nothing of Lull was found where it was looked for.
fn bare() -> Seen {
    Seen {
        unknown_fields: Ok(None),
        workloads: Ok(None),
        deployments: Ok(Vec::new()),
        pods: Ok(Vec::new()),
        leases: Ok(Vec::new()),
        lists: Err("no autoscaler is ready".to_owned()),
        webhook: Ok(None),
        webhook_slices: Ok(Vec::new()),
        is_injected: Ok(false),
        autoscaler_lacking: Ok(rights::of_the_autoscaler(false)),
        slices: Ok(Vec::new()),
        ..well()
    }
}

#[test]
fn a_cluster_without_lull_lacks_lull_and_not_each_part_of_it() {
    let problems = problems(&bare());
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].contains("Lull is not installed"),
        "{problems:?}"
    );
}

#[test]
fn lull_in_another_namespace_is_found_by_its_webhook() {
    let service = json!({ "name": "lull-webhook", "namespace": "platform" });
    let mut seen = bare();
    seen.workloads = Ok(Some(Vec::new()));
    seen.webhook = Ok(Some(object(json!({
        "metadata": { "name": "lull-webhook" },
        "webhooks": [{
            "name": "workloads.lull.dev", "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": { "service": service },
        }],
    }))));
    let problems = problems(&seen);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].ends_with("it is in platform"), "{problems:?}");
    seen.webhook = Ok(None);
    has(
        &seen,
        Area::Install,
        Level::Problem,
        "there is no autoscaler",
    );
}

#[test]
fn shards_without_leaders_are_told() {
    let mut seen = well();
    seen.leases = Ok(vec![lease("2025-12-31T00:00:00.000000Z")]);
    has(&seen, Area::Install, Level::Problem, "no autoscaler leads");
    seen.leases = Ok(vec![lease("2026-01-01T00:00:09.500000Z")]);
    let led = "every shard has its leader";
    has(&seen, Area::Install, Level::Good, led);
    // The cluster's clock is an hour ahead.
    let looks = ["2026-01-01T01:00:00.000000Z", "2026-01-01T01:00:01.500000Z"];
    let [before, after] = looks.map(|at| vec![lease(at)]);
    assert!(install::renewed(&before, &before).is_empty());
    seen.renewed = install::renewed(&before, &after);
    seen.leases = Ok(before);
    has(&seen, Area::Install, Level::Good, led);
}

#[test]
fn a_webhook_that_is_not_asked_reached_or_trusted_is_a_problem() {
    let mut seen = well();
    seen.webhook = Ok(None);
    seen.webhook_slices = Ok(Vec::new());
    seen.is_injected = Ok(false);
    has(
        &seen,
        Area::Webhook,
        Level::Problem,
        "no MutatingWebhookConfiguration",
    );
    has(&seen, Area::Webhook, Level::Problem, "no ready endpoint");
    has(
        &seen,
        Area::Webhook,
        Level::Problem,
        "doesn't get the sidecar",
    );
    let webhook = |config: Value| -> MutatingWebhookConfiguration {
        object(
            json!({ "metadata": { "name": "lull-webhook" }, "webhooks": [{
            "name": "workloads.lull.dev", "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": config,
        }] }),
        )
    };
    seen.webhook = Ok(Some(webhook(json!({}))));
    has(&seen, Area::Certificates, Level::Problem, "has no caBundle");
    seen.webhook = Ok(Some(webhook(json!({ "caBundle": "eA==" }))));
    has(&seen, Area::Certificates, Level::Problem, "can't be read");
}

#[test]
fn rights_that_are_missing_are_named_with_what_they_are_for() {
    let mut seen = well();
    let patch = Right::new("patch", ("apps", "deployments"), "on, off", Place::Here);
    seen.lacking = Ok(vec![patch]);
    seen.autoscaler_lacking = Ok(rights::of_the_autoscaler(false)[..1].to_vec());
    let (of_user, of_autoscaler) = ("patch deployments.apps (for on, off)", "deployments/scale");
    has(&seen, Area::Permissions, Level::Warning, of_user);
    has(&seen, Area::Permissions, Level::Problem, of_autoscaler);
    seen.lacking = Err("no".to_owned());
    has(&seen, Area::Permissions, Level::Unknown, "your rights");
}

#[test]
fn an_activator_that_is_not_heard_is_named_with_who_does_not_hear_it() {
    let mut seen = well();
    seen.lists = Ok(vec![
        list("lull-autoscaler-1", &["lull-activator-1"]),
        list("lull-autoscaler-2", &[]),
    ]);
    let part = "lull-activator-1 is ready and not heard (by lull-autoscaler-1)";
    has(&seen, Area::Install, Level::Problem, part);
    seen.lists = Err("no autoscaler is ready".to_owned());
    let part = "whether activators are heard";
    has(&seen, Area::Install, Level::Unknown, part);
}

#[test]
fn a_definition_of_an_older_version_is_told() {
    let mut seen = well();
    seen.unknown_fields = Ok(Some(vec!["status.wakes".to_owned()]));
    has(&seen, Area::Install, Level::Warning, "lack status.wakes");
}

#[test]
fn an_istio_that_is_partly_there_or_not_for_lull_is_told() {
    let mut seen = well();
    seen.istiods = Ok(vec![istiod(&json!([]))]);
    has(
        &seen,
        Area::Mesh,
        Level::Problem,
        "doesn't know the WorkloadEntries",
    );
    seen.knows_istio = Ok(true);
    has(&seen, Area::Mesh, Level::Good, "istiod ready");
    seen.missing_kinds = Ok(vec!["sidecars of networking.istio.io/v1".to_owned()]);
    has(&seen, Area::Mesh, Level::Warning, "but not sidecars");
    let variable = "PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES";
    let env = |value: &str| json!([{ "name": variable, "value": value }]);
    seen.istiods = Ok(vec![istiod(&env("true"))]);
    has(&seen, Area::Mesh, Level::Good, "istiod ready");
    seen.istiods = Ok(vec![istiod(&env("false"))]);
    has(&seen, Area::Mesh, Level::Problem, variable);
    seen.mesh_mode = MeshMode::None;
    has(&seen, Area::Mesh, Level::Warning, "mesh.mode is none");
}

#[test]
fn a_mesh_that_lull_waits_for_is_missed() {
    let mut seen = well();
    has(&seen, Area::Mesh, Level::Good, "none is needed");
    seen.mesh_mode = MeshMode::Istio;
    has(&seen, Area::Mesh, Level::Problem, "told to wait for it");
    seen.knows_istio = Ok(true);
    seen.istiods = Ok(vec![istiod(&json!([]))]);
    has(&seen, Area::Mesh, Level::Good, "istiod ready");
}

#[test]
fn a_sleeper_in_the_mesh_without_entries_is_a_problem() {
    let mut hidden = slice("shop", "10.0.0.1");
    let labels = hidden.metadata.labels.get_or_insert_default();
    let label = "multicluster.kubernetes.io/service-name";
    labels.insert(label.to_owned(), "shop".to_owned());
    let mut seen = well();
    seen.slices = Ok(vec![hidden]);
    let part = "no activator among its WorkloadEntries";
    has(&seen, Area::Slices, Level::Problem, part);
    seen.entries = Ok(vec![entry("other", "10.0.0.1"), entry("shop", "10.9.9.9")]);
    has(&seen, Area::Slices, Level::Problem, "gone: 10.9.9.9");
    seen.entries = Ok(vec![entry("shop", "10.0.0.1")]);
    has(&seen, Area::Slices, Level::Good, "every sleeping workload");
}

#[test]
fn a_mesh_without_istiod_and_activators_inside_it_are_told() {
    let mut seen = well();
    seen.knows_istio = Ok(true);
    let meshed = |component| pod(component, &[component, "istio-proxy"]);
    seen.pods = Ok(vec![meshed("webhook"), meshed("activator")]);
    has(&seen, Area::Mesh, Level::Warning, "no istiod is ready");
    let part = "activators have Istio's container (lull-activator-1)";
    has(&seen, Area::Mesh, Level::Problem, part);
}

#[test]
fn a_sleeper_without_activators_that_live_is_a_problem() {
    let mut seen = well();
    seen.slices = Ok(Vec::new());
    has(
        &seen,
        Area::Slices,
        Level::Problem,
        "web/shop sleeps, and there is no activator in the endpoints of Service shop",
    );
    seen.slices = Ok(vec![slice("shop", "10.9.9.9")]);
    has(&seen, Area::Slices, Level::Problem, "gone: 10.9.9.9");
    seen.slices = Ok(vec![slice("shop", "10.9.9.9"), slice("shop", "10.0.0.1")]);
    has(&seen, Area::Slices, Level::Warning, "gone: 10.9.9.9");
}

#[test]
fn a_sleeper_without_activators_in_one_of_two_families_is_a_problem() {
    let of_ipv6 = |address: Option<&str>| {
        let mut slice = slice("shop", address.unwrap_or_default());
        slice.address_type = "IPv6".to_owned();
        slice.endpoints.retain(|_| address.is_some());
        slice
    };
    let missing = "no activator in the IPv6 endpoints of Service shop";
    let mut seen = well();
    seen.slices = Ok(vec![slice("shop", "10.0.0.1"), of_ipv6(None)]);
    // Where activators have no such address, there is no caller that was promised anything.
    has(&seen, Area::Slices, Level::Good, "every sleeping workload");
    for pod in seen.pods.as_mut().unwrap() {
        let status = pod.status.as_mut().unwrap();
        let ips = json!([{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }]);
        status.pod_ips = object(ips);
    }
    has(&seen, Area::Slices, Level::Problem, missing);
    seen.slices = Ok(vec![slice("shop", "10.0.0.1"), of_ipv6(Some("fd00::1"))]);
    has(&seen, Area::Slices, Level::Good, "every sleeping workload");
}

#[test]
fn workloads_that_nobody_took_note_of_are_named() {
    let mut seen = well();
    let opted_in = |id: &str| OptedIn {
        text: format!("Deployment {id} in namespace web"),
        namespace: "web".to_owned(),
        id: id.to_owned(),
        left_out: None,
        has_template: true,
    };
    seen.opted_in = Ok(OptedInKinds {
        found: vec![opted_in("shop"), opted_in("cart")],
        left_alone: vec!["example.org/v1/things has no /scale subresource".to_owned()],
    });
    has(&seen, Area::Workloads, Level::Warning, "no /scale");
    has(&seen, Area::Workloads, Level::Problem, "Deployment cart");
    let count = findings(&seen)
        .iter()
        .filter(|finding| finding.message.contains("has no ScaledWorkload"))
        .count();
    assert_eq!(count, 1);
    let cart = ("web".to_owned(), "cart".to_owned());
    seen.unread = [(cart, "Missing field target".to_owned())].into();
    let why = "web/cart can't be read: Missing field target";
    has(&seen, Area::Workloads, Level::Warning, why);
    let is_missed = |finding: &Finding| finding.message.contains("has no ScaledWorkload");
    assert!(!findings(&seen).iter().any(is_missed), "it is there");
}

#[test]
fn what_asks_where_lull_never_looks_is_told_why_nothing_happens() {
    let mut seen = well();
    let asking = |left_out, has_template| OptedIn {
        text: "Deployment dns in namespace far".to_owned(),
        namespace: "far".to_owned(),
        id: "dns".to_owned(),
        left_out,
        has_template,
    };
    for (left_out, has_template, part) in [
        (Some(LeftOut::Never), true, "nothing is ever enrolled"),
        (
            Some(LeftOut::Namespace),
            true,
            "doesn't look after workloads of namespace far",
        ),
        (None, false, "no pod template"),
    ] {
        seen.opted_in = Ok(OptedInKinds {
            found: vec![asking(left_out, has_template)],
            left_alone: Vec::new(),
        });
        has(&seen, Area::Workloads, Level::Warning, part);
    }
}
