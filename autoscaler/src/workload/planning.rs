//! What would be done for a workload and what stands in its way: gathered, worked out, told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use lull_contract::{
    annotations,
    names::{WORKLOAD_LABEL, label_value, private_service},
    scaled_workload::{ScaledWorkload, State, WorkloadPort},
};

use super::{OBSTACLE_PATIENCE, Task};
use crate::{
    context::WriteError,
    objects,
    plan::{
        self, Asks, Components, Family, Finding, Mesh, Other, Plan, PlannedService, Reason,
        Situation, Template,
    },
    pod::Pod,
    stores::{self, Hpa},
    target::Target,
};

/// What a workload's plan is made from, as far as it ever changes: as long as it is the same, so is the
/// plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    /// Of the objects around it ([`Stores::plan_version`](crate::stores::Stores::plan_version)).
    version: u64,
    asks: Asks,
    is_enrolled: bool,
    /// Where activators listen for it.
    activator_ports: Vec<WorkloadPort>,
    /// Objects of others that have the names of Lull's own ([`Situation::taken`]).
    taken: Vec<String>,
    /// Once it is enrolled, the Services that select its pods and carry no note of Lull's: one that
    /// Lull has switched is not let down.
    unnoted: Vec<String>,
    /// Which other workload has a private Service of the name of its own, by label value.
    private_of: Option<String>,
    /// Whether its pods have Istio's container, or will have it; `None` where there is no mesh.
    is_meshed: Option<bool>,
    /// What its pods listen on at loopback alone.
    loopback_only: Vec<u16>,
    /// How long it took to wake lately ([`plan::longest_wake`]).
    longest_wake: Option<Duration>,
    /// Whether no activator at all has been ready for a while.
    no_activator: bool,
    /// Families in which its pods are reached and no activator is ([`unheld`]).
    unheld: Vec<Family>,
}

/// What is with a workload while there is no activator at all. By it the next process knows that the
/// last one was certain.
pub(super) const KEPT_AWAKE: &str = "is kept awake: no activator has been ready for a while, and \
                                     without one nobody would reach it asleep; see to the pods of \
                                     Lull's activators";

/// What is to be known while there is no activator at all.
fn no_activator(target: &Target) -> Finding {
    Finding::new(Reason::NoActivator, target.to_string(), KEPT_AWAKE)
}

/// Families in which one of `pods` is reached and no activator is. None where no activator is ready: that is
/// told by itself.
fn unheld(pods: &[Arc<Pod>], activators: &[Arc<Pod>]) -> Vec<Family> {
    let reached = |pods: &[Arc<Pod>]| -> Vec<Family> {
        let ready = || pods.iter().filter(|pod| pod.is_ready);
        let is_reached = |family: &Family| ready().any(|pod| pod.address(*family).is_some());
        Family::ALL.into_iter().filter(is_reached).collect()
    };
    let held = reached(activators);
    let mut unheld = reached(pods);
    unheld.retain(|family| !held.is_empty() && !held.contains(family));
    unheld
}

/// What is to be known of those `services` that have one of the `unheld` families.
fn not_held(services: &[PlannedService], unheld: &[Family]) -> Vec<Finding> {
    let of_service = |service: &PlannedService| {
        let family = unheld
            .iter()
            .find(|family| service.families.contains(family))?;
        let name = family.name();
        let message = format!(
            "is called over {name}, of which no activator has an address: while the workload sleeps, \
             those callers would be refused; let Lull's activators start anew where pods get an {name} \
             address, or take {name} out of ipFamilies"
        );
        let object = format!("Service {}", service.name);
        Some(Finding::new(Reason::FamilyNotHeld, object, message))
    };
    services.iter().filter_map(of_service).collect()
}

// === impl Task ===

impl Task {
    /// Takes note of the version of the objects around the workload: before any of them is read, so
    /// that what changes meanwhile is looked at next time.
    pub(super) fn note_objects(&mut self) {
        let (stores, own) = (&self.ctx.stores, &self.ctx.lull.namespace);
        self.objects = stores.plan_version(&self.key.namespace, own);
    }

    /// What enrolment would do, and everything that stands in the way; worked out where something of
    /// it has changed.
    pub(super) fn plan(&mut self, target: &Target, workload: &ScaledWorkload) -> Arc<Plan> {
        let loopback_only = self.mailbox.demand.lock().loopback_only();
        let inputs = Inputs {
            version: self.objects,
            asks: self.asks(target, workload),
            is_enrolled: self.is_enrolled(),
            activator_ports: workload.spec.ports.clone(),
            taken: self.taken(target),
            unnoted: self.unnoted(target),
            private_of: self.others_private(),
            is_meshed: self.is_meshed_now(target),
            loopback_only,
            longest_wake: plan::longest_wake(self.mailbox.journal.lock().wakes()),
            no_activator: self.ctx.no_activator(),
            unheld: unheld(&self.pods(), &self.ctx.stores.activators.all()),
        };
        let mut planned = std::mem::take(&mut self.planned);
        let plan = planned.get(inputs, |inputs| self.work_out(target, inputs));
        self.planned = planned;
        plan
    }

    /// What its annotations and the defaults ask for. What a sidecar that is there asks for stands in
    /// the template.
    fn asks(&self, target: &Target, workload: &ScaledWorkload) -> Asks {
        let defaults = (!target.is_injected()).then(|| {
            let settings = self.ctx.settings.borrow();
            Arc::clone(&settings.defaults)
        });
        let sidecar = defaults.map(|defaults| {
            let wanted = annotations::parse_with(&target.annotations, &defaults);
            wanted.unwrap_or_else(|_| defaults.effective()).sidecar
        });
        let settings = &workload.spec.settings;
        Asks::of(&target.annotations, settings, sidecar.as_ref())
    }

    fn work_out(&self, target: &Target, inputs: &Inputs) -> Plan {
        let mut plan = self.plan_of(target, inputs);
        let not_held = not_held(&plan.services, &inputs.unheld);
        plan.findings.extend(not_held);
        if inputs.is_enrolled && inputs.no_activator {
            plan.findings.push(no_activator(target));
        }
        let names = plan.services.iter().map(|service| service.name.clone());
        self.mailbox.look_at(names.collect());
        plan
    }

    fn plan_of(&self, target: &Target, inputs: &Inputs) -> Plan {
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
        let template = target.template.as_ref();
        let rules = stores.rules.around(namespace);
        let ranges = stores.ranges.in_namespace(namespace);
        plan::plan(&Situation {
            workload: &target.to_string(),
            id: &self.key.name,
            template: template.map_or(&without, |t| &t.plan),
            activator_ports: &inputs.activator_ports,
            asks: inputs.asks,
            is_enrolled: inputs.is_enrolled,
            services: &stores.services.in_namespace(namespace),
            taken: &inputs.taken,
            others: &others,
            scalers: &scalers,
            policies: &stores.policies.in_namespace(namespace),
            budgets: &stores.budgets.in_namespace(namespace),
            quotas: &stores.quotas.in_namespace(namespace),
            ranges: ranges.as_deref(),
            loopback_only: &inputs.loopback_only,
            longest_wake: inputs.longest_wake,
            mesh: template
                .zip(inputs.is_meshed)
                .map(|(template, is_member)| Mesh {
                    is_member,
                    namespace,
                    account: &template.identity.service_account,
                    rules: &rules,
                }),
            lull: &self.lull(),
        })
    }

    /// Whether the workload's pods have Istio's container, or will have it; `None` where there is no
    /// mesh.
    fn is_meshed_now(&mut self, target: &Target) -> Option<bool> {
        let template = target.template.as_ref()?;
        if !self.ctx.stores.entries.is_known() {
            return None;
        }
        let names = self.selecting(&template.plan);
        let names = names.iter().map(String::as_str);
        Some(self.is_meshed(&template.identity, names))
    }

    /// Kind and name of objects that are not Lull's and have the names of those that Lull would write for
    /// the Services that select the pods.
    fn taken(&mut self, target: &Target) -> Vec<String> {
        let Some(template) = &target.template else {
            return Vec::new();
        };
        let names = self.selecting(&template.plan);
        let (stores, namespace) = (&self.ctx.stores, &self.key.namespace);
        plan::taken(
            &names,
            |slice| {
                let slice = stores.slices.get(namespace, slice);
                slice.is_some_and(|slice| !objects::is_lulls(&slice))
            },
            |rule| {
                let rule = stores.rules.destination_rule(namespace, rule);
                rule.is_some_and(|rule| rule.ours.is_none())
            },
        )
    }

    /// Once it is enrolled, names of the Services that select the pods and carry no note of Lull's.
    /// Notes are in no version ([`plan::is_planned_alike`]).
    fn unnoted(&mut self, target: &Target) -> Vec<String> {
        let template = target.template.as_ref();
        let Some(template) = template.filter(|_| self.is_enrolled()) else {
            return Vec::new();
        };
        let names = self.selecting(&template.plan);
        let is_noted = |name: &str| {
            let service = self.service(name);
            service.is_some_and(|service| plan::is_noted(&service))
        };
        let unnoted = names.iter().filter(|name| !is_noted(name));
        unnoted.cloned().collect()
    }

    /// The other workload whose private Service has the name of this one's, by label value. Services that
    /// Lull has made are in no version.
    fn others_private(&self) -> Option<String> {
        let service = self.service(&private_service(&self.key.name))?;
        let of = stores::label(&*service, WORKLOAD_LABEL)?;
        (of != label_value(&self.key.name)).then(|| of.to_owned())
    }

    /// Names of the Services that select pods of `template`.
    fn selecting(&mut self, template: &Template) -> Arc<Vec<String>> {
        let (stores, namespace) = (&self.ctx.stores, &self.key.namespace);
        self.selecting.get(self.objects, |_| {
            plan::selecting(&stores.services.in_namespace(namespace), template)
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
    use lull_contract::{AppProtocol, Class, Quantity};
    use lull_injection::resources::Resources;
    use serde_json::json;

    use super::*;
    use crate::{
        memo::Memo,
        target::tests::{resource, target},
    };

    #[test]
    fn another_input_of_any_kind_leads_to_a_new_plan() {
        let first = Inputs {
            version: 1,
            asks: Asks {
                class: Class::Kpa,
                min_scale: 0,
                fewest: 1,
                timeout: None,
                connection_hold: Duration::from_secs(25),
                connect_timeout: None,
                standby: false,
                accepts_activator_source: false,
                names_ports: false,
                sidecar: Resources::default(),
            },
            is_enrolled: false,
            activator_ports: Vec::new(),
            taken: Vec::new(),
            unnoted: Vec::new(),
            private_of: None,
            is_meshed: None,
            loopback_only: Vec::new(),
            longest_wake: None,
            no_activator: false,
            unheld: Vec::new(),
        };
        let changes: [fn(&mut Inputs); 22] = [
            |inputs| inputs.version = 2,
            |inputs| inputs.asks.class = Class::Hpa,
            |inputs| inputs.asks.min_scale = 1,
            |inputs| inputs.asks.fewest = 2,
            |inputs| inputs.asks.timeout = Some(Duration::from_secs(1)),
            |inputs| inputs.asks.connection_hold = Duration::from_secs(1),
            |inputs| inputs.asks.connect_timeout = Some(Duration::from_secs(20)),
            |inputs| inputs.asks.standby = true,
            |inputs| inputs.asks.accepts_activator_source = true,
            |inputs| inputs.asks.names_ports = true,
            |inputs| inputs.asks.sidecar.limits.cpu = Quantity::read("1"),
            |inputs| inputs.is_enrolled = true,
            |inputs| {
                inputs.activator_ports.push(WorkloadPort {
                    app_port: 8080,
                    protocol: AppProtocol::Http,
                    activator_port: 10_000,
                });
            },
            |inputs| inputs.taken.push("EndpointSlice shop-lull".to_owned()),
            |inputs| inputs.unnoted.push("shop".to_owned()),
            |inputs| inputs.private_of = Some("other".to_owned()),
            |inputs| inputs.is_meshed = Some(false),
            |inputs| inputs.is_meshed = Some(true),
            |inputs| inputs.loopback_only.push(8080),
            |inputs| inputs.longest_wake = Some(Duration::from_secs(10)),
            |inputs| inputs.no_activator = true,
            |inputs| inputs.unheld.push(Family::Ipv6),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut memo = Memo::default();
            let plan = memo.get(first.clone(), |_| Plan::default());
            let same = memo.get(first.clone(), |_| Plan::default());
            assert!(Arc::ptr_eq(&plan, &same));
            let mut inputs = first.clone();
            change(&mut inputs);
            let other = memo.get(inputs, |_| Plan::default());
            assert!(!Arc::ptr_eq(&plan, &other), "change {number}");
        }
    }

    fn pod(addresses: &[&str], is_ready: bool) -> Arc<Pod> {
        let ips: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let ready = json!({ "type": "Ready", "status": if is_ready { "True" } else { "False" } });
        let status = json!({ "podIP": addresses[0], "podIPs": ips, "conditions": [ready] });
        let pod = json!({ "metadata": { "name": "p" }, "status": status });
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        Arc::new(pod.into())
    }

    #[test]
    fn a_family_of_the_pods_that_no_activator_has_is_not_held() {
        let (one, two) = (&["10.0.0.1"][..], &["10.0.0.2", "fd00::2"][..]);
        // The pods and the activators, each with whether it is ready, and what is not held.
        let rows = [
            (vec![(two, true)], vec![(one, true)], vec![Family::Ipv6]),
            (vec![(two, true)], vec![(one, true), (two, true)], vec![]),
            (
                vec![(two, true)],
                vec![(one, true), (two, false)],
                vec![Family::Ipv6],
            ),
            (vec![(two, false)], vec![(one, true)], vec![]),
            (vec![(one, true)], vec![(one, true)], vec![]),
            (vec![(two, true)], vec![(one, false)], vec![]),
            (vec![], vec![(one, true)], vec![]),
        ];
        let made = |pods: &[(&[&str], bool)]| -> Vec<Arc<Pod>> {
            pods.iter().map(|(ips, ready)| pod(ips, *ready)).collect()
        };
        for (pods, activators, expected) in rows {
            let found = unheld(&made(&pods), &made(&activators));
            assert_eq!(found, expected, "{pods:?} {activators:?}");
        }
    }

    #[test]
    fn services_of_a_family_that_is_not_held_are_named() {
        let service = |name: &str, families: &[Family]| PlannedService {
            name: name.to_owned(),
            families: families.to_vec(),
            ports: Vec::new(),
        };
        let services = [
            service("both", &Family::ALL),
            service("one", &[Family::Ipv4]),
        ];
        let found = not_held(&services, &[Family::Ipv6]);
        let [found] = &found[..] else {
            panic!("{found:?}");
        };
        assert!(
            found.is_refusal() && found.object == "Service both",
            "{found:?}"
        );
        assert!(found.message.contains("IPv6"), "{found:?}");
        assert!(not_held(&services, &[]).is_empty());
    }

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
