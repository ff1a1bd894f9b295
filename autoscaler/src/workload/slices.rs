//! The slices by which a workload's activators stand behind Services, all of them: those that are behind a
//! Service that has gone, too.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, ResourceExt, api::Patch};
use lull_contract::{
    names::label_value,
    scaled_workload::{ScaledWorkload, State},
};
use serde_json::Value;

use super::{Task, act::apply_to};
use crate::{
    context::{Key, WriteError},
    objects::{self, Audience},
    plan::{self, PlannedService},
    pod::Pod,
    purpose::Purpose,
    stores,
    target::Target,
};

// === impl Task ===

impl Task {
    /// Writes the slices of all of `services`.
    pub(super) async fn write_slices(
        &self,
        workload: &ScaledWorkload,
        services: &[PlannedService],
        (audience, activators): (Audience, &[&Pod]),
    ) -> Result<(), WriteError> {
        for service in services {
            for family in service.families.iter().copied() {
                let listed = (audience, activators);
                let wanted = objects::slice(workload, (service, family), listed);
                let name = audience.slice(&service.name, family);
                self.write_slice(&name, &wanted).await?;
            }
        }
        Ok(())
    }

    /// Writes a slice; not where one of its name isn't Lull's, of which the plan tells.
    async fn write_slice(&self, name: &str, wanted: &Value) -> Result<(), WriteError> {
        let there = self.ctx.stores.slices.get(&self.key.namespace, name);
        let is_settled =
            |there: &EndpointSlice| !objects::is_lulls(there) || objects::slice_is(there, wanted);
        if there.as_deref().is_some_and(is_settled) {
            return Ok(());
        }
        let params = apply_to(there.is_some());
        let api: Api<EndpointSlice> = self.api();
        self.call(
            Purpose::WriteSlice,
            api.patch(name, &params, &Patch::Apply(wanted)),
        )
        .await
        .map(drop)
    }

    /// The slices by which callers are told of this workload's activators, whatever became of the Services
    /// behind which they stand.
    pub(super) fn slices_of_ours(&self) -> Vec<Arc<EndpointSlice>> {
        let Key { namespace, name } = &self.key;
        let slices = &self.ctx.stores.slices;
        let mut slices = slices.in_group(namespace, &label_value(name));
        // A Service of that name has the same group.
        slices.retain(|slice| objects::is_lulls(slice));
        slices
    }

    /// Whether this workload's activators stand behind `service`.
    pub(super) fn has_slice_of_ours(&self, service: &Service) -> bool {
        let name = service.name_any();
        let mut slices = self.slices_of_ours().into_iter();
        slices.any(|slice| stores::service_of(&slice) == Some(name.as_str()))
    }

    /// Whether callers of `service` are told of an activator that is there. An object alone says nothing: it
    /// may list nobody, or who has gone.
    pub(super) fn has_answering_activators(&self, service: &Service) -> bool {
        let activators = self.ctx.stores.activators.all();
        let (slices, entries) = (self.slices_of_ours(), self.entries());
        let name = service.name_any();
        let is_its = |slice: &&Arc<EndpointSlice>| stores::service_of(slice) == Some(name.as_str());
        let in_slices = slices.iter().filter(is_its);
        let in_slices = in_slices.flat_map(|slice| objects::addresses(slice));
        let in_entries = entries.iter().map(|entry| entry.spec.address.as_str());
        objects::is_any_ready(in_slices.chain(in_entries), &activators)
    }

    /// Takes the activators out of where they would mislead callers: nothing of this workload answers
    /// there. WorkloadEntries are for all its Services, and none of these selects them; where it has no
    /// Service any more, nobody looks after those that have stood by.
    ///
    /// After Services were given back: their own pods are to answer first.
    pub(super) async fn take_back_slices(
        &self,
        target: &Target,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        let Some(template) = &target.template else {
            return Ok(());
        };
        for slice in self.slices_of_ours() {
            let name = stores::service_of(&slice).unwrap_or_default();
            let is_planned = services.iter().any(|service| service.name == name);
            let is_spare = self.state == Some(State::Awake) && !is_planned;
            let service = self.service(name);
            if objects::misleads(service.as_deref(), &template.plan.labels, is_spare) {
                tracing::info!(
                    workload = %self.key, service = name,
                    "activators are taken out of the endpoints of a Service that is not its own"
                );
                self.remove(&*slice, Purpose::DeleteSlice).await?;
            }
        }
        if services.is_empty() && self.has_spare_entries(target) {
            self.remove_entries_but(&[]).await?;
        }
        Ok(())
    }

    /// Whether entries of a workload that has no Service to look after can go: it is awake, and none that it
    /// had is held still, whose endpoints they would be alone.
    fn has_spare_entries(&self, target: &Target) -> bool {
        let is_awake = self.state == Some(State::Awake);
        if !is_awake || !self.ctx.stores.entries.is_known() || self.entries().is_empty() {
            return false;
        }
        let services = self.our_services(None, target);
        let is_held = services.iter().any(|service| plan::is_held(service));
        !is_held && self.pods().iter().any(|pod| pod.is_ready)
    }

    /// Takes the activators out of the endpoints of all Services, also of those that are gone.
    pub(super) async fn remove_all_activators(&self) -> Result<(), WriteError> {
        self.remove_entries_but(&[]).await?;
        for slice in self.slices_of_ours() {
            self.remove(&*slice, Purpose::DeleteSlice).await?;
        }
        Ok(())
    }
}
