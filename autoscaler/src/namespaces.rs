//! The namespaces whose workloads Lull runs.

use std::{collections::BTreeSet, convert::Infallible, fmt, str::FromStr};

/// Kubernetes' own namespace.
const SYSTEM: &str = "kube-system";

/// Names of namespaces; none of them means all there are. As text: with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    names: BTreeSet<String>,
    /// Whatever the names say.
    never: BTreeSet<String>,
}

impl Namespaces {
    /// Whether workloads of `namespace` are Lull's business.
    #[must_use]
    pub fn has(&self, namespace: &str) -> bool {
        let is_named = self.names.is_empty() || self.names.contains(namespace);
        is_named && !self.never_has(namespace)
    }

    /// The same without those where the webhook is never asked: Kubernetes' own, and `own`, which is
    /// Lull's.
    #[must_use]
    pub fn beside(mut self, own: &str) -> Self {
        self.never = [SYSTEM, own].map(str::to_owned).into();
        self
    }

    /// Whether workloads of `namespace` are nobody's business, whatever is named.
    #[must_use]
    pub fn never_has(&self, namespace: &str) -> bool {
        self.never.contains(namespace)
    }

    /// The first by name; `None` where all there are are meant.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        let mut names = self.names.iter().map(String::as_str);
        names.find(|name| !self.never_has(name))
    }
}

impl FromStr for Namespaces {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let names = text.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        Ok(Self {
            names: names.map(str::to_owned).collect(),
            never: BTreeSet::new(),
        })
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_all_namespaces_are_meant() {
        for text in ["", " ", ","] {
            let all: Namespaces = text.parse().unwrap();
            assert!(all.has("web"), "{text:?}");
            assert_eq!(all, Namespaces::default());
            assert_eq!(all.first(), None);
        }
    }

    #[test]
    fn kubernetes_own_and_lulls_own_are_never_meant() {
        for text in ["", "web,kube-system,lull-system"] {
            let namespaces = text.parse::<Namespaces>().unwrap().beside("lull-system");
            assert!(namespaces.has("web"), "{text:?}");
            assert!(!namespaces.never_has("web"), "{text:?}");
            for never in ["kube-system", "lull-system"] {
                assert!(!namespaces.has(never), "{text:?}");
                assert!(namespaces.never_has(never), "{text:?}");
            }
        }
    }

    #[test]
    fn with_names_only_these_are_meant() {
        let some: Namespaces = "web, shop".parse().unwrap();
        assert!(some.has("web") && some.has("shop"));
        assert!(!some.has("we") && !some.has(""));
        assert_eq!(some.first(), Some("shop"));
        assert_eq!(some.to_string().parse::<Namespaces>(), Ok(some));
    }
}
