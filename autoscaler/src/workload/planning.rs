//! What would be done for a workload and what stands in its way: gathered, worked out, told.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::ObjectReference;
use lull_contract::{
    names::private_service,
    scaled_workload::{ScaledWorkload, State},
};

use super::{OBSTACLE_PATIENCE, Task};
use crate::{
    context::WriteError,
    mesh::Around,
    plan::{
        self, Asks, Components, Finding, Mesh, Other, Plan, PlannedService, Reason, Situation,
        Template,
    },
    stores::Hpa,
    target::Target,
};

// === impl Task ===

impl Task {
    /// What enrolment would do, and everything that stands in the way.
    pub(super) fn plan(&self, target: &Target, workload: &ScaledWorkload) -> Plan {
        let (stores, namespace) = (&self.ctx.stores, &self.key.namespace);
        let targets = stores.targets.in_namespace(namespace);
        let others: Vec<Other<'_>> = targets
            .iter()
            .filter(|other| other.uid != target.uid)
            .filter_map(|other| {
                let template = other.template.as_ref()?;
                Some(Other {
                    kind: &other.resource.kind,
                    name: &other.name,
                    labels: &template.plan.labels,
                })
            })
            .collect();
        let group = Hpa::target_of(&target.resource.kind, &target.name);
        let hpas = stores.hpas.in_group(namespace, &group);
        let scalers: Vec<String> = hpas.iter().map(|hpa| hpa.name.clone()).collect();
        let without = Template::default();
        let rules = stores.rules.around(namespace);
        plan::plan(&Situation {
            workload: &target.to_string(),
            template: target.template.as_ref().map_or(&without, |t| &t.plan),
            asks: Asks::of(&target.annotations, &workload.spec.settings),
            is_enrolled: self.is_enrolled(),
            services: &stores.services.in_namespace(namespace),
            others: &others,
            scalers: &scalers,
            policies: &stores.policies.in_namespace(namespace),
            budgets: &stores.budgets.in_namespace(namespace),
            mesh: self.mesh_around(target, &rules),
            lull: &self.lull(),
        })
    }

    /// What a plan knows of the mesh; `None` where there is none.
    fn mesh_around<'a>(&'a self, target: &'a Target, rules: &'a Around) -> Option<Mesh<'a>> {
        let template = target.template.as_ref()?;
        let stores = &self.ctx.stores;
        if !stores.entries.is_known() {
            return None;
        }
        let services = stores.services.in_namespace(&self.key.namespace);
        let names = services
            .iter()
            .filter(|service| plan::selects(service, &template.plan.labels))
            .filter_map(|service| service.metadata.name.as_deref());
        Some(Mesh {
            is_member: self.is_meshed(&template.identity, names),
            namespace: &self.key.namespace,
            account: &template.identity.service_account,
            rules,
        })
    }

    /// Where Lull's own pods are now, and with which labels.
    fn lull(&self) -> Components {
        let (stores, configured) = (&self.ctx.stores, &self.ctx.lull);
        let namespace = stores.own_namespace.get("", &configured.namespace);
        let labels = namespace.as_ref().and_then(|n| n.metadata.labels.as_ref());
        let (activators, autoscalers) = (stores.activators.all(), stores.autoscalers.all());
        configured.as_seen(labels, &activators, &autoscalers)
    }

    /// Whether the Services have been switched.
    pub(super) fn is_enrolled(&self) -> bool {
        !matches!(self.state, None | Some(State::Enrolling | State::Planned))
    }

    /// The Services to look after: none is touched while something stands in the way, but one that
    /// has been switched is not let down.
    pub(super) fn services_of<'a>(&self, plan: &'a Plan) -> &'a [PlannedService] {
        if plan.is_refused() && !self.is_enrolled() {
            &[]
        } else {
            &plan.services
        }
    }

    /// A dry run: shows the plan in the status, tells what was found, and does nothing else.
    pub(super) async fn show_plan(
        &mut self,
        target: &Target,
        workload: Option<Arc<ScaledWorkload>>,
    ) -> Result<(), WriteError> {
        let Some(workload) = self.ensure_workload(target, workload, true).await? else {
            return Ok(());
        };
        if self.state != Some(State::Planned) {
            self.enter(State::Planned);
            self.series.hide();
        }
        let plan = self.plan(target, &workload);
        self.tell_in_time(target, &plan);
        let steps = plan.steps(&private_service(&self.key.name));
        self.write_plan(&workload, &plan, &steps).await
    }

    /// Tells what was found, once it has had time to go away by itself: a Service may be applied a
    /// moment after its workload.
    pub(super) fn tell_in_time(&mut self, target: &Target, plan: &Plan) {
        if self.state_since.elapsed() > OBSTACLE_PATIENCE {
            self.tell(target, &plan.findings);
        }
        let is_so = |told: &Finding| {
            // No plan tells of annotations.
            told.reason == Reason::BadAnnotation || plan.findings.contains(told)
        };
        self.told.retain(is_so);
    }

    /// An Event for each finding that none has been written for.
    pub(super) fn tell(&mut self, target: &Target, findings: &[Finding]) {
        let new = findings
            .iter()
            .filter(|finding| !self.told.contains(finding));
        let new: Vec<Finding> = new.cloned().collect();
        for (reason, Told { object, text }) in by_reason_and_object(new.iter()) {
            let other = reference(target, &object);
            tracing::warn!(workload = %self.key, %reason, text, "in the way, or worth knowing");
            let objects = (target.reference(), other);
            self.ctx.event_about(objects, true, &reason, text);
        }
        self.told.extend(new);
    }
}

/// Findings of one reason about one object, which one Event tells.
struct Told {
    object: String,
    text: String,
}

/// One Event tells all that is found of one reason about one object.
fn by_reason_and_object<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<(String, Told)> {
    let mut all: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for finding in findings {
        let key = (finding.reason.to_string(), finding.object.clone());
        all.entry(key).or_default().push(finding.to_string());
    }
    all.into_iter()
        .map(|((reason, object), texts)| {
            let text = texts.join("; ");
            (reason, Told { object, text })
        })
        .collect()
}

/// The object of a finding, where it is another one than the workload.
fn reference(target: &Target, object: &str) -> Option<ObjectReference> {
    let (kind, name) = object.split_once(' ')?;
    if kind == target.resource.kind && name == target.name {
        return None;
    }
    let own = target.namespace.as_str();
    let (namespace, name) = name.split_once('/').unwrap_or((own, name));
    Some(ObjectReference {
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectReference::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::target::tests::{resource, target};

    #[test]
    fn an_event_names_the_object_in_the_way_where_it_is_not_the_workload() {
        let object = json!({ "metadata": { "name": "shop", "namespace": "ns" } });
        let target = target(&resource("apps", "Deployment"), &object);
        let service = reference(&target, "Service shop").expect("another object");
        assert_eq!(service.kind.as_deref(), Some("Service"));
        assert_eq!(service.namespace.as_deref(), Some("ns"));
        assert_eq!(reference(&target, "Deployment shop"), None);
        let route = reference(&target, "VirtualService edge/shop").expect("another object");
        let (name, namespace) = (route.name.as_deref(), route.namespace.as_deref());
        assert_eq!((name, namespace), (Some("shop"), Some("edge")));
    }

    #[test]
    fn two_ports_of_a_service_are_one_event() {
        let finding = |message: &str| Finding::new(Reason::UndeclaredPort, "Service shop", message);
        let findings = [finding("targets 1"), finding("targets 2")];
        let told = by_reason_and_object(findings.iter());
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, "UndeclaredPort");
        assert_eq!(
            told[0].1.text,
            "Service shop targets 1; Service shop targets 2"
        );
    }
}
