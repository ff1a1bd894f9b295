//! The kinds of workload that the suite deploys, and where the API server has their objects.

use kube::core::ApiResource;

/// A kind of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet, with a headless Service beside the other one.
    StatefulSet,
    /// The suite's own kind, see [`crate::rollouts`]; the API server may not know it.
    Rollout,
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::Rollout];

    /// As it stands in an object's `kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::Rollout => "Rollout",
        }
    }

    /// As it stands in an object's `apiVersion`.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "apps/v1",
            Self::Rollout => "e2e.lull.dev/v1",
        }
    }

    /// As it stands in paths.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::Rollout => "rollouts",
        }
    }

    /// Path of its objects in `namespace`.
    #[must_use]
    pub fn path(self, namespace: &str) -> String {
        let (api_version, plural) = (self.api_version(), self.plural());
        format!("/apis/{api_version}/namespaces/{namespace}/{plural}")
    }

    /// Content type of its patches, which know containers by their names where the kind can do so.
    #[must_use]
    pub fn patch_type(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "application/strategic-merge-patch+json",
            Self::Rollout => "application/merge-patch+json",
        }
    }

    /// What a client needs for objects of the kind.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        let api_version = self.api_version();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: self.name().to_owned(),
            plural: self.plural().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api_server() {
        assert_eq!(
            Kind::StatefulSet.path("shop"),
            "/apis/apps/v1/namespaces/shop/statefulsets"
        );
    }
}
