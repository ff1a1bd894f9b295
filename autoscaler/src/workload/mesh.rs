//! What Istio is told: of activators, and how long callers may try to connect.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, Preconditions},
    core::DynamicObject,
};
use lull_contract::{
    names::{connect_rule, label_value},
    scaled_workload::ScaledWorkload,
};

use super::{Task, act::apply};
use crate::{
    context::WriteError,
    mesh::{self, DestinationRule, PodIdentity, Signs, WorkloadEntry},
    objects::Audience,
    plan::{Family, PlannedService},
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
        let names = services.iter().map(|service| service.name.as_str());
        self.is_meshed(&identity, names).then_some(identity)
    }

    /// Whether the workload, whose Services are called `services`, is in the mesh of the cluster.
    pub(super) fn is_meshed<'a>(
        &self,
        identity: &PodIdentity,
        mut services: impl Iterator<Item = &'a str>,
    ) -> bool {
        let slices = &self.ctx.stores.slices;
        let is_there = |slice: String| slices.get(&self.key.namespace, &slice).is_some();
        let has_open_slice = services.any(|service| {
            let mut families = Family::ALL.into_iter();
            families.any(|family| is_there(Audience::Everyone.slice(service, family)))
        });
        mesh::is_meshed(&Signs {
            pods: &self.pods(),
            inject: identity.inject,
            has_entries: !self.entries().is_empty(),
            has_open_slice,
        })
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

    /// Makes the workload's DestinationRules those for `timeouts`, by Service, and no others, once it is
    /// enrolled.
    ///
    /// They are there as long as the workload is Lull's, awake or asleep: so a sleep and a wake stay a
    /// change of endpoints alone. When it leaves they go with the ScaledWorkload.
    pub(super) async fn keep_connect_timeouts(
        &self,
        workload: &ScaledWorkload,
        timeouts: &BTreeMap<String, Duration>,
    ) -> Result<(), WriteError> {
        if !self.is_enrolled() {
            return Ok(());
        }
        let label = label_value(&self.key.name);
        let rules = &self.ctx.stores.rules;
        for (service, timeout) in timeouts {
            let name = connect_rule(service);
            let there = rules.destination_rule(&self.key.namespace, &name);
            let is_right = there.is_some_and(|rule| {
                // One of that name that is not ours is left alone.
                !rule.is_for_workload(&label) || rule.gives(service, *timeout)
            });
            if !is_right {
                let wanted = mesh::connect_timeout_rule(workload, service, *timeout);
                let (api, params, patch) = (self.rules_api(), apply(), Patch::Apply(&wanted));
                let write = api.patch(&name, &params, &patch);
                self.call(Purpose::WriteRule, write).await?;
            }
        }
        for rule in rules.ours(&self.key.namespace, &label) {
            let is_kept = |service: &String| connect_rule(service) == rule.name;
            if !timeouts.keys().any(is_kept) {
                self.remove_rule(&rule).await?;
            }
        }
        Ok(())
    }

    /// Deletes a DestinationRule of ours, as it was read.
    async fn remove_rule(&self, rule: &DestinationRule) -> Result<(), WriteError> {
        let ours = rule.ours.as_ref();
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: ours.and_then(|ours| ours.uid.clone()),
            resource_version: ours.and_then(|ours| ours.resource_version.clone()),
        });
        let api = self.rules_api();
        let delete = api.delete(&rule.name, &params);
        match self.call(Purpose::DeleteRule, delete).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn rules_api(&self) -> Api<DynamicObject> {
        let (client, namespace) = (self.ctx.client.clone(), &self.key.namespace);
        Api::namespaced_with(client, namespace, &DestinationRule::resource())
    }

    fn entries(&self) -> Vec<Arc<WorkloadEntry>> {
        let label = label_value(&self.key.name);
        self.ctx.stores.entries.of(&self.key.namespace, &label)
    }
}
