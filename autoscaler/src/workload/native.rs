//! Whom Kubernetes' own slices lead callers to, as far as they show it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::ResourceExt;

use super::{Task, look::lasts};
use crate::{context::PROXIES_RETURN, objects, plan::PlannedService};

/// How many pods without a sidecar activators are told of: enough for those whom they hold, and a status
/// stays small.
const PLAIN_PODS: usize = 16;

// === impl Task ===

impl Task {
    /// How long callers of all `services`, none of which `is_held`, have been led to ready pods by
    /// Kubernetes' own slices. Those that a held one still has are about to become empty.
    pub(super) fn native_for(&mut self, services: &[PlannedService], is_held: bool) -> Duration {
        let is_served = !is_held && self.native_ready(services);
        lasts(&mut self.native_since, is_served)
    }

    /// Every Service has a ready pod in Kubernetes' own slices, for callers of all its families.
    pub(super) fn native_ready(&self, services: &[PlannedService]) -> bool {
        self.each_has_ready(services, |_| true)
    }

    /// The same of pods that have a port which the Service asks for.
    pub(super) fn native_reached(&self, services: &[PlannedService]) -> bool {
        self.each_has_ready(services, objects::has_ports)
    }

    /// Whether every one of `services`, of which there are some, has a ready pod in those of Kubernetes'
    /// own slices that count.
    fn each_has_ready(
        &self,
        services: &[PlannedService],
        counts: impl Fn(&EndpointSlice) -> bool,
    ) -> bool {
        let pods = self.pods();
        let is_ready = |service: &PlannedService| {
            let slices = self.slices_of(&service.name);
            let slices = slices.iter().map(Arc::as_ref);
            let slices: Vec<&EndpointSlice> = slices.filter(|slice| counts(slice)).collect();
            objects::are_served(&service.families, &slices, &pods)
        };
        !services.is_empty() && services.iter().all(is_ready)
    }

    /// Every ready address in Kubernetes' own slices is a pod with the sidecar; not every controller
    /// tells how far a rollout is.
    pub(super) fn endpoints_have_sidecars(&self, services: &[PlannedService]) -> bool {
        self.plain_pods(services).is_empty()
    }

    /// Whether callers may still be at a pod without the sidecar: one is ready, or, in a mesh, one that is ending
    /// is still listed, of which callers' proxies may not have heard. Its own proxy forgets the old port with
    /// the Service that is switched, since the private one doesn't select it.
    pub(super) fn may_call_plain_pods(&mut self, services: &[PlannedService]) -> bool {
        let are_gone = self.endpoints_have_sidecars(services);
        let gone_for = lasts(&mut self.without_plain_since, are_gone);
        let may_end = gone_for < PROXIES_RETURN && self.lists_plain_pods(services);
        !are_gone || may_end && self.in_mesh(services).is_some()
    }

    /// Whether Kubernetes' own slices of `services` have an address that is no pod with the sidecar, ready or
    /// not.
    fn lists_plain_pods(&self, services: &[PlannedService]) -> bool {
        let slices = services.iter().flat_map(|s| self.slices_of(&s.name));
        let slices: Vec<Arc<EndpointSlice>> = slices.collect();
        objects::list_others(slices.iter().map(Arc::as_ref), &self.pods())
    }

    /// Ready addresses in Kubernetes' own slices of `services` that are no pods with the sidecar, in
    /// order; not all of many.
    pub(super) fn plain_pods(&self, services: &[PlannedService]) -> Vec<String> {
        let pods = self.pods();
        let is_plain = |address: &&str| !pods.iter().any(|pod| pod.has_address(address));
        let mut plain = BTreeSet::new();
        for service in services {
            let slices = self.slices_of(&service.name);
            let ready = objects::native_ready(slices.iter().map(Arc::as_ref));
            plain.extend(ready.filter(is_plain).map(str::to_owned));
        }
        plain.into_iter().take(PLAIN_PODS).collect()
    }

    /// Whether the sentinel has to stay in `service`, where activators answer meanwhile: Kubernetes' own
    /// slices still list pods of this workload, so their controller has not read it yet. Given the selector
    /// back, it would read both one after the other, late, and between the two empty slices that looked
    /// ready all the time.
    pub(super) fn has_to_stay_held(&self, service: &Service) -> bool {
        let slices = self.slices_of(&service.name_any());
        objects::is_hold_unread(service, slices.iter().map(Arc::as_ref), &self.pods())
            && self.has_answering_activators(service)
    }

    /// Whether Kubernetes' own slices of one of `services` have a ready address at one of `ports`.
    pub(super) fn lead_to(&self, services: &[PlannedService], ports: &[u16]) -> bool {
        services.iter().any(|service| {
            let slices = self.slices_of(&service.name);
            objects::lead_to(slices.iter().map(Arc::as_ref), ports)
        })
    }

    /// Whether Kubernetes' own slices of `service` list a pod of this workload.
    pub(super) fn has_listed_pods(&self, service: &Service) -> bool {
        let slices = self.slices_of(&service.name_any());
        objects::lists_any(slices.iter().map(Arc::as_ref), &self.pods())
    }

    fn slices_of(&self, service: &str) -> Vec<Arc<EndpointSlice>> {
        let slices = &self.ctx.stores.slices;
        slices.in_group(&self.key.namespace, service)
    }
}
