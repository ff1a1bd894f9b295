//! Objects that have the names of Lull's own and are somebody else's: they are never touched.

use k8s_openapi::api::core::v1::Service;
use lull_contract::names::{WORKLOAD_LABEL, connect_rule, label_value, private_service};

use super::{Finding, PlannedService, Reason, Situation};
use crate::objects::slice_names;

/// Kind and name of objects that are called as those are which Lull would write for the Services called
/// `services`, and are not Lull's: [`Situation::taken`]. Whether a slice or a DestinationRule of a name is
/// there and somebody else's is said by `is_others_slice` and `is_others_rule`.
#[must_use]
pub fn taken(
    services: &[String],
    is_others_slice: impl Fn(&str) -> bool,
    is_others_rule: impl Fn(&str) -> bool,
) -> Vec<String> {
    let slices = services.iter().flat_map(|name| slice_names(name));
    let slices = slices.filter(|name| is_others_slice(name));
    let rules = services.iter().map(|name| connect_rule(name));
    let rules = rules.filter(|name| is_others_rule(name));
    slices
        .map(|name| format!("EndpointSlice {name}"))
        .chain(rules.map(|name| format!("DestinationRule {name}")))
        .collect()
}

/// Findings about the private Service and the slices of `services`, which enrolment can't do without.
pub(super) fn find(
    situation: &Situation<'_>,
    services: &[PlannedService],
    findings: &mut Vec<Finding>,
) {
    findings.extend(private(situation));
    let names = services.iter().flat_map(|s| slice_names(&s.name));
    let slices = names.map(|name| format!("EndpointSlice {name}"));
    findings.extend(slices.filter(|slice| is_taken(situation, slice)).map(|slice| {
        let text = "is not Lull's and has the name of a slice by which Lull would list activators, so \
                    it is left alone; give it another name, or delete it";
        Finding::new(Reason::NameTaken, slice, text)
    }));
}

/// The DestinationRule that is in the place of the one which Lull would write for the Service called
/// `service`.
pub(super) fn taken_rule(situation: &Situation<'_>, service: &str) -> Option<String> {
    let rule = format!("DestinationRule {}", connect_rule(service));
    Some(rule).filter(|rule| is_taken(situation, rule))
}

fn is_taken(situation: &Situation<'_>, object: &str) -> bool {
    situation.taken.iter().any(|taken| taken == object)
}

/// Names of workloads are not as narrow as those of Services, so two of them may want the same one.
fn private(situation: &Situation<'_>) -> Option<Finding> {
    let name = private_service(situation.id);
    let mut services = situation.services.iter();
    let there = services.find(|service| service.metadata.name.as_ref() == Some(&name))?;
    let workload = situation.workload;
    let text = match workload_of(there) {
        Some(label) if *label == label_value(situation.id) => return None,
        Some(label) => format!(
            "is the private Service of the workload {label}, and that of {workload} would have the \
             same name; give one of the two workloads another name"
        ),
        None => format!(
            "is not Lull's and has the name of the private Service of {workload}, so it is left \
             alone; give it another name, or delete it"
        ),
    };
    Some(Finding::new(
        Reason::NameTaken,
        format!("Service {name}"),
        text,
    ))
}

fn workload_of(service: &Service) -> Option<&String> {
    service.metadata.labels.as_ref()?.get(WORKLOAD_LABEL)
}
