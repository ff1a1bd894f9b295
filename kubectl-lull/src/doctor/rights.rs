//! What the user and the autoscaler may do.

use super::{Area, Finding, Right, Seen};

/// What the commands need.
pub(super) const OF_THE_USER: [Right; 7] = [
    Right {
        verb: "list",
        group: "lull.dev",
        resource: "scaledworkloads",
        purpose: "list, why",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "patch",
        group: "apps",
        resource: "deployments",
        purpose: "on, off",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "patch",
        group: "apps",
        resource: "deployments/scale",
        purpose: "wake, sleep",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "list",
        group: "networking.k8s.io",
        resource: "networkpolicies",
        purpose: "plan",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "list",
        group: "",
        resource: "pods",
        purpose: "why, history, ui",
        is_in_lull_namespace: true,
    },
    Right {
        verb: "get",
        group: "",
        resource: "pods/proxy",
        purpose: "list, why, history; or else by pods/portforward",
        is_in_lull_namespace: true,
    },
    Right {
        verb: "create",
        group: "",
        resource: "pods/portforward",
        purpose: "ui",
        is_in_lull_namespace: true,
    },
];

/// What the autoscaler can't do without.
pub(super) const OF_THE_AUTOSCALER: [Right; 7] = [
    Right {
        verb: "patch",
        group: "apps",
        resource: "deployments/scale",
        purpose: "to put Deployments to sleep and wake them",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "patch",
        group: "apps",
        resource: "statefulsets/scale",
        purpose: "to put StatefulSets to sleep and wake them",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "patch",
        group: "",
        resource: "services",
        purpose: "to switch Services",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "patch",
        group: "discovery.k8s.io",
        resource: "endpointslices",
        purpose: "to put activators into endpoints",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "patch",
        group: "lull.dev",
        resource: "scaledworkloads/status",
        purpose: "to say what it does",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "watch",
        group: "",
        resource: "pods",
        purpose: "to see pods",
        is_in_lull_namespace: false,
    },
    Right {
        verb: "update",
        group: "coordination.k8s.io",
        resource: "leases",
        purpose: "to lead shards",
        is_in_lull_namespace: true,
    },
];

/// Findings about permissions.
pub(super) fn find(seen: &Seen, findings: &mut Vec<Finding>) {
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

// === impl Right ===

impl Right {
    fn text(&self) -> String {
        let Self {
            verb,
            group,
            resource,
            ..
        } = self;
        if group.is_empty() {
            format!("{verb} {resource}")
        } else {
            format!("{verb} {resource}.{group}")
        }
    }
}
