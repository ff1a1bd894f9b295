//! Services as Istio's objects name them.

use serde_json::Value;

/// DNS domain of Services, by which wildcards are read: Istio's own default.
const DOMAIN: &str = "svc.cluster.local";

/// The Services that a host of Istio's objects stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// One that is no Service of the cluster.
    Foreign,
    /// Every Service.
    Every,
    /// Every Service of this namespace.
    Namespace(String),
    /// The Service of this namespace and name.
    Service(String, String),
}

// === impl Host ===

impl Host {
    /// What `host` stands for in an object of `namespace`.
    #[must_use]
    pub fn read(host: &Value, namespace: &str) -> Self {
        let host = host.as_str().unwrap_or_default();
        if host.is_empty() {
            return Self::Foreign;
        }
        if host == "*" {
            return Self::Every;
        }
        if let Some(rest) = host.strip_prefix("*.") {
            return Self::wildcard(rest);
        }
        match host.split('.').collect::<Vec<_>>()[..] {
            [name] => Self::Service(namespace.to_owned(), name.to_owned()),
            [name, other, "svc", ..] => Self::Service(other.to_owned(), name.to_owned()),
            _ => Self::Foreign,
        }
    }

    /// What is behind `*.`.
    fn wildcard(rest: &str) -> Self {
        let is_part = |part: &str| DOMAIN == part || DOMAIN.ends_with(&format!(".{part}"));
        if is_part(rest) {
            return Self::Every;
        }
        match rest.split_once('.') {
            Some((namespace, domain)) if domain == "svc" || domain.starts_with("svc.") => {
                Self::Namespace(namespace.to_owned())
            }
            _ => Self::Foreign,
        }
    }

    /// Whether the Service called `name` in `namespace` is meant.
    #[must_use]
    pub fn is_for(&self, namespace: &str, name: &str) -> bool {
        match self {
            Self::Foreign => false,
            Self::Every => true,
            Self::Namespace(meant) => meant == namespace,
            Self::Service(meant, service) => meant == namespace && service == name,
        }
    }

    /// The namespace of all that is meant; empty where that is more than one, `None` where it is
    /// no Service.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Foreign => None,
            Self::Every => Some(""),
            Self::Namespace(namespace) | Self::Service(namespace, _) => Some(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hosts_are_read_as_istio_reads_them() {
        let service = |namespace: &str, name: &str| Host::Service(namespace.into(), name.into());
        let rows = [
            ("shop", service("own", "shop")),
            ("shop.team.svc.cluster.local", service("team", "shop")),
            ("shop.team.svc.example.org", service("team", "shop")),
            ("*", Host::Every),
            ("*.local", Host::Every),
            ("*.cluster.local", Host::Every),
            ("*.svc.cluster.local", Host::Every),
            ("*.team.svc.cluster.local", Host::Namespace("team".into())),
            ("*.example.org", Host::Foreign),
            ("*.ocal", Host::Foreign),
            // No short name to Istio, and no Service either.
            ("shop.team", Host::Foreign),
            ("api.example.org", Host::Foreign),
            ("", Host::Foreign),
        ];
        for (host, expected) in rows {
            assert_eq!(Host::read(&json!(host), "own"), expected, "{host}");
        }
        assert_eq!(Host::read(&Value::Null, "own"), Host::Foreign);
    }

    #[test]
    fn a_narrower_host_is_greater() {
        let narrow = Host::Service("team".into(), "shop".into());
        let wide = Host::Namespace("team".into());
        assert!(narrow > wide && wide > Host::Every && Host::Every > Host::Foreign);
        assert!(narrow.is_for("team", "shop") && !narrow.is_for("team", "bank"));
        assert!(wide.is_for("team", "bank") && !wide.is_for("own", "shop"));
    }
}
