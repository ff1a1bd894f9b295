//! What enrolment would do with a workload, and what stands in the way: objects in, a [`Plan`] out.
//! Pure; nothing is touched before it has been worked out.
//!
//! ```text
//! asks.rs       the workload's annotations         components.rs Lull's own pods
//! template.rs   the workload's own spec            services.rs   Services, port by port
//! policies.rs   NetworkPolicies                    budgets.rs    PodDisruptionBudgets
//! room.rs       ResourceQuotas and LimitRanges     scalers.rs    HorizontalPodAutoscalers
//! mesh.rs       Istio's objects                    wakes.rs      how long its wakes took
//! names.rs      names of Lull's own objects that others have
//! patch.rs      what is then changed in a Service, and how it is given back
//! ```

mod asks;
mod budgets;
mod components;
mod finding;
mod mesh;
mod names;
mod patch;
mod policies;
mod room;
mod scalers;
mod services;
mod template;
mod wakes;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Service;
use lull_contract::{
    AppPort, names::connect_rule, ports::traffic_port_name, scaled_workload::WorkloadPort,
};
use lull_injection::Renumbered;

pub use asks::Asks;
pub use components::Components;
pub use finding::{Finding, Reason, Severity};
pub use mesh::Mesh;
pub use names::taken;
pub use patch::{hold_patch, is_held, is_switched, release_patch, restore_patch, switch_patch};
pub(crate) use patch::{
    is_noted, is_planned_alike, planned_user_target, target_name, user_selector,
};
pub use room::Needs;
pub use services::selecting;
pub(crate) use services::selects;
pub use wakes::longest_wake;

use crate::{
    mesh::{CallerPolicy, istio_duration},
    stores::{Budget, LimitRange, NetworkPolicy, Quota},
};

type Labels = BTreeMap<String, String>;

/// What of a workload's spec matters for its plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// Labels of the pods.
    pub labels: Labels,
    /// Named container ports of the app.
    pub named_ports: Vec<(String, u16)>,
    /// App ports that Lull serves, or would.
    pub app_ports: Vec<AppPort>,
    /// The sidecar's port for each of them, in the same order.
    pub traffic_ports: Vec<u16>,
    /// App ports that older pods know by another number.
    pub renumbered: Vec<Renumbered>,
    /// The sidecar's port for probes.
    pub admin_port: u16,
    /// The sidecar's port for reports.
    pub report_port: u16,
    /// A headless Service beside the others gives the pods their names, as StatefulSets want it;
    /// connections by it go round the queue-proxy and are seen there.
    pub headless_sibling: bool,
    /// The pods use the node's network.
    pub host_network: bool,
    /// The pods are for nodes with Windows.
    pub windows: bool,
    /// App ports that nodes lead to by themselves.
    pub host_ports: Vec<u16>,
    /// Time from a pod's deletion to its end.
    pub grace: Duration,
    /// It was injected for an Istio container that ends last, and doesn't say that it has one.
    pub takes_native: bool,
    /// Containers of the app with a preStop that isn't ours.
    pub pre_stops: Vec<String>,
    /// How pods get a new template.
    pub rollout: Rollout,
    /// What the pods ask for.
    pub needs: Needs,
}

/// How pods get a new template.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rollout {
    /// By their controller.
    #[default]
    Automatic,
    /// Not before somebody resumes it.
    Paused,
    /// When somebody deletes them.
    OnDelete,
    /// By their controller, those from this number on.
    Partition(u64),
}

/// Address family of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Another workload of the namespace.
#[derive(Debug, Clone, Copy)]
pub struct Other<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Labels of its pods.
    pub labels: &'a BTreeMap<String, String>,
}

/// All that a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Kind and name of the workload.
    pub workload: &'a str,
    /// Name by which Lull calls it ([`lull_contract::names::workload_id`]).
    pub id: &'a str,
    /// Its spec.
    pub template: &'a Template,
    /// Where activators listen for its ports, as far as that is allocated.
    pub activator_ports: &'a [WorkloadPort],
    /// Its annotations.
    pub asks: Asks,
    /// It is run by Lull already: its pods have the sidecar.
    pub is_enrolled: bool,
    /// Services of the namespace.
    pub services: &'a [Arc<Service>],
    /// Kind and name of the namespace's slices and DestinationRules that are not Lull's and are called
    /// as those are which Lull would write for the Services that select the pods.
    pub taken: &'a [String],
    /// Kind and name, and template labels, of the namespace's other workloads.
    pub others: &'a [Other<'a>],
    /// Names of the HorizontalPodAutoscalers that scale it.
    pub scalers: &'a [String],
    /// NetworkPolicies of the namespace.
    pub policies: &'a [Arc<NetworkPolicy>],
    /// PodDisruptionBudgets of the namespace.
    pub budgets: &'a [Arc<Budget>],
    /// ResourceQuotas of the namespace.
    pub quotas: &'a [Arc<Quota>],
    /// LimitRanges of the namespace; `None` where nobody knows whether there are any.
    pub ranges: Option<&'a [Arc<LimitRange>]>,
    /// App ports that its pods are seen to listen on at loopback alone.
    pub loopback_only: &'a [u16],
    /// How long it took to wake lately, where that was long ([`longest_wake`]).
    pub longest_wake: Option<Duration>,
    /// The mesh around it, where the cluster has one.
    pub mesh: Option<Mesh<'a>>,
    /// Lull itself.
    pub lull: &'a Components,
}

/// What would be done for a workload, and what there is to say about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Services that can be switched, by name.
    pub services: Vec<PlannedService>,
    /// Those of them, by name, for which Lull writes a DestinationRule, and what it says.
    pub rules: BTreeMap<String, CallerPolicy>,
    /// Activators stay among Istio's endpoints while the workload is awake, as soon as these rules are
    /// there.
    pub stands_by: bool,
    /// The workload's own first, then those about its Services, by name, then those about names that
    /// are taken, policies, what bounds its pods' resources, and the mesh.
    pub findings: Vec<Finding>,
}

/// A Service that carries the workload's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedService {
    /// Name of the Service.
    pub name: String,
    /// Families of its addresses.
    pub families: Vec<Family>,
    /// Its TCP ports.
    pub ports: Vec<PlannedPort>,
}

/// One TCP port of a planned Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPort {
    /// Place in `spec.ports`.
    pub index: usize,
    /// Name of the Service port.
    pub name: Option<String>,
    /// `appProtocol` of the Service port.
    pub app_protocol: Option<String>,
    /// Number of the Service port.
    pub port: i32,
    /// App port behind it.
    pub app_port: u16,
    /// Numbers that the app port had.
    pub earlier: Vec<u16>,
}

/// Works out which Services would be switched, and everything that stands in the way.
#[must_use]
pub fn plan(situation: &Situation<'_>) -> Plan {
    let mut findings = Vec::new();
    template::find(situation, &mut findings);
    let services = services::find(situation, &mut findings);
    names::find(situation, &services, &mut findings);
    scalers::find(situation, &mut findings);
    policies::find(situation, &mut findings);
    budgets::find(situation, &mut findings);
    room::find(situation, &mut findings);
    mesh::find(situation, &services, &mut findings);
    // Other pods behind one of the Services would come last, too, so nothing may be in the way.
    let is_refused = findings.iter().any(Finding::is_refusal);
    let stands_by = !is_refused && mesh::stands_by(situation, &services);
    Plan {
        rules: mesh::rules(situation, &services, stands_by),
        stands_by,
        services,
        findings,
    }
}

// === impl Template ===

impl Template {
    /// The app's container port of this name.
    fn port_named(&self, name: &str) -> Option<u16> {
        let mut named = self.named_ports.iter().filter(|(other, _)| other == name);
        named.next().map(|(_, number)| *number)
    }

    /// Names of an app port.
    fn names_of(&self, app_port: u16) -> impl Iterator<Item = &str> {
        let named = self.named_ports.iter();
        named
            .filter(move |(_, number)| *number == app_port)
            .map(|(name, _)| name.as_str())
    }

    /// The sidecar's port for an app port; 0, which no rule opens, where it has none.
    fn traffic_port(&self, app_port: u16) -> u16 {
        let mut ports = self.app_ports.iter().zip(&self.traffic_ports);
        let port = ports.find(|(app, _)| app.number == app_port);
        port.map_or(0, |(_, traffic)| *traffic)
    }
}

// === impl Family ===

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// As Kubernetes names it, in Services and slices.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// The family of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Whether `address` is one of this family.
    #[must_use]
    pub fn has(self, address: &str) -> bool {
        match address.parse() {
            Ok(IpAddr::V4(_)) => self == Self::Ipv4,
            Ok(IpAddr::V6(_)) => self == Self::Ipv6,
            Err(_) => false,
        }
    }
}

// === impl Plan ===

impl Plan {
    /// What stops enrolment.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.is_refusal())
    }

    /// What is only said.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.is_refusal())
    }

    /// Whether anything stops enrolment.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refusals().next().is_some()
    }

    /// Whether anything that stops enrolment keeps a workload from sleep that is enrolled already. One
    /// that has no pod is not kept, nor woken, by what would let none be made for it.
    #[must_use]
    pub fn keeps_awake(&self, has_pods: bool) -> bool {
        let mut refusals = self.refusals();
        refusals.any(|finding| has_pods || !finding.reason.stops_pods())
    }

    /// What enrolment does, step by step, for people; `private` is the private Service's name.
    #[must_use]
    pub fn steps(&self, private: &str) -> Vec<String> {
        let mut steps = vec![
            "put the queue-proxy into the pod template, which starts a rollout".to_owned(),
            format!("create Service {private}"),
        ];
        steps.extend(self.services.iter().map(|service| {
            let port = |port: &PlannedPort| {
                let name = traffic_port_name(port.app_port);
                format!("port {} to {name}", port.port)
            };
            let ports: Vec<String> = service.ports.iter().map(port).collect();
            format!("point Service {} at it: {}", service.name, ports.join(", "))
        }));
        steps.extend(self.rules.iter().map(|(service, policy)| {
            let timeout = policy.connect_timeout.map(istio_duration);
            let timeout = timeout.map(|timeout| format!("connectTimeout {timeout}"));
            let first = policy.pods_first.as_ref();
            let first = first.map(|_| "pods before activators".to_owned());
            let said: Vec<String> = timeout.into_iter().chain(first).collect();
            let (rule, said) = (connect_rule(service), said.join(", "));
            format!("create DestinationRule {rule}: {said} for {service}")
        }));
        steps
    }

    /// What a dry run says, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let warnings = match self.warnings().count() {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            count => format!(", {count} warnings"),
        };
        let refusals: Vec<String> = self.refusals().map(ToString::to_string).collect();
        if !refusals.is_empty() {
            return format!("dry-run: refused: {}{warnings}", refusals.join("; "));
        }
        let services: Vec<String> = self.services.iter().map(ToString::to_string).collect();
        format!("dry-run: would switch {}{warnings}", services.join(", "))
    }
}

#[cfg(test)]
mod tests;
