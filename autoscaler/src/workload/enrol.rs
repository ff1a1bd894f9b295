//! Enrolment: the ScaledWorkload, the private Service, and the switch of the public Services.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt, api::Patch, core::DeserializeGuard};
use lull_contract::{
    AppPort, Settings,
    annotations::{AnnotationError, Defaults},
    names::{FINALIZER, POD_LABEL, label_value, private_service},
    scaled_workload::{ScaledWorkload, ScaledWorkloadSpec, State, WorkloadPort},
};
use serde_json::json;

use super::{
    Task,
    act::{apply, apply_to},
};
use crate::{
    allocate::{self, STRAGGLERS},
    context::WriteError,
    injected,
    memo::Same,
    objects,
    plan::{self, Finding, PlannedService, Reason},
    purpose::Purpose,
    target::Target,
};

/// All by which it is told whether nothing is to be done about the private Service.
#[derive(Debug, PartialEq)]
pub(super) struct PrivateOf {
    there: Same<Service>,
    public: Vec<Same<Service>>,
    planned: Vec<PlannedService>,
    settled: bool,
}

// === impl Task ===

impl Task {
    /// The ScaledWorkload as the annotations want it; `None` where they can't be read and there is
    /// no earlier one. In a dry run it has no ports, and nothing holds it: there is nothing to give
    /// back.
    pub(super) async fn ensure_workload(
        &mut self,
        target: &Target,
        there: Option<Arc<ScaledWorkload>>,
        is_dry_run: bool,
    ) -> Result<Option<Arc<ScaledWorkload>>, WriteError> {
        let settings = match self.settings(target) {
            Ok(settings) => settings,
            Err(faults) => {
                // The webhook refuses these; it can only have been away.
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                let text = format!("has {}", faults.join("; "));
                let finding = Finding::new(Reason::BadAnnotation, target.to_string(), text);
                self.tell(target, &[finding]);
                return Ok(there);
            }
        };
        if let Some(gone) = there
            .as_ref()
            .filter(|w| w.metadata.deletion_timestamp.is_some())
        {
            // Somebody deleted it by hand: it comes back with what the objects say.
            self.drop_finalizer(gone).await?;
            return Ok(None);
        }
        let ports = if is_dry_run {
            Vec::new()
        } else {
            self.ports(target, there.as_deref())?
        };
        let spec = ScaledWorkloadSpec {
            target: target.as_scaled(),
            pod_selector: BTreeMap::from([(POD_LABEL.to_owned(), label_value(&self.key.name))]),
            ports,
            settings,
            original_replicas: match &there {
                Some(there) if !there.spec.is_dry_run() => there.spec.original_replicas,
                _ => self.replicas(target),
            },
        };
        if there.as_ref().is_some_and(|there| there.spec == spec) {
            return Ok(there);
        }
        let mut workload = ScaledWorkload::new(&self.key.name, spec);
        workload.metadata.namespace = Some(self.key.namespace.clone());
        workload.metadata.finalizers = (!is_dry_run).then(|| vec![FINALIZER.to_owned()]);
        workload.metadata.owner_references = Some(vec![target.owner_reference()]);
        let api: Api<DeserializeGuard<ScaledWorkload>> = self.api();
        let written = self
            .call(
                Purpose::WriteWorkload,
                api.patch(&self.key.name, &apply(), &Patch::Apply(&workload)),
            )
            .await?;
        let written = as_written(written, workload, there.as_deref());
        Ok(Some(Arc::new(written)))
    }

    /// The settings that the annotations and the cluster-wide defaults ask for.
    ///
    /// # Errors
    /// Every wrong annotation.
    pub(super) fn settings(&mut self, target: &Target) -> Result<Settings, Vec<AnnotationError>> {
        let defaults = Arc::clone(&self.ctx.settings.borrow().defaults);
        let read = |defaults: &Defaults| {
            let template = target.template.as_ref();
            let record = template.and_then(|template| template.injected.as_deref());
            injected::settings(&target.annotations, defaults, record)
        };
        let Some(version) = &target.resource_version else {
            return read(&defaults);
        };
        let object = (target.uid.clone(), version.clone(), Same(defaults));
        let settings = self
            .settings
            .get(object, |(_, _, defaults)| read(&defaults.0));
        Result::clone(&settings)
    }

    /// Activator ports: those there are stay, new ones are allocated.
    fn ports(
        &self,
        target: &Target,
        there: Option<&ScaledWorkload>,
    ) -> Result<Vec<WorkloadPort>, WriteError> {
        let known = there.map(|w| w.spec.ports.as_slice()).unwrap_or_default();
        let served = target.template.iter().flat_map(|t| t.served.clone());
        let served: Vec<AppPort> = served.collect();
        let numbers: Vec<u16> = served.iter().map(|port| port.number).collect();
        let (ports, now) = (&self.ctx.ports, self.ctx.now());
        ports.keep_only(&self.key, &numbers, now);
        let mut wanted = Vec::new();
        for AppPort { number, protocol } in served {
            let activator_port = match known.iter().find(|port| port.app_port == number) {
                Some(port) if self.is_to_move(port) => self.moved(port),
                Some(port) => port.activator_port,
                None => self.allocate(number)?,
            };
            wanted.push(WorkloadPort {
                app_port: number,
                protocol,
                activator_port,
            });
        }
        Ok(wanted)
    }

    /// A new activator port of this workload's shard.
    fn allocate(&self, app_port: u16) -> Result<u16, WriteError> {
        let (ports, workloads) = (&self.ctx.ports, self.ctx.stores.workloads.all());
        if !ports.is_observed() {
            allocate::observe(&self.ctx, &workloads);
        }
        let used = workloads.iter().flat_map(|w| &w.spec.ports);
        let used = used.map(|port| port.activator_port).collect();
        let (shards, now) = (self.ctx.leadership.shards(), self.ctx.now());
        ports.allocate((self.key.clone(), app_port), used, (shards, now))
    }

    /// Whether an older workload has one of its activator ports, too, as after a backup was restored.
    /// Then it is kept awake without activators until it has another one.
    pub(super) fn has_shared_port(&self, workload: &ScaledWorkload) -> bool {
        let mut ports = workload.spec.ports.iter();
        ports.any(|port| self.ctx.ports.is_shared(&self.key, port))
    }

    /// Whether `port` is an older workload's, too, and nobody may come by it any more: activators lead
    /// whoever does to that one once this one has another.
    fn is_to_move(&self, port: &WorkloadPort) -> bool {
        self.ctx.ports.is_shared(&self.key, port) && !self.may_be_called_at_activators()
    }

    /// The port in the place of `port`; the same while there is no other one.
    fn moved(&self, port: &WorkloadPort) -> u16 {
        let before = port.activator_port;
        let moved = self.allocate(port.app_port).unwrap_or(before);
        tracing::warn!(
            workload = %self.key, before, moved,
            "an older workload has its activator port, too: it gets another one"
        );
        moved
    }

    /// Whether callers are told of this workload's activators, or were until a while ago.
    fn may_be_called_at_activators(&self) -> bool {
        let is_direct = matches!(self.state, Some(State::Enrolling | State::Awake));
        !is_direct || self.state_since.elapsed() < STRAGGLERS || self.lists_activators()
    }

    /// Whether callers are told of this workload's activators.
    pub(super) fn lists_activators(&self) -> bool {
        !self.slices_of_ours().is_empty() || !self.entries().is_empty()
    }

    /// Makes the private Service and switches the public ones, once nobody calls pods without the sidecar.
    ///
    /// Later it puts back what somebody's `kubectl apply` has undone.
    pub(super) async fn keep_services(
        &mut self,
        target: &Target,
        workload: &ScaledWorkload,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        if self.state == Some(State::Enrolling)
            // Asked also while it rolls: it takes note of how long none of them has been ready.
            && (self.may_call_plain_pods(services) || target.is_rolling)
        {
            return Ok(());
        }
        let settled = self.are_numbers_settled(target);
        self.ensure_private(workload, services, settled).await?;
        for planned in services {
            let Some(service) = self.service(&planned.name) else {
                continue;
            };
            if !plan::is_switched(&service, planned, settled) {
                let patch = plan::switch_patch(&service, planned, settled);
                self.patch_service(&service, patch, Purpose::SwitchService)
                    .await?;
            }
        }
        self.let_go(target, workload).await?;
        self.take_back_slices(target, services).await
    }

    /// Whether Services may target app ports by the numbers that they have got: every pod has those, and
    /// no activator is among the endpoints, which Istio may know by the earlier ones alone. One that stands
    /// by behind pods is known by both since the template has the new one.
    pub(super) fn are_numbers_settled(&self, target: &Target) -> bool {
        self.state == Some(State::Awake) && !self.is_renumbering(target)
    }

    /// Whether pods are there that know an app port by an earlier number alone.
    pub(super) fn is_renumbering(&self, target: &Target) -> bool {
        let template = target.template.as_ref();
        let renumbered = template.map(|template| template.plan.renumbered.as_slice());
        let renumbered = renumbered.unwrap_or_default();
        !renumbered.is_empty() && self.pods().iter().any(|pod| pod.is_behind(renumbered))
    }

    /// Gives back the Services that its user has pointed elsewhere.
    async fn let_go(&self, target: &Target, workload: &ScaledWorkload) -> Result<(), WriteError> {
        let Some(template) = &target.template else {
            return Ok(());
        };
        let listed = workload.status.iter().flat_map(|status| &status.services);
        for service in listed.filter_map(|name| self.service(name)) {
            if plan::selects(&service, &template.plan.labels) {
                continue;
            }
            if let (Some(patch), false) =
                (plan::restore_patch(&service), self.has_another(&service))
            {
                self.patch_service(&service, patch, Purpose::RestoreService)
                    .await?;
            }
        }
        Ok(())
    }

    /// Whether `service` leads elsewhere, and nothing of this workload is left of it.
    pub(super) fn is_let_go(&self, service: &Service) -> bool {
        let targets = &self.ctx.stores.targets;
        let target = targets.get(&self.key.namespace, &self.key.name);
        let template = target.as_ref().and_then(|target| target.template.as_ref());
        template.is_some_and(|template| !plan::selects(service, &template.plan.labels))
            && (!plan::is_noted(service) || self.has_another(service))
            && !self.has_slice_of_ours(service)
    }

    /// Whether `service` selects the pods of another workload of Lull, which looks after it.
    fn has_another(&self, service: &Service) -> bool {
        let targets = self.ctx.stores.targets.in_namespace(&self.key.namespace);
        targets.iter().any(|target| {
            let labels = target.template.as_ref().map(|t| &t.plan.labels);
            target.is_injected() && labels.is_some_and(|labels| plan::selects(service, labels))
        })
    }

    /// Writes the private Service; not where another object has its name, of which the plan tells.
    pub(super) async fn ensure_private(
        &mut self,
        workload: &ScaledWorkload,
        services: &[PlannedService],
        settled: bool,
    ) -> Result<(), WriteError> {
        let name = private_service(&self.key.name);
        let public = |planned: &PlannedService| self.service(&planned.name);
        let services = services.iter();
        let services: Vec<(Arc<Service>, &PlannedService)> = services
            .filter_map(|planned| Some((public(planned)?, planned)))
            .collect();
        let wanted = || objects::private(workload, &services, settled);
        let there = self.service(&name);
        if let Some(there) = &there {
            let same = |service: &Arc<Service>| Same(Arc::clone(service));
            let of = PrivateOf {
                there: same(there),
                public: services.iter().map(|(public, _)| same(public)).collect(),
                planned: services.iter().map(|(_, it)| (*it).clone()).collect(),
                settled,
            };
            let is_settled = self.private_settled.get(of, |_| {
                let is_ours = objects::belongs_to(there.as_ref(), &self.key.name);
                !is_ours || wanted().is_none_or(|wanted| objects::private_is(there, &wanted))
            });
            if *is_settled {
                return Ok(());
            }
        }
        let Some(private) = wanted() else {
            return Ok(());
        };
        let params = apply_to(there.is_some());
        let api: Api<Service> = self.api();
        self.call(
            Purpose::WritePrivateService,
            api.patch(&name, &params, &Patch::Apply(&private)),
        )
        .await
        .map(drop)
    }

    pub(super) async fn drop_finalizer(&self, workload: &ScaledWorkload) -> Result<(), WriteError> {
        if workload.finalizers().is_empty() {
            return Ok(());
        }
        // Whatever it says by now.
        let api: Api<DeserializeGuard<ScaledWorkload>> = self.api();
        // The uid can't be changed: another object of this name refuses the patch.
        let patch = json!({ "metadata": { "uid": workload.uid(), "finalizers": null } });
        let name = workload.name_any();
        match self
            .call(
                Purpose::DropFinalizer,
                api.patch(
                    &name,
                    &kube::api::PatchParams::default(),
                    &Patch::Merge(&patch),
                ),
            )
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// The object as the API server has it; where its answer can't be read, which is then for what stood
/// `there` already, as far as that is known.
fn as_written(
    DeserializeGuard(answer): DeserializeGuard<ScaledWorkload>,
    sent: ScaledWorkload,
    there: Option<&ScaledWorkload>,
) -> ScaledWorkload {
    answer.unwrap_or_else(|invalid| ScaledWorkload {
        metadata: invalid.metadata,
        status: there.and_then(|there| there.status.clone()),
        ..sent
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What the API server answers of an object in this state.
    fn answer(state: &str) -> Value {
        json!({
            "apiVersion": "lull.dev/v1alpha1", "kind": "ScaledWorkload",
            "metadata": { "name": "shop", "namespace": "ns", "uid": "7" },
            "spec": {
                "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u" },
                "podSelector": {}, "ports": [], "settings": Settings::default(),
                "originalReplicas": 2,
            },
            "status": { "state": state },
        })
    }

    #[test]
    fn what_was_written_is_known_also_where_the_answer_cannot_be_read() {
        let known: ScaledWorkload = serde_json::from_value(answer("Asleep")).unwrap();
        let sent = ScaledWorkload::new("shop", known.spec.clone());
        let rows = [("Waking", State::Waking), ("Dreaming", State::Asleep)];
        for (state, expected) in rows {
            let answer = serde_json::from_value(answer(state)).unwrap();
            let written = as_written(answer, sent.clone(), Some(&known));
            assert_eq!(written.metadata.uid.as_deref(), Some("7"), "{state}");
            assert_eq!(written.spec, known.spec, "{state}");
            let status = written.status.unwrap();
            assert_eq!(status.state, expected, "{state}");
        }
    }
}
