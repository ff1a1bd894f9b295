//! The slices by which a workload's activators stand behind Services, all of them: those that are behind a
//! Service that has gone, too.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::ResourceExt;
use lull_contract::{names::label_value, scaled_workload::State};

use super::Task;
use crate::{
    context::{Key, WriteError},
    objects,
    plan::PlannedService,
    purpose::Purpose,
    stores,
    target::Target,
};

// === impl Task ===

impl Task {
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

    /// Takes the activators out of where they would mislead callers: nothing of this workload answers
    /// there. WorkloadEntries are for all its Services, and none of these selects them.
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
        Ok(())
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
