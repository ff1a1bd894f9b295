//! How a workload is named on the command line, and how `list` shows it so that it can be typed again. Pure.
//!
//! | written | what |
//! |---|---|
//! | `shop`, `deploy/shop`, `sts/db` | Kubernetes' own kinds |
//! | `argoproj.io/v1alpha1/rollouts/shop` | any kind, by its resource |
//! | `rollout.argoproj.io/shop`, `rollout/shop` | one that Lull runs, by its kind: its ScaledWorkload tells the rest |

use std::str::FromStr;

use lull_contract::{
    names::workload_id, scaled_workload::Target, target_resource::TargetResource,
    view::WorkloadView,
};

/// The API group of Deployments and StatefulSets, which is not written.
const APPS: &str = "apps";
/// The kind whose ScaledWorkloads have no kind in their names.
const DEPLOYMENT: &str = "Deployment";
/// Longest name of an object.
const MAX_NAME: usize = 253;

/// `deploy/shop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkloadName {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its own name.
    pub(crate) name: String,
}

/// How a kind is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By its resource.
    Resource(TargetResource),
    /// As `list` shows it.
    Shown(ShownKind),
}

/// A kind by its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownKind {
    /// In lower case.
    kind: String,
    /// Its API group, where that is written.
    group: Option<String>,
}

/// A workload as it may be named on the command line.
pub(crate) fn shown(workload: &WorkloadView) -> String {
    let kind = workload.target_kind.to_ascii_lowercase();
    let name = &workload.target_name;
    match group_of(&workload.target_api_version) {
        // An autoscaler of before tells no version.
        "" | APPS => format!("{kind}/{name}"),
        group => format!("{kind}.{group}/{name}"),
    }
}

/// The group of `apps/v1`; empty for Kubernetes' core.
fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether an object may be called so: whatever else would be asked for under another path.
fn is_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    text.len() <= MAX_NAME
        && text.chars().all(is_allowed)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

// === impl ShownKind ===

impl ShownKind {
    /// `None` where no kind is called so.
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (kind, group) = match text.split_once('.') {
            Some((kind, group)) => (kind, Some(group)),
            None => (text.as_str(), None),
        };
        let is_right = is_name(kind) && group.is_none_or(is_name);
        is_right.then(|| Self {
            kind: kind.to_owned(),
            group: group.map(str::to_owned),
        })
    }

    /// Name of the ScaledWorkload of the object `name` of this kind.
    pub(crate) fn id(&self, name: &str) -> String {
        let is_deployment = self.kind.eq_ignore_ascii_case(DEPLOYMENT);
        let kind = if is_deployment {
            DEPLOYMENT
        } else {
            self.kind.as_str()
        };
        workload_id(kind, name)
    }

    /// Whether `target` is the object `name` of this kind.
    pub(crate) fn is_of(&self, target: &Target, name: &str) -> bool {
        let group = group_of(&target.api_version);
        self.kind.eq_ignore_ascii_case(&target.kind)
            && self.group.as_deref().is_none_or(|wanted| wanted == group)
            && target.name == name
    }

    /// As it was written.
    pub(crate) fn text(&self) -> String {
        match &self.group {
            Some(group) => format!("{}.{group}", self.kind),
            None => self.kind.clone(),
        }
    }
}

// === impl WorkloadName ===

impl FromStr for WorkloadName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{text:?} is no workload: write deploy/NAME, sts/NAME or GROUP/VERSION/PLURAL/NAME"
            )
        };
        let (kind, name) = text.rsplit_once('/').unwrap_or(("deploy", text));
        let kind =
            match kind {
                "deploy" | "deployment" | "deployments" | "deployment.apps"
                | "deployments.apps" => Kind::Resource("apps/v1/deployments".parse()?),
                "sts" | "statefulset" | "statefulsets" | "statefulset.apps"
                | "statefulsets.apps" => Kind::Resource("apps/v1/statefulsets".parse()?),
                resource if resource.contains('/') => Kind::Resource(resource.parse()?),
                other => Kind::Shown(ShownKind::read(other).ok_or_else(wrong)?),
            };
        if name.is_empty() {
            return Err(wrong());
        }
        if !is_name(name) {
            return Err(format!(
                "{name:?} is no name of a workload: names have lower-case letters, digits, - and ., \
                 at most {MAX_NAME} of them"
            ));
        }
        Ok(Self {
            kind,
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> WorkloadName {
        text.parse().unwrap()
    }

    #[test]
    fn workloads_are_named_as_kubectl_names_them() {
        let rows = [
            ("shop", "apps/v1/deployments", "shop"),
            ("deploy/shop", "apps/v1/deployments", "shop"),
            ("deployments.apps/shop", "apps/v1/deployments", "shop"),
            ("sts/db", "apps/v1/statefulsets", "db"),
            (
                "argoproj.io/v1alpha1/rollouts/shop",
                "argoproj.io/v1alpha1/rollouts",
                "shop",
            ),
        ];
        for (text, resource, name) in rows {
            let expected = WorkloadName {
                kind: Kind::Resource(resource.parse().unwrap()),
                name: name.to_owned(),
            };
            assert_eq!(read(text), expected, "{text}");
        }
        for wrong in [
            "",
            "deploy/",
            "rollout/",
            "/shop",
            "roll out/x",
            "rollout./x",
            "a b",
        ] {
            assert!(wrong.parse::<WorkloadName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_no_object_can_have_is_refused_with_what_is_allowed() {
        let long = "x".repeat(MAX_NAME + 1);
        for name in [
            "Shop",
            "shop,cart",
            "shop?x=1",
            "..",
            "-shop",
            "sh\u{1b}op",
            long.as_str(),
        ] {
            let wrong = format!("deploy/{name}").parse::<WorkloadName>();
            let wrong = wrong.unwrap_err();
            assert!(wrong.contains("lower-case letters"), "{wrong}");
            assert!(!wrong.contains(char::is_control), "{wrong:?}");
        }
    }

    fn target(api_version: &str, kind: &str) -> Target {
        Target {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "shop".to_owned(),
            uid: "1".to_owned(),
        }
    }

    /// How a workload is shown whose autoscaler tells of `target`.
    fn shown_of(target: &Target) -> String {
        shown(&WorkloadView {
            target_api_version: target.api_version.clone(),
            target_kind: target.kind.clone(),
            target_name: target.name.clone(),
            ..WorkloadView::default()
        })
    }

    #[test]
    fn what_is_shown_of_kubernetes_own_kinds_can_be_typed_again() {
        for (kind, expected) in [("Deployment", "deploy/shop"), ("StatefulSet", "sts/shop")] {
            for api_version in ["apps/v1", ""] {
                let text = shown_of(&target(api_version, kind));
                assert_eq!(read(&text), read(expected), "{text}");
            }
        }
    }

    #[test]
    fn what_is_shown_of_any_other_kind_can_be_typed_again_and_is_that_one_alone() {
        let all = [
            target("argoproj.io/v1alpha1", "Rollout"),
            target("example.org/v1", "Rollout"),
            target("v1", "ReplicationController"),
            target("apps.kruise.io/v1beta1", "StatefulSet"),
            target("example.org/v1", "Deployment"),
        ];
        for one in &all {
            let text = shown_of(one);
            let WorkloadName { kind, name } = read(&text);
            let kind = match kind {
                Kind::Shown(kind) => kind,
                other => panic!("{text} is taken for {other:?}"),
            };
            assert_eq!(kind.id(&name), workload_id(&one.kind, "shop"), "{text}");
            let meant: Vec<&Target> = all.iter().filter(|t| kind.is_of(t, &name)).collect();
            assert_eq!(meant, [one], "{text}");
        }
    }

    #[test]
    fn a_kind_without_its_group_is_the_one_that_lull_runs() {
        let Kind::Shown(kind) = read("Rollout/shop").kind else {
            panic!("it has no resource");
        };
        assert_eq!(kind.id("shop"), "shop.rollout");
        assert!(kind.is_of(&target("argoproj.io/v1alpha1", "Rollout"), "shop"));
        assert!(!kind.is_of(&target("argoproj.io/v1alpha1", "Rollout"), "cart"));
        assert!(!kind.is_of(&target("apps/v1", "Deployment"), "shop"));
    }
}
