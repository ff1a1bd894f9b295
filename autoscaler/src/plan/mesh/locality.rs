//! Callers who are sent to endpoints of named localities alone: all others Istio takes out, whatever is left
//! (`applyLocalityWeights` of its `loadbalancer.go`). Other settings of localities give an order, and leave
//! none out.

use super::{Finding, Mesh, Reason, Situation};
use crate::mesh::{DestinationRule, Distribution, is_about};

/// What `rule` says by which callers would reach nothing while the workload sleeps.
pub(super) fn of_rule(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
) -> Option<(Reason, String)> {
    let text = missed(situation, &rule.distributions).filter(|_| mesh.is_member)?;
    Some((Reason::NoActivatorThere, format!("sends {text}")))
}

/// The same of the mesh's own configuration.
pub(super) fn of_mesh(situation: &Situation<'_>, mesh: &Mesh<'_>) -> Vec<Finding> {
    let configs = mesh.rules.configs.iter();
    configs
        .filter_map(|config| {
            let text = missed(situation, &config.distributions)?;
            let object = mesh.object("ConfigMap", (&config.namespace, &config.name));
            let text = format!("sends, where no rule says something else, {text}");
            Some(Finding::new(Reason::NoActivatorThere, object, text))
        })
        .collect()
}

/// Whom the first of `distributions` that leads to no activator leaves alone.
fn missed(situation: &Situation<'_>, distributions: &[Distribution]) -> Option<String> {
    let there = &situation.lull.localities;
    let reaches = |to: &String| there.iter().any(|locality| is_about(to, locality));
    let mut missed = distributions
        .iter()
        .filter(|one| !one.to.iter().any(reaches));
    // Where none is seen, nothing is known.
    let missed = missed.next().filter(|_| !there.is_empty())?;
    let known = there.iter().filter(|locality| !locality.is_empty());
    let known: Vec<&str> = known.map(String::as_str).collect();
    let known = match known.is_empty() {
        true => "nowhere that topology.kubernetes.io/region and zone of their pods tell".to_owned(),
        false => format!("in {}", known.join(", ")),
    };
    Some(format!(
        "callers in {} to {} alone (localityLbSetting.distribute), and the activators are {known}: those \
         callers reach nothing while the workload sleeps; run an activator there, or name a locality \
         where one is",
        missed.from,
        missed.to.join(", ")
    ))
}
