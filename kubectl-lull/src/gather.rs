//! What a plan is made from, read with the user's own rights.

use std::{fmt::Debug, sync::Arc, time::Duration};

use autoscaler::{
    objects::is_lulls,
    plan::{self, Asks, Components, Finding, Mesh, Other, Plan, Reason, Situation, Template},
    stores::{Budget, Hpa, LimitRange, NetworkPolicy, Quota},
    target::{DiscoveryError, Target},
};
use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{self as core, ConfigMap, ResourceQuota, Service},
    discovery::v1::EndpointSlice,
    networking::v1 as networking,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    core::{DynamicObject, NamespaceResourceScope},
};
use lull_contract::{
    Settings,
    annotations::{self, AnnotationError, Defaults, Wanted},
    injected::Sidecar,
    scaled_workload::{ScaledWorkload, State, WorkloadPort},
};
use serde::de::DeserializeOwned;

use crate::{
    cluster::{Cluster, call},
    components::components,
    mesh::{self, Seen},
    progress,
    rights::Reading,
    told::{LeftOut, Told, told},
    workload::{Workload, kind},
};

/// ConfigMap of the cluster-wide settings, as the chart calls it.
pub(crate) const SETTINGS: &str = "lull-settings";
/// Labels of everything that the chart installs.
pub(crate) const LULL: &str = "app.kubernetes.io/part-of=lull";
/// Label that tells Lull's own pods apart.
pub(crate) const COMPONENT_LABEL: &str = "app.kubernetes.io/component";

/// A plan, and what it was made from.
#[derive(Debug)]
pub(crate) struct Planned {
    /// What would be done, and what stands in the way.
    pub(crate) plan: Plan,
    /// What the workload would run with.
    pub(crate) settings: Settings,
    /// Its Services are switched already.
    pub(crate) is_enrolled: bool,
    /// Lull doesn't look after such a workload.
    pub(crate) left_out: Option<LeftOut>,
    /// What could not be read, and so is not in the plan.
    pub(crate) missing: Vec<String>,
}

/// What Lull has written of a workload.
#[derive(Debug, Default)]
struct Run {
    /// Its Services are switched already.
    is_enrolled: bool,
    /// Where activators listen for it.
    activator_ports: Vec<WorkloadPort>,
    /// How long it took to wake lately ([`plan::longest_wake`]).
    longest_wake: Option<Duration>,
}

/// Objects beside the workload.
#[derive(Default)]
struct Surroundings {
    services: Vec<Arc<Service>>,
    others: Vec<Target>,
    scalers: Vec<String>,
    policies: Vec<Arc<NetworkPolicy>>,
    budgets: Vec<Arc<Budget>>,
    quotas: Vec<Arc<Quota>>,
    /// `None` where they can't be read.
    ranges: Option<Vec<Arc<LimitRange>>>,
    /// Slices of the namespace that Lull hasn't written, by name.
    others_slices: Vec<String>,
    mesh: Option<Seen>,
    lull: Components,
    defaults: Defaults,
    missing: Vec<String>,
}

/// The plan for `workload`.
///
/// # Errors
/// Where the API server can't be asked. What the user may not read is left out and named.
pub(crate) async fn planned(cluster: &Cluster, workload: &Workload) -> anyhow::Result<Planned> {
    let what = format!("look at what is around {}", workload.target);
    // Many calls, of which none may take long.
    progress::during(&what, Box::pin(look_around(cluster, workload))).await
}

async fn look_around(cluster: &Cluster, workload: &Workload) -> anyhow::Result<Planned> {
    let target = &workload.target;
    let mut missing = Vec::new();
    let run = run_of(cluster, workload, &mut missing).await?;
    let told = told(cluster, &mut missing).await?;
    let around = surroundings(cluster, (target, run.is_enrolled), &told, missing).await?;
    let (wanted, faults) = wanted(target, &around.defaults);
    Ok(Planned {
        plan: plan_of(target, &around, &wanted, (&run, &faults)),
        settings: wanted.settings,
        is_enrolled: run.is_enrolled,
        left_out: told.leaves_out(&workload.resource, &target.namespace),
        missing: around.missing,
    })
}

/// What Lull has written of it, where it runs it.
async fn run_of(
    cluster: &Cluster,
    workload: &Workload,
    missing: &mut Vec<String>,
) -> anyhow::Result<Run> {
    match workload.scaled(cluster).await {
        Ok(scaled) => Ok(scaled.as_ref().map(Run::of).unwrap_or_default()),
        Err(error) if error.is(403) => {
            let effect = "the workload is taken for one that Lull doesn't run";
            missing.push(Reading::Scaled.lacked(cluster, effect));
            Ok(Run::default())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the Services have been switched.
pub(crate) fn is_enrolled(scaled: &ScaledWorkload) -> bool {
    let status = scaled.status.as_ref();
    status.is_some_and(|status| {
        let is_before = matches!(status.state, State::Enrolling | State::Planned);
        !is_before && !status.services.is_empty()
    })
}

// === impl Surroundings ===

impl Surroundings {
    /// What is not Lull's and has the name of an object that Lull would write for the Services which
    /// select pods of `template`.
    fn taken(&self, template: &Template) -> Vec<String> {
        let has = |names: &[String], name: &str| names.iter().any(|there| there == name);
        let rules = self.mesh.as_ref().map(|seen| seen.others_rules.as_slice());
        plan::taken(
            &plan::selecting(&self.services, template),
            |slice| has(&self.others_slices, slice),
            |rule| has(rules.unwrap_or_default(), rule),
        )
    }
}

// === impl Run ===

impl Run {
    fn of(scaled: &ScaledWorkload) -> Self {
        let wakes = scaled.status.as_ref().map(|status| status.wakes.as_slice());
        Self {
            is_enrolled: is_enrolled(scaled),
            activator_ports: scaled.spec.ports.clone(),
            longest_wake: plan::longest_wake(wakes.unwrap_or_default()),
        }
    }
}

/// What the annotations ask for, and what is wrong with them; then the defaults stand in.
fn wanted(target: &Target, defaults: &Defaults) -> (Wanted, Vec<AnnotationError>) {
    let template = target.template.as_ref();
    let record = template.and_then(|template| template.injected.as_deref());
    let sidecar = record.and_then(Sidecar::recorded);
    match annotations::parse_injected(&target.annotations, defaults, sidecar.as_ref()) {
        Ok(wanted) => (wanted, Vec::new()),
        Err(faults) => (defaults.effective(), faults),
    }
}

fn plan_of(
    target: &Target,
    around: &Surroundings,
    wanted: &Wanted,
    (run, faults): (&Run, &[AnnotationError]),
) -> Plan {
    let name = target.to_string();
    let Some(template) = &target.template else {
        let text = "has no pod template at spec.template: nothing to put the sidecar into";
        return Plan {
            findings: vec![Finding::new(Reason::NoTemplate, name, text)],
            ..Plan::default()
        };
    };
    let others = others_than(target, &around.others);
    let taken = around.taken(&template.plan);
    let mut plan = plan::plan(&Situation {
        workload: &name,
        id: &target.id(),
        template: &template.plan,
        activator_ports: &run.activator_ports,
        asks: Asks::of(&target.annotations, &wanted.settings, Some(&wanted.sidecar)),
        is_enrolled: run.is_enrolled,
        services: &around.services,
        taken: &taken,
        others: &others,
        scalers: &around.scalers,
        policies: &around.policies,
        budgets: &around.budgets,
        quotas: &around.quotas,
        ranges: around.ranges.as_deref(),
        // Pods say so to the autoscaler, whose Event and condition tell of it.
        loopback_only: &[],
        longest_wake: run.longest_wake,
        mesh: around.mesh.as_ref().map(|seen| Mesh {
            is_member: seen.is_member,
            namespace: &target.namespace,
            account: &template.identity.service_account,
            rules: &seen.rules,
        }),
        lull: &around.lull,
    });
    if !faults.is_empty() {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let text = format!("has {}", faults.join("; "));
        let finding = Finding::new(Reason::BadAnnotation, name.as_str(), text);
        plan.findings.insert(0, finding);
    }
    plan
}

/// The namespace's workloads but for this one, as a plan sees them.
fn others_than<'a>(target: &Target, all: &'a [Target]) -> Vec<Other<'a>> {
    let others = all.iter().filter(|other| other.uid != target.uid);
    others
        .filter_map(|other| {
            Some(Other {
                kind: &other.resource.kind,
                name: &other.name,
                labels: &other.template.as_ref()?.plan.labels,
            })
        })
        .collect()
}

async fn surroundings(
    cluster: &Cluster,
    (target, is_enrolled): (&Target, bool),
    told: &Told,
    missing: Vec<String>,
) -> anyhow::Result<Surroundings> {
    let mut around = Surroundings {
        missing,
        ..Surroundings::default()
    };
    let missing = &mut around.missing;
    let services: Vec<Service> = listed(cluster, Reading::Services, missing).await?;
    let hpas: Vec<HorizontalPodAutoscaler> = listed(cluster, Reading::Scalers, missing).await?;
    let policies: Vec<networking::NetworkPolicy> =
        listed(cluster, Reading::Policies, missing).await?;
    let budgets: Vec<PodDisruptionBudget> = listed(cluster, Reading::Budgets, missing).await?;
    let quotas: Vec<ResourceQuota> = listed(cluster, Reading::Quotas, missing).await?;
    let may_read = missing.len();
    let ranges: Vec<core::LimitRange> = listed(cluster, Reading::Ranges, missing).await?;
    let are_read = missing.len() == may_read;
    let slices: Vec<EndpointSlice> = listed(cluster, Reading::Slices, missing).await?;
    around.others_slices = others_slices(&slices);
    around.lull = components(cluster, missing).await?;
    around.defaults = defaults(cluster, missing).await?;
    around.others = others(cluster, told, missing).await?;
    let own = (target, is_enrolled);
    around.mesh = Box::pin(mesh::around(cluster, own, told, missing)).await?;
    around.services = services.into_iter().map(Arc::new).collect();
    let own = Hpa::target_of(&target.resource.kind, &target.name);
    let hpas = hpas.into_iter().map(Hpa::from);
    around.scalers = hpas
        .filter(|hpa| hpa.target == own)
        .map(|hpa| hpa.name)
        .collect();
    around.policies = kept(policies, NetworkPolicy::from);
    around.budgets = kept(budgets, Budget::from);
    around.quotas = kept(quotas, Quota::from);
    around.ranges = are_read.then(|| kept(ranges, LimitRange::from));
    Ok(around)
}

/// What of each object a plan is made from.
fn kept<R, K>(objects: Vec<R>, kept: fn(R) -> K) -> Vec<Arc<K>> {
    objects.into_iter().map(kept).map(Arc::new).collect()
}

/// Names of the `slices` that Lull hasn't written.
fn others_slices(slices: &[EndpointSlice]) -> Vec<String> {
    let others = slices.iter().filter(|slice| !is_lulls(slice));
    others.map(ResourceExt::name_any).collect()
}

/// The namespace's objects of a kind; none, and a note in `missing`, where the user may not list
/// them.
async fn listed<K>(
    cluster: &Cluster,
    reading: Reading,
    missing: &mut Vec<String>,
) -> anyhow::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    listed_by(cluster, (reading, ListParams::default()), missing).await
}

/// The same for those that the parameters select.
pub(crate) async fn listed_by<K>(
    cluster: &Cluster,
    (reading, params): (Reading, ListParams),
    missing: &mut Vec<String>,
) -> anyhow::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match call(&reading.right().text(), api.list(&params)).await {
        Ok(list) => Ok(list.items),
        Err(error) if error.is(403) => {
            missing.push(reading.lacked(cluster, "what they say is left out"));
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// The other workloads of the namespace, of the kinds that Lull looks after.
async fn others(
    cluster: &Cluster,
    told: &Told,
    missing: &mut Vec<String>,
) -> anyhow::Result<Vec<Target>> {
    let mut others = Vec::new();
    for resource in told.targets.clone().unwrap_or_default().0 {
        let kind = match kind(cluster, &resource).await {
            Ok(kind) => kind,
            Err(error) if is_left_alone(&error) => continue,
            Err(error) => return Err(error),
        };
        let (client, namespace) = (cluster.client.clone(), &cluster.namespace);
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &*kind);
        let what = format!("list {}", kind.plural);
        match call(&what, api.list(&ListParams::default())).await {
            Ok(list) => {
                let objects = list.items.into_iter();
                others.extend(objects.map(|object| Target::new(&kind, object)));
            }
            Err(error) if error.is(403) => missing.push(format!(
                "you may not list {}: Services that are shared with them are not seen",
                kind.plural
            )),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(others)
}

/// Whether the autoscaler leaves the kind alone, too: the cluster has none such (yet), or it can't be
/// scaled. That says nothing of other kinds.
pub(crate) fn is_left_alone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<DiscoveryError>();
    matches!(
        error,
        Some(DiscoveryError::Unknown(_) | DiscoveryError::NoScale(_))
    )
}

/// The cluster-wide settings; the built-in ones where there are none, or they can't be read.
async fn defaults(cluster: &Cluster, missing: &mut Vec<String>) -> anyhow::Result<Defaults> {
    let (client, namespace) = (cluster.client.clone(), &cluster.lull_namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    match call("read the cluster-wide settings", maps.get_opt(SETTINGS)).await {
        Ok(map) => {
            let data = map.and_then(|map| map.data).unwrap_or_default();
            Ok(Defaults::parse(&data).unwrap_or_else(|_| Defaults::what_is_right(&data)))
        }
        Err(error) if error.is(403) => {
            missing.push(Reading::Settings.lacked(cluster, "built-in settings are shown"));
            Ok(Defaults::default())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use autoscaler::mesh::{Around, RuleKind};
    use kube::core::{ApiResource, GroupVersionKind};
    use serde_json::{Value, json};

    use super::*;

    fn deployment(metadata: &Value, template: Option<Value>) -> Target {
        let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
        let mut object = json!({ "metadata": metadata, "spec": {} });
        if let Some(template) = template {
            object["spec"]["template"] = template;
        }
        let resource = Arc::new(ApiResource::from_gvk(&kind));
        Target::new(&resource, serde_json::from_value(object).unwrap())
    }

    fn shop(annotations: &Value) -> Target {
        let container = json!({ "name": "app", "ports": [{ "containerPort": 8080 }] });
        let template = json!({
            "metadata": { "labels": { "app": "shop" } }, "spec": { "containers": [container] },
        });
        let metadata =
            json!({ "name": "shop", "namespace": "web", "uid": "1", "annotations": annotations });
        deployment(&metadata, Some(template))
    }

    fn around() -> Surroundings {
        let service = json!({
            "metadata": { "name": "shop", "namespace": "web" },
            "spec": {
                "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"],
                "selector": { "app": "shop" }, "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        });
        Surroundings {
            services: vec![Arc::new(serde_json::from_value(service).unwrap())],
            ..Surroundings::default()
        }
    }

    fn plan_for(target: &Target) -> Plan {
        let around = around();
        let (wanted, faults) = wanted(target, &around.defaults);
        plan_of(target, &around, &wanted, (&Run::default(), &faults))
    }

    #[test]
    fn a_plain_deployment_is_planned_before_any_annotation() {
        let plan = plan_for(&shop(&json!({})));
        assert!(!plan.is_refused(), "{:?}", plan.findings);
        assert_eq!(plan.services.len(), 1);
    }

    #[test]
    fn a_slice_of_somebody_else_s_with_the_name_of_lull_s_stands_in_the_way() {
        let target = shop(&json!({}));
        let slice = |labels: &Value| -> EndpointSlice {
            let metadata = json!({ "name": "shop-lull", "namespace": "web", "labels": labels });
            let slice = json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": [] });
            serde_json::from_value(slice).unwrap()
        };
        let own = json!({ "endpointslice.kubernetes.io/managed-by": "lull.dev" });
        let own = slice(&own);
        assert!(is_lulls(&own), "{own:?}");
        for (slice, expected) in [(own, false), (slice(&json!({})), true)] {
            let around = Surroundings {
                others_slices: others_slices(&[slice]),
                ..around()
            };
            let (wanted, _) = wanted(&target, &around.defaults);
            let plan = plan_of(&target, &around, &wanted, (&Run::default(), &[]));
            let mut refusals = plan.refusals();
            let is_taken = refusals.any(|one| one.reason == Reason::NameTaken);
            assert_eq!(is_taken, expected, "{:?}", plan.findings);
        }
    }

    #[test]
    fn the_mesh_around_it_counts_and_rules_at_pods_only_where_it_is_a_member() {
        let metadata = json!({ "name": "by-port", "namespace": "web" });
        let modes = json!({ "8080": { "mode": "STRICT" } });
        let selector = json!({ "matchLabels": { "app": "shop" } });
        let spec = json!({ "selector": selector, "portLevelMtls": modes });
        let policy = json!({ "metadata": metadata, "spec": spec });
        let rule = json!({
            "metadata": { "name": "shop", "namespace": "edge" },
            "spec": {
                "host": "shop.web.svc.cluster.local",
                "trafficPolicy": { "outlierDetection": {} },
            },
        });
        let listed: [(RuleKind, DynamicObject); 2] = [
            (
                RuleKind::PeerAuthentication,
                serde_json::from_value(policy).unwrap(),
            ),
            (
                RuleKind::DestinationRule,
                serde_json::from_value(rule).unwrap(),
            ),
        ];
        let target = shop(&json!({}));
        let mut around = around();
        let (wanted, _) = wanted(&target, &around.defaults);
        for is_member in [true, false] {
            let rules = Around::among(&listed, "web", "istio-system");
            around.mesh = Some(Seen {
                rules,
                others_rules: Vec::new(),
                is_member,
            });
            let plan = plan_of(&target, &around, &wanted, (&Run::default(), &[]));
            let is_found = |reason| plan.findings.iter().any(|one| one.reason == reason);
            let at_pods = is_found(Reason::MtlsByPort);
            assert_eq!(at_pods, is_member, "{:?}", plan.findings);
            assert!(is_found(Reason::OutlierDetection), "{:?}", plan.findings);
        }
    }

    #[test]
    fn a_kind_that_the_autoscaler_leaves_alone_is_no_reason_to_plan_nothing() {
        let kind = || "example.org/v1/things".parse().unwrap();
        assert!(is_left_alone(&DiscoveryError::Unknown(kind()).into()));
        assert!(is_left_alone(&DiscoveryError::NoScale(kind()).into()));
        assert!(!is_left_alone(&anyhow::anyhow!("no answer")));
    }

    #[test]
    fn a_wrong_annotation_is_the_first_finding() {
        let plan = plan_for(&shop(&json!({ "lull.dev/window": "soon" })));
        assert_eq!(plan.findings[0].reason, Reason::BadAnnotation);
        assert!(plan.findings[0].message.contains("lull.dev/window"));
    }

    #[test]
    fn a_quota_counts_with_what_annotations_give_the_sidecar_and_not_without_its_limit_ranges() {
        let hard = json!({ "limits.cpu": "4" });
        let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } });
        let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
        let limited = json!({ "lull.dev/sidecar-cpu-limit": "1" });
        let rows = [
            (json!({}), Some(Vec::new()), true),
            (limited, Some(Vec::new()), false),
            // They may give the sidecar what the quota demands.
            (json!({}), None, false),
        ];
        for (annotations, ranges, expected) in rows {
            let target = shop(&annotations);
            let around = Surroundings {
                quotas: kept(vec![quota.clone()], Quota::from),
                ranges,
                ..around()
            };
            let (wanted, _) = wanted(&target, &around.defaults);
            let plan = plan_of(&target, &around, &wanted, (&Run::default(), &[]));
            let mut refusals = plan.refusals();
            let is_demanded = refusals.any(|one| one.reason == Reason::QuotaDemands);
            assert_eq!(is_demanded, expected, "{:?}", plan.findings);
        }
    }

    #[test]
    fn what_has_no_pods_is_refused_for_that_alone() {
        let plan = plan_for(&deployment(&json!({ "name": "odd" }), None));
        assert_eq!(plan.findings.len(), 1);
        assert_eq!(plan.findings[0].reason, Reason::NoTemplate);
    }
}
