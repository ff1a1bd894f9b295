//! Leaving: wake, give the Services back, take the activators out, un-inject, delete ours.
//!
//! Every step looks at the objects and does what is missing, so it can be cut anywhere and resumed
//! by another replica.

use std::{
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
        let services = self.our_services(workload, Some(target));
        let planned = only_names(&services);
        if let Some(workload) = workload {
            if !self.is_woken(target, workload).await? {
                self.say(workload, Say::leaving("waking before it leaves"))
                    .await?;
                return self.add_activators_as_planned(target, workload).await;
            }
            let switched = services.iter().any(|s| plan::restore_patch(s).is_some());
            if switched {
                self.say(workload, Say::leaving("Services are being given back"))
                    .await?;
            }
        }
        for service in &services {
            if let Some(patch) = plan::restore_patch(service) {
                self.patch_service(service, patch, Purpose::RestoreService)
                    .await?;
                self.restored_at = Some(Instant::now());
            }
        }
        // The caches must show it, and every proxy must have heard of it.
        let restored_at = *self.restored_at.get_or_insert_with(Instant::now);
        let heard = restored_at.elapsed() >= self.ctx.delays.propagation;
        let served = planned.is_empty()
            || self.native_ready(&planned)
            || self.state_since.elapsed() >= WAKE_LIMIT;
        if !heard || !served {
            return Ok(());
        }
        self.remove_activators(&planned).await?;
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

    /// Its object is gone: only Services and our own objects are left to look after.
    pub(super) async fn gone(&mut self, workload: &ScaledWorkload) -> Result<(), WriteError> {
        let services = self.our_services(Some(workload), None);
        for service in &services {
            if let Some(patch) = plan::restore_patch(service) {
                self.patch_service(service, patch, Purpose::RestoreService)
                    .await?;
            }
        }
        self.remove_activators(&only_names(&services)).await?;
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
        let ready = self.pods().iter().any(|pod| pod.is_ready);
        Ok(ready || self.state_since.elapsed() >= WAKE_LIMIT)
    }

    /// While it wakes on its way out, activators stay where they are, and dead ones leave.
    async fn add_activators_as_planned(
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
    fn our_services(
        &self,
        workload: Option<&ScaledWorkload>,
        target: Option<&Target>,
    ) -> Vec<Arc<Service>> {
        let status = workload.and_then(|workload| workload.status.as_ref());
        let listed = status.map_or(&[][..], |status| status.services.as_slice());
        let template = target.and_then(|target| target.template.as_ref());
        let selects = |service: &Service| {
            let labels = template.map(|template| &template.plan.labels);
            labels.is_some_and(|labels| plan::selects(service, labels))
        };
        let services = self.ctx.stores.services.in_namespace(&self.key.namespace);
        let is_ours = |service: &Arc<Service>| {
            let is_noted = service.annotations().contains_key(ORIGINAL_ANNOTATION);
            listed.contains(&service.name_any()) || (is_noted && selects(service))
        };
        services.into_iter().filter(is_ours).collect()
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

/// Services by name: families and ports don't matter for taking away.
fn only_names(services: &[Arc<Service>]) -> Vec<PlannedService> {
    services
        .iter()
        .map(|service| PlannedService {
            name: service.name_any(),
            families: Vec::new(),
            ports: Vec::new(),
        })
        .collect()
}
