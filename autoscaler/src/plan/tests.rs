//! The table: sets of objects with the plan that is expected of them, in `tests/*.json`.
//!
//! Each case changes a base ([RFC 7386](https://www.rfc-editor.org/rfc/rfc7386)): the Deployment
//! `shop` and the Service `shop` that fit each other. `objects` are all that is in the namespace.

mod patches;
mod room;
mod standby;
mod timeouts;

use std::{collections::BTreeSet, fs, path::Path};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{self as core, ConfigMap, ResourceQuota},
        discovery::v1::EndpointSlice,
        networking::v1 as networking,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{ResourceExt, core::DynamicObject};
use lull_contract::{
    annotations, names::WORKLOAD_LABEL, scaled_workload::WorkloadPort, view::WakeView,
};
use lull_process::docs;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::{
    mesh::{
        Around, AuthorizationPolicy, DestinationRule, Istiod, MeshConfig, PeerAuthentication,
        Sidecar, VirtualService, object as istio_object,
    },
    objects::is_lulls,
    pod::Pod,
    stores::Hpa,
    target::{Target, tests as targets},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// Changes of the base workload.
    #[serde(default)]
    workload: Value,
    #[serde(default)]
    enrolled: bool,
    /// Where activators listen for it.
    #[serde(default)]
    activator_ports: Vec<WorkloadPort>,
    /// Its pods have no container of Istio's.
    #[serde(default)]
    outside_mesh: bool,
    /// Nobody knows whether there are LimitRanges.
    #[serde(default)]
    ranges_unknown: bool,
    /// What its pods are seen to listen on at loopback alone.
    #[serde(default)]
    loopback_only: Vec<u16>,
    /// How long its last wakes took, milliseconds.
    #[serde(default)]
    wakes_ms: Vec<u64>,
    /// By kind; each changes the base of its kind.
    objects: Vec<Value>,
    services: Vec<String>,
    /// Severity, reason, object.
    findings: Vec<String>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/tests");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // Tests of other things are beside the table.
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    let read = |file: &std::path::PathBuf| -> Vec<Case> {
        let text = fs::read_to_string(file).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    files.iter().flat_map(read).collect()
}

fn base(kind: &str) -> Value {
    match kind {
        "Service" => json!({
            "metadata": { "name": "shop", "namespace": "ns", "resourceVersion": "7" },
            "spec": {
                "clusterIP": "10.96.0.9", "selector": { "app": "shop" },
                "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }],
            },
        }),
        "HorizontalPodAutoscaler" => json!({
            "metadata": { "name": "shop", "namespace": "ns" },
            "spec": {
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop" },
                "maxReplicas": 3,
            },
        }),
        "EndpointSlice" => json!({
            "metadata": { "name": "shop", "namespace": "ns" },
            "addressType": "IPv4", "endpoints": [],
        }),
        "LimitRange" => json!({
            "metadata": { "name": "shop", "namespace": "ns" }, "spec": { "limits": [] },
        }),
        // A Deployment is a workload.
        "Istiod" => json!({ "metadata": { "name": "istiod", "namespace": "istio-system" } }),
        "ConfigMap" => json!({ "metadata": { "name": "istio", "namespace": "istio-system" } }),
        "PodDisruptionBudget"
        | "NetworkPolicy"
        | "ResourceQuota"
        | "DestinationRule"
        | "VirtualService"
        | "PeerAuthentication"
        | "AuthorizationPolicy"
        | "Sidecar" => json!({
            "metadata": { "name": "shop", "namespace": "ns" },
            "spec": {},
        }),
        _ => json!({
            "metadata": { "name": "shop", "namespace": "ns" },
            "spec": { "template": {
                "metadata": { "labels": { "app": "shop" } },
                "spec": { "containers": [
                    { "name": "app", "ports": [{ "name": "web", "containerPort": 8080 }] },
                ] },
            } },
        }),
    }
}

/// JSON merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        match change {
            Value::Null => {
                target.as_object_mut().unwrap().remove(key);
            }
            _ => merge(&mut target[key], change),
        }
    }
}

fn kind_of(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or("Deployment")
}

fn merged(change: &Value) -> Value {
    let mut object = base(kind_of(change));
    if !change.is_null() {
        merge(&mut object, change);
    }
    object
}

fn read_target(change: &Value) -> Target {
    let mut object = merged(change);
    object.as_object_mut().unwrap().remove("kind");
    targets::target(&targets::resource("apps", kind_of(change)), &object)
}

fn components() -> Components {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.collect()
    };
    Components {
        namespace: "lull-system".into(),
        namespace_labels: labels(&[("kubernetes.io/metadata.name", "lull-system")]),
        activators: labels(&[("component", "activator")]),
        autoscalers: labels(&[("component", "autoscaler")]),
        localities: BTreeSet::from(["eu/eu-1".into(), "eu/eu-2".into()]),
    }
}

/// A case's objects of a kind.
fn of_kind(case: &Case, kind: &str) -> impl Iterator<Item = Value> {
    let objects = case.objects.iter();
    let of_kind = objects.filter(move |object| kind_of(object) == kind);
    of_kind.map(merged)
}

/// Istio's objects of a case.
fn rules_of(case: &Case) -> Around {
    fn of<K>(case: &Case, kind: &str, kept: fn(&DynamicObject) -> K) -> Vec<Arc<K>> {
        let objects = of_kind(case, kind);
        objects
            .map(|object| Arc::new(kept(&istio_object(&object))))
            .collect()
    }
    let istiods = of_kind(case, "Istiod").map(|mut object| {
        object["kind"] = json!("Deployment");
        Arc::new(Istiod::from(read::<Deployment>(object)))
    });
    let configs = of_kind(case, "ConfigMap").map(read::<ConfigMap>);
    let configs = configs.map(|config| Arc::new(MeshConfig::from(config)));
    Around {
        destination_rules: of(case, "DestinationRule", DestinationRule::from_object),
        virtual_services: of(case, "VirtualService", VirtualService::from_object),
        peer_authentications: of(case, "PeerAuthentication", PeerAuthentication::from_object),
        authorization_policies: of(
            case,
            "AuthorizationPolicy",
            AuthorizationPolicy::from_object,
        ),
        sidecars: of(case, "Sidecar", Sidecar::from_object),
        istiods: istiods.collect(),
        configs: configs.collect(),
        root_namespace: "istio-system".into(),
    }
}

/// What of a case is not Lull's, of the kinds that Lull names itself.
fn taken(case: &Case, rules: &Around) -> Vec<String> {
    let slices = case
        .objects
        .iter()
        .filter(|o| kind_of(o) == "EndpointSlice");
    let slices = slices.map(|object| read::<EndpointSlice>(merged(object)));
    let slices = slices.filter(|slice| !is_lulls(slice));
    let slices = slices.map(|slice| format!("EndpointSlice {}", slice.name_any()));
    let rules = rules.destination_rules.iter();
    let rules = rules.filter(|rule| rule.ours.is_none() && rule.namespace == "ns");
    slices
        .chain(rules.map(|rule| format!("DestinationRule {}", rule.name)))
        .collect()
}

fn plan_of(case: &Case) -> Plan {
    plan_with(case, &components())
}

fn plan_with(case: &Case, lull: &Components) -> Plan {
    let target = read_target(&case.workload);
    let wanted = annotations::parse(&target.annotations).unwrap();
    let of_kind = |kind: &'static str| of_kind(case, kind);
    let services: Vec<Arc<Service>> = of_kind("Service").map(read).map(Arc::new).collect();
    let scalers = of_kind("HorizontalPodAutoscaler").map(read::<HorizontalPodAutoscaler>);
    let group = Hpa::target_of(&target.resource.kind, &target.name);
    let scalers: Vec<String> = scalers
        .map(Hpa::from)
        .filter(|hpa| hpa.target == group)
        .map(|hpa| hpa.name)
        .collect();
    let policies = of_kind("NetworkPolicy").map(read::<networking::NetworkPolicy>);
    let policies: Vec<Arc<NetworkPolicy>> = policies.map(|p| Arc::new(p.into())).collect();
    let budgets = of_kind("PodDisruptionBudget").map(read::<PodDisruptionBudget>);
    let budgets: Vec<Arc<Budget>> = budgets.map(|b| Arc::new(b.into())).collect();
    let quotas = of_kind("ResourceQuota").map(read::<ResourceQuota>);
    let quotas: Vec<Arc<Quota>> = quotas.map(|q| Arc::new(q.into())).collect();
    let ranges = of_kind("LimitRange").map(read::<core::LimitRange>);
    let ranges: Vec<Arc<LimitRange>> = ranges.map(|r| Arc::new(r.into())).collect();
    let wakes = case.wakes_ms.iter().map(|ms| WakeView {
        waited_ms: Some(*ms),
        ..WakeView::default()
    });
    let wakes: Vec<WakeView> = wakes.collect();
    let others = case.objects.iter().filter(|object| {
        let kind = kind_of(object);
        kind == "Deployment" || kind == "StatefulSet"
    });
    let others: Vec<Target> = others.map(read_target).collect();
    let others: Vec<Other<'_>> = others
        .iter()
        .map(|other| Other {
            kind: &other.resource.kind,
            name: &other.name,
            labels: &other.template.as_ref().unwrap().plan.labels,
        })
        .collect();
    let rules = rules_of(case);
    plan(&Situation {
        workload: &target.to_string(),
        id: &target.id(),
        template: &target.template.as_ref().unwrap().plan,
        activator_ports: &case.activator_ports,
        asks: Asks::of(&target.annotations, &wanted.settings, Some(&wanted.sidecar)),
        is_enrolled: case.enrolled,
        services: &services,
        taken: &taken(case, &rules),
        others: &others,
        scalers: &scalers,
        policies: &policies,
        budgets: &budgets,
        quotas: &quotas,
        ranges: (!case.ranges_unknown).then_some(ranges.as_slice()),
        loopback_only: &case.loopback_only,
        longest_wake: longest_wake(&wakes),
        mesh: Some(Mesh {
            is_member: !case.outside_mesh,
            namespace: "ns",
            account: "default",
            rules: &rules,
        }),
        lull,
    })
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

#[test]
fn every_set_of_objects_has_the_plan_that_the_table_says() {
    let cases = cases();
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let mut seen = BTreeSet::new();
    for case in &cases {
        let plan = plan_of(case);
        let services: Vec<String> = plan.services.iter().map(ToString::to_string).collect();
        assert_eq!(services, case.services, "{}: {plan:?}", case.name);
        let shown = |f: &Finding| format!("{:?} {} {}", f.reason.severity(), f.reason, f.object);
        let findings: Vec<String> = plan.findings.iter().map(shown).collect();
        assert_eq!(findings, case.findings, "{}: {plan:?}", case.name);
        assert_eq!(plan_of(case), plan, "{}: planning is stable", case.name);
        seen.extend(plan.findings.iter().map(|finding| finding.reason));
    }
    // Those two are found before there is anything to plan.
    seen.extend([Reason::BadAnnotation, Reason::NoTemplate]);
    // And those follow from Lull's own pods.
    seen.extend([Reason::NoActivator, Reason::FamilyNotHeld]);
    let all = BTreeSet::from(Reason::ALL);
    let missing: Vec<_> = all.difference(&seen).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn every_reason_is_documented_with_its_severity_and_nothing_else_is() {
    let documented = docs::table(include_str!("../../../docs/enrolment.md"), "Findings");
    let documented: BTreeSet<(String, String)> = documented
        .iter()
        .map(|row| {
            let reason = docs::quoted(&row["reason"]).concat();
            assert!(!row["what to do"].is_empty(), "{reason}");
            (reason, row["severity"].clone())
        })
        .collect();
    let in_code = Reason::ALL.map(|reason| {
        let severity = match reason.severity() {
            Severity::Refuse => "refused",
            Severity::Warn => "warning",
        };
        (reason.to_string(), severity.to_owned())
    });
    assert_eq!(documented, BTreeSet::from(in_code));
}

/// One that is not of the table.
fn case(workload: Value, objects: Vec<Value>) -> Case {
    Case {
        name: String::new(),
        workload,
        enrolled: false,
        activator_ports: Vec::new(),
        outside_mesh: false,
        ranges_unknown: false,
        loopback_only: Vec::new(),
        wakes_ms: Vec::new(),
        objects,
        services: Vec::new(),
        findings: Vec::new(),
    }
}

fn findings_of(workload: Value, objects: Vec<Value>) -> String {
    let plan = plan_of(&case(workload, objects));
    let texts: Vec<String> = plan.findings.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

#[test]
fn a_name_that_two_workloads_would_have_is_told_with_the_other_one() {
    let named = |label: &str| {
        let metadata = json!({ "name": "shop-v1-lull", "labels": { WORKLOAD_LABEL: label } });
        let private = json!({ "kind": "Service", "metadata": metadata });
        let workload = json!({ "metadata": { "name": "shop-v1" } });
        findings_of(workload, vec![json!({ "kind": "Service" }), private])
    };
    assert_eq!(named("shop-v1"), "", "its own");
    let other = named("shop.v1");
    assert!(
        other.starts_with("Service shop-v1-lull is the private Service of the workload shop.v1, "),
        "{other}"
    );
}

#[test]
fn a_finding_says_what_to_write() {
    let undeclared =
        json!({ "kind": "Service", "spec": { "ports": [{ "port": 81, "targetPort": 7 }] } });
    let workload = json!({ "metadata": { "annotations": { "lull.dev/ports": "8080,5432/tcp" } } });
    let text = findings_of(workload, vec![undeclared]);
    assert!(
        text.starts_with("Service shop targets 7 with its port 81"),
        "{text}"
    );
    assert!(
        text.contains("lull.dev/ports: \"8080,5432/tcp,7\""),
        "{text}"
    );
    let short = json!({
        "metadata": { "annotations": { "lull.dev/timeout": "1m30s" } },
        "spec": { "template": { "spec": { "terminationGracePeriodSeconds": 5 } } },
    });
    let text = findings_of(short, vec![json!({ "kind": "Service" })]);
    assert!(text.contains("set it to 13 at least"), "{text}");
    assert!(
        text.contains("set the grace period to 93 at least"),
        "{text}"
    );
    let asking = json!({ "metadata": { "annotations": { "lull.dev/connect-timeout": "20s" } } });
    let rule = |policy: Value| json!({ "kind": "DestinationRule", "spec": { "host": "shop", "trafficPolicy": policy } });
    let service = || json!({ "kind": "Service" });
    let text = findings_of(asking.clone(), vec![service(), rule(json!({}))]);
    let line = r#"{"connectionPool":{"tcp":{"connectTimeout":"20s"}}}"#;
    assert!(text.contains(line), "{text}");
    let short = json!({ "connectionPool": { "tcp": { "connectTimeout": "3s" } } });
    let text = findings_of(asking, vec![service(), rule(short)]);
    assert!(text.contains("set 20s or more"), "{text}");
    let policy = json!({ "kind": "NetworkPolicy", "spec": { "ingress": [{ "ports": [{ "port": 8080 }] }] } });
    let text = findings_of(json!({}), vec![json!({ "kind": "Service" }), policy]);
    for part in [
        "lull-8080 (8012) from Lull's activators",
        "lull-8080 (8012) from those who are let in on 8080",
        "lull-admin (8022) from Lull's activators",
        "lull-report (9090) from Lull's autoscaler",
        "namespace lull-system",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn whoever_writes_many_rules_for_another_namespace_is_told_of_some() {
    let route = |namespace: &str, number: usize| {
        let host = "shop.ns.svc.cluster.local";
        json!({
            "kind": "VirtualService",
            "metadata": { "name": format!("r{number}"), "namespace": namespace },
            "spec": { "http": [{ "timeout": "1s", "route": [{ "destination": { "host": host } }] }] },
        })
    };
    let mut objects: Vec<Value> = (0..500).map(|number| route("edge", number)).collect();
    objects.extend([route("ns", 0), json!({ "kind": "Service" })]);
    let text = findings_of(json!({}), objects);
    assert_eq!(text.matches("VirtualService edge/").count(), 16, "{text}");
    assert_eq!(text.matches("VirtualService r0 ").count(), 1, "{text}");
}

#[test]
fn a_policy_may_name_any_label_that_all_of_lull_s_pods_have() {
    let pods = |component: &str, versions: &[&str]| -> Vec<Arc<Pod>> {
        let pod = |version: &&str| {
            let labels = json!({ "name": "lull", "component": component, "version": version });
            let pod = json!({ "metadata": { "name": version, "labels": labels } });
            Arc::new(Pod::own(read(pod)))
        };
        versions.iter().map(pod).collect()
    };
    let autoscalers = pods("autoscaler", &["1"]);
    let is_blocked = |lull: &Components, named: Value| {
        let from = json!([{ "namespaceSelector": {}, "podSelector": { "matchLabels": named } }]);
        let policy = json!({ "kind": "NetworkPolicy", "spec": { "ingress": [{ "from": from }] } });
        let case = case(json!({}), vec![json!({ "kind": "Service" }), policy]);
        let findings = plan_with(&case, lull).findings;
        findings
            .iter()
            .any(|finding| finding.reason == Reason::PolicyBlocks)
    };
    let one = components().as_seen(None, &pods("activator", &["1"]), &autoscalers);
    assert!(!is_blocked(&one, json!({ "name": "lull" })));
    assert!(!is_blocked(&one, json!({ "version": "1" })));
    assert!(is_blocked(&one, json!({ "name": "other" })));
    assert!(is_blocked(&one, json!({ "component": "activator" })));
    let rolling = components().as_seen(None, &pods("activator", &["1", "2"]), &autoscalers);
    assert!(!is_blocked(&rolling, json!({ "name": "lull" })));
    assert!(is_blocked(&rolling, json!({ "version": "1" })));
    // Without pods it is only known what they are found by.
    let none = components().as_seen(None, &[], &autoscalers);
    assert!(is_blocked(&none, json!({ "name": "lull" })));
}

#[test]
fn a_dry_run_is_told_in_one_line_and_in_steps() {
    let case = |objects: Vec<Value>| case(json!({}), objects);
    let fits = plan_of(&case(vec![json!({ "kind": "Service" })]));
    assert_eq!(
        fits.summary(),
        "dry-run: would switch Service shop (80 -> 8080)"
    );
    assert_eq!(
        fits.steps("shop-lull"),
        [
            "put the queue-proxy into the pod template, which starts a rollout",
            "create Service shop-lull",
            "point Service shop at it: port 80 to lull-8080",
        ]
    );
    let sticky = json!({ "kind": "Service", "spec": { "sessionAffinity": "ClientIP" } });
    let summary = plan_of(&case(vec![sticky])).summary();
    assert_eq!(
        summary,
        "dry-run: would switch Service shop (80 -> 8080), 1 warning"
    );
    let none = plan_of(&case(Vec::new())).summary();
    assert!(
        none.starts_with("dry-run: refused: Deployment shop is selected by no Service"),
        "{none}"
    );
}
