//! What holds at the pods: traffic comes to another port there, and for a time from activators.

use std::sync::Arc;

use lull_contract::ports::traffic_port_name;

use super::{Finding, Mesh, Reason, Situation};
use crate::mesh::{AuthorizationPolicy, Sidecar};

/// Findings about rules at the pods themselves; in no order.
pub(super) fn find(situation: &Situation<'_>, mesh: &Mesh<'_>, findings: &mut Vec<Finding>) {
    let labels = &situation.template.labels;
    for policy in &mesh.rules.authorization_policies {
        if policy.selects(labels) {
            findings.extend(ports_of_policy(situation, mesh, policy));
            findings.extend(addresses_of_policy(situation, mesh, policy));
        }
    }
    let sidecar = sidecar_of(situation, mesh);
    findings.extend(sidecar.and_then(|sidecar| listeners(situation, mesh, sidecar)));
}

/// App port and traffic port of everything that Lull serves.
pub(super) fn doors(situation: &Situation<'_>) -> impl Iterator<Item = (u16, u16)> {
    let template = situation.template;
    let apps = template.app_ports.iter().map(|port| port.number);
    apps.zip(template.traffic_ports.iter().copied())
}

fn ports_of_policy(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    policy: &AuthorizationPolicy,
) -> Option<Finding> {
    let missing: Vec<String> = doors(situation)
        .filter(|(app, door)| {
            let mut lists = policy.ports.iter();
            lists.any(|list| names(list, *app) && !names(list, *door))
        })
        .map(|(app, door)| format!("\"{door}\" ({}) beside \"{app}\"", traffic_port_name(app)))
        .collect();
    let object = mesh.object("AuthorizationPolicy", (&policy.namespace, &policy.name));
    (!missing.is_empty()).then(|| {
        Finding::new(
            Reason::PolicyByPort,
            object,
            format!(
                "has rules for the app's own port, which would no longer match: traffic comes to \
                 the sidecar's; in each list of ports write {}",
                missing.join(", ")
            ),
        )
    })
}

/// Whether `list` has `port`.
fn names(list: &[String], port: u16) -> bool {
    list.iter().any(|named| named.parse::<u16>() == Ok(port))
}

fn addresses_of_policy(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    policy: &AuthorizationPolicy,
) -> Option<Finding> {
    let is_in_the_way = policy.is_by_address && !situation.asks.accepts_activator_source;
    let object = mesh.object("AuthorizationPolicy", (&policy.namespace, &policy.name));
    is_in_the_way.then(|| {
        Finding::new(
            Reason::PolicyByAddress,
            object,
            "has rules on callers' addresses, but while activators are in the path the pods see \
             theirs; name callers by principals or namespaces, or set \
             lull.dev/accept-activator-source: \"true\" where that is right",
        )
    })
}

/// The one that holds for the pods: Istio takes one alone.
fn sidecar_of<'a>(situation: &Situation<'_>, mesh: &Mesh<'a>) -> Option<&'a Sidecar> {
    let labels = &situation.template.labels;
    holding(mesh, |sidecar| sidecar.selects(labels))
}

/// The one that holds for pods of the workload's namespace for which there is no other.
pub(super) fn default_sidecar<'a>(mesh: &Mesh<'a>) -> Option<&'a Sidecar> {
    holding(mesh, Sidecar::is_for_all)
}

/// The one that holds for the pods of the workload's namespace of which `is_meant` tells: its own with
/// a selector first, then without, and the older one of several; else the root namespace's.
fn holding<'a>(mesh: &Mesh<'a>, is_meant: impl Fn(&Sidecar) -> bool) -> Option<&'a Sidecar> {
    let first = |namespace: &str, is_meant: &dyn Fn(&Sidecar) -> bool| {
        let all: &'a [Arc<Sidecar>] = &mesh.rules.sidecars;
        let there = all
            .iter()
            .map(Arc::as_ref)
            .filter(|sidecar: &&Sidecar| sidecar.namespace == namespace && is_meant(sidecar));
        there.min_by(|a, b| {
            let place = (a.is_default, &a.created, &a.name);
            place.cmp(&(b.is_default, &b.created, &b.name))
        })
    };
    let root = mesh.rules.root_namespace.as_str();
    first(mesh.namespace, &is_meant).or_else(|| first(root, &|sidecar| sidecar.is_default))
}

/// Doors that the pods' Envoy does not listen on, or leads past.
fn listeners(situation: &Situation<'_>, mesh: &Mesh<'_>, sidecar: &Sidecar) -> Option<Finding> {
    if sidecar.ingress.is_empty() {
        return None;
    }
    let wrong: Vec<String> = doors(situation)
        .filter_map(|(app, door)| {
            let mut all = sidecar.ingress.iter();
            match all.find(|listener| listener.port == door) {
                None => Some(format!("{door} (for {app}), which is not there")),
                Some(listener) => {
                    let elsewhere = listener.elsewhere.as_ref()?;
                    Some(format!(
                        "{door} (for {app}), which leads to {elsewhere}, past the sidecar"
                    ))
                }
            }
        })
        .collect();
    let object = mesh.object("Sidecar", (&sidecar.namespace, &sidecar.name));
    (!wrong.is_empty()).then(|| {
        Finding::new(
            Reason::SidecarIngress,
            object,
            format!(
                "names the ports that the pods' Envoy listens on, and traffic comes to the sidecar's; \
                 leave ingress out, or let it have listeners without defaultEndpoint for: {}",
                wrong.join(", ")
            ),
        )
    })
}
