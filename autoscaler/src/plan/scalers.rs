//! HorizontalPodAutoscalers of the workload.

use std::collections::BTreeSet;

use lull_contract::Class;

use super::{Finding, Reason, Situation};

/// Findings about those that would fight with us over the count.
pub(super) fn find(situation: &Situation<'_>, findings: &mut Vec<Finding>) {
    if situation.asks.class != Class::Kpa {
        return;
    }
    let names = BTreeSet::from_iter(situation.scalers);
    findings.extend(names.into_iter().map(|name| {
        Finding::new(
            Reason::OtherScaler,
            format!("HorizontalPodAutoscaler {name}"),
            format!(
                "scales {} too; set lull.dev/class: \"hpa\" (it scales above one pod, Lull between \
                 none and one) or delete it",
                situation.workload
            ),
        )
    }));
}
