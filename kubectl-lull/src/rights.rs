//! Rights as RBAC names them. What a plan reads stands here once: for those who read it, who say what
//! they may not read by it, and for `doctor`, which asks for it beforehand.

use autoscaler::mesh::{MESH_CONFIG, RuleKind};
use lull_contract::target_resource::TargetResource;

use crate::{cluster::Cluster, gather::SETTINGS, told::AUTOSCALER};

/// Where a right is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The namespace of the command.
    Here,
    /// Lull's own namespace.
    Lull,
    /// The mesh's root namespace.
    MeshRoot,
    /// Every namespace.
    Everywhere,
}

/// A right, as RBAC names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    /// What may be done.
    pub(crate) verb: &'static str,
    /// API group; empty for Kubernetes' core.
    pub(crate) group: String,
    /// Resource, with its subresource behind a slash.
    pub(crate) resource: String,
    /// The one object that it is about; `None`: all of them.
    pub(crate) name: Option<&'static str>,
    /// What it is needed for.
    pub(crate) purpose: &'static str,
    /// Where it is needed.
    pub(crate) place: Place,
}

/// What a plan reads, but for workloads and Istio's rules, which are of several kinds
/// ([`of_targets`], [`of_rules`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The namespace's Services.
    Services,
    /// Its HorizontalPodAutoscalers.
    Scalers,
    /// Its NetworkPolicies.
    Policies,
    /// Its PodDisruptionBudgets.
    Budgets,
    /// Its ResourceQuotas.
    Quotas,
    /// Its LimitRanges.
    Ranges,
    /// Its EndpointSlices.
    Slices,
    /// The workload's ScaledWorkload.
    Scaled,
    /// What the autoscaler is told: its Deployment.
    Autoscaler,
    /// The cluster-wide settings.
    Settings,
    /// Lull's own pods.
    LullPods,
    /// Labels of Lull's namespace.
    LullNamespace,
    /// Of a mesh: labels of the workload's namespace.
    Namespace,
    /// Of a mesh: the workload's pods.
    Pods,
    /// Of a mesh: its WorkloadEntries.
    Entries,
    /// Of a mesh: istiod's Deployments.
    Istiods,
    /// Of a mesh: its configuration.
    MeshConfig,
}

/// Rights to look at `kinds` of workloads.
pub(crate) fn of_targets(kinds: &[TargetResource]) -> impl Iterator<Item = Right> {
    let rights = |kind: &TargetResource| ["get", "list"].map(|verb| of_target(verb, kind));
    kinds.iter().flat_map(rights)
}

/// The right to do that with workloads of `kind`.
fn of_target(verb: &'static str, kind: &TargetResource) -> Right {
    Right::new(verb, (&kind.group, &kind.plural), "plan", Place::Here)
}

/// Rights to list Istio's rules of `kind` where a plan looks for them.
pub(crate) fn of_rules(kind: RuleKind) -> Vec<Right> {
    let places = if kind.is_of_any_namespace() {
        &[Place::Everywhere][..]
    } else {
        &[Place::MeshRoot, Place::Here][..]
    };
    let resource = kind.resource();
    let of = (resource.group.as_str(), resource.plural.as_str());
    let right = |place: &Place| Right::new("list", of, "plan", *place);
    places.iter().map(right).collect()
}

// === impl Reading ===

impl Reading {
    /// Every one.
    pub(crate) const ALL: [Self; 17] = [
        Self::Services,
        Self::Scalers,
        Self::Policies,
        Self::Budgets,
        Self::Quotas,
        Self::Ranges,
        Self::Slices,
        Self::Scaled,
        Self::Autoscaler,
        Self::Settings,
        Self::LullPods,
        Self::LullNamespace,
        Self::Namespace,
        Self::Pods,
        Self::Entries,
        Self::Istiods,
        Self::MeshConfig,
    ];

    /// Whether it is read of a mesh alone.
    pub(crate) fn is_of_mesh(self) -> bool {
        matches!(
            self,
            Self::Namespace | Self::Pods | Self::Entries | Self::Istiods | Self::MeshConfig
        )
    }

    /// The right to do so.
    pub(crate) fn right(self) -> Right {
        use Place::{Here, Lull, MeshRoot};
        let (verb, resource, place) = match self {
            Self::Services => ("list", ("", "services"), Here),
            Self::Scalers => ("list", ("autoscaling", "horizontalpodautoscalers"), Here),
            Self::Policies => ("list", ("networking.k8s.io", "networkpolicies"), Here),
            Self::Budgets => ("list", ("policy", "poddisruptionbudgets"), Here),
            Self::Quotas => ("list", ("", "resourcequotas"), Here),
            Self::Ranges => ("list", ("", "limitranges"), Here),
            Self::Slices => ("list", ("discovery.k8s.io", "endpointslices"), Here),
            Self::Scaled => ("get", ("lull.dev", "scaledworkloads"), Here),
            Self::Autoscaler => ("get", ("apps", "deployments"), Lull),
            Self::Settings => ("get", ("", "configmaps"), Lull),
            Self::LullPods => ("list", ("", "pods"), Lull),
            Self::LullNamespace => ("get", ("", "namespaces"), Lull),
            Self::Namespace => ("get", ("", "namespaces"), Here),
            Self::Pods => ("list", ("", "pods"), Here),
            Self::Entries => ("list", ("networking.istio.io", "workloadentries"), Here),
            Self::Istiods => ("list", ("apps", "deployments"), MeshRoot),
            Self::MeshConfig => ("get", ("", "configmaps"), MeshRoot),
        };
        let purpose = match self {
            Self::LullPods => "plan, why, history, ui",
            _ => "plan",
        };
        let name = match self {
            Self::Autoscaler => Some(AUTOSCALER),
            Self::Settings => Some(SETTINGS),
            Self::MeshConfig => Some(MESH_CONFIG),
            _ => None,
        };
        Right {
            name,
            ..Right::new(verb, resource, purpose, place)
        }
    }

    /// What is said where the user lacks it, with what follows from that.
    pub(crate) fn lacked(self, cluster: &Cluster, effect: &str) -> String {
        self.right().lacked(cluster, effect)
    }
}

// === impl Right ===

impl Right {
    /// The right to do `verb` with every object of a resource, which is named by group and plural.
    pub(crate) fn new(
        verb: &'static str,
        (group, resource): (&str, &str),
        purpose: &'static str,
        place: Place,
    ) -> Self {
        Self {
            verb,
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: None,
            purpose,
            place,
        }
    }

    /// Where it is needed; `None`: in all namespaces.
    pub(crate) fn namespace<'a>(
        &self,
        cluster: &'a Cluster,
        mesh_root: &'a str,
    ) -> Option<&'a str> {
        match self.place {
            Place::Here => Some(&cluster.namespace),
            Place::Lull => Some(&cluster.lull_namespace),
            Place::MeshRoot => Some(mesh_root),
            Place::Everywhere => None,
        }
    }

    /// As a person says it.
    pub(crate) fn text(&self) -> String {
        let Self {
            verb,
            group,
            resource,
            ..
        } = self;
        let name = self.name.map(|name| format!(" {name}")).unwrap_or_default();
        if group.is_empty() {
            format!("{verb} {resource}{name}")
        } else {
            format!("{verb} {resource}.{group}{name}")
        }
    }

    /// What is said where the user lacks it, with what follows from that.
    fn lacked(&self, cluster: &Cluster, effect: &str) -> String {
        let text = self.text();
        match self.namespace(cluster, "the mesh's root") {
            Some(namespace) => format!("you may not {text} in namespace {namespace}: {effect}"),
            None => format!("you may not {text} in all namespaces: {effect}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use autoscaler::mesh::WorkloadEntry;
    use k8s_openapi::api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, LimitRange, Namespace, Pod, ResourceQuota, Service},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    };
    use kube::Resource;
    use lull_contract::scaled_workload::ScaledWorkload;

    use super::*;

    fn of<K: Resource<DynamicType = ()>>() -> (String, String) {
        (K::group(&()).into_owned(), K::plural(&()).into_owned())
    }

    #[test]
    fn every_right_names_the_kind_that_is_read() {
        for reading in Reading::ALL {
            let read = match reading {
                Reading::Services => of::<Service>(),
                Reading::Scalers => of::<HorizontalPodAutoscaler>(),
                Reading::Policies => of::<NetworkPolicy>(),
                Reading::Budgets => of::<PodDisruptionBudget>(),
                Reading::Quotas => of::<ResourceQuota>(),
                Reading::Ranges => of::<LimitRange>(),
                Reading::Slices => of::<EndpointSlice>(),
                Reading::Scaled => of::<ScaledWorkload>(),
                Reading::Autoscaler | Reading::Istiods => of::<Deployment>(),
                Reading::Settings | Reading::MeshConfig => of::<ConfigMap>(),
                Reading::LullPods | Reading::Pods => of::<Pod>(),
                Reading::LullNamespace | Reading::Namespace => of::<Namespace>(),
                Reading::Entries => of::<WorkloadEntry>(),
            };
            let right = reading.right();
            assert_eq!((right.group, right.resource), read, "{reading:?}");
        }
    }

    #[test]
    fn no_right_is_asked_for_twice() {
        let all = Reading::ALL.map(|reading| {
            let right = reading.right();
            let place = format!("{:?}", right.place);
            (right.text(), place)
        });
        let different: HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }

    #[test]
    fn rules_are_looked_for_everywhere_or_here_and_in_the_root_namespace() {
        let places = |kind| -> Vec<Place> {
            let rights = of_rules(kind).into_iter();
            rights.map(|right| right.place).collect()
        };
        assert_eq!(places(RuleKind::VirtualService), [Place::Everywhere]);
        let both = [Place::MeshRoot, Place::Here];
        assert_eq!(places(RuleKind::Sidecar), both);
        let rules = of_rules(RuleKind::DestinationRule);
        assert_eq!(rules[0].text(), "list destinationrules.networking.istio.io");
    }

    #[test]
    fn workloads_are_looked_at_by_name_and_listed() {
        let kinds: [TargetResource; 1] = ["apps/v1/statefulsets".parse().unwrap()];
        let texts: Vec<String> = of_targets(&kinds).map(|right| right.text()).collect();
        assert_eq!(texts, ["get statefulsets.apps", "list statefulsets.apps"]);
    }
}
