//! Leaving: wake, take the activators out, give the Services back, un-inject, delete ours.
//!
//! A Service is given back in two steps where the sentinel is in it: first its selector, and the rest of it once
//! Kubernetes has listed the pods, since in a mesh activators can't be called any more after that: they go before.
//!
//! Every step looks at the objects and does what is missing, so it can be cut anywhere and resumed
//! by another replica.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use lull_contract::{
    Class,
    annotations::{self, Leave},
    names::ORIGINAL_ANNOTATION,
    scaled_workload::{ScaledWorkload, State},
};
use serde_json::json;

use super::{Task, status::Say};
use crate::{
    context::WriteError,
    plan::{self, PlannedService},
    purpose::Purpose,
    target::Target,
};

/// After this, a workload whose pods don't get ready is given back as it is.
const WAKE_LIMIT: Duration = Duration::from_secs(120);

/// What is seen of one that is awake, or never will be.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a hidden enum"
)]
struct Seen {
    /// It has lasted so long that nothing is waited for any more.
    is_late: bool,
    /// A Service that can be given back has the sentinel for a selector.
    is_held: bool,
    /// Kubernetes has listed a ready pod for every Service for a propagation delay, or there is no Service, or
    /// none is to come.
    is_served: bool,
    /// A Service's ports lead to the names that only pods with the sidecar have.
    is_switched: bool,
    /// The Services were given back a propagation delay ago.
    is_heard: bool,
    /// Kubernetes' own slices still lead to the sidecars' ports, so it has not read that yet.
    is_unread: bool,
}

/// What is done with its Services next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: what is waited for is not there.
    Wait,
    /// The user's selector, so that pods are listed.
    Release,
    /// The Services as their user had them, without activators where pods are listed.
    GiveBack,
    /// What is left of the activators out of the endpoints, and what follows that.
    TakeOut,
}

fn step(seen: Seen) -> Step {
    if seen.is_held && !seen.is_late {
        return Step::Release;
    }
    if !seen.is_served && !seen.is_late {
        return Step::Wait;
    }
    if seen.is_switched {
        return Step::GiveBack;
    }
    if seen.is_heard && (!seen.is_unread || seen.is_late) {
        return Step::TakeOut;
    }
    Step::Wait
}

/// Whether it has the number of pods that its user gave it, which is none, and nobody waits for that to
/// change: callers find nobody there with or without Lull.
fn is_left_without_pods(replicas: u32, class: Class, held: u64) -> bool {
    replicas == 0 && class == Class::None && held == 0
}

// === impl Task ===

impl Task {
    pub(super) async fn leave(
        &mut self,
        target: &Target,
        workload: Option<&ScaledWorkload>,
    ) -> Result<(), WriteError> {
        if self.state != Some(State::Leaving) {
            self.enter(State::Leaving);
        }
        let services = self.our_services(workload, target);
        if let Some(workload) = workload {
            if !self.is_woken(target, workload).await? {
                self.say(workload, Say::leaving("waking before it leaves"))
                    .await?;
                return self.add_activators_as_planned(target, workload).await;
            }
            let switched = services.iter().any(|service| plan::is_noted(service));
            if switched {
                let waits = self.istiod_unheard().is_some()
                    && self.in_mesh(&only_names(&services)).is_some();
                let what = if waits {
                    "istiod, which has to tell callers, is or was away: it is waited for"
                } else {
                    "Services are being given back"
                };
                self.say(workload, Say::leaving(what)).await?;
            }
        } else if !self.is_awake_unlisted(target, &services).await? {
            return Ok(());
        }
        let seen = self.seen_leaving(target, workload, &services);
        match step(seen) {
            Step::Wait => {}
            Step::Release => self.restore_selector(&only_names(&held(&services))).await?,
            Step::GiveBack => {
                self.wait_for_istiod(target, workload, seen).await?;
                if seen.is_served {
                    // Before the ports change: in a mesh an entry is an endpoint at the number of the user's
                    // port after that, where nobody listens at an activator.
                    self.remove_all_activators().await?;
                }
                return self.give_back(&services).await;
            }
            Step::TakeOut => {
                self.wait_for_istiod(target, workload, seen).await?;
                return self.take_out(target, workload).await;
            }
        }
        if seen.is_served && !seen.is_switched {
            // They have left, whatever the cache still shows.
            return Ok(());
        }
        self.refresh_listed(target, workload).await
    }

    /// Fails where istiod is away, which has to tell the pods' proxies and their callers of each change of the
    /// ports before the next one. Before the first, the private Service has the ports of before and after.
    async fn wait_for_istiod(
        &mut self,
        target: &Target,
        workload: Option<&ScaledWorkload>,
        seen: Seen,
    ) -> Result<(), WriteError> {
        let is_due = target.is_injected() && !seen.is_late;
        let Some(workload) = workload.filter(|_| is_due) else {
            return Ok(());
        };
        let plan = self.plan(target, workload);
        self.istiod_hears(workload, &plan.services).await?;
        let settled = self.are_numbers_settled(target);
        self.ensure_private(workload, &plan.services, settled).await
    }

    /// What is seen of it; `services` are its own.
    fn seen_leaving(
        &mut self,
        target: &Target,
        workload: Option<&ScaledWorkload>,
        services: &[Arc<Service>],
    ) -> Seen {
        let named = only_names(services);
        let is_held = !held(services).is_empty();
        let is_switched = services.iter().any(|service| plan::is_noted(service));
        let native_for = self.native_for(&named, is_held);
        let (replicas, callers) = (self.replicas(target), self.mailbox.demand.lock().held());
        let is_left = workload.is_some_and(|workload| {
            is_left_without_pods(replicas, workload.spec.settings.class, callers)
        });
        let is_listed = native_for >= self.ctx.delays.propagation;
        Seen {
            is_late: self.state_since.elapsed() >= WAKE_LIMIT,
            is_held,
            is_served: named.is_empty() || is_listed || is_left,
            is_switched,
            is_heard: !is_switched && self.are_given_back(),
            is_unread: self.lead_to_sidecars(target, &named),
        }
    }

    /// Whether Kubernetes' own slices of `services` have a ready pod at a port of the sidecar.
    fn lead_to_sidecars(&self, target: &Target, services: &[PlannedService]) -> bool {
        let template = target.template.as_ref();
        let template = template.filter(|_| target.is_injected());
        let ports = template.map(|template| template.plan.traffic_ports.as_slice());
        self.lead_to(services, ports.unwrap_or_default())
    }

    /// What is left where pods alone answer.
    async fn take_out(
        &mut self,
        target: &Target,
        workload: Option<&ScaledWorkload>,
    ) -> Result<(), WriteError> {
        self.remove_all_activators().await?;
        self.remove_order().await?;
        if target.is_injected() {
            return self.uninject(target).await;
        }
        match workload {
            Some(workload) => self.delete(workload).await,
            None if annotations::leave(&target.annotations) == Some(Leave::Requested) => {
                self.uninject(target).await
            }
            None => Ok(()),
        }
    }

    /// Gives those of `services` back that Lull has switched, and takes note of when.
    pub(super) async fn give_back(&mut self, services: &[Arc<Service>]) -> Result<(), WriteError> {
        for service in services {
            if let Some(patch) = plan::restore_patch(service) {
                self.patch_service(service, patch, Purpose::RestoreService)
                    .await?;
                self.restored_at = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Whether the Services, which are their user's, have been so for as long as it takes every proxy to
    /// hear of it.
    pub(super) fn are_given_back(&mut self) -> bool {
        let since = *self.restored_at.get_or_insert_with(Instant::now);
        since.elapsed() >= self.ctx.delays.propagation
    }

    /// Its object is gone: only Services and our own objects are left to look after.
    pub(super) async fn gone(&mut self, workload: &ScaledWorkload) -> Result<(), WriteError> {
        let services = self.services_left(workload);
        self.give_back(&services).await?;
        self.remove_all_activators().await?;
        self.delete(workload).await
    }

    /// Wakes it and tells of that; whether it is awake, or never will be.
    async fn is_woken(
        &mut self,
        target: &Target,
        workload: &ScaledWorkload,
    ) -> Result<bool, WriteError> {
        let is_awake = self.is_awake(target, workload).await?;
        let replicas = self.replicas(target);
        self.tell_woken(target, replicas);
        self.tell_untold(target, is_awake);
        Ok(is_awake)
    }

    /// Scales to what the user had; whether a pod is ready, or none will be.
    async fn is_awake(
        &mut self,
        target: &Target,
        workload: &ScaledWorkload,
    ) -> Result<bool, WriteError> {
        if !target.is_injected() {
            return Ok(true);
        }
        let replicas = self.replicas(target);
        if replicas == 0 && workload.spec.settings.class == Class::None {
            return Ok(true);
        }
        let wanted = workload.spec.original_replicas.max(1);
        let ours = replicas == 0 || workload.spec.settings.class == Class::Kpa;
        if replicas < wanted && ours {
            self.scale(target, replicas, wanted).await?;
            // What was told was another wake.
            self.woken_told &= replicas > 0;
        }
        Ok(self.is_ready_or_never())
    }

    /// The same where its ScaledWorkload is gone, with the CRD, and with it what the user had: one that
    /// sleeps behind the `services` that Lull has switched gets one pod.
    async fn is_awake_unlisted(
        &mut self,
        target: &Target,
        services: &[Arc<Service>],
    ) -> Result<bool, WriteError> {
        if !target.is_injected() || services.is_empty() {
            return Ok(true);
        }
        if self.replicas(target) == 0 {
            self.scale(target, 0, 1).await?;
        }
        Ok(self.is_ready_or_never())
    }

    /// Whether a pod is ready, or none will be.
    fn is_ready_or_never(&self) -> bool {
        let ready = self.pods().iter().any(|pod| pod.is_ready);
        ready || self.state_since.elapsed() >= WAKE_LIMIT
    }

    /// While something is waited for after it is awake, activators stay where they are, too, and dead ones
    /// leave. Not of a template without the sidecar, which says nothing of the ports that they have; nor where
    /// they have only stood by behind pods, which are not in slices.
    async fn refresh_listed(
        &mut self,
        target: &Target,
        workload: Option<&ScaledWorkload>,
    ) -> Result<(), WriteError> {
        let is_due = target.is_injected() && !self.slices_of_ours().is_empty();
        let Some(workload) = workload.filter(|_| is_due) else {
            return Ok(());
        };
        let plan = self.plan(target, workload);
        self.add_activators(workload, &plan.services).await
    }

    /// While it wakes on its way out, activators stay where they are, and dead ones leave.
    pub(super) async fn add_activators_as_planned(
        &mut self,
        target: &Target,
        workload: &ScaledWorkload,
    ) -> Result<(), WriteError> {
        if self.pods().iter().any(|pod| pod.is_ready) {
            return Ok(());
        }
        let plan = self.plan(target, workload);
        self.add_activators(workload, &plan.services).await
    }

    /// Services that are the workload's by its status, or that carry our note and select its pods: the
    /// status may not have been written since they were switched.
    pub(super) fn our_services(
        &self,
        workload: Option<&ScaledWorkload>,
        target: &Target,
    ) -> Vec<Arc<Service>> {
        let listed = workload.map(listed).unwrap_or_default();
        let template = target.template.as_ref();
        let selects = |service: &Service| {
            let labels = template.map(|template| &template.plan.labels);
            labels.is_some_and(|labels| plan::selects(service, labels))
        };
        let services = self.ctx.stores.services.in_namespace(&self.key.namespace);
        let is_ours = |service: &Arc<Service>| {
            listed.contains(&service.name_any()) || (has_note(service) && selects(service))
        };
        services.into_iter().filter(is_ours).collect()
    }

    /// Services that are the workload's by its status, where nobody knows any more which labels its pods
    /// had, and those that carry our note and are nobody else's.
    fn services_left(&self, workload: &ScaledWorkload) -> Vec<Arc<Service>> {
        let (stores, namespace) = (&self.ctx.stores, &self.key.namespace);
        let targets = stores.targets.in_namespace(namespace);
        let is_other = |target: &&Arc<Target>| target.is_injected() && target.id() != self.key.name;
        let others = targets.iter().filter(is_other);
        let templates = others.filter_map(|other| other.template.as_ref());
        let labels: Vec<&BTreeMap<String, String>> = templates.map(|t| &t.plan.labels).collect();
        let workloads = stores.workloads.in_namespace(namespace);
        let others = workloads.iter().filter(|w| w.name_any() != self.key.name);
        let listed_elsewhere: Vec<&String> = others.flat_map(|other| listed(other)).collect();
        let listed = listed(workload);
        let is_left = |service: &Arc<Service>| {
            let name = service.name_any();
            listed.contains(&name)
                || (!listed_elsewhere.contains(&&name) && is_orphan(service, &labels))
        };
        let services = stores.services.in_namespace(namespace);
        services.into_iter().filter(is_left).collect()
    }

    /// Tells the webhook, by the one annotation that it waits for, to take the sidecar out.
    async fn uninject(&mut self, target: &Target) -> Result<(), WriteError> {
        const AGAIN: Duration = Duration::from_secs(3);
        let asked = annotations::leave(&target.annotations) == Some(Leave::Uninject);
        if asked && self.injection_asked.is_some_and(|at| at.elapsed() < AGAIN) {
            return Ok(());
        }
        self.injection_asked = Some(Instant::now());
        self.annotate(target, (annotations::LEAVE, json!("uninject")))
            .await
    }

    /// Deletes the ScaledWorkload; what it owns (private Service, slices) goes with it.
    async fn delete(&mut self, workload: &ScaledWorkload) -> Result<(), WriteError> {
        if workload.metadata.deletion_timestamp.is_none() {
            self.remove(workload, Purpose::DeleteWorkload).await?;
        }
        self.drop_finalizer(workload).await
    }
}

/// Names of the Services that its status has.
fn listed(workload: &ScaledWorkload) -> &[String] {
    let status = workload.status.as_ref();
    status.map_or(&[][..], |status| status.services.as_slice())
}

/// Those of `services` whose selector is the sentinel, and whose own one is known.
fn held(services: &[Arc<Service>]) -> Vec<Arc<Service>> {
    let is_held = |service: &&Arc<Service>| plan::is_held(service) && plan::is_noted(service);
    services.iter().filter(is_held).cloned().collect()
}

/// Whether `service` carries our note of what it was, one that nobody can read included: what else of ours
/// is about it goes as well.
fn has_note(service: &Service) -> bool {
    service.annotations().contains_key(ORIGINAL_ANNOTATION)
}

/// Whether `service` carries our note and selects none of the pods with these labels, which are those of
/// all other workloads of Lull: whoever switched it is gone.
fn is_orphan(service: &Service, labels: &[&BTreeMap<String, String>]) -> bool {
    has_note(service) && !labels.iter().any(|labels| plan::selects(service, labels))
}

/// Services by name: families and ports don't matter for taking away.
pub(super) fn only_names(services: &[Arc<Service>]) -> Vec<PlannedService> {
    services
        .iter()
        .map(|service| PlannedService {
            name: service.name_any(),
            families: Vec::new(),
            ports: Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lull_contract::names::HELD_LABEL;
    use serde_json::Value;

    use super::*;

    fn service(selector: &Value, note: Option<&str>) -> Service {
        let annotations = note.map(|note| json!({ ORIGINAL_ANNOTATION: note }));
        let metadata = json!({ "name": "shop", "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "selector": selector } }))
            .unwrap()
    }

    #[test]
    fn pods_are_listed_before_ports_are_given_back_and_these_are_read_before_activators_go() {
        let bursting = Seen {
            is_held: true,
            is_switched: true,
            ..Seen::default()
        };
        let released = Seen {
            is_held: false,
            ..bursting
        };
        let listed = Seen {
            is_served: true,
            is_unread: true,
            ..released
        };
        let given_back = Seen {
            is_switched: false,
            ..listed
        };
        let heard = Seen {
            is_heard: true,
            ..given_back
        };
        let read = Seen {
            is_unread: false,
            ..heard
        };
        let unserved = Seen {
            is_served: false,
            ..read
        };
        let rows = [
            ("all traffic by the activators", bursting, Step::Release),
            ("nothing listed yet", released, Step::Wait),
            ("pods are listed", listed, Step::GiveBack),
            ("given back", given_back, Step::Wait),
            ("heard, and Kubernetes stands still", heard, Step::Wait),
            ("heard and read", read, Step::TakeOut),
            ("the same, and the pod has gone", unserved, Step::Wait),
        ];
        for (what, seen, then) in rows {
            assert_eq!(step(seen), then, "{what}");
            // Nothing is waited for without an end.
            let is_late = true;
            let late = step(Seen { is_late, ..seen });
            let is_heard = seen.is_switched || seen.is_heard;
            assert_eq!(late != Step::Wait, is_heard, "{what}");
            assert_ne!(late, Step::Release, "{what}");
        }
    }

    #[test]
    fn pods_are_not_waited_for_where_the_user_has_none_and_nobody_is_held() {
        assert!(is_left_without_pods(0, Class::None, 0));
        assert!(!is_left_without_pods(1, Class::None, 0), "it may come");
        assert!(
            !is_left_without_pods(0, Class::None, 1),
            "somebody may give it pods for those who wait"
        );
        for class in [Class::Kpa, Class::Hpa] {
            assert!(!is_left_without_pods(0, class, 0), "it is woken");
        }
    }

    #[test]
    fn only_a_selector_that_is_known_is_given_back_alone() {
        let note = r#"{"ports":[],"selector":{"app":"shop"}}"#;
        let (plain, sentinel) = (json!({ "app": "shop" }), json!({ HELD_LABEL: "uid" }));
        for (selector, note, expected) in [
            (&plain, Some(note), 0),
            (&sentinel, Some(note), 1),
            (&sentinel, Some("{"), 0),
            (&sentinel, None, 0),
        ] {
            let services = [Arc::new(service(selector, note))];
            assert_eq!(held(&services).len(), expected, "{selector} {note:?}");
        }
    }

    #[test]
    fn a_switched_service_that_no_status_names_is_known_by_its_note() {
        let labels = |app: &str| BTreeMap::from([("app".to_owned(), app.to_owned())]);
        let (shop, bank) = (labels("shop"), labels("bank"));
        let note = r#"{"ports":[{"port":80,"targetPort":8080}],"selector":{"app":"shop"}}"#;
        let (plain, held) = (json!({ "app": "shop" }), json!({ HELD_LABEL: "uid" }));
        for selector in [&plain, &held] {
            let switched = service(selector, Some(note));
            assert!(is_orphan(&switched, &[]));
            assert!(is_orphan(&switched, &[&bank]));
            assert!(
                !is_orphan(&switched, &[&bank, &shop]),
                "it is another one's"
            );
        }
        assert!(!is_orphan(&service(&plain, None), &[]), "never Lull's");
    }
}
