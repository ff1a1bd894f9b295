//! PodDisruptionBudgets that select the pods.
//!
//! A budget counts evictions only, so none of them keeps a workload from sleeping. But what leaves
//! room among many pods may leave none with the few that Lull keeps: a node's drain then waits.

use super::{Finding, Reason, Situation};

/// Findings about budgets that allow no eviction when the workload is at its fewest pods.
pub(super) fn find(situation: &Situation<'_>, findings: &mut Vec<Finding>) {
    let fewest = situation.asks.min_scale.max(1);
    let mut holding: Vec<&str> = situation
        .budgets
        .iter()
        .filter(|budget| budget.selects(&situation.template.labels))
        .filter(|budget| budget.evictable_of(fewest) == 0)
        .map(|budget| budget.name.as_str())
        .collect();
    holding.sort_unstable();
    findings.extend(holding.into_iter().map(|name| {
        Finding::new(
            Reason::BudgetHoldsDrains,
            format!("PodDisruptionBudget {name}"),
            format!(
                "allows no eviction while {} has {fewest} pod(s), as it may whenever it is awake: \
                 a node's drain waits until it sleeps or has more (sleep itself is not held up); \
                 set maxUnavailable: 1, or a higher lull.dev/min-scale",
                situation.workload
            ),
        )
    }));
}
