//! What has to be done to give everything back, and what of it may be done now. Pure: objects in,
//! steps out.
//!
//! For each workload, in this order: wake, give its Services' selectors back, take the activators out of a mesh,
//! give the Services' ports back, take the activators out, and what puts pods before them, un-inject; in each
//! namespace last, delete ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    ResourceExt,
    core::{ApiResource, DeserializeGuard, DynamicObject},
};
use lull_contract::{
    annotations::LEAVE,
    names::{WORKLOAD_LABEL, label_value, workload_id},
    ports::app_port_of,
    scaled_workload::ScaledWorkload,
};
use lull_injection::strip;
use serde_json::{Value, json};

use crate::{
    mesh::{DestinationRule, WorkloadEntry},
    objects::{SERVICE_NAME_LABEL, is_lulls, lead_to, native_ready},
    plan,
    pod::Pod,
    stores::place,
};

/// What stands in the cluster.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Objects of the kinds that may be injected.
    pub(super) targets: Vec<(ApiResource, DynamicObject)>,
    /// Every Service.
    pub(super) services: Vec<Service>,
    /// Every slice.
    pub(super) slices: Vec<EndpointSlice>,
    /// WorkloadEntries of Lull, where the cluster has a mesh.
    pub(super) entries: Vec<WorkloadEntry>,
    /// DestinationRules of Lull, where there is one.
    pub(super) rules: Vec<DynamicObject>,
    /// Pods with the sidecar.
    pub(super) pods: Vec<Pod>,
    /// Where the CRD is still there. One that can't be read goes like the others.
    pub(super) workloads: Vec<DeserializeGuard<ScaledWorkload>>,
}

/// An object to write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    /// Its kind.
    pub(super) resource: ApiResource,
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Replicas for a workload that sleeps.
    Wake { target: Object, to: u32 },
    /// The Service's own selector in the sentinel's place, by a JSON patch.
    Release { target: Object, patch: Value },
    /// The Service as it was, by a JSON patch.
    RestoreService { target: Object, patch: Value },
    /// The template as the user wrote it, by a JSON patch.
    Uninject { target: Object, patch: Value },
    /// A slice, a WorkloadEntry, a DestinationRule or a Service of ours.
    Delete { target: Object },
    /// A ScaledWorkload, with its finalizer.
    DeleteWorkload { target: Object },
}

/// A step and whether its turn has come.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planned {
    pub(super) step: Step,
    /// What has to come before it is done.
    pub(super) now: bool,
}

/// Everything that is left to do; `is_late`: pods that are not ready by now are not waited for.
pub(super) fn steps(seen: &Seen, is_late: bool) -> Vec<Planned> {
    // First: where it is late they go in the same round as the ports change, and before these.
    let mut planned: Vec<Planned> = entries_out(seen, is_late).collect();
    let mut known = BTreeSet::new();
    let mut unread = BTreeSet::new();
    for (resource, object) in &seen.targets {
        let target = Target::new(seen, resource, object);
        known.extend(target.noted.iter().map(|service| place(*service)));
        unread.extend(target.unread(seen).map(place));
        target.plan(seen, is_late, &mut planned);
    }
    // Their workloads are gone.
    let orphans = seen.services.iter().filter(|s| !known.contains(&place(*s)));
    planned.extend(orphans.filter_map(|service| restore(service, true)));
    let does_without = |service: &Service| {
        let is_served = is_served(seen, service) && !unread.contains(&place(service));
        plan::restore_patch(service).is_none() && (is_served || is_late)
    };
    planned.extend(slices_out(seen, does_without));
    planned.extend(orders_out(seen));
    let last = last(seen, &planned);
    planned.extend(last);
    planned
}

fn restore(service: &Service, now: bool) -> Option<Planned> {
    let step = Step::RestoreService {
        target: Object::of(service),
        patch: plan::restore_patch(service)?,
    };
    Some(Planned { step, now })
}

/// The selector of `service`, where the sentinel stands in its place, once pods are ready.
fn release(service: &Service, is_awake: bool) -> Option<Planned> {
    let is_held = plan::is_held(service) && plan::is_noted(service);
    is_held.then(|| Planned {
        step: Step::Release {
            target: Object::of(service),
            patch: plan::release_patch(service),
        },
        now: is_awake,
    })
}

/// Slices with activators go once their Service can do without: it is the user's again, Kubernetes has read
/// that, and its own slices list a pod, or nobody will.
fn slices_out(seen: &Seen, does_without: impl Fn(&Service) -> bool) -> Vec<Planned> {
    let ours = seen.slices.iter().filter(|slice| is_lulls(slice));
    ours.map(|slice| {
        let service = service_of(slice);
        let there = seen.services.iter().find(|s| place(*s) == service);
        Planned {
            step: Step::Delete {
                target: Object::of(slice),
            },
            now: there.is_none_or(&does_without),
        }
    })
    .collect()
}

/// WorkloadEntries of activators go once every Service that selects them has its pods listed, and before its
/// ports change: after that Istio takes an entry for an endpoint at the number of the user's port, where no
/// activator listens.
fn entries_out(seen: &Seen, is_late: bool) -> impl Iterator<Item = Planned> {
    let entries = seen.entries.iter();
    entries.map(move |entry| {
        let mut selecting = seen.services.iter().filter(|s| selects(s, entry));
        Planned {
            step: Step::Delete {
                target: Object::of(entry),
            },
            now: selecting.all(|service| is_late || is_listed(seen, service)),
        }
    })
}

fn selects(service: &Service, entry: &WorkloadEntry) -> bool {
    service.namespace() == entry.namespace() && plan::selects(service, &entry.spec.labels)
}

/// Whether Kubernetes lists a ready pod for `service`, and is not about to list none, as it is while the
/// sentinel stands there.
fn is_listed(seen: &Seen, service: &Service) -> bool {
    !plan::is_held(service) && is_served(seen, service)
}

/// DestinationRules by which a workload's pods come before activators go once no activator is among Istio's
/// endpoints, and before the sidecar: new pods have no label to come first by.
fn orders_out(seen: &Seen) -> impl Iterator<Item = Planned> {
    let rules = seen.rules.iter().filter(|rule| gives_order(rule));
    rules.map(|rule| {
        let of = |labels: &BTreeMap<String, String>| labels.get(WORKLOAD_LABEL).cloned();
        let its = (rule.namespace(), of(rule.labels()));
        let mut entries = seen.entries.iter();
        Planned {
            step: Step::Delete {
                target: Object::of_kind(DestinationRule::resource(), rule),
            },
            now: !entries.any(|entry| (entry.namespace(), of(entry.labels())) == its),
        }
    })
}

/// Whether pods come first by `rule`.
fn gives_order(rule: &DynamicObject) -> bool {
    DestinationRule::from_object(rule).pods_first.is_some()
}

/// Whether Kubernetes' own slices of `service` list a ready pod.
fn is_served(seen: &Seen, service: &Service) -> bool {
    native_ready(slices_of(seen, service)).next().is_some()
}

fn slices_of<'a>(seen: &'a Seen, service: &Service) -> impl Iterator<Item = &'a EndpointSlice> {
    let place = place(service);
    let slices = seen.slices.iter();
    slices.filter(move |slice| service_of(slice) == place)
}

fn service_of(slice: &EndpointSlice) -> (String, String) {
    let service = slice.labels().get(SERVICE_NAME_LABEL);
    (
        slice.namespace().unwrap_or_default(),
        service.cloned().unwrap_or_default(),
    )
}

/// Private Services, DestinationRules and ScaledWorkloads, once nothing else of their namespace is left
/// to do: until then callers may be held, and the ScaledWorkloads know how many replicas there were.
fn last(seen: &Seen, before: &[Planned]) -> Vec<Planned> {
    let busy: BTreeSet<&str> = before
        .iter()
        .map(|p| p.step.target().namespace.as_str())
        .collect();
    let private = seen.services.iter();
    let private = private.filter(|s| s.labels().contains_key(WORKLOAD_LABEL));
    let private = private.map(|service| Step::Delete {
        target: Object::of(service),
    });
    let rules = seen.rules.iter().filter(|rule| !gives_order(rule));
    let rules = rules.map(|rule| Step::Delete {
        target: Object::of_kind(DestinationRule::resource(), rule),
    });
    let workloads = seen.workloads.iter().map(|workload| Step::DeleteWorkload {
        target: Object::of(workload),
    });
    private
        .chain(rules)
        .chain(workloads)
        .map(|step| Planned {
            now: !busy.contains(step.target().namespace.as_str()),
            step,
        })
        .collect()
}

/// A workload and what is known of it.
struct Target<'a> {
    object: &'a DynamicObject,
    resource: &'a ApiResource,
    id: String,
    /// Services in front of its pods.
    services: Vec<&'a Service>,
    /// Those of them that Lull has changed.
    noted: Vec<&'a Service>,
}

// === impl Target ===

impl<'a> Target<'a> {
    fn new(seen: &'a Seen, resource: &'a ApiResource, object: &'a DynamicObject) -> Self {
        let labels = object.data.pointer("/spec/template/metadata/labels");
        let labels: BTreeMap<String, String> = labels
            .and_then(|labels| serde_json::from_value(labels.clone()).ok())
            .unwrap_or_default();
        let is_behind = |service: &Service| {
            service.namespace() == object.namespace() && plan::selects(service, &labels)
        };
        let services: Vec<&Service> = seen.services.iter().filter(|s| is_behind(s)).collect();
        let noted = services.iter().copied();
        let noted = noted.filter(|service| plan::restore_patch(service).is_some());
        Self {
            id: workload_id(&resource.kind, &object.name_any()),
            noted: noted.collect(),
            services,
            resource,
            object,
        }
    }

    fn plan(&self, seen: &Seen, is_late: bool, planned: &mut Vec<Planned>) {
        let replicas = self.object.data.pointer("/spec/replicas");
        let sleeps = replicas.is_some_and(|replicas| *replicas == 0) && !self.noted.is_empty();
        if sleeps {
            let step = Step::Wake {
                target: self.as_object(),
                to: self.replicas_before(seen),
            };
            planned.push(Planned { step, now: true });
        }
        let is_awake = !sleeps && (self.has_ready_pod(seen) || is_late);
        // In a mesh activators can't be called any more after that, so pods are listed and entries are gone.
        let may_restore = |service: &Service| {
            let mut entries = seen.entries.iter();
            let is_done = is_listed(seen, service) && !entries.any(|e| selects(service, e));
            is_awake && (is_done || is_late)
        };
        for service in &self.noted {
            planned.extend(release(service, is_awake && !is_late));
            planned.extend(restore(service, may_restore(service)));
        }
        if let Some(patch) = self.uninject_patch() {
            let step = Step::Uninject {
                target: self.as_object(),
                patch,
            };
            let is_read = is_late || self.unread(seen).next().is_none();
            let is_told = self.has_activators(seen) || self.has_order(seen);
            let now = self.noted.is_empty() && !is_told && is_read;
            planned.push(Planned { step, now });
        }
    }

    fn as_object(&self) -> Object {
        Object::of_kind(self.resource.clone(), self.object)
    }

    /// Nothing but the ScaledWorkload tells; without it one pod serves, and the user knows the rest.
    fn replicas_before(&self, seen: &Seen) -> u32 {
        let place = (self.object.namespace().unwrap_or_default(), self.id.clone());
        let workload = seen.workloads.iter().find(|w| self::place(*w) == place);
        let workload = workload.and_then(|workload| workload.0.as_ref().ok());
        workload.map_or(1, |w| w.spec.original_replicas.max(1))
    }

    fn has_ready_pod(&self, seen: &Seen) -> bool {
        let (namespace, label) = (self.object.namespace(), label_value(&self.id));
        seen.pods.iter().any(|pod| {
            pod.is_ready
                && Some(&pod.namespace) == namespace.as_ref()
                && pod.workload.as_ref() == Some(&label)
        })
    }

    /// Whether callers are still told of activators for it.
    fn has_activators(&self, seen: &Seen) -> bool {
        let label = label_value(&self.id);
        let is_its = |namespace: Option<String>, labels: &BTreeMap<String, String>| {
            namespace == self.object.namespace() && labels.get(WORKLOAD_LABEL) == Some(&label)
        };
        let mut slices = seen.slices.iter().filter(|slice| is_lulls(slice));
        slices.any(|slice| is_its(slice.namespace(), slice.labels()))
            || seen
                .entries
                .iter()
                .any(|e| is_its(e.namespace(), e.labels()))
    }

    /// Whether callers are still told to call its pods before activators.
    fn has_order(&self, seen: &Seen) -> bool {
        let label = label_value(&self.id);
        let mut rules = seen.rules.iter().filter(|rule| gives_order(rule));
        rules.any(|rule| {
            rule.namespace() == self.object.namespace()
                && rule.labels().get(WORKLOAD_LABEL) == Some(&label)
        })
    }

    /// Those of its Services whose pods Kubernetes still lists by ports of the sidecar, whose names new pods
    /// don't have: it has not read that they were given back.
    fn unread(&self, seen: &Seen) -> impl Iterator<Item = &'a Service> {
        let ports = self.traffic_ports();
        let services = self.services.iter().copied();
        services.filter(move |service| lead_to(slices_of(seen, service), &ports))
    }

    /// Where its sidecar takes traffic.
    fn traffic_ports(&self) -> Vec<u16> {
        let containers = self.object.data.pointer("/spec/template/spec/containers");
        let containers = containers.and_then(Value::as_array).into_iter().flatten();
        let ports = containers.filter_map(|container| container.get("ports")?.as_array());
        let traffic = ports.flatten().filter(|port| {
            let name = port.get("name").and_then(Value::as_str);
            name.is_some_and(|name| app_port_of(name).is_some())
        });
        let numbers = traffic.filter_map(|port| port.get("containerPort")?.as_u64());
        numbers
            .filter_map(|number| u16::try_from(number).ok())
            .collect()
    }

    /// The template as the user wrote it, and without the mark of somebody who was leaving; the
    /// patch fails if the object has changed since it was read.
    fn uninject_patch(&self) -> Option<Value> {
        let version = self.object.resource_version().unwrap_or_default();
        let test = json!({ "op": "test", "path": "/metadata/resourceVersion", "value": version });
        let mut ops = vec![test];
        if let Some(template) = self.object.data.pointer("/spec/template") {
            let plain = strip(template, None);
            if plain != *template {
                ops.push(json!({ "op": "replace", "path": "/spec/template", "value": plain }));
            }
        }
        if self.object.annotations().contains_key(LEAVE) {
            let path = format!("/metadata/annotations/{}", LEAVE.replace('/', "~1"));
            ops.push(json!({ "op": "remove", "path": path }));
        }
        (ops.len() > 1).then_some(Value::Array(ops))
    }
}

// === impl Object ===

impl Object {
    fn of<K: kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::of_kind(ApiResource::erase::<K>(&()), object)
    }

    fn of_kind<K: kube::Resource>(resource: ApiResource, object: &K) -> Self {
        let (namespace, name) = place(object);
        Self {
            resource,
            namespace,
            name,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            namespace,
            name,
        } = self;
        write!(f, "{} {namespace}/{name}", resource.kind)
    }
}

// === impl Step ===

impl Step {
    /// What it writes.
    fn target(&self) -> &Object {
        match self {
            Self::Wake { target, .. }
            | Self::Release { target, .. }
            | Self::RestoreService { target, .. }
            | Self::Uninject { target, .. }
            | Self::Delete { target }
            | Self::DeleteWorkload { target } => target,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wake { target, to } => write!(f, "wake {target} with {to} pods"),
            Self::Release { target, .. } => write!(f, "give the selector of {target} back"),
            Self::RestoreService { target, .. } => write!(f, "give {target} back"),
            Self::Uninject { target, .. } => write!(f, "take the sidecar out of {target}"),
            Self::Delete { target } | Self::DeleteWorkload { target } => {
                write!(f, "delete {target}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
