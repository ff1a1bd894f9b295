//! The endpoints of sleeping workloads, and what stands in the way of single ones.

use std::collections::BTreeSet;

use autoscaler::{mesh::WorkloadEntry, plan::Family};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use lull_contract::{
    names::{MULTICLUSTER_SERVICE_LABEL, WORKLOAD_LABEL, label_value},
    scaled_workload::{Mode, ScaledWorkload, State, is_odd},
};

use super::{Area, Finding, OptedIn, Seen, place, ready_addresses};
use crate::{gather::COMPONENT_LABEL, told::LeftOut, workload::unreadable};

/// Reason of a workload that is not enrolled yet and that nothing stands in the way of.
const WAITING: &str = "Waiting";
/// Kubernetes' label for the Service of a slice.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// What is wrong with the activators by which a sleeping workload is reached.
struct Wrong {
    /// Rest of a sentence.
    what: String,
    /// Nobody is reached.
    is_problem: bool,
}

/// Findings about slices and workloads.
pub(super) fn find(seen: &Seen, findings: &mut Vec<Finding>) {
    let workloads = match &seen.workloads {
        Ok(workloads) => workloads.as_deref().unwrap_or_default(),
        // Said among what is installed.
        Err(_) => return,
    };
    slices(seen, workloads, findings);
    conditions(workloads, findings);
    unread(seen, findings);
    forgotten(seen, workloads, findings);
}

fn slices(seen: &Seen, workloads: &[ScaledWorkload], findings: &mut Vec<Finding>) {
    let slices = match &seen.slices {
        Ok(slices) => slices,
        Err(why) => return findings.push(Area::Slices.unknown("EndpointSlices", why)),
    };
    if let Err(why) = &seen.entries {
        findings.push(Area::Slices.unknown("WorkloadEntries", why));
    }
    let before = findings.len();
    let activators = activators(seen);
    let mut asleep = 0;
    for workload in workloads.iter().filter(|workload| sleeps(workload)) {
        asleep += 1;
        let (namespace, name) = place(workload);
        let mut is_hidden = false;
        for service in workload.status.iter().flat_map(|status| &status.services) {
            let own = slices
                .iter()
                .filter(|slice| is_of(slice, &namespace, service));
            let own: Vec<&EndpointSlice> = own.collect();
            is_hidden |= own.iter().copied().any(is_hidden_from_istio);
            for (what, part) in by_family(&own, activators.as_ref()) {
                let where_to = format!("in the {what} of Service {service}");
                let listed = ready_addresses(part);
                let found = listed_wrongly(&where_to, &listed, activators.as_ref());
                findings.extend(found.map(|found| found.of(&namespace, &name)));
            }
        }
        if let (true, Ok(entries)) = (is_hidden, &seen.entries) {
            let listed = entry_addresses(entries, (&namespace, &name));
            let found = listed_wrongly("among its WorkloadEntries", &listed, activators.as_ref());
            findings.extend(found.map(|found| found.of(&namespace, &name)));
        }
    }
    if findings.len() == before {
        findings.push(Area::Slices.good(format!(
            "every sleeping workload has activators in its endpoints ({asleep} asleep)"
        )));
    }
}

/// The slices of a Service as its callers see them, with a word for each part: apart for each family that
/// there is a slice and an activator of, where there are two.
fn by_family<'a>(
    own: &[&'a EndpointSlice],
    activators: Option<&BTreeSet<&str>>,
) -> Vec<(String, Vec<&'a EndpointSlice>)> {
    let of = |family: Family| {
        let own = own.iter().copied();
        own.filter(move |slice| slice.address_type == family.name())
    };
    let is_held = |family: &Family| {
        let mut addresses = activators.into_iter().flatten();
        of(*family).next().is_some() && addresses.any(|address| family.has(address))
    };
    let families: Vec<Family> = Family::ALL.into_iter().filter(is_held).collect();
    if families.len() < 2 {
        return vec![("endpoints".to_owned(), own.to_vec())];
    }
    let part = |family: Family| (format!("{} endpoints", family.name()), of(family).collect());
    families.into_iter().map(part).collect()
}

/// Whether callers reach activators and nothing else.
fn sleeps(workload: &ScaledWorkload) -> bool {
    let status = workload.status.as_ref();
    status.is_some_and(|status| status.mode == Mode::Proxy && status.state == State::Asleep)
}

/// Whether Istio is told of the same activators by WorkloadEntries.
fn is_hidden_from_istio(slice: &EndpointSlice) -> bool {
    slice.labels().contains_key(MULTICLUSTER_SERVICE_LABEL)
}

/// Addresses of the entries of a workload, by its namespace and name.
fn entry_addresses<'a>(
    entries: &'a [WorkloadEntry],
    (namespace, name): (&str, &str),
) -> BTreeSet<&'a str> {
    let label = label_value(name);
    let own = entries.iter().filter(|entry| {
        entry.namespace().as_deref() == Some(namespace)
            && entry.labels().get(WORKLOAD_LABEL) == Some(&label)
    });
    own.map(|entry| entry.spec.address.as_str()).collect()
}

/// Addresses of the activators that run; `None` where they were not seen.
fn activators(seen: &Seen) -> Option<BTreeSet<&str>> {
    let pods = seen.pods.as_ref().ok()?.iter();
    let activators = pods.filter(|pod| {
        let component = pod.labels().get(COMPONENT_LABEL);
        component.is_some_and(|component| component == "activator")
    });
    let status = activators.filter_map(|pod| pod.status.as_ref());
    let addresses = status.flat_map(|status| {
        let all = status.pod_ips.iter().flatten();
        all.map(|ip| ip.ip.as_str())
    });
    Some(addresses.collect())
}

fn is_of(slice: &EndpointSlice, namespace: &str, service: &str) -> bool {
    let named = slice.labels().get(SERVICE_NAME_LABEL);
    slice.namespace().as_deref() == Some(namespace) && named.is_some_and(|named| named == service)
}

/// What is wrong with the activators that are `listed` there.
fn listed_wrongly(
    where_to: &str,
    listed: &BTreeSet<&str>,
    activators: Option<&BTreeSet<&str>>,
) -> Option<Wrong> {
    if listed.is_empty() {
        return Some(Wrong {
            what: format!("there is no activator {where_to}: callers are refused"),
            is_problem: true,
        });
    }
    let gone: Vec<&str> = listed.difference(activators?).copied().collect();
    (!gone.is_empty()).then(|| Wrong {
        what: format!("activators {where_to} are gone: {}", gone.join(", ")),
        is_problem: gone.len() == listed.len(),
    })
}

fn conditions(workloads: &[ScaledWorkload], findings: &mut Vec<Finding>) {
    let before = findings.len();
    for workload in workloads {
        let status = workload.status.clone().unwrap_or_default();
        let (namespace, name) = place(workload);
        for condition in status.conditions.iter().filter(|one| is_odd(one)) {
            let reason = &condition.reason;
            let text = format!("{namespace}/{name}: {reason}: {}", condition.message);
            let fix = explained(reason);
            findings.push(Area::Workloads.warning(text, fix));
        }
    }
    if findings.len() == before {
        let count = workloads.len();
        findings
            .push(Area::Workloads.good(format!("nothing stands in a workload's way ({count})")));
    }
}

/// Those that this program can't read, and so mostly nobody of its version.
fn unread(seen: &Seen, findings: &mut Vec<Finding>) {
    findings.extend(unreadable(&seen.unread).map(|text| {
        Area::Workloads.warning(
            text,
            "docs/failures.md, A ScaledWorkload that can't be read; where Lull is newer than this \
             kubectl lull, take its own",
        )
    }));
}

/// Where it is said what a condition's `reason` means and what to do.
fn explained(reason: &str) -> String {
    match reason {
        // It is no finding.
        WAITING => "docs/troubleshooting.md, It is never enrolled".to_owned(),
        finding => format!("docs/enrolment.md, {finding}"),
    }
}

/// Workloads with the annotation that nobody has taken note of.
fn forgotten(seen: &Seen, workloads: &[ScaledWorkload], findings: &mut Vec<Finding>) {
    let opted_in = match &seen.opted_in {
        Ok(opted_in) => opted_in,
        Err(why) => return findings.push(Area::Workloads.unknown("annotated workloads", why)),
    };
    let read = workloads.iter().map(place);
    let known: BTreeSet<(String, String)> = read.chain(seen.unread.keys().cloned()).collect();
    let is_unknown = |one: &&OptedIn| !known.contains(&(one.namespace.clone(), one.id.clone()));
    findings.extend(opted_in.found.iter().filter(is_unknown).map(unseen));
    findings.extend(opted_in.left_alone.iter().map(|what| {
        Area::Workloads.warning(
            format!("a kind of the chart's value targets is left alone: {what}"),
            "install its CRD, or take the kind out of targets",
        )
    }));
}

/// What is said of one, and why it is so.
fn unseen(workload: &OptedIn) -> Finding {
    let OptedIn {
        text, namespace, ..
    } = workload;
    let asks = format!("{text} asks to be run by Lull");
    let fix = "kubectl lull off, or take its annotation lull.dev/scale away";
    match workload.left_out {
        Some(LeftOut::Never) => Area::Workloads.warning(
            format!(
                "{asks}, and in kube-system and in Lull's own namespace nothing is ever enrolled"
            ),
            fix,
        ),
        Some(LeftOut::Namespace | LeftOut::Kind) => Area::Workloads.warning(
            format!("{asks}, and Lull doesn't look after workloads of namespace {namespace}"),
            format!("add {namespace} to the chart's value namespaces; or {fix}"),
        ),
        None if !workload.has_template => Area::Workloads.warning(
            format!("{asks}, and has no pod template at spec.template: it is left alone"),
            fix,
        ),
        None => Area::Workloads.problem(
            format!("{asks} and has no ScaledWorkload"),
            "wait a moment where it is new; then look at the autoscaler's logs",
        ),
    }
}

// === impl Wrong ===

impl Wrong {
    /// The finding about a workload.
    fn of(&self, namespace: &str, name: &str) -> Finding {
        let text = format!("{namespace}/{name} sleeps, and {}", self.what);
        let fix = "the autoscaler writes them: look at its shards above, and at its logs";
        if self.is_problem {
            Area::Slices.problem(text, fix)
        } else {
            Area::Slices.warning(text, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use autoscaler::plan::Reason;

    use super::*;

    #[test]
    fn what_is_said_of_a_condition_stands_where_it_is_said_to() {
        let pages = [
            (
                "docs/enrolment.md",
                include_str!("../../../docs/enrolment.md"),
            ),
            (
                "docs/troubleshooting.md",
                include_str!("../../../docs/troubleshooting.md"),
            ),
        ];
        let findings = Reason::ALL.iter().map(ToString::to_string);
        for reason in findings.chain([WAITING.to_owned()]) {
            let fix = explained(&reason);
            let (page, entry) = fix.split_once(", ").unwrap();
            let page = pages.iter().find(|(name, _)| *name == page);
            let (_, text) = page.unwrap();
            let places = [format!("| `{entry}` |"), format!("### {entry}\n")];
            assert!(places.iter().any(|place| text.contains(place)), "{fix}");
        }
    }
}
