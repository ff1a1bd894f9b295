//! What Istio is told: of activators, and what callers are to do.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::DynamicObject,
};
use lull_contract::{
    names::{connect_rule, label_value},
    scaled_workload::ScaledWorkload,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    TICK, Task,
    act::{apply, apply_to},
    standby,
};
use crate::{
    context::{PROXIES_RETURN, WriteError},
    mesh::{self, DestinationRule, PodIdentity, Signs, WorkloadEntry},
    objects::Audience,
    plan::{Family, Plan, PlannedService},
    pod::Pod,
    purpose::Purpose,
};

/// Before what callers can do without for now is written anew where that has failed: Istio's admission may be away, or
/// keep every try waiting.
pub(super) const RULES_AGAIN: Duration = Duration::from_secs(30);

/// What is known of the workload's DestinationRules.
#[derive(Debug, Default)]
pub(super) struct RulesKept {
    /// Their version, and the plan, with which they were as they should be, and whether activators had
    /// stood by then ([`Task::stood_by_lately`]).
    right: Option<(u64, Arc<Plan>, bool)>,
    /// When it failed last to make them so.
    failed: Option<Instant>,
}

// === impl RulesKept ===

impl RulesKept {
    /// Whether they are to be looked at in this version, with this plan and where activators have
    /// `stood_by` or not.
    fn is_due(&self, version: u64, plan: &Arc<Plan>, stood_by: bool) -> bool {
        let right = self.right.as_ref();
        let is_right = right.is_some_and(|(of, by, stood)| {
            (*of, *stood) == (version, stood_by) && Arc::ptr_eq(by, plan)
        });
        let rests = self.failed.is_some_and(|at| at.elapsed() < RULES_AGAIN);
        !is_right && !rests
    }
}

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
                let object = (name.as_str(), &wanted, apply_to(known.is_some()));
                self.write_of_istio(&api, object, Purpose::WriteEntry)
                    .await?;
            }
            kept.push(name);
        }
        self.remove_entries_but(&kept).await
    }

    /// Fails where istiod is away, which has to tell callers of the activators before pods go, and where
    /// it takes long to answer.
    ///
    /// Its admission judges each write of an entry, a dry run as well: who answered when an entry was
    /// written, and answers now, a propagation delay later, has passed it on, unless it was away shortly before:
    /// proxies take a while to come back to it.
    pub(super) async fn istiod_hears(
        &self,
        workload: &ScaledWorkload,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        let Some(identity) = self.in_mesh(services) else {
            return Ok(());
        };
        let activators = self.usable_activators(workload);
        let mut entries = activators
            .iter()
            .filter_map(|activator| mesh::entry(workload, &identity, activator));
        let Some(entry) = entries.next() else {
            return Ok(());
        };
        let name = entry["metadata"]["name"].as_str().unwrap_or_default();
        let what = Purpose::AskIstio;
        let (api, asked): (Api<WorkloadEntry>, _) = (self.api(), Instant::now());
        self.write_of_istio(&api, (name, &entry, apply().dry_run()), what)
            .await?;
        if asked.elapsed() >= TICK {
            // What was seen of the workload is old by now: it is looked at anew.
            return Err(WriteError::Moved { what });
        }
        match self.istiod_unheard() {
            Some(ago) => Err(WriteError::Unheard { what, ago }),
            None => Ok(()),
        }
    }

    /// How long ago istiod was away, where proxies may not have come back to it yet: by its own answers, and by
    /// its Deployment, since nobody may have asked it anything meanwhile.
    pub(super) fn istiod_unheard(&self) -> Option<Duration> {
        let by_answers = self.ctx.istiod_missed(&self.key.namespace);
        let by_deployment = self.ctx.stores.rules.istiod_back_for(Timestamp::now());
        let last = by_answers.into_iter().chain(by_deployment).min();
        last.filter(|ago| *ago < PROXIES_RETURN)
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

    /// Makes the workload's DestinationRules those of `plan`, once it is enrolled and where something of
    /// it has changed. A failure is told, and nothing else waits for it.
    pub(super) async fn keep_rules(&mut self, workload: &ScaledWorkload, plan: &Arc<Plan>) {
        // Before any of them is read: what changes meanwhile is looked at next time.
        let rules = &self.ctx.stores.rules;
        let version = rules.version_of_ours(&self.key.namespace);
        let stood_by = self.stood_by_lately();
        if !self.is_enrolled() || !self.rules.is_due(version, plan, stood_by) {
            return;
        }
        match self.write_rules(workload, plan, stood_by).await {
            Ok(()) => self.rules.right = Some((version, Arc::clone(plan), stood_by)),
            Err(error) => {
                self.tell_failed(&error, 0);
                // What was decided on an old view is looked at again with the new one.
                self.rules.failed = (!error.is_conflict()).then(Instant::now);
            }
        }
    }

    /// Makes the workload's DestinationRules those of `plan`, by Service, and no others.
    ///
    /// They are there as long as the workload is Lull's, awake or asleep: so a sleep and a wake stay a
    /// change of endpoints alone. When it leaves they go with the ScaledWorkload.
    async fn write_rules(
        &self,
        workload: &ScaledWorkload,
        plan: &Plan,
        stood_by: bool,
    ) -> Result<(), WriteError> {
        let label = label_value(&self.key.name);
        let rules = &self.ctx.stores.rules;
        let stays = |rule: &DestinationRule| standby::stays(rule, plan, stood_by);
        for (service, policy) in &plan.rules {
            let name = connect_rule(service);
            let there = rules.destination_rule(&self.key.namespace, &name);
            let is_right = there.as_ref().is_some_and(|rule| {
                // One of that name that is not ours is left alone.
                !rule.is_for_workload(&label) || rule.says(service, policy) || stays(rule)
            });
            if !is_right {
                let wanted = mesh::callers_rule(workload, service, policy);
                let object = (name.as_str(), &wanted, apply_to(there.is_some()));
                self.write_of_istio(&self.rules_api(), object, Purpose::WriteRule)
                    .await?;
            }
        }
        for rule in rules.ours(&self.key.namespace, &label) {
            let is_kept = |service: &String| connect_rule(service) == rule.name;
            if !plan.rules.keys().any(is_kept) && !stays(&rule) {
                self.remove_rule(&rule).await?;
            }
        }
        Ok(())
    }

    /// Deletes the DestinationRules of ours by which pods come first, once no activator is an endpoint: pods
    /// are about to come that have no label to come first by, and would get no calls beside one that has.
    pub(super) async fn remove_order(&self) -> Result<(), WriteError> {
        let label = label_value(&self.key.name);
        let mut ours = self.ctx.stores.rules.ours(&self.key.namespace, &label);
        ours.retain(|rule| rule.pods_first.is_some());
        for rule in ours {
            self.remove_rule(&rule).await?;
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
        let object = (rule.name.as_str(), params);
        self.remove_from(&self.rules_api(), object, Purpose::DeleteRule)
            .await
    }

    /// Applies an object of a kind of Istio's. Without that kind the mesh was taken off the cluster, and
    /// nobody is left to be told.
    async fn write_of_istio<K>(
        &self,
        api: &Api<K>,
        (name, wanted, params): (&str, &Value, PatchParams),
        what: Purpose,
    ) -> Result<(), WriteError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let patch = Patch::Apply(wanted);
        match self.call(what, api.patch(name, &params, &patch)).await {
            Err(error) if error.is_not_found() => {
                tracing::debug!(workload = %self.key, %error, "{what}: Istio has no such kind here");
                Ok(())
            }
            Err(error) if error.is_unanswered() => {
                self.ctx.miss_istiod(&self.key.namespace, &error);
                Err(error)
            }
            written => written.map(drop),
        }
    }

    fn rules_api(&self) -> Api<DynamicObject> {
        let (client, namespace) = (self.ctx.client.clone(), &self.key.namespace);
        Api::namespaced_with(client, namespace, &DestinationRule::resource())
    }

    pub(super) fn entries(&self) -> Vec<Arc<WorkloadEntry>> {
        let label = label_value(&self.key.name);
        self.ctx.stores.entries.of(&self.key.namespace, &label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_looked_at_where_something_has_changed_and_a_while_after_a_failure() {
        let (plan, same) = (Arc::new(Plan::default()), Arc::new(Plan::default()));
        let mut rules = RulesKept::default();
        assert!(rules.is_due(1, &plan, false), "nobody has looked yet");
        rules.right = Some((1, Arc::clone(&plan), false));
        assert!(!rules.is_due(1, &plan, false));
        assert!(rules.is_due(2, &plan, false), "one of them has changed");
        assert!(rules.is_due(1, &same, false), "it was planned anew");
        assert!(rules.is_due(1, &plan, true), "activators stand by");
        rules.failed = Some(Instant::now());
        assert!(!rules.is_due(2, &plan, false), "it has just failed");
        rules.failed = Instant::now().checked_sub(RULES_AGAIN);
        assert!(rules.is_due(2, &plan, false));
    }
}
