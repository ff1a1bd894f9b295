//! The namespaces whose workloads Lull runs.

use std::{collections::BTreeSet, convert::Infallible, fmt, str::FromStr};

/// Names of namespaces; none of them means all there are. As text: with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces(BTreeSet<String>);

impl Namespaces {
    /// Whether workloads of `namespace` are Lull's business.
    #[must_use]
    pub fn has(&self, namespace: &str) -> bool {
        self.0.is_empty() || self.0.contains(namespace)
    }

    /// The first by name; `None` where all there are are meant.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }
}

impl FromStr for Namespaces {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let names = text.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        Ok(Self(names.map(str::to_owned).collect()))
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(String::as_str).collect();
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
    fn with_names_only_these_are_meant() {
        let some: Namespaces = "web, shop".parse().unwrap();
        assert!(some.has("web") && some.has("shop"));
        assert!(!some.has("we") && !some.has(""));
        assert_eq!(some.first(), Some("shop"));
        assert_eq!(some.to_string().parse::<Namespaces>(), Ok(some));
    }
}
