//! What stood in a public Service before Lull changed it: the value of the annotation
//! [`ORIGINAL_ANNOTATION`](crate::names::ORIGINAL_ANNOTATION), as JSON.
//!
//! The autoscaler writes it with its first change and reads it to give the Service back. The webhook
//! reads it to tell a manifest that is applied again from one that says something new.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What stood in a Service before Lull changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Original {
    /// The ports that Lull has changed.
    pub ports: Vec<OriginalPort>,
    /// The user's selector.
    pub selector: BTreeMap<String, String>,
}

/// One port as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginalPort {
    /// Number of the Service port; it is a TCP port.
    pub port: i32,
    /// The user's target.
    pub target_port: TargetPort,
}

/// `targetPort` of a Service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// A number.
    Number(i32),
    /// Name of a container port.
    Name(String),
}

// === impl Original ===

impl Original {
    /// The record that `text` is; `None` where it can't be read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As the annotation's value.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Strings and numbers alone: it can't fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What `port` targeted, if Lull has changed it.
    #[must_use]
    pub fn target(&self, port: i32) -> Option<&TargetPort> {
        let noted = self.ports.iter().find(|noted| noted.port == port);
        noted.map(|noted| &noted.target_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_earlier_versions_wrote_and_reads_back() {
        let original = Original {
            ports: vec![
                OriginalPort {
                    port: 80,
                    target_port: TargetPort::Name("web".into()),
                },
                OriginalPort {
                    port: 81,
                    target_port: TargetPort::Number(9000),
                },
            ],
            selector: [("app".to_owned(), "shop".to_owned())].into(),
        };
        let text = original.to_text();
        assert_eq!(
            text,
            r#"{"ports":[{"port":80,"targetPort":"web"},{"port":81,"targetPort":9000}],"selector":{"app":"shop"}}"#
        );
        assert_eq!(Original::parse(&text), Some(original.clone()));
        assert_eq!(original.target(81), Some(&TargetPort::Number(9000)));
        assert_eq!(original.target(82), None);
        for broken in ["", "{}", r#"{"ports":[{"port":"x"}],"selector":{}}"#] {
            assert_eq!(Original::parse(broken), None, "{broken}");
        }
    }
}
