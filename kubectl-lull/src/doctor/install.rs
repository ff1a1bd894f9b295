//! What the chart installs, and whether it runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::ResourceExt;
use lull_contract::Shards;

use super::{Area, Finding, Seen};
use crate::gather::COMPONENT_LABEL;

/// What runs, as [`COMPONENT_LABEL`] names it, and what is without it.
const COMPONENTS: [(&str, &str); 3] = [
    (
        "activator",
        "sleeping workloads can't be woken by their callers; the autoscaler wakes them all",
    ),
    (
        "autoscaler",
        "nothing is put to sleep or woken; what is awake stays so",
    ),
    ("webhook", "nothing is enrolled; what is enrolled goes on"),
];
/// A Lease that was renewed within this is held: renewed each half second, taken over after 3 s.
const RENEWED: Duration = Duration::from_secs(15);

/// Findings about the installation.
pub(super) fn find(seen: &Seen, findings: &mut Vec<Finding>) {
    components(seen, findings);
    leases(seen, findings);
    hearing(seen, findings);
    settings(seen, findings);
}

/// What is found where nothing of Lull is in the namespace that was looked at, and it is in another one.
pub(super) fn elsewhere(seen: &Seen, namespace: &str) -> Finding {
    Area::Install.problem(
        format!(
            "nothing of Lull is in namespace {}: it is in {namespace}",
            seen.namespace
        ),
        format!("kubectl lull doctor --lull-namespace {namespace}; for all commands: export LULL_NAMESPACE={namespace}"),
    )
}

fn components(seen: &Seen, findings: &mut Vec<Finding>) {
    let deployments = match &seen.deployments {
        Ok(deployments) => deployments,
        Err(why) => return findings.push(Area::Install.unknown("Lull's Deployments", why)),
    };
    for (component, without) in COMPONENTS {
        let is_it = |one: &&Deployment| {
            one.labels().get(COMPONENT_LABEL).map(String::as_str) == Some(component)
        };
        match deployments.iter().find(is_it) {
            Some(deployment) => findings.push(running(seen, deployment, (component, without))),
            None => findings.push(Area::Install.problem(
                format!(
                    "there is no {component} in namespace {}: {without}",
                    seen.namespace
                ),
                "install the chart, or name Lull's namespace by --lull-namespace",
            )),
        }
    }
    let versions: BTreeSet<&str> = deployments.iter().filter_map(image_version).collect();
    if versions.len() > 1 {
        let versions = Vec::from_iter(versions).join(", ");
        findings.push(Area::Install.warning(
            format!("components are of different versions: {versions}"),
            "helm upgrade with one version, and wait for its rollouts",
        ));
    }
}

fn running(seen: &Seen, deployment: &Deployment, (component, without): (&str, &str)) -> Finding {
    let name = deployment.name_any();
    let (namespace, spec) = (&seen.namespace, deployment.spec.as_ref());
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.as_ref();
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
    let look = format!(
        "kubectl -n {namespace} describe deployment {name}; kubectl -n {namespace} get pods"
    );
    match (wanted, ready) {
        (0, _) => Area::Install.problem(
            format!("{component} is scaled to 0: {without}"),
            format!("kubectl -n {namespace} scale deployment {name} --replicas 2"),
        ),
        (_, 0) => Area::Install.problem(
            format!("no {component} is ready, of {wanted}: {without}"),
            look,
        ),
        (wanted, ready) if ready < wanted => Area::Install.warning(
            format!("{ready} of {wanted} replicas of {component} are ready"),
            look,
        ),
        _ => Area::Install.good(format!("{component}: {ready} of {wanted} ready")),
    }
}

/// Tag or digest of a component's image.
fn image_version(deployment: &Deployment) -> Option<&str> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let image = pod.containers.first()?.image.as_deref()?;
    // Digests differ by component, and say nothing of the version.
    let (_, name) = image.rsplit_once('/').unwrap_or(("", image));
    if name.contains('@') {
        return None;
    }
    name.rsplit_once(':').map(|(_, tag)| tag)
}

fn leases(seen: &Seen, findings: &mut Vec<Finding>) {
    let leases = match &seen.leases {
        Ok(leases) => leases,
        Err(why) => return findings.push(Area::Install.unknown("Leases of the shards", why)),
    };
    let held: BTreeSet<(u16, u16)> = leases
        .iter()
        .filter(|lease| is_held(lease, seen))
        .filter_map(|lease| Shards::of_lease(&lease.name_any()))
        .map(|(shards, shard)| (shards.count(), shard))
        .collect();
    let Some((count, _)) = held.iter().next_back() else {
        return findings.push(Area::Install.problem(
            "no autoscaler leads any shard: nothing is put to sleep",
            format!(
                "kubectl -n {} logs deployment/lull-autoscaler",
                seen.namespace
            ),
        ));
    };
    let led = held.iter().filter(|(of, _)| of == count).count();
    if led == usize::from(*count) {
        findings.push(Area::Install.good(format!("every shard has its leader ({count})")));
    } else {
        findings.push(Area::Install.warning(
            format!("{led} of {count} shards have a leader: the others' workloads are only woken"),
            "wait for a rollout of the autoscaler to end; then look at its logs",
        ));
    }
}

fn is_held(lease: &Lease, seen: &Seen) -> bool {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
    let is_renewed = is_fresh(lease, seen.now) || seen.renewed.contains(&lease.name_any());
    holder.is_some_and(|holder| !holder.is_empty()) && is_renewed
}

/// Whether it was renewed lately, where this machine's clock is that of the cluster.
pub(super) fn is_fresh(lease: &Lease, now: Timestamp) -> bool {
    renewed_at(lease).is_some_and(|at| now.duration_since(at).unsigned_abs() <= RENEWED)
}

fn renewed_at(lease: &Lease) -> Option<Timestamp> {
    Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
}

/// Names of the Leases that were renewed between two looks, whatever any clock says.
pub(super) fn renewed(before: &[Lease], after: &[Lease]) -> BTreeSet<String> {
    let is_renewed = |lease: &&Lease| {
        let mut same = before
            .iter()
            .filter(|old| old.name_any() == lease.name_any());
        let old = same.next().and_then(renewed_at);
        old.is_some() && old != renewed_at(lease)
    };
    let renewed = after.iter().filter(is_renewed);
    renewed.map(|lease| lease.name_any()).collect()
}

/// Whether every activator is heard: one that isn't keeps all workloads awake.
fn hearing(seen: &Seen, findings: &mut Vec<Finding>) {
    let lists = match &seen.lists {
        Ok(lists) => lists,
        Err(why) => {
            return findings.push(Area::Install.unknown("whether activators are heard", why));
        }
    };
    let mut deaf_by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for list in lists {
        for activator in &list.silent_activators {
            let replicas = deaf_by.entry(activator).or_default();
            replicas.push(&list.replica);
        }
    }
    if deaf_by.is_empty() {
        return findings.push(Area::Install.good("every activator that is ready is heard"));
    }
    for (activator, replicas) in deaf_by {
        findings.push(Area::Install.problem(
            format!(
                "{activator} is ready and not heard (by {}): what it holds is unknown, so no workload \
                 falls asleep",
                replicas.join(", ")
            ),
            format!(
                "kubectl -n {0} logs {activator}; kubectl -n {0} delete pod {activator}. Where the next \
                 one is silent, too: let autoscalers reach port 9090 of activators (NetworkPolicies)",
                seen.namespace
            ),
        ));
    }
}

fn settings(seen: &Seen, findings: &mut Vec<Finding>) {
    match &seen.settings {
        Ok(faults) if faults.is_empty() => {
            findings.push(Area::Install.good("the cluster-wide settings are right"));
        }
        Ok(faults) => findings.extend(faults.iter().map(|fault| {
            Area::Install.problem(
                format!("the newest cluster-wide settings are not taken: {fault}"),
                "put the chart's value settings right, or ConfigMap lull-settings",
            )
        })),
        Err(why) => findings.push(Area::Install.unknown("the cluster-wide settings", why)),
    }
}
