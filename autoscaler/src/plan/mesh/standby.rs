//! Activators that stand by: they stay among Istio's endpoints while the workload is awake, where a
//! DestinationRule has callers call pods first.

use lull_contract::{annotations::STANDBY, names::label_value};
use serde_json::Value;

use super::{
    Finding, Mesh, PlannedService, Reason, Situation,
    callers::rules_for,
    connect::{has_rule_for_all, is_for_all, is_free, rule_with},
};
use crate::{
    mesh::{CallerPolicy, DestinationRule},
    plan::names::taken_rule,
};

/// Whether activators may stand by: callers of each of `services` call pods first by a rule that Lull
/// writes, or by the user's own. Istio's endpoints are the same for all of them.
pub(in crate::plan) fn is_possible(situation: &Situation<'_>, services: &[PlannedService]) -> bool {
    let Some(mesh) = asked(situation) else {
        return false;
    };
    let mut names = services.iter().map(|service| service.name.as_str());
    !services.is_empty()
        && names
            .all(|name| is_free(situation, &mesh, name) || is_said_by_user(situation, &mesh, name))
}

/// The mesh, where activators are to stand by in it.
fn asked<'a>(situation: &Situation<'a>) -> Option<Mesh<'a>> {
    let mesh = situation.mesh.filter(|mesh| mesh.is_member);
    mesh.filter(|_| situation.asks.standby)
}

/// Whether all rules for the Service called `name` have callers call pods first, and there are some.
fn is_said_by_user(situation: &Situation<'_>, mesh: &Mesh<'_>, name: &str) -> bool {
    let mut rules = rules_for(mesh, name).filter(|rule| is_for_all(mesh, rule));
    has_rule_for_all(mesh, name) && rules.all(|rule| puts_pods_first(situation, rule))
}

fn puts_pods_first(situation: &Situation<'_>, rule: &DestinationRule) -> bool {
    rule.pods_first == Some(label_value(situation.id))
}

/// What a rule of the user's would have to say.
fn lines(situation: &Situation<'_>) -> Value {
    let policy = CallerPolicy {
        connect_timeout: None,
        pods_first: Some(label_value(situation.id)),
    };
    policy.traffic_policy()
}

/// What is missing in `rule`, beside which Lull writes none.
pub(super) fn of_rule(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
) -> Option<(Reason, String)> {
    asked(situation)?;
    let is_missing = is_for_all(mesh, rule) && !puts_pods_first(situation, rule);
    let text = format!(
        "does not have callers call pods before activators, and Lull writes no rule beside it, so \
         none stands by while the workload is awake ({STANDBY}): put into its trafficPolicy {}",
        lines(situation)
    );
    is_missing.then_some((Reason::NoStandby, text))
}

/// DestinationRules of somebody else that have nothing to do with `services` but the names of those
/// that Lull would write for them.
pub(super) fn names_taken(situation: &Situation<'_>, services: &[PlannedService]) -> Vec<Finding> {
    let Some(mesh) = asked(situation) else {
        return Vec::new();
    };
    let names = services.iter().map(|service| service.name.as_str());
    names
        .filter(|name| !has_rule_for_all(&mesh, name))
        .filter_map(|name| {
            let object = taken_rule(situation, name)?;
            let text = format!(
                "has the name of the rule that Lull would write for Service {name}, so it is left \
                 alone and no activator stands by while the workload is awake ({STANDBY}); give it \
                 another name, or apply {}",
                rule_with(&mesh, name, &lines(situation))
            );
            Some(Finding::new(Reason::NoStandby, object, text))
        })
        .collect()
}
