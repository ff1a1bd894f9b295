//! What the webhook notes on a template that it injected, so that it can take it back exactly.

use lull_contract::{injected::Sidecar, names::INJECTED_ANNOTATION};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ports::SmallPorts;

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
    pub(super) small_ports: SmallPorts,
    /// Containers that got our preStop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pre_stop: Vec<String>,
    /// Istio's list of excluded ports before ours were added, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exclude_inbound_ports: Option<String>,
    /// Istio's list of captured ports, where ours were added to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) include_inbound_ports: Option<Included>,
    /// Maps that the user's template had although they were empty: these don't go with our parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) keep_empty: Vec<String>,
}

/// A list of captured ports that got ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Included {
    /// What the user wrote.
    pub(super) before: String,
    /// Our traffic ports behind it.
    pub(super) added: Vec<u16>,
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
        serde_json::from_str(text).ok()
    }
}
