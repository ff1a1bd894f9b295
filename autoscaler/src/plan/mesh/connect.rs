//! For how long callers try to connect, beside how long activators hold them: a TLS connection that is
//! held is one that is not made yet.

use std::{collections::BTreeMap, time::Duration};

use lull_contract::{
    names::label_value,
    settings::{MESH_CONNECT_TIMEOUT, MESH_CONNECT_TRIES},
};
use serde_json::{Value, json};

use super::{Finding, Mesh, PlannedService, Reason, Situation, USUAL_WAKE, callers::rules_for};
use crate::{
    mesh::{CallerPolicy, DestinationRule, connect_timeout_policy, istio_duration},
    plan::names::taken_rule,
};

/// What the DestinationRules that Lull writes say, by Service, where activators `stand_by` or not: where the
/// user wants them to, and none of anybody else would be put out of force by them or has their name.
pub(in crate::plan) fn rules(
    situation: &Situation<'_>,
    services: &[PlannedService],
    stand_by: bool,
) -> BTreeMap<String, CallerPolicy> {
    let Some(mesh) = situation.mesh.filter(|mesh| mesh.is_member) else {
        return BTreeMap::new();
    };
    let policy = CallerPolicy {
        connect_timeout: situation.asks.connect_timeout,
        pods_first: stand_by.then(|| label_value(situation.id)),
    };
    if policy.is_empty() {
        return BTreeMap::new();
    }
    let names = services.iter().map(|service| &service.name);
    names
        .filter(|name| is_free(situation, &mesh, name))
        .map(|name| (name.clone(), policy.clone()))
        .collect()
}

/// Whether Lull may write a rule for the Service called `name`.
pub(super) fn is_free(situation: &Situation<'_>, mesh: &Mesh<'_>, name: &str) -> bool {
    !has_rule_for_all(mesh, name) && taken_rule(situation, name).is_none()
}

/// Whether callers of every namespace have a rule for the Service called `name`, but for those whose
/// own namespace has another.
pub(super) fn has_rule_for_all(mesh: &Mesh<'_>, name: &str) -> bool {
    rules_for(mesh, name).any(|rule| is_for_all(mesh, rule))
}

/// Whether `rule`, which holds for one of the Services, holds for callers of every namespace.
pub(super) fn is_for_all(mesh: &Mesh<'_>, rule: &DestinationRule) -> bool {
    let places = [mesh.namespace, mesh.rules.root_namespace.as_str()];
    places.contains(&rule.namespace.as_str())
}

/// What `rule` says of connect timeouts, where that ends a hold too early or is less than is asked for.
pub(super) fn of_rule(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
) -> Option<(Reason, String)> {
    let timeout = rule.connect_timeout.unwrap_or(MESH_CONNECT_TIMEOUT.0);
    if timeout < USUAL_WAKE {
        let text = format!(
            "has connectTimeout: {}, and callers that speak TLS wait for a wake under it; set {} or \
             more",
            istio_duration(timeout),
            istio_duration(unwritten(situation, mesh, rule).unwrap_or(USUAL_WAKE))
        );
        return Some((Reason::ShortConnectTimeout, text));
    }
    let Some(hold) = longer_hold(situation, mesh, timeout) else {
        let asked = unwritten(situation, mesh, rule)?;
        return (asked > timeout).then(|| (Reason::LongHold, unwritten_text(timeout, asked)));
    };
    let text = format!(
        "lets callers in the mesh wait for {}, and activators would hold them for {}: put into its \
         trafficPolicy {}",
        tries(timeout),
        istio_duration(hold),
        connect_timeout_policy(hold)
    );
    Some((Reason::LongHold, text))
}

/// The connect timeout that is asked for and that Lull doesn't write because of `rule`.
fn unwritten(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
) -> Option<Duration> {
    let asked = situation.asks.connect_timeout;
    asked.filter(|_| mesh.is_member && is_for_all(mesh, rule))
}

fn unwritten_text(timeout: Duration, asked: Duration) -> String {
    format!(
        "gives callers in the mesh {} to connect, and Lull writes no rule beside it for the {} of \
         lull.dev/connect-timeout: put into its trafficPolicy {}",
        istio_duration(timeout),
        istio_duration(asked),
        connect_timeout_policy(asked)
    )
}

/// DestinationRules of somebody else that have nothing to do with `services` but the names of those
/// that Lull would write for them.
pub(super) fn names_taken(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    services: &[PlannedService],
) -> Vec<Finding> {
    let asked = situation.asks.connect_timeout.filter(|_| mesh.is_member);
    let Some(asked) = asked else {
        return Vec::new();
    };
    let names = services.iter().map(|service| service.name.as_str());
    names
        .filter(|name| !has_rule_for_all(mesh, name))
        .filter_map(|name| {
            let object = taken_rule(situation, name)?;
            let text = format!(
                "has the name of the rule that Lull would write for Service {name}, so it is left \
                 alone and callers don't get the {} of lull.dev/connect-timeout; give it another \
                 name, or apply {}",
                istio_duration(asked),
                rule_for(mesh, name, asked)
            );
            Some(Finding::new(Reason::LongHold, object, text))
        })
        .collect()
}

/// Services whose callers have no rule, where that ends a hold too early.
pub(super) fn without_rule(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    services: &[PlannedService],
) -> Vec<Finding> {
    let written = situation.asks.connect_timeout;
    let timeout = written.unwrap_or(MESH_CONNECT_TIMEOUT.0);
    let Some(hold) = longer_hold(situation, mesh, timeout) else {
        return Vec::new();
    };
    let names = services.iter().map(|service| service.name.as_str());
    names
        .filter(|name| !has_rule_for_all(mesh, name))
        .map(|name| {
            let rule = rule_for(mesh, name, hold);
            let text = format!(
                "lets callers in the mesh wait for {}, and activators would hold them for {}; where \
                 wakes are that long, apply {rule}",
                tries(timeout),
                istio_duration(hold)
            );
            Finding::new(Reason::LongHold, format!("Service {name}"), text)
        })
        .collect()
}

/// A rule of the user's by which callers of the Service called `name` have this connect timeout.
pub(super) fn rule_for(mesh: &Mesh<'_>, name: &str, timeout: Duration) -> Value {
    rule_with(mesh, name, &connect_timeout_policy(timeout))
}

/// A rule of the user's that says `policy` to callers of the Service called `name`.
pub(super) fn rule_with(mesh: &Mesh<'_>, name: &str, policy: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": { "name": name, "namespace": mesh.namespace },
        "spec": { "host": name, "trafficPolicy": policy },
    })
}

/// How long activators hold, where that is longer than callers try with this connect timeout.
fn longer_hold(situation: &Situation<'_>, mesh: &Mesh<'_>, timeout: Duration) -> Option<Duration> {
    let hold = situation.asks.connection_hold;
    let tried = timeout.saturating_mul(MESH_CONNECT_TRIES);
    (mesh.is_member && hold > tried).then_some(hold)
}

fn tries(timeout: Duration) -> String {
    format!("{MESH_CONNECT_TRIES} times {}", istio_duration(timeout))
}
