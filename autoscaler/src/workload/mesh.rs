//! Activators as Istio is told of them.

use std::sync::Arc;

use kube::{Api, ResourceExt, api::Patch};
use lull_contract::{names::label_value, scaled_workload::ScaledWorkload};

use super::{Task, act::apply};
use crate::{
    context::WriteError,
    mesh::{self, PodIdentity, Signs, WorkloadEntry},
    objects::Audience,
    plan::PlannedService,
    pod::Pod,
    purpose::Purpose,
};

// === impl Task ===

impl Task {
    /// Who the workload's pods are in the mesh; `None` where there is no mesh or it is not in it.
    pub(super) fn in_mesh(&self, services: &[PlannedService]) -> Option<PodIdentity> {
        let stores = &self.ctx.stores;
        if !stores.entries.is_known() {
            return None;
        }
        let target = stores.targets.get(&self.key.namespace, &self.key.name)?;
        let identity = target.template.as_ref()?.identity.clone();
        let has_open_slice = services.iter().any(|service| {
            service.families.iter().any(|family| {
                let slice = Audience::Everyone.slice(&service.name, *family);
                stores.slices.get(&self.key.namespace, &slice).is_some()
            })
        });
        let pods = self.pods();
        let signs = Signs {
            pods: &pods,
            inject: identity.inject,
            has_entries: !self.entries().is_empty(),
            has_open_slice,
        };
        mesh::is_meshed(&signs).then_some(identity)
    }

    /// Makes the workload's entries those of `activators`, first the new ones.
    pub(super) async fn write_entries(
        &self,
        workload: &ScaledWorkload,
        identity: &PodIdentity,
        activators: &[&Pod],
    ) -> Result<(), WriteError> {
        let there = self.entries();
        let api: Api<WorkloadEntry> = self.api();
        let mut kept = Vec::new();
        for wanted in activators
            .iter()
            .filter_map(|activator| mesh::entry(workload, identity, activator))
        {
            let name = wanted["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let known = there.iter().find(|entry| entry.name_any() == name);
            if !known.is_some_and(|entry| mesh::entry_is(entry, &wanted)) {
                let (params, patch) = (apply(), Patch::Apply(&wanted));
                let write = api.patch(&name, &params, &patch);
                match self.call(Purpose::WriteEntry, write).await {
                    // The mesh was taken off the cluster: the slices are for all who are left.
                    Err(error) if error.is_not_found() => {
                        tracing::debug!(workload = %self.key, %error, "no WorkloadEntries here");
                    }
                    written => drop(written?),
                }
            }
            kept.push(name);
        }
        self.remove_entries_but(&kept).await
    }

    /// Deletes the workload's entries, all but those of these names.
    pub(super) async fn remove_entries_but(&self, kept: &[String]) -> Result<(), WriteError> {
        for entry in self.entries() {
            if !kept.contains(&entry.name_any()) {
                self.remove(&*entry, Purpose::DeleteEntry).await?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> Vec<Arc<WorkloadEntry>> {
        let label = label_value(&self.key.name);
        self.ctx.stores.entries.of(&self.key.namespace, &label)
    }
}
