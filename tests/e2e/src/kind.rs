//! The kinds of workload that the suite deploys, and where the API server has their objects.

/// A kind of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet, with a headless Service beside the other one.
    StatefulSet,
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Deployment, Self::StatefulSet];

    /// As it stands in an object's `kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
        }
    }

    /// As it stands in an object's `apiVersion`.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet => "apps/v1",
        }
    }

    /// As it stands in paths.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
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
