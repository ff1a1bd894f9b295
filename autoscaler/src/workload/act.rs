//! What is written for a running workload.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::autoscaling::v1::Scale,
    api::{core::v1::Service, discovery::v1::EndpointSlice},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use lull_contract::{
    annotations,
    names::FIELD_MANAGER,
    scaled_workload::{ScaledWorkload, State},
};
use serde_json::{Value, json};

use super::{Task, Written, bare::SIDECAR_LOST, waking::Untold};
use crate::{
    context::{Key, WriteError},
    machine::NO_ACTIVATOR,
    objects::{self, Audience},
    plan::{self, Finding, PlannedService, Reason},
    pod::Pod,
    policy::HELD,
    purpose::Purpose,
    target::Target,
};

/// When a count was sent, on the process's clock.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// When its turn was asked for.
    asked: Duration,
    /// When the turn had come.
    at: Duration,
}

/// Server-side apply as Lull; what we apply is ours alone.
pub(super) fn apply() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

/// The same for an object that is known to be ours where it `is_there`. Otherwise it takes over nothing
/// from others: one that somebody else has just made under its name is left as it is, with an error.
pub(super) fn apply_to(is_there: bool) -> PatchParams {
    if is_there {
        apply()
    } else {
        PatchParams::apply(FIELD_MANAGER)
    }
}

// === impl Task ===

impl Task {
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.ctx.client.clone(), &self.key.namespace)
    }

    pub(super) async fn patch_service(
        &self,
        service: &Service,
        patch: Value,
        what: Purpose,
    ) -> Result<(), WriteError> {
        let Ok(patch) = serde_json::from_value(patch) else {
            // Our own patches are well-formed; a test of each builder says so.
            return Ok(());
        };
        let api: Api<Service> = self.api();
        let name = service.name_any();
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        self.call(what, api.patch(&name, &params, &Patch::Json::<()>(patch)))
            .await?;
        tracing::info!(workload = %self.key, service = name, %what, "Service patched");
        Ok(())
    }

    /// Tells every caller of the activators, each kind of caller by what it reads.
    pub(super) async fn add_activators(
        &self,
        workload: &ScaledWorkload,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        let activators = self.usable_activators(workload);
        if activators.is_empty() && !self.native_ready(services) {
            // Those that are listed may still answer; without any, callers are refused for certain.
            return Ok(());
        }
        let activators: Vec<&Pod> = activators.iter().map(Arc::as_ref).collect();
        let mesh = self.in_mesh(services);
        let audience = match &mesh {
            Some(_) => Audience::AllButIstio,
            None => Audience::Everyone,
        };
        let slices = self.write_slices(workload, services, (audience, activators.as_slice()));
        let entries = async {
            match mesh.as_ref().filter(|_| !services.is_empty()) {
                Some(identity) => self.write_entries(workload, identity, &activators).await,
                None => Ok(()),
            }
        };
        // Neither waits for the other. Where the last pod has just begun to end, callers in the mesh have
        // nobody until the first entry is there; where Istio's own admission is away, everybody else
        // still hears of it.
        let (slices, entries) = tokio::join!(Box::pin(slices), Box::pin(entries));
        slices.and(entries)?;
        // What is there from before the workload came into the mesh or went out of it, or from when the
        // Service had one more family.
        let services = services.iter();
        let old = services.flat_map(|service| objects::old_slice_names(service, audience));
        self.remove_slices(old.collect()).await?;
        if mesh.is_none() {
            self.remove_entries_but(&[]).await?;
        }
        Ok(())
    }

    /// Takes the activators out of the endpoints of `services`.
    pub(super) async fn remove_activators(
        &self,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        self.remove_entries_but(&[]).await?;
        self.remove_slices_behind(services).await
    }

    /// Takes them out of the slices alone.
    pub(super) async fn remove_slices_behind(
        &self,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        let services = services.iter();
        let all = services.flat_map(|service| objects::slice_names(&service.name));
        self.remove_slices(all.collect()).await
    }

    /// Whether there is anything of what [`Self::remove_activators`] takes away, where there are `services`.
    pub(super) fn lists_activators_behind(&self, services: &[PlannedService]) -> bool {
        // Nobody can delete entries of a kind that the cluster does not have any more.
        let has_entries = self.ctx.stores.entries.is_known() && !self.entries().is_empty();
        (has_entries && !services.is_empty()) || self.has_slices_behind(services)
    }

    /// The same of [`Self::remove_slices_behind`].
    pub(super) fn has_slices_behind(&self, services: &[PlannedService]) -> bool {
        let names = services.iter();
        let mut names = names.flat_map(|service| objects::slice_names(&service.name));
        names.any(|name| self.slice_of_ours(&name).is_some())
    }

    /// Takes away those of the slices with these names that are ours.
    async fn remove_slices(&self, names: Vec<String>) -> Result<(), WriteError> {
        let names = names.into_iter();
        for slice in names.filter_map(|name| self.slice_of_ours(&name)) {
            self.remove(&*slice, Purpose::DeleteSlice).await?;
        }
        Ok(())
    }

    /// Our slice of this name; one that another workload has taken over is not ours.
    fn slice_of_ours(&self, name: &str) -> Option<Arc<EndpointSlice>> {
        let slice = self.ctx.stores.slices.get(&self.key.namespace, name)?;
        objects::belongs_to(&*slice, &self.key.name).then_some(slice)
    }

    /// Not where Kubernetes lists no pod, which there is nobody to keep from: by its slices, which become
    /// empty, it is seen to have read this one. They might be from an earlier hold, whose end it has not
    /// read yet. Asked again, it is done once there is a pod.
    pub(super) async fn hold_selector(
        &self,
        workload: &ScaledWorkload,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        let uid = workload.uid().unwrap_or_default();
        for service in services.iter().filter_map(|s| self.service(&s.name)) {
            if !plan::is_held(&service) && self.has_listed_pods(&service) {
                let patch = plan::hold_patch(&service, &uid);
                self.patch_service(&service, patch, Purpose::HoldSelector)
                    .await?;
            }
        }
        Ok(())
    }

    /// Not as long as an activator answers and the hold is unread: asked again, it is done then.
    pub(super) async fn restore_selector(
        &self,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        for service in services.iter().filter_map(|s| self.service(&s.name)) {
            if plan::is_held(&service) && !self.has_to_stay_held(&service) {
                let patch = plan::release_patch(&service);
                self.patch_service(&service, patch, Purpose::RestoreSelector)
                    .await?;
            }
        }
        Ok(())
    }

    /// Writes `to` to `/scale`, if it is at `from`, and where pods go, if the object is what it was
    /// decided on.
    ///
    /// The condition is the object's resourceVersion: a JSON patch can't test for a 0, which
    /// Kubernetes leaves out of the object.
    pub(super) async fn scale(
        &mut self,
        target: &Target,
        from: u32,
        to: u32,
    ) -> Result<(), WriteError> {
        let (held_since, held_told) = {
            let demand = self.mailbox.demand.lock();
            (demand.held_since(), demand.held_told())
        };
        let version = target.resource_version.clone();
        let write = if target.replicas == from {
            self.patch_scale(target, version, (from, to)).await
        } else {
            // Decided on what we wrote, which the cache doesn't show yet.
            let what = Purpose::WriteScale;
            Err(WriteError::Moved { what })
        };
        let is_old_view = |error: &WriteError| error.is_conflict() && holds_of_newest((from, to));
        let sent = match write {
            Err(error) if is_old_view(&error) && !self.is_overtaken(target, from) => {
                self.patch_newest_scale(target, (from, to)).await
            }
            other => other,
        }?;
        let answered = self.ctx.now();
        self.note_written(from, to);
        self.ctx.metrics.scaled(from, to);
        if let Some(since) = held_since.filter(|_| from == 0) {
            let after = |at: Duration| at.saturating_sub(since);
            let turn = sent.at.saturating_sub(sent.asked);
            let since_held = (after(sent.at), after(answered));
            self.ctx.metrics.woken(turn, since_held);
            self.untold = Some(Untold::new(to));
        }
        let verdict = self.policy.last().map(ToString::to_string);
        let reason = match held_since {
            // A replica that does not lead has no verdict.
            Some(_) if from == 0 => HELD.to_owned(),
            _ if self.state == Some(State::Leaving) => "it leaves Lull".to_owned(),
            _ if self.state == Some(State::Enrolling) => SIDECAR_LOST.to_owned(),
            _ if from == 0 && self.ctx.no_activator() => NO_ACTIVATOR.to_owned(),
            _ => verdict.unwrap_or_default(),
        };
        // Where a wake was slow, these say on whose side: until the patch was sent, of that the wait for
        // its turn, and from then on the API server's.
        let ms = |begin: Duration, end: Duration| end.saturating_sub(begin).as_secs_f64() * 1_000.0;
        let until_sent = |since: Duration| ms(since, sent.at);
        let woken = |since: Option<Duration>| since.filter(|_| from == 0).map(until_sent);
        let (held_ms, told_ms) = (woken(held_since), woken(held_told));
        let (turn_ms, answer_ms) = (until_sent(sent.asked), ms(sent.at, answered));
        tracing::info!(
            workload = %self.key, from, to, reason, held_ms, told_ms, turn_ms, answer_ms, "scaled"
        );
        // From zero while it wakes: asked for anew, it is the same wake.
        if from != 0 || self.state != Some(State::Waking) {
            self.keep_scaled((from, to), held_since, &reason);
        }
        let (word, note) = match (from, to) {
            // Told when somebody is answered, or is not for long, or has left.
            (0, _) if held_since.is_some() => return Ok(()),
            (0, _) => ("Waking", format!("Scaled from 0 to {to} pods: {reason}")),
            (_, 0) => ("FellAsleep", "No traffic: all pods are let go".to_owned()),
            _ => (
                "Scaled",
                format!("Scaled from {from} to {to} pods: {reason}"),
            ),
        };
        self.ctx.event(target.reference(), false, word, note);
        Ok(())
    }

    /// Takes note of a count that was written: it is ours, and the cache shows it in a moment.
    fn note_written(&mut self, from: u32, to: u32) {
        self.written_replicas = Some(Written {
            from,
            to,
            at: Instant::now(),
        });
        self.policy.wrote(to);
    }

    /// Takes back a count that has brought no pod; the next look writes it anew.
    pub(super) async fn ask_again(&mut self, target: &Target, from: u32) -> Result<(), WriteError> {
        let version = target.resource_version.clone();
        self.patch_scale(target, version, (from, 0)).await?;
        self.note_written(from, 0);
        tracing::warn!(workload = %self.key, from, "a wake has brought no pod: asked for anew");
        self.ctx.event(
            target.reference(),
            true,
            "NoPodMade",
            "A wake has brought no pod, its controller's Events say why: asked for anew".to_owned(),
        );
        Ok(())
    }

    /// An Event where somebody else has changed the count.
    pub(super) fn tell_overruled(&self, target: &Target, replicas: u32) {
        let note = match replicas {
            0 => "Scaled to 0 by somebody else: the next request wakes it".to_owned(),
            _ => format!("Scaled to {replicas} by somebody else: kept for a window"),
        };
        tracing::info!(workload = %self.key, replicas, "scaled by somebody else");
        self.ctx
            .event(target.reference(), false, "ScaledByOther", note);
    }

    fn target_api(&self, target: &Target) -> Api<DynamicObject> {
        let (client, namespace) = (self.ctx.client.clone(), &self.key.namespace);
        Api::namespaced_with(client, namespace, &*target.resource)
    }

    /// Whether somebody else is seen by now to have changed the count that `target` had, which was `from`.
    fn is_overtaken(&self, target: &Target, from: u32) -> bool {
        let Key { namespace, name } = &self.key;
        let newest = self.ctx.stores.targets.get(namespace, name);
        let seen = newest.map(|newest| newest.replicas);
        is_overtaken((target.replicas, from), seen)
    }

    /// Writes the count where the API server still has the one that was decided on; when that was sent.
    async fn patch_newest_scale(
        &self,
        target: &Target,
        (from, to): (u32, u32),
    ) -> Result<Sent, WriteError> {
        let api = self.target_api(target);
        let what = Purpose::ReadScale;
        let scale = self.call_as_any(what, api.get_scale(&target.name)).await?;
        if replicas_of(&scale) != from {
            return Err(WriteError::Moved { what });
        }
        let version = scale.metadata.resource_version;
        self.patch_scale(target, version, (from, to)).await
    }

    /// Writes the count on condition of the object's `version`; when that was sent, in its turn.
    async fn patch_scale(
        &self,
        target: &Target,
        version: Option<String>,
        (from, to): (u32, u32),
    ) -> Result<Sent, WriteError> {
        let api = self.target_api(target);
        let patch = json!({
            "metadata": { "resourceVersion": version },
            "spec": { "replicas": to },
        });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let (patch, what) = (Patch::Merge(&patch), Purpose::WriteScale);
        let asked = self.ctx.now();
        // Boxed: each of what awaits it would have room for it.
        let write = Box::pin(async {
            let at = self.ctx.now();
            let sent = Sent { asked, at };
            let written = api.patch_scale(&target.name, &params, &patch).await;
            written.map(|_| sent)
        });
        if from > 0 {
            return self.call(what, write).await;
        }
        let turn = self.turn().await;
        if self.is_overtaken(target, from) {
            // Another replica's wake was seen while this one waited for its turn.
            return Err(WriteError::Moved { what });
        }
        self.call_in_turn(turn, what, write).await
    }

    /// Pushes an object that the webhook has missed through admission once more: a patch that
    /// changes nothing is admitted, and mutated, like any other.
    pub(super) async fn ask_for_injection(&mut self, target: &Target) -> Result<(), WriteError> {
        const AGAIN: Duration = std::time::Duration::from_secs(10);
        if self.injection_asked.is_some_and(|at| at.elapsed() < AGAIN) || target.is_rolling {
            return Ok(());
        }
        self.injection_asked = Some(Instant::now());
        if target.template.is_none() {
            let text = "has no pod template at spec.template: nothing to put the sidecar into";
            let finding = Finding::new(Reason::NoTemplate, target.to_string(), text);
            self.tell(target, &[finding]);
            return Ok(());
        }
        self.annotate(target, (annotations::SCALE, json!("true")))
            .await?;
        self.ctx.event(
            target.reference(),
            true,
            "NotInjected",
            "The template has no queue-proxy: the webhook was not reached; asked again".to_owned(),
        );
        Ok(())
    }

    pub(super) async fn annotate(
        &self,
        target: &Target,
        (key, value): (&str, Value),
    ) -> Result<(), WriteError> {
        let api = self.target_api(target);
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        self.call(
            Purpose::Annotate,
            api.patch(&target.name, &PatchParams::default(), &Patch::Merge(&patch)),
        )
        .await
        .map(drop)
    }
}

/// Whether a count that was decided on where an object had `decided`, which was to be `from`, is another one
/// by what is `seen` now. Where the object did not have it, the cache was late; where it is not seen at all,
/// the API server says so.
fn is_overtaken((decided, from): (u32, u32), seen: Option<u32>) -> bool {
    decided == from && seen.is_some_and(|seen| seen != from)
}

/// Whether a change of the count that was decided on an older object holds of the newest one, too,
/// where that has the same count. A wake does, and any growth: nobody is let down by it. Before pods go
/// everything is looked at again: a `min-scale` or a rollout may have been written meanwhile.
fn holds_of_newest((from, to): (u32, u32)) -> bool {
    to > from
}

fn replicas_of(scale: &Scale) -> u32 {
    let replicas = scale
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(0);
    u32::try_from(replicas).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_growth_is_written_over_an_object_that_nobody_has_looked_at() {
        let rows = [
            ((0, 1), true),
            ((1, 3), true),
            ((3, 1), false),
            ((1, 0), false),
        ];
        for (change, expected) in rows {
            assert_eq!(holds_of_newest(change), expected, "{change:?}");
        }
    }

    #[test]
    fn a_wake_that_another_replica_is_seen_to_have_written_is_not_written_again() {
        // What the object had, what was decided on, and what is seen now.
        let rows = [
            ((0, 0), Some(1), true),
            ((0, 0), Some(0), false),
            // It was put to sleep, which the cache does not show yet.
            ((1, 0), Some(1), false),
            ((0, 0), None, false),
        ];
        for (decided, seen, expected) in rows {
            assert_eq!(
                is_overtaken(decided, seen),
                expected,
                "{decided:?} {seen:?}"
            );
        }
    }
}
