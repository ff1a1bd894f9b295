//! Kinds that Lull scales, as the configuration names them.

use std::{fmt, str::FromStr};

/// A resource with a `/scale` subresource, a count at `spec.replicas` and a pod template at
/// `spec.template`, written `GROUP/VERSION/PLURAL`: `apps/v1/deployments`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetResource {
    /// API group; empty for Kubernetes' core.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// Name in URLs, for instance `deployments`.
    pub plural: String,
}

/// The kinds that Lull scales, written with commas between them; by default those of Kubernetes that
/// can sleep. The chart's value `targets` names more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetResources(pub Vec<TargetResource>);

// === impl TargetResource ===

impl FromStr for TargetResource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.trim().split('/').collect();
        let (group, version, plural) = match parts[..] {
            [version, plural] => ("", version, plural),
            [group, version, plural] => (group, version, plural),
            _ => ("", "", ""),
        };
        if version.is_empty() || plural.is_empty() || plural.contains(char::is_uppercase) {
            return Err(format!(
                "{text:?} is not a resource: write GROUP/VERSION/PLURAL, for instance apps/v1/deployments"
            ));
        }
        Ok(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
        })
    }
}

impl fmt::Display for TargetResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            write!(f, "{}/{}", self.version, self.plural)
        } else {
            write!(f, "{}/{}/{}", self.group, self.version, self.plural)
        }
    }
}

// === impl TargetResources ===

impl Default for TargetResources {
    fn default() -> Self {
        let of_apps = |plural: &str| TargetResource {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            plural: plural.to_owned(),
        };
        Self(["deployments", "statefulsets"].map(of_apps).into())
    }
}

impl FromStr for TargetResources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kinds: Result<Vec<TargetResource>, String> =
            text.split(',').map(str::parse::<TargetResource>).collect();
        kinds.map(Self)
    }
}

impl fmt::Display for TargetResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&kinds.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_by_group_version_and_plural() {
        let text = |text: &str| text.parse::<TargetResource>().map(|r| r.to_string());
        assert_eq!(
            text(" apps/v1/deployments"),
            Ok("apps/v1/deployments".into())
        );
        assert_eq!(
            text("v1/replicationcontrollers").as_deref(),
            Ok("v1/replicationcontrollers")
        );
        for wrong in [
            "",
            "deployments",
            "apps/v1/Deployment",
            "a/b/c/d",
            "apps//x",
            "apps/v1/",
        ] {
            let error = text(wrong).unwrap_err();
            assert!(error.contains("GROUP/VERSION/PLURAL"), "{wrong}: {error}");
        }
    }

    #[test]
    fn several_are_written_with_commas() {
        let default = TargetResources::default();
        let text = "apps/v1/deployments,apps/v1/statefulsets";
        assert_eq!(default.to_string(), text);
        let parse = |text: &str| text.parse::<TargetResources>();
        assert_eq!(parse(text), Ok(default.clone()));
        assert_eq!(parse(&text.replace(',', ", ")), Ok(default));
        let wrong = parse("apps/v1/deployments,rollouts").unwrap_err();
        assert!(wrong.contains("\"rollouts\" is not a resource"), "{wrong}");
        assert!(parse("").is_err());
    }
}
