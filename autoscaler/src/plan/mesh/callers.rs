//! What holds at callers' Envoys, gateways among them: how long they wait, and for what.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Finding, Mesh, PlannedService, Reason, Situation, connect, locality, long_wakes,
    pods::default_sidecar, standby, usual_wake,
};
use crate::mesh::{DestinationRule, Host, Sidecar, TimedRoute, VirtualService, istio_duration};

/// Callers of one Envoy that may wait for one wake; a limit below is found out by the first burst.
const WAITING: u64 = 100;
/// Findings about other namespaces' objects that are told at most: any number of those may be written
/// there, and each would be an Event and a line of the status.
const MAX_ELSEWHERE: usize = 16;

/// Findings about rules of any namespace on the way to `services`.
pub(super) fn find(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    services: &[PlannedService],
    findings: &mut Vec<Finding>,
) {
    let mut found: Vec<Finding> = Vec::new();
    let mut rules: BTreeMap<(&str, &str), &DestinationRule> = BTreeMap::new();
    for service in services {
        let holding = rules_for(mesh, &service.name);
        rules.extend(holding.map(|rule| ((rule.namespace.as_str(), rule.name.as_str()), rule)));
    }
    for rule in rules.into_values() {
        found.extend(destination_rule(situation, mesh, rule));
    }
    found.extend(connect::names_taken(situation, mesh, services));
    found.extend(standby::names_taken(situation, services));
    found.extend(connect::without_rule(situation, mesh, services));
    found.extend(long_wakes::without_rule(situation, mesh, services));
    let mut routes: Vec<&Arc<VirtualService>> = mesh.rules.virtual_services.iter().collect();
    routes.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    for route in routes {
        found.extend(virtual_service(
            mesh,
            services,
            (route, usual_wake(situation)),
        ));
    }
    found.extend(hidden(mesh, services));
    findings.extend(few_of_elsewhere(found));
}

/// All that is found in the workload's own namespace, and the first few of other ones.
fn few_of_elsewhere(found: Vec<Finding>) -> impl Iterator<Item = Finding> {
    let mut elsewhere = 0;
    found.into_iter().filter(move |finding| {
        let is_elsewhere = finding.object.contains('/');
        elsewhere += usize::from(is_elsewhere);
        !is_elsewhere || elsewhere <= MAX_ELSEWHERE
    })
}

/// The users' rules that hold for the Service called `name`: of each namespace those with the narrowest
/// host, and the root namespace's only where the Service's own has none.
pub(super) fn rules_for<'a>(
    mesh: &Mesh<'a>,
    name: &str,
) -> impl Iterator<Item = &'a DestinationRule> {
    let all: &'a [Arc<DestinationRule>] = &mesh.rules.destination_rules;
    // Lull's own gives way to any.
    let all = all
        .iter()
        .map(Arc::as_ref)
        .filter(|rule: &&DestinationRule| rule.ours.is_none());
    let mut narrowest: BTreeMap<&'a str, &'a Host> = BTreeMap::new();
    for rule in all.clone() {
        if rule.host.is_for(mesh.namespace, name) {
            let host = narrowest.entry(&rule.namespace).or_insert(&rule.host);
            *host = (*host).max(&rule.host);
        }
    }
    if narrowest.contains_key(mesh.namespace) && mesh.rules.root_namespace != mesh.namespace {
        narrowest.remove(mesh.rules.root_namespace.as_str());
    }
    let is_holding =
        move |rule: &&DestinationRule| narrowest.get(rule.namespace.as_str()) == Some(&&rule.host);
    all.filter(is_holding)
}

fn destination_rule(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
) -> Vec<Finding> {
    let object = mesh.object("DestinationRule", (&rule.namespace, &rule.name));
    let found = [
        own_tls(rule),
        other_identity(mesh, rule),
        outlier_detection(rule),
        locality::of_rule(situation, mesh, rule),
        limits(rule),
        connect::of_rule(situation, mesh, rule),
        long_wakes::of_rule(situation, mesh, rule),
        standby::of_rule(situation, mesh, rule),
    ];
    let found = found.into_iter().flatten();
    found
        .map(|(reason, message)| Finding::new(reason, &object, message))
        .collect()
}

fn own_tls(rule: &DestinationRule) -> Option<(Reason, String)> {
    let text = "has callers speak TLS of their own with the app (SIMPLE or MUTUAL): while it sleeps \
                they are held as connections, for 25 s unless lull.dev/hold-timeout says otherwise, and \
                passed on by bytes";
    rule.has_own_tls.then(|| (Reason::OwnTls, text.to_owned()))
}

fn other_identity(mesh: &Mesh<'_>, rule: &DestinationRule) -> Option<(Reason, String)> {
    let identity = format!("/ns/{}/sa/{}", mesh.namespace, mesh.account);
    let names = &rule.subject_alt_names;
    let is_named = names.is_empty() || names.iter().any(|name| name.ends_with(&identity));
    let text = format!(
        "has subjectAltNames without the identity of the workload's pods, which callers meet while \
         it sleeps, too; add spiffe://<trust domain>{identity}"
    );
    (mesh.is_member && !is_named).then_some((Reason::OtherIdentity, text))
}

fn outlier_detection(rule: &DestinationRule) -> Option<(Reason, String)> {
    let text = "has outlierDetection: a wake that is longer than callers' connect timeout counts as \
                failures of the activator, which is then left out; allow more failures than one wake \
                makes, or raise connectTimeout";
    rule.ejects
        .then(|| (Reason::OutlierDetection, text.to_owned()))
}

fn limits(rule: &DestinationRule) -> Option<(Reason, String)> {
    let low: Vec<String> = rule
        .limits
        .iter()
        .filter(|(_, limit)| **limit < WAITING)
        .map(|(name, limit)| format!("{name}: {limit}"))
        .collect();
    let text = format!(
        "has {}: callers that wait for a wake count as well, and those over it get 503; set \
         {WAITING} or more",
        low.join(", ")
    );
    (!low.is_empty()).then_some((Reason::ConnectionLimits, text))
}

/// What `route` says that leaves a request less time than a `wake` takes.
fn virtual_service(
    mesh: &Mesh<'_>,
    services: &[PlannedService],
    (route, wake): (&VirtualService, Duration),
) -> Option<Finding> {
    let leads_here = |host: &Host| {
        let mut names = services.iter().map(|service| &service.name);
        names.any(|name| host.is_for(mesh.namespace, name))
    };
    let routes = route.routes.iter();
    let here: Vec<&TimedRoute> = routes
        .filter(|route| route.hosts.iter().any(leads_here))
        .collect();
    let whole = here.iter().filter_map(|route| route.timeout).min();
    let tries = here.iter().filter_map(|route| route.per_try_timeout);
    let short: Vec<String> = [("timeout", whole), ("retries.perTryTimeout", tries.min())]
        .into_iter()
        .filter_map(|(field, limit)| {
            let limit = limit.filter(|limit| *limit < wake)?;
            Some(format!("{field}: {}", istio_duration(limit)))
        })
        .collect();
    let object = mesh.object("VirtualService", (&route.namespace, &route.name));
    (!short.is_empty()).then(|| {
        Finding::new(
            Reason::ShortRouteTimeout,
            object,
            format!(
                "has {}: a request that wakes the workload gets 504 after it; set {} or more",
                short.join(", "),
                istio_duration(wake)
            ),
        )
    })
}

/// Callers of the workload's own namespace whose Envoys don't know its Services. Who hides them from
/// some of its callers alone, by a selector, or from another namespace means that.
fn hidden(mesh: &Mesh<'_>, services: &[PlannedService]) -> Option<Finding> {
    let sidecar = default_sidecar(mesh)?;
    let names: Vec<String> = services
        .iter()
        .filter_map(|service| unknown(mesh, sidecar, service))
        .collect();
    let object = mesh.object("Sidecar", (&sidecar.namespace, &sidecar.name));
    (!names.is_empty()).then(|| {
        Finding::new(
            Reason::HiddenHost,
            object,
            format!(
                "hides {} from callers of this namespace: they come in plain text by its address, \
                 asleep and awake, which pods that require mutual TLS refuse; add \"./*\" to the \
                 egress hosts",
                names.join(", ")
            ),
        )
    })
}

/// The Service's name, with its ports where some of them are known; `None` where all are.
fn unknown(mesh: &Mesh<'_>, sidecar: &Sidecar, service: &PlannedService) -> Option<String> {
    let name = service.name.as_str();
    let numbers = service.ports.iter().map(|port| port.port);
    let hidden: Vec<String> = numbers
        .filter(|number| {
            let number = u16::try_from(*number).unwrap_or_default();
            !sidecar.knows((mesh.namespace, name), number)
        })
        .map(|number| number.to_string())
        .collect();
    match hidden.len() {
        0 => None,
        all if all == service.ports.len() => Some(name.to_owned()),
        _ => Some(format!("{name} (port {})", hidden.join(", "))),
    }
}
