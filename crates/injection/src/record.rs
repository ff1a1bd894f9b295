//! What the webhook notes on a template that it injected, so that it can take it back exactly.

use lull_contract::{injected::Sidecar, names::INJECTED_ANNOTATION, ports};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Value of the template annotation `lull.dev/injected`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The sidecar's image and the Lull that injected it.
    #[serde(flatten)]
    pub image: Image,
    /// What the sidecar was told.
    pub sidecar: Sidecar,
    /// The sidecar's own ports.
    pub small_ports: SmallPorts,
    /// App ports that older pods know by another number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub renumbered: Vec<Renumbered>,
    /// Containers that got our preStop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_stop: Vec<String>,
    /// Istio's list of excluded ports before ours were added, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_inbound_ports: Option<String>,
    /// Our traffic ports that were added to that list, since their app ports are in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded_traffic: Vec<u16>,
    /// Istio's list of captured ports, where ours were added to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_inbound_ports: Option<Included>,
    /// What the template got because Istio's container is an ordinary one; `None` where it is a native
    /// sidecar, as it is unless somebody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classic: Option<Classic>,
    /// Maps that the user's template had although they were empty: these don't go with our parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_empty: Vec<String>,
}

/// What a template gets where Istio's container is told to end together with the app's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Classic {
    /// For how long our preStop keeps the app's containers, seconds; 0 = they have none.
    pub hold_secs: u32,
    /// The settings of Istio's proxy, where something was added to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_config: Option<ProxyConfig>,
}

/// Settings of Istio's proxy that got ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// What the user wrote, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The same with ours.
    pub now: String,
}

/// An app port that has got another number under the name that it had.
///
/// Pods with the older template have no named port for the new number, and a Service targets one named
/// port of all its pods. So the sidecar's port has a name for each of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renumbered {
    /// The number that it had.
    pub was: u16,
    /// The number that it has.
    pub is: u16,
}

/// The sidecar's ports that carry no traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallPorts {
    /// Probes and `/wait-for-drain`.
    pub admin: u16,
    /// Reports for the autoscaler.
    pub report: u16,
    /// Prometheus text.
    pub metrics: u16,
}

/// A list of captured ports that got ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Included {
    /// What the user wrote.
    pub before: String,
    /// Our traffic ports behind it.
    pub added: Vec<u16>,
}

/// The sidecar's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Version of the Lull that chose it.
    pub version: String,
    /// Image reference.
    #[serde(rename = "image")]
    pub reference: String,
    /// `Always`, `IfNotPresent` or `Never`.
    #[serde(rename = "imagePullPolicy")]
    pub pull_policy: String,
}

// === impl Record ===

impl Record {
    /// The record on a template, if there is one that can be read.
    #[must_use]
    pub fn of(template: &Value) -> Option<Self> {
        let text = template
            .pointer("/metadata/annotations")?
            .get(INJECTED_ANNOTATION)?
            .as_str()?;
        Self::parse(text)
    }

    /// The record that `text`, the annotation's value, is; `None` where it can't be read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Our ports that Istio is told to exclude.
    #[must_use]
    pub fn excluded_ports(&self) -> Vec<u16> {
        let traffic = self.excluded_traffic.iter().copied();
        self.small_ports.all().into_iter().chain(traffic).collect()
    }
}

// === impl SmallPorts ===

impl SmallPorts {
    /// All three.
    #[must_use]
    pub fn all(self) -> [u16; 3] {
        [self.admin, self.report, self.metrics]
    }
}

impl Default for SmallPorts {
    fn default() -> Self {
        Self {
            admin: ports::ADMIN,
            report: ports::REPORT,
            metrics: ports::METRICS,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As versions of Lull have written them (`crates/contract/tests/formats.rs`).
    const FULL: &str = include_str!("../../contract/tests/formats/injected.json");
    const FIRST: &str = include_str!("../../contract/tests/formats/injected-first.json");

    fn read(text: &str) -> Record {
        let annotations = json!({ INJECTED_ANNOTATION: text });
        let template = json!({ "metadata": { "annotations": annotations } });
        Record::of(&template).unwrap()
    }

    fn image() -> Image {
        Image {
            version: "0.1.0".into(),
            reference: "lull/queue-proxy:0.1.0".into(),
            pull_policy: "IfNotPresent".into(),
        }
    }

    #[test]
    fn a_record_that_an_earlier_version_wrote_is_read() {
        let expected = Record {
            image: image(),
            sidecar: Sidecar::recorded(FULL).unwrap(),
            small_ports: SmallPorts {
                metrics: 9095,
                ..SmallPorts::default()
            },
            renumbered: Vec::new(),
            pre_stop: vec!["app".into()],
            exclude_inbound_ports: Some("6379".into()),
            excluded_traffic: vec![8013],
            include_inbound_ports: Some(Included {
                before: "8080".into(),
                added: vec![8012],
            }),
            classic: None,
            keep_empty: vec!["/metadata/annotations".into()],
        };
        assert_eq!(read(FULL), expected);
    }

    #[test]
    fn the_least_that_was_ever_written_is_a_record() {
        let expected = Record {
            image: image(),
            sidecar: Sidecar::recorded(FIRST).unwrap(),
            small_ports: SmallPorts::default(),
            renumbered: Vec::new(),
            pre_stop: Vec::new(),
            exclude_inbound_ports: None,
            excluded_traffic: Vec::new(),
            include_inbound_ports: None,
            classic: None,
            keep_empty: Vec::new(),
        };
        assert_eq!(read(FIRST), expected);
    }

    #[test]
    fn what_a_classic_proxy_needs_is_kept_in_a_record() {
        let classic = Classic {
            hold_secs: 12,
            proxy_config: Some(ProxyConfig {
                before: None,
                now: "{}".into(),
            }),
        };
        let record = Record {
            classic: Some(classic),
            ..read(FIRST)
        };
        let text = serde_json::to_string(&record).unwrap();
        let expected = r#""classic":{"holdSecs":12,"proxyConfig":{"now":"{}"}}"#;
        assert!(text.contains(expected), "{text}");
        assert_eq!(read(&text), record);
    }
}
