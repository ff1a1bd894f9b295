//! What the user and the autoscaler may do.

use autoscaler::mesh::RuleKind;
use lull_contract::target_resource::{TargetResource, TargetResources};

use super::{Area, Finding, Seen};
use crate::{
    rights::{Place, Reading, Right, of_rules, of_targets},
    told::Told,
};

/// A right: what may be done, group and resource, what for, where.
type Row = (
    &'static str,
    (&'static str, &'static str),
    &'static str,
    Place,
);

/// What the commands need beside what a plan reads and what they do with workloads ([`of_kinds`]).
const OF_COMMANDS: [Row; 5] = [
    (
        "list",
        ("lull.dev", "scaledworkloads"),
        "list, why",
        Place::Here,
    ),
    (
        "list",
        ("events.k8s.io", "events"),
        "history, where the autoscaler doesn't know it",
        Place::Here,
    ),
    (
        "get",
        ("", "pods/proxy"),
        "list, why, history; or else by pods/portforward",
        Place::Lull,
    ),
    // A port is forwarded over a WebSocket, which begins with a GET.
    ("get", ("", "pods/portforward"), "ui", Place::Lull),
    (
        "create",
        ("", "pods/portforward"),
        "ui, by Kubernetes 1.35 and later",
        Place::Lull,
    ),
];

/// What the autoscaler can't do without.
const OF_THE_AUTOSCALER: [Row; 7] = [
    (
        "patch",
        ("apps", "deployments/scale"),
        "to put Deployments to sleep and wake them",
        Place::Here,
    ),
    (
        "patch",
        ("apps", "statefulsets/scale"),
        "to put StatefulSets to sleep and wake them",
        Place::Here,
    ),
    ("patch", ("", "services"), "to switch Services", Place::Here),
    (
        "patch",
        ("discovery.k8s.io", "endpointslices"),
        "to put activators into endpoints",
        Place::Here,
    ),
    (
        "patch",
        ("lull.dev", "scaledworkloads/status"),
        "to say what it does",
        Place::Here,
    ),
    ("watch", ("", "pods"), "to see pods", Place::Here),
    (
        "update",
        ("coordination.k8s.io", "leases"),
        "to lead shards",
        Place::Lull,
    ),
];

/// What it can't do without beside that, where there is a mesh for it.
const OF_THE_AUTOSCALER_IN_A_MESH: [Row; 2] = [
    (
        "patch",
        ("networking.istio.io", "workloadentries"),
        "to tell callers in the mesh of activators",
        Place::Here,
    ),
    (
        "patch",
        ("networking.istio.io", "destinationrules"),
        "for lull.dev/connect-timeout and lull.dev/standby",
        Place::Here,
    ),
];

/// What the user needs for all commands, where the autoscaler is `told` so; with what is read of a
/// mesh where there is one for it.
pub(super) fn of_the_user(told: &Told, has_mesh: bool) -> Vec<Right> {
    let targets: TargetResources = told.targets.clone().unwrap_or_default();
    let readings = Reading::ALL.into_iter();
    let readings = readings.filter(|reading| has_mesh || !reading.is_of_mesh());
    let rules = RuleKind::ALL.into_iter().filter(|_| has_mesh);
    of_rows(&OF_COMMANDS)
        .chain(of_kinds(&targets.0))
        .chain(of_targets(&targets.0))
        .chain(readings.map(Reading::right))
        .chain(rules.flat_map(of_rules))
        .collect()
}

/// What the commands do with workloads of `kinds`; a count is read before it is written.
fn of_kinds(kinds: &[TargetResource]) -> impl Iterator<Item = Right> {
    let rights = |kind: &TargetResource| {
        let (group, plural) = (kind.group.as_str(), kind.plural.as_str());
        let scale = format!("{plural}/scale");
        let right =
            |verb, resource, purpose| Right::new(verb, (group, resource), purpose, Place::Here);
        [
            right("patch", plural, "on, off"),
            right("get", scale.as_str(), "wake, sleep"),
            right("patch", scale.as_str(), "wake, sleep"),
        ]
    };
    kinds.iter().flat_map(rights)
}

/// What the autoscaler can't do without, where there is a mesh for it or none.
pub(super) fn of_the_autoscaler(has_mesh: bool) -> Vec<Right> {
    let in_a_mesh = of_rows(&OF_THE_AUTOSCALER_IN_A_MESH).filter(|_| has_mesh);
    of_rows(&OF_THE_AUTOSCALER).chain(in_a_mesh).collect()
}

fn of_rows(rows: &[Row]) -> impl Iterator<Item = Right> {
    let rows = rows.iter().copied();
    rows.map(|(verb, resource, purpose, place)| Right::new(verb, resource, purpose, place))
}

/// Findings about the user's permissions.
pub(super) fn of_user(seen: &Seen, findings: &mut Vec<Finding>) {
    match &seen.lacking {
        Ok(lacking) if lacking.is_empty() => {
            findings.push(Area::Permissions.good("you may do what kubectl lull does"));
        }
        Ok(lacking) => findings.extend(lacking.iter().map(|right| {
            Area::Permissions.warning(
                format!("you may not {} (for {})", right.text(), right.purpose),
                "a Role with that right, where you want those commands",
            )
        })),
        Err(why) => findings.push(Area::Permissions.unknown("your rights", why)),
    }
}

/// Findings about the autoscaler's.
pub(super) fn of_autoscaler(seen: &Seen, findings: &mut Vec<Finding>) {
    match &seen.autoscaler_lacking {
        Ok(lacking) if lacking.is_empty() => {
            findings.push(Area::Permissions.good("the autoscaler may do its work"));
        }
        Ok(lacking) => findings.extend(lacking.iter().map(|right| {
            Area::Permissions.problem(
                format!(
                    "the autoscaler may not {}, which it needs {}",
                    right.text(),
                    right.purpose
                ),
                "helm upgrade with the same version puts ClusterRole lull-autoscaler and its \
                 binding right",
            )
        })),
        Err(why) => findings.push(Area::Permissions.unknown("the autoscaler's rights", why)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use autoscaler::mesh::MeshMode;
    use lull_process::docs;

    use super::*;

    fn rights(has_mesh: bool) -> Vec<Right> {
        let told = Told {
            targets: None,
            namespaces: autoscaler::namespaces::Namespaces::default(),
            mesh_mode: if has_mesh {
                MeshMode::Auto
            } else {
                MeshMode::None
            },
            mesh_root: "istio-system".to_owned(),
        };
        of_the_user(&told, has_mesh)
    }

    fn texts(has_mesh: bool) -> Vec<String> {
        rights(has_mesh).iter().map(Right::text).collect()
    }

    #[test]
    fn the_manual_has_every_right_and_where_it_is_needed() {
        let place = |place: Place| match place {
            Place::Here => "workload",
            Place::Lull => "Lull",
            Place::MeshRoot => "mesh",
            Place::Everywhere => "all",
        };
        let needed: BTreeSet<(String, String)> = rights(true)
            .iter()
            .map(|right| (right.text(), place(right.place).to_owned()))
            .collect();
        let rows = docs::table(include_str!("../../../docs/kubectl-lull.md"), "Rights");
        let documented: BTreeSet<(String, String)> = rows
            .iter()
            .flat_map(|row| {
                let rights = docs::quoted(&row["right"]).into_iter();
                rights.map(move |right| (right.to_owned(), row["where"].clone()))
            })
            .collect();
        assert_eq!(documented, needed);
    }

    #[test]
    fn all_that_commands_read_and_write_is_asked_for() {
        let plain = texts(false);
        for right in [
            "list services",
            "list horizontalpodautoscalers.autoscaling",
            "list networkpolicies.networking.k8s.io",
            "list poddisruptionbudgets.policy",
            "list resourcequotas",
            "list limitranges",
            "get deployments.apps",
            "list statefulsets.apps",
            "get configmaps lull-settings",
            "list endpointslices.discovery.k8s.io",
            "patch deployments.apps",
            "get deployments/scale.apps",
            "patch statefulsets/scale.apps",
            "list events.events.k8s.io",
        ] {
            assert!(plain.iter().any(|text| text == right), "{right}: {plain:?}");
        }
        assert!(
            !plain.iter().any(|text| text.contains("istio")),
            "{plain:?}"
        );
        let meshed = texts(true);
        for right in [
            "list destinationrules.networking.istio.io",
            "list peerauthentications.security.istio.io",
            "list workloadentries.networking.istio.io",
        ] {
            assert!(
                meshed.iter().any(|text| text == right),
                "{right}: {meshed:?}"
            );
        }
    }

    #[test]
    fn the_autoscaler_writes_istios_objects_where_there_is_a_mesh() {
        let in_a_mesh = of_the_autoscaler(true);
        let alone = of_the_autoscaler(false);
        let more = in_a_mesh.iter().filter(|right| !alone.contains(right));
        let more: Vec<String> = more.map(Right::text).collect();
        assert_eq!(
            more,
            [
                "patch workloadentries.networking.istio.io",
                "patch destinationrules.networking.istio.io",
            ]
        );
        assert_eq!(in_a_mesh.len(), alone.len() + more.len());
    }
}
