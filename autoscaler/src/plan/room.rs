//! ResourceQuotas and LimitRanges: whether pods are made at all once they have the sidecar.
//!
//! A pod that the API server refuses is missed only when the workload is to wake. So what is certain to
//! be refused is a refusal here, too, which keeps a workload awake that has pods already (one without is
//! not woken, since none would be made: [`Reason::stops_pods`]); and whatever isn't
//! known (defaults of two LimitRanges that differ, what Istio and others add to a pod) is taken as it
//! does the least harm.

use std::{cmp::Ordering, sync::Arc};

use lull_contract::Quantity;
use lull_injection::resources::{Amounts, PodResources, Resources, of_sidecar};

use super::{Finding, Reason, Situation};
use crate::stores::{LimitRange, Quota};

/// CPU and memory of the app's containers and of what is beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Of each of the app's containers.
    pub app: Vec<Resources<Quantity>>,
    /// Of each init container.
    pub init: Vec<Resources<Quantity>>,
    /// What the pod says for all of its containers together.
    pub pod: Resources<Quantity>,
    /// Of the sidecar, where the template has one.
    pub sidecar: Option<Resources<Quantity>>,
}

/// One of CPU and memory, of the sidecar.
struct Asked {
    /// Its name.
    resource: &'static str,
    request: Option<Quantity>,
    limit: Option<Quantity>,
}

/// Findings about what bounds the pods' CPU and memory.
pub(super) fn find(situation: &Situation<'_>, findings: &mut Vec<Finding>) {
    let needs = &situation.template.needs;
    // The API server then counts the pod as a whole, and which release does so in what differs.
    if needs.pod != Resources::default() {
        return;
    }
    let sidecar = needs.with_sidecar(situation.asks.sidecar);
    let mut found = Vec::new();
    let known = situation
        .ranges
        .and_then(|ranges| Some((ranges, common_defaults(ranges)?)));
    if let Some((ranges, defaults)) = known {
        let given = with_defaults(sidecar, defaults);
        let outs = ranges.iter();
        found.extend(outs.filter_map(|range| out_of(range, &given, needs)));
        let is_plain = situation.mesh.is_none_or(|mesh| !mesh.is_member);
        if is_plain && needs.loses_class(defaults, given) {
            found.extend(loses_class(ranges));
        }
        let demands = situation.quotas.iter();
        found.extend(demands.filter_map(|quota| demanded(quota, &given)));
    }
    let pod = needs.total(sidecar);
    let quotas = situation.quotas.iter();
    found.extend(quotas.filter_map(|quota| too_small(quota, &pod, situation)));
    // A cache has no order.
    found.sort_by(|a, b| (a.reason, &a.object).cmp(&(b.reason, &b.object)));
    findings.extend(found);
}

// === impl Needs ===

impl Needs {
    /// The sidecar's: what it asks for, or would where annotations and defaults say `asked`.
    fn with_sidecar(&self, asked: Resources<Quantity>) -> Resources<Quantity> {
        self.sidecar
            .unwrap_or_else(|| of_sidecar(asked, PodResources::of(self.containers(), &self.pod)))
    }

    /// All of the user's.
    fn containers(&self) -> impl Iterator<Item = Resources<Quantity>> {
        self.app.iter().chain(&self.init).copied()
    }

    /// What a pod with `sidecar` asks for at least: init containers and what others add may make it
    /// more.
    fn total(&self, sidecar: Resources<Quantity>) -> Resources<Quantity> {
        let all = self
            .app
            .iter()
            .map(|app| with_defaults(*app, Resources::default()));
        all.fold(sidecar, |sum, next| Resources {
            requests: both(sum.requests, next.requests, Quantity::plus),
            limits: both(sum.limits, next.limits, Quantity::plus),
        })
    }

    /// Whether pods are Guaranteed by `defaults` alone, and not with `sidecar`. Those that are by their
    /// own template stay so.
    fn loses_class(&self, defaults: Resources<Quantity>, sidecar: Resources<Quantity>) -> bool {
        let is_guaranteed = |by: Resources<Quantity>| {
            let mut all = self.containers();
            all.all(|container| with_defaults(container, by).is_guaranteed())
        };
        is_guaranteed(defaults) && !is_guaranteed(Resources::default()) && !sidecar.is_guaranteed()
    }
}

/// Each of both amounts, or what `two` makes of the two.
fn both(
    a: Amounts<Quantity>,
    b: Amounts<Quantity>,
    two: fn(Quantity, Quantity) -> Quantity,
) -> Amounts<Quantity> {
    let either = |a: Option<Quantity>, b: Option<Quantity>| match (a, b) {
        (Some(a), Some(b)) => Some(two(a, b)),
        (a, b) => a.or(b),
    };
    Amounts {
        cpu: either(a.cpu, b.cpu),
        memory: either(a.memory, b.memory),
    }
}

/// What containers get that don't say it; `None` where LimitRanges differ: which of them comes first
/// nobody can tell.
fn common_defaults(ranges: &[Arc<LimitRange>]) -> Option<Resources<Quantity>> {
    let mut common = Resources::default();
    for range in ranges {
        let more = range.defaults;
        common = Resources {
            requests: same(common.requests, more.requests)?,
            limits: same(common.limits, more.limits)?,
        };
    }
    Some(common)
}

/// What both say; `None` where they differ.
fn same(a: Amounts<Quantity>, b: Amounts<Quantity>) -> Option<Amounts<Quantity>> {
    let differ = |a: Option<Quantity>, b: Option<Quantity>| a.is_some() && b.is_some() && a != b;
    let is_one = !differ(a.cpu, b.cpu) && !differ(a.memory, b.memory);
    is_one.then(|| both(a, b, |first, _| first))
}

/// As the API server takes a container: an absent request is the container's own limit, before any
/// default.
fn with_defaults(own: Resources<Quantity>, defaults: Resources<Quantity>) -> Resources<Quantity> {
    let or =
        |first: Amounts<Quantity>, second: Amounts<Quantity>| both(first, second, |own, _| own);
    Resources {
        requests: or(or(own.requests, own.limits), defaults.requests),
        limits: or(own.limits, defaults.limits),
    }
}

/// By resource.
fn named<T: Copy>(amounts: &Amounts<T>) -> [(&'static str, Option<T>); 2] {
    [("cpu", amounts.cpu), ("memory", amounts.memory)]
}

// === LimitRanges ===

/// What of the sidecar, or of the pod with it, is out of `range`; it gets what is `given` in the end.
fn out_of(range: &LimitRange, given: &Resources<Quantity>, needs: &Needs) -> Option<Finding> {
    let bounds = &range.container;
    let (requests, limits) = (named(&given.requests), named(&given.limits));
    let (mins, maxs, ratios) = (named(&bounds.min), named(&bounds.max), named(&bounds.ratio));
    let mut faults = Vec::new();
    for (index, (resource, request)) in requests.into_iter().enumerate() {
        let asked = Asked {
            resource,
            request,
            limit: limits[index].1,
        };
        let bounds = (mins[index].1, maxs[index].1, ratios[index].1);
        faults.extend(asked.faults(bounds));
    }
    let pod = needs.total(*given);
    for (kind, sums) in [("requests", pod.requests), ("limits", pod.limits)] {
        for ((resource, sum), (_, max)) in named(&sums).into_iter().zip(named(&range.pod_max)) {
            if let (Some(sum), Some(max)) = (sum, max)
                && sum > max
            {
                faults.push(format!(
                    "a pod's {kind} of {resource} are at most {max}, and with the sidecar they are \
                     {sum}: set lull.dev/sidecar-{resource}-* or the app's own to less"
                ));
            }
        }
    }
    (!faults.is_empty()).then(|| {
        Finding::new(
            Reason::OutOfLimitRange,
            format!("LimitRange {}", range.name),
            format!(
                "lets no pod be made with the sidecar: {}",
                faults.join("; ")
            ),
        )
    })
}

/// Told of the first of those that have defaults.
fn loses_class(ranges: &[Arc<LimitRange>]) -> Option<Finding> {
    let mut telling: Vec<&str> = ranges
        .iter()
        .filter(|range| range.defaults != Resources::default())
        .map(|range| range.name.as_str())
        .collect();
    telling.sort_unstable();
    Some(Finding::new(
        Reason::QosClass,
        format!("LimitRange {}", telling.first()?),
        "makes the pods Guaranteed by its defaults, and with the sidecar, whose requests are lower \
         than its limits, they are Burstable; set lull.dev/sidecar-cpu-request and -limit to the \
         same, and lull.dev/sidecar-memory-request and -limit",
    ))
}

// === impl Asked ===

impl Asked {
    /// What is wrong with it by the least, the most, and the ratio of limit to request.
    fn faults(
        &self,
        (min, max, ratio): (Option<Quantity>, Option<Quantity>, Option<Quantity>),
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let resource = self.resource;
        for (kind, amount) in [("request", self.request), ("limit", self.limit)] {
            let Some(amount) = amount else { continue };
            let out = |order, bound: Option<Quantity>| bound.filter(|b| amount.cmp(b) == order);
            for (which, bound) in [
                ("least", out(Ordering::Less, min)),
                ("most", out(Ordering::Greater, max)),
            ] {
                faults.extend(bound.map(|bound| {
                    format!(
                        "the {which} {resource} of a container is {bound}, and the sidecar's {kind} \
                         is {amount}: set lull.dev/sidecar-{resource}-{kind}: \"{bound}\""
                    )
                }));
            }
        }
        if self.limit.is_none() && (max.is_some() || ratio.is_some()) {
            faults.push(format!(
                "a container must have a limit of {resource}, and the sidecar has none: set \
                 lull.dev/sidecar-{resource}-limit"
            ));
        }
        if let (Some(request), Some(limit)) = (self.request, self.limit)
            && request > limit
        {
            faults.push(format!(
                "the sidecar's {resource} limit is {limit} by default, and its request is \
                 {request}: set lull.dev/sidecar-{resource}-limit: \"{request}\""
            ));
        }
        faults.extend(ratio.and_then(|ratio| self.beyond(ratio)));
        faults
    }

    /// What is wrong with it where a limit may be `ratio` of the request at most.
    fn beyond(&self, ratio: Quantity) -> Option<String> {
        let (request, limit) = self.request.zip(self.limit)?;
        let most = u128::from(request.milli()) * u128::from(ratio.milli());
        if u128::from(limit.milli()) * 1_000 <= most || ratio.milli() == 0 {
            return None;
        }
        let resource = self.resource;
        let least = (u128::from(limit.milli()) * 1_000).div_ceil(u128::from(ratio.milli()));
        // There is no part of a byte.
        let step = if resource == "memory" { 1_000 } else { 1 };
        let least = u64::try_from(least).ok()?;
        let least = least.checked_next_multiple_of(step)?;
        let least = Quantity::from_milli(least);
        Some(format!(
            "a container's {resource} limit is at most {} of its request, and the sidecar has \
             {limit} of {request}: set lull.dev/sidecar-{resource}-request: \"{least}\" or a lower \
             lull.dev/sidecar-{resource}-limit",
            times(ratio)
        ))
    }
}

/// A ratio for people: `4 times`, `1.5 times`.
fn times(ratio: Quantity) -> String {
    let (whole, rest) = (ratio.milli() / 1_000, ratio.milli() % 1_000);
    if rest == 0 {
        return format!("{whole} times");
    }
    let rest = format!("{rest:03}");
    format!("{whole}.{} times", rest.trim_end_matches('0'))
}

// === ResourceQuotas ===

/// What `quota` wants every container to say and the sidecar, as it is `given` in the end, doesn't.
fn demanded(quota: &Quota, given: &Resources<Quantity>) -> Option<Finding> {
    let mut missing = Vec::new();
    for (kind, hard, given) in [
        ("request", &quota.hard.requests, &given.requests),
        ("limit", &quota.hard.limits, &given.limits),
    ] {
        for ((resource, hard), (_, given)) in named(hard).into_iter().zip(named(given)) {
            if hard.is_some() && given.is_none() {
                missing.push((kind, resource));
            }
        }
    }
    if missing.is_empty() {
        return None;
    }
    let what: Vec<String> = missing
        .iter()
        .map(|(kind, resource)| format!("a {resource} {kind}"))
        .collect();
    let lines: Vec<String> = missing
        .iter()
        .map(|(kind, resource)| format!("lull.dev/sidecar-{resource}-{kind}"))
        .collect();
    Some(Finding::new(
        Reason::QuotaDemands,
        format!("ResourceQuota {}", quota.name),
        format!(
            "wants every container to have {}, and the sidecar has none, so no pod is made with it; \
             set {}, or a default in a LimitRange",
            what.join(" and "),
            lines.join(" and ")
        ),
    ))
}

/// Where `quota` has room for no `pod` at all, or not for the fewest that Lull starts. What other pods
/// use at the moment isn't looked at.
fn too_small(
    quota: &Quota,
    pod: &Resources<Quantity>,
    situation: &Situation<'_>,
) -> Option<Finding> {
    let mut narrowest: Option<(u64, String)> = quota
        .pods
        .map(|pods| (pods, format!("is for {pods} pod(s)")));
    for (kind, hard, one) in [
        ("requests", &quota.hard.requests, &pod.requests),
        ("limits", &quota.hard.limits, &pod.limits),
    ] {
        for ((resource, hard), (_, one)) in named(hard).into_iter().zip(named(one)) {
            let (Some(hard), Some(one)) = (hard, one) else {
                continue;
            };
            let Some(fit) = hard.milli().checked_div(one.milli()) else {
                continue;
            };
            if narrowest.as_ref().is_none_or(|(fewest, _)| fit < *fewest) {
                let text = format!("has {kind} of {resource} of {hard}, and a pod takes {one}");
                narrowest = Some((fit, text));
            }
        }
    }
    let (fit, why) = narrowest?;
    let fewest = u64::from(situation.asks.fewest);
    let workload = situation.workload;
    let (reason, what) = match fit {
        0 => (Reason::QuotaTooSmall, format!("no pod of {workload}")),
        fit if fit < fewest => (
            Reason::QuotaShort,
            format!("{fit} pod(s) of the {fewest} that {workload} is started with"),
        ),
        _ => return None,
    };
    Some(Finding::new(
        reason,
        format!("ResourceQuota {}", quota.name),
        format!(
            "{why} at least with the sidecar: there is room for {what}; raise it, or ask for less \
             (lull.dev/sidecar-* and the app's own), or for fewer pods"
        ),
    ))
}
