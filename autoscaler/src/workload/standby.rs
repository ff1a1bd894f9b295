//! Activators that stand by: they stay among Istio's endpoints while the workload is awake, behind its pods.
//!
//! DestinationRules tell callers to call pods first ([`super::mesh`]). On the way in a rule is there for a
//! propagation delay before the first entry is; on the way out it stays for one after the last.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lull_contract::{
    names::{connect_rule, label_value},
    scaled_workload::{ScaledWorkload, State},
};

use super::{Task, look::lasts, mesh::RULES_AGAIN};
use crate::{
    mesh::DestinationRule,
    plan::{Plan, PlannedService},
    pod::Pod,
};

/// What is known of a workload's activators that stand by.
#[derive(Debug, Default)]
pub(super) struct StandingBy {
    /// Since when callers have been told to call pods first.
    told_since: Option<Instant>,
    /// Since when Istio has had no activator among the endpoints.
    entryless_since: Option<Instant>,
    /// When it failed last to write entries beside pods.
    failed: Option<Instant>,
}

/// Whether a rule of Lull's that is not wanted any more stays for now: activators have `stood_by` lately,
/// behind the pods of a Service that is there.
pub(super) fn stays(rule: &DestinationRule, plan: &Plan, stood_by: bool) -> bool {
    let is_its = |service: &PlannedService| connect_rule(&service.name) == rule.name;
    // Where a rule of the user's own says the same, it takes over at once.
    stood_by && !plan.stands_by && rule.pods_first.is_some() && plan.services.iter().any(is_its)
}

// === impl Task ===

impl Task {
    /// How long callers of all Services of `plan` have been told to call pods first, where that is wanted,
    /// as far as it is known. Lull's own rules are seen by now; the user's are in the plan.
    pub(super) fn pods_first(
        &mut self,
        workload: &ScaledWorkload,
        plan: &Plan,
    ) -> Option<Duration> {
        // Activators at a port that is another one's, too, have to leave for good.
        let is_told =
            plan.stands_by && !self.has_shared_port(workload) && self.are_rules_there(plan);
        let since = lasts(&mut self.standing_by.told_since, is_told);
        is_told.then_some(since)
    }

    /// Whether every rule of Lull's that `plan` wants has callers call pods first.
    fn are_rules_there(&self, plan: &Plan) -> bool {
        let (rules, label) = (&self.ctx.stores.rules, label_value(&self.key.name));
        plan.rules.iter().all(|(service, policy)| {
            let rule = rules.destination_rule(&self.key.namespace, &connect_rule(service));
            rule.is_some_and(|rule| {
                let is_ours = rule.is_for_workload(&label) && rule.is_about(service);
                is_ours && rule.pods_first == policy.pods_first
            })
        })
    }

    /// Makes Istio's endpoints, beside pods, those of the activators that there are. A failure is told, and
    /// nothing else waits for this: Istio's own admission may be away.
    pub(super) async fn stand_by(
        &mut self,
        workload: &ScaledWorkload,
        services: &[PlannedService],
    ) {
        let failed = self.standing_by.failed;
        let rests = failed.is_some_and(|at| at.elapsed() < RULES_AGAIN);
        let Some(identity) = self.in_mesh(services).filter(|_| !rests) else {
            return;
        };
        let usable = self.usable_activators(workload);
        let activators: Vec<&Pod> = usable.iter().map(Arc::as_ref).collect();
        // Boxed: a step, which awaits it, would have room for it.
        let write = Box::pin(self.write_entries(workload, &identity, &activators));
        let written = write.await;
        self.standing_by.failed = written.err().and_then(|error| {
            self.tell_failed(&error, 0);
            // What was decided on an old view is looked at again with the new one.
            (!error.is_conflict()).then(Instant::now)
        });
    }

    /// Whether activators stand beside pods in Istio's endpoints, or did until a moment ago: callers may
    /// know of them still. As long as that is so in these states, they are on their way out or wanted.
    pub(super) fn stood_by_lately(&mut self) -> bool {
        let is_without = self.entries().is_empty();
        let without = lasts(&mut self.standing_by.entryless_since, is_without);
        let is_beside_pods = matches!(self.state, Some(State::Awake | State::Settling));
        is_beside_pods && without < self.ctx.delays.propagation
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::mesh::{CallerPolicy, object};

    fn rule(name: &str, policy: &CallerPolicy) -> DestinationRule {
        let metadata = json!({ "name": name, "namespace": "ns" });
        let spec = json!({ "host": "shop", "trafficPolicy": policy.traffic_policy() });
        DestinationRule::from_object(&object(&json!({ "metadata": metadata, "spec": spec })))
    }

    fn plan(stands_by: bool, services: &[&str]) -> Plan {
        let service = |name: &&str| PlannedService {
            name: (*name).to_owned(),
            families: Vec::new(),
            ports: Vec::new(),
        };
        Plan {
            services: services.iter().map(service).collect(),
            rules: BTreeMap::new(),
            stands_by,
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_rule_that_is_not_wanted_stays_until_callers_know_of_no_activator_behind_pods() {
        let first = CallerPolicy {
            pods_first: Some("shop".to_owned()),
            ..CallerPolicy::default()
        };
        let timeout = CallerPolicy {
            connect_timeout: Some(Duration::from_secs(20)),
            ..CallerPolicy::default()
        };
        let unwanted = plan(false, &["shop"]);
        let ours = rule("shop-lull", &first);
        assert!(stays(&ours, &unwanted, true));
        for (what, plan, stood_by) in [
            ("they are gone for long enough", unwanted.clone(), false),
            ("another rule says it", plan(true, &["shop"]), true),
            ("its Service is gone", plan(false, &["web"]), true),
        ] {
            assert!(!stays(&ours, &plan, stood_by), "{what}");
        }
        assert!(!stays(&rule("shop-lull", &timeout), &unwanted, true));
    }
}
