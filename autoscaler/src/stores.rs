//! What is known of the cluster: one watch each, kept in memory, and a callback per changed object.
//!
//! Of each object only what Lull reads is kept ([`Targets`], [`Pod`], [`Hpa`] and the like; the rest without what
//! other programs note on it): the caches are nearly all of this process's memory.

mod budget;
mod guard;
mod hpa;
mod limit_range;
mod network_policy;
mod quota;
mod targets;
mod touched;
mod watch;

use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{self as core, Namespace, ResourceQuota, Service},
    discovery::v1::EndpointSlice,
    networking::v1 as networking,
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Client, Resource, ResourceExt};
use lull_contract::{
    annotations::PREFIX,
    names::{ISTIO_EXPORT_TO, POD_LABEL, WORKLOAD_LABEL},
    scaled_workload::ScaledWorkload,
    target_resource::TargetResource,
};
use lull_process::readiness::Readiness;
use prometheus_client::metrics::gauge::Gauge;

pub use self::{
    budget::Budget,
    hpa::Hpa,
    limit_range::{Bounds, LimitRange, LimitRanges},
    network_policy::{NetworkPolicy, Rule, Source},
    quota::Quota,
    targets::Targets,
    touched::{Changes, OnTouched, Touched},
};
pub(crate) use self::{guard::Guard, touched::Teller, watch::Watch};
use crate::{
    cache::{Cache, Keys},
    mesh::{Entries, MeshOptions, Rules},
    namespaces::Namespaces,
    objects::{self, SERVICE_NAME_LABEL},
    plan,
    pod::Pod,
};

/// Every watched kind.
#[derive(Clone)]
pub struct Stores {
    /// What may be scaled.
    pub targets: Targets,
    /// All Services.
    pub services: Cache<Service>,
    /// All EndpointSlices: Lull's own grouped by their workload's label value, all others by their Service.
    pub slices: Cache<EndpointSlice>,
    /// All ScaledWorkloads, each as it could be read last.
    pub workloads: Cache<ScaledWorkload>,
    /// Pods that carry our label, grouped by its value.
    pub pods: Cache<Pod>,
    /// Our activators.
    pub activators: Cache<Pod>,
    /// The autoscaler's own replicas.
    pub autoscalers: Cache<Pod>,
    /// All HorizontalPodAutoscalers, grouped by what they scale ([`Hpa::target`]).
    pub hpas: Cache<Hpa>,
    /// All NetworkPolicies.
    pub policies: Cache<NetworkPolicy>,
    /// All PodDisruptionBudgets.
    pub budgets: Cache<Budget>,
    /// All ResourceQuotas; none where they may not be read.
    pub quotas: Cache<Quota>,
    /// All LimitRanges.
    pub ranges: LimitRanges,
    /// Lull's own namespace, for its labels; by its name, in no namespace.
    pub own_namespace: Cache<Namespace>,
    /// WorkloadEntries that we wrote.
    pub entries: Entries,
    /// Istio's objects that others wrote.
    pub rules: Rules,
}

/// What is watched.
#[derive(Debug)]
pub struct Watched<'a> {
    /// Lull's own namespace.
    pub namespace: &'a str,
    /// Labels of the activators in it.
    pub activators: &'a str,
    /// Labels of the autoscaler's own replicas in it.
    pub autoscalers: &'a str,
    /// Kinds that may be scaled.
    pub targets: &'a [TargetResource],
    /// Where they may be.
    pub namespaces: &'a Namespaces,
    /// Of a mesh.
    pub mesh: &'a MeshOptions,
    /// Shows how many ScaledWorkloads can't be read.
    pub unread: &'a Gauge,
}

// === impl Stores ===

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").finish_non_exhaustive()
    }
}

impl Stores {
    /// Starts all watches; `readiness` waits for each one's first list.
    #[must_use]
    pub fn start(
        client: &Client,
        watched: &Watched<'_>,
        readiness: &Readiness,
        on_touched: &OnTouched,
    ) -> Self {
        let targets = Targets::of(watched.namespaces);
        for resource in watched.targets {
            let pending = readiness.expect(&resource.to_string());
            targets.watch(client, resource, pending, on_touched);
        }
        let all = lull_kubernetes::watched;
        let own: Api<core::Pod> = Api::namespaced(client.clone(), watched.namespace);
        Self {
            targets,
            services: Watch {
                touched: touched_by_service,
                unplanned: Some(touched_by_service_as_planned),
                ..Watch::new("services", (readiness, on_touched))
            }
            .start((Api::all(client.clone()), all()), SERVICES, bare::<Service>),
            slices: Watch {
                touched: touched_by_slice,
                ..Watch::new("endpointslices", (readiness, on_touched))
            }
            .start(
                (Api::all(client.clone()), all()),
                by_name(slices_group),
                bare::<EndpointSlice>,
            ),
            workloads: Watch {
                touched: |w: &ScaledWorkload| {
                    Touched::Workload(w.namespace().unwrap_or_default(), w.name_any())
                },
                ..Watch::new("scaledworkloads", (readiness, on_touched))
            }
            .start_guarded(
                (Api::all(client.clone()), all()),
                by_name(|_| None),
                Guard::new(watched.unread.clone()),
            ),
            pods: Watch {
                touched: |pod: &Pod| {
                    let label = pod.workload.clone().unwrap_or_default();
                    Touched::Label(pod.namespace.clone(), label)
                },
                ..Watch::new("pods", (readiness, on_touched))
            }
            .start(
                (Api::all(client.clone()), all().labels(POD_LABEL)),
                PODS,
                pod,
            ),
            activators: Watch {
                touched: |_: &Pod| Touched::Activators,
                ..Watch::new("activators", (readiness, on_touched))
            }
            .start(
                (own.clone(), all().labels(watched.activators)),
                PODS,
                Pod::own,
            ),
            autoscalers: Watch {
                touched: |_: &Pod| Touched::Autoscalers,
                ..Watch::new("autoscalers", (readiness, on_touched))
            }
            .start((own, all().labels(watched.autoscalers)), PODS, Pod::own),
            hpas: Watch {
                touched: |hpa: &Hpa| Touched::Namespace(hpa.namespace.clone()),
                unplanned: Some(|_| None),
                ..Watch::new("horizontalpodautoscalers", (readiness, on_touched))
            }
            .start(
                (Api::<HorizontalPodAutoscaler>::all(client.clone()), all()),
                Hpa::KEYS,
                Hpa::from,
            ),
            policies: Watch {
                touched: |policy: &NetworkPolicy| Touched::Namespace(policy.namespace.clone()),
                unplanned: Some(|_| None),
                ..Watch::new("networkpolicies", (readiness, on_touched))
            }
            .start(
                (Api::<networking::NetworkPolicy>::all(client.clone()), all()),
                NetworkPolicy::KEYS,
                NetworkPolicy::from,
            ),
            budgets: Watch {
                touched: |budget: &Budget| Touched::Namespace(budget.namespace.clone()),
                unplanned: Some(|_| None),
                ..Watch::new("poddisruptionbudgets", (readiness, on_touched))
            }
            .start(
                (Api::<PodDisruptionBudget>::all(client.clone()), all()),
                Budget::KEYS,
                Budget::from,
            ),
            quotas: Watch {
                touched: |quota: &Quota| Touched::Namespace(quota.namespace.clone()),
                // Nothing waits for what an older chart doesn't let it read.
                is_vital: false,
                unplanned: Some(|_| None),
                ..Watch::new("resourcequotas", (readiness, on_touched))
            }
            .start(
                (Api::<ResourceQuota>::all(client.clone()), all()),
                Quota::KEYS,
                Quota::from,
            ),
            ranges: LimitRanges::start(client, (readiness, on_touched)),
            own_namespace: Watch::new("namespace", (readiness, on_touched)).start(
                (
                    Api::<Namespace>::all(client.clone()),
                    all().fields(&format!("metadata.name={}", watched.namespace)),
                ),
                by_name::<Namespace>(|_| None),
                bare::<Namespace>,
            ),
            entries: Entries::start(client, watched.mesh.mode, (readiness, on_touched)),
            rules: Rules::start(client, watched.mesh, (readiness, on_touched)),
        }
    }

    /// The version of everything that plans for workloads of `namespace` are made from
    /// ([`Cache::version`]); Lull itself is in the namespace `own`. A workload's own pods, what tells
    /// whether it is in a mesh, and what Lull writes into Services are not among it.
    #[must_use]
    pub fn plan_version(&self, namespace: &str, own: &str) -> u64 {
        let Self {
            targets,
            services,
            slices: _,
            workloads: _,
            pods: _,
            activators,
            autoscalers,
            hpas,
            policies,
            budgets,
            quotas,
            ranges,
            own_namespace,
            entries: _,
            rules,
        } = self;
        let versions = [
            targets.version(namespace),
            services.version(namespace),
            hpas.version(namespace),
            policies.version(namespace),
            budgets.version(namespace),
            quotas.version(namespace),
            ranges.version(namespace),
            rules.version(namespace),
            activators.version(own),
            autoscalers.version(own),
            own_namespace.version(""),
        ];
        versions.into_iter().sum()
    }
}

pub(crate) const PODS: Keys<Pod> = Keys {
    place: |pod| (pod.namespace.clone(), pod.name.clone()),
    group: |pod| pod.workload.as_deref(),
    part: |pod| &pod.namespace,
    // Of Lull's own; a workload's own pods are looked at each time.
    alike: |a, b| a.labels == b.labels,
};

/// Services that Lull has made are of no namespace's version: they are a workload's own.
const SERVICES: Keys<Service> = Keys {
    place,
    group: |_| None,
    part: |service| match label(service, WORKLOAD_LABEL) {
        Some(_) => "",
        None => service.metadata.namespace.as_deref().unwrap_or_default(),
    },
    alike: plan::is_planned_alike,
};

pub(crate) fn by_name<K: Resource>(group: fn(&K) -> Option<&str>) -> Keys<K> {
    Keys {
        place,
        group,
        part: |object| object.meta().namespace.as_deref().unwrap_or_default(),
        alike: |_, _| false,
    }
}

/// Namespace and name.
pub(crate) fn place<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn pod(pod: core::Pod) -> Pod {
    pod.into()
}

/// The object without what others note on it, `kubectl apply`'s copy of it first of all. What Lull writes for
/// Istio stays: whether it is there decides whether it is written.
pub(crate) fn bare<K: Resource>(mut object: K) -> K {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| key.starts_with(PREFIX) || key == ISTIO_EXPORT_TO);
    }
    object
}

/// Name of the Service behind which `slice` stands.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    label(slice, SERVICE_NAME_LABEL)
}

/// What slices are found by. A workload finds its own ones also where their Service is gone.
fn slices_group(slice: &EndpointSlice) -> Option<&str> {
    if objects::is_lulls(slice) {
        label(slice, WORKLOAD_LABEL)
    } else {
        service_of(slice)
    }
}

/// Whom a Service is about of which plans are made anew.
fn touched_by_service(service: &Service) -> Touched {
    let namespace = service.namespace().unwrap_or_default();
    match label(service, WORKLOAD_LABEL) {
        // One that we wrote: nobody else looks at it.
        Some(ours) => Touched::Label(namespace, ours.to_owned()),
        // It may select anybody's pods.
        None => Touched::Namespace(namespace),
    }
}

/// The same where it stays what it is to plans, as with all that Lull writes into it.
fn touched_by_service_as_planned(service: &Service) -> Option<Touched> {
    match touched_by_service(service) {
        Touched::Namespace(namespace) => Some(Touched::Service(namespace, service.name_any())),
        ours => Some(ours),
    }
}

fn touched_by_slice(slice: &EndpointSlice) -> Touched {
    let namespace = slice.namespace().unwrap_or_default();
    match (label(slice, WORKLOAD_LABEL), service_of(slice)) {
        // One that we wrote: nobody else looks at it.
        (Some(ours), _) => Touched::Label(namespace, ours.to_owned()),
        // With every pod that comes or goes there is one for each of its Services.
        (None, Some(service)) => Touched::Service(namespace, service.to_owned()),
        (None, None) => Touched::Namespace(namespace),
    }
}

pub(crate) fn label<'a>(object: &'a impl Resource, key: &str) -> Option<&'a str> {
    let labels = object.meta().labels.as_ref();
    labels
        .and_then(|labels| labels.get(key))
        .map(String::as_str)
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use lull_contract::names::{MANAGED_BY, ORIGINAL_ANNOTATION, SLICE_MANAGED_BY_LABEL};
    use serde_json::json;

    use super::*;
    use crate::cache::Writer;

    #[test]
    fn a_slice_touches_its_workload_or_whoever_its_service_leads_to() {
        let slice = |labels: serde_json::Value| -> EndpointSlice {
            let metadata = json!({ "name": "s", "namespace": "ns", "labels": labels });
            let slice = json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": [] });
            serde_json::from_value(slice).unwrap()
        };
        let (ns, shop) = (|| "ns".to_owned(), || "shop".to_owned());
        for (labels, expected) in [
            (
                json!({ SERVICE_NAME_LABEL: "web", WORKLOAD_LABEL: "shop" }),
                Touched::Label(ns(), shop()),
            ),
            (
                json!({ SERVICE_NAME_LABEL: "shop" }),
                Touched::Service(ns(), shop()),
            ),
            (json!({}), Touched::Namespace(ns())),
        ] {
            assert_eq!(touched_by_slice(&slice(labels)), expected);
        }
    }

    #[test]
    fn slices_of_lull_are_found_by_their_workload_and_all_others_by_their_service() {
        let ours = json!({
            SLICE_MANAGED_BY_LABEL: MANAGED_BY, SERVICE_NAME_LABEL: "web", WORKLOAD_LABEL: "shop",
        });
        let rows = [
            (ours, Some("shop")),
            (
                json!({ SERVICE_NAME_LABEL: "web", WORKLOAD_LABEL: "shop" }),
                Some("web"),
            ),
            (json!({ SERVICE_NAME_LABEL: "web" }), Some("web")),
            (json!({}), None),
        ];
        for (labels, expected) in rows {
            let metadata = json!({ "name": "s", "namespace": "ns", "labels": labels });
            let slice = json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": [] });
            let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
            assert_eq!(slices_group(&slice), expected, "{labels}");
        }
    }

    /// The Service `web` of the namespace `ns` with these labels and this target.
    fn service(labels: &serde_json::Value, target: &serde_json::Value) -> Service {
        let metadata = json!({ "name": "web", "namespace": "ns", "labels": labels });
        let ports = json!([{ "port": 80, "targetPort": target }]);
        let spec = json!({ "selector": { "app": "web" }, "ports": ports });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn a_service_touches_its_namespace_only_where_plans_are_made_anew() {
        let of_user = service(&json!({}), &json!(8080));
        assert_eq!(
            touched_by_service(&of_user),
            Touched::Namespace("ns".to_owned())
        );
        assert_eq!(
            touched_by_service_as_planned(&of_user),
            Some(Touched::Service("ns".to_owned(), "web".to_owned()))
        );
        let of_lull = service(&json!({ WORKLOAD_LABEL: "shop" }), &json!(8080));
        let shop = Touched::Label("ns".to_owned(), "shop".to_owned());
        assert_eq!(touched_by_service(&of_lull), shop);
        assert_eq!(touched_by_service_as_planned(&of_lull), Some(shop));
    }

    #[test]
    fn a_namespace_has_another_version_with_a_service_of_its_users_alone() {
        let mut writer = Writer::new(SERVICES);
        let cache = writer.cache();
        let mut last = cache.version("ns");
        let mut is_another = |event: Event<Service>| {
            writer.take(event);
            let before = std::mem::replace(&mut last, cache.version("ns"));
            before != last
        };
        let of_lull = || service(&json!({ WORKLOAD_LABEL: "shop" }), &json!(8080));
        let mut switched = service(&json!({}), &json!("lull-8080"));
        let original = r#"{"ports":[{"port":80,"targetPort":8080}],"selector":{"app":"web"}}"#;
        let original = (ORIGINAL_ANNOTATION.to_owned(), original.to_owned());
        switched.metadata.annotations = Some([original].into());
        assert!(!is_another(Event::Apply(of_lull())));
        assert!(!is_another(Event::Delete(of_lull())));
        assert!(is_another(Event::Apply(service(&json!({}), &json!(8080)))));
        assert!(!is_another(Event::Apply(switched.clone())));
        assert!(is_another(Event::Apply(service(&json!({}), &json!(8081)))));
        assert!(is_another(Event::Apply(of_lull())), "it was a user's");
        assert!(is_another(Event::Apply(switched)), "and is one again");
        assert!(is_another(Event::Delete(service(&json!({}), &json!(8080)))));
    }

    #[test]
    fn what_others_note_on_an_object_is_not_kept() {
        let annotations = json!({
            "kubectl.kubernetes.io/last-applied-configuration": "{}", "lull.dev/original": "{}",
            ISTIO_EXPORT_TO: "~",
        });
        let metadata = json!({ "annotations": annotations, "managedFields": [{}] });
        let service: Service = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        let service = bare(service);
        assert_eq!(
            service.annotations().keys().collect::<Vec<_>>(),
            ["lull.dev/original", ISTIO_EXPORT_TO]
        );
        assert!(service.metadata.managed_fields.is_none());
    }
}
