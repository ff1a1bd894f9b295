//! What the webhook notes on a template that it injected, so that it can take it back exactly.

use lull_contract::{
    AppPort, HumanDuration,
    annotations::{SidecarResources, Wanted},
    names::INJECTED_ANNOTATION,
    settings::Ignore,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ports::{self, SmallPorts};

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

/// What goes from the annotations into the sidecar; a change of it renders the sidecar anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// App ports, in the order of their traffic ports.
    pub ports: Vec<AppPort>,
    /// Hard limit of requests in flight; 0 = none.
    pub container_concurrency: u32,
    /// Requests that may wait for a slot.
    pub queue_depth: u32,
    /// Longest time of a request.
    pub timeout: HumanDuration,
    /// Longest time to the first byte of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_start_timeout: Option<HumanDuration>,
    /// Longest time without a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<HumanDuration>,
    /// What does not count.
    pub ignore: Ignore,
    /// Whether there is a line for each request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub access_log: bool,
    /// Requests and limits.
    pub resources: SidecarResources,
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

// === impl Sidecar ===

impl Sidecar {
    /// The sidecar of a template (without our parts) whose annotations say `wanted`.
    ///
    /// # Errors
    /// The template declares no port and the annotations name none.
    pub(super) fn resolve(wanted: &Wanted, template: &Value) -> Result<Self, String> {
        let settings = &wanted.settings;
        Ok(Self {
            ports: ports::app_ports(wanted.ports.as_deref(), template)?,
            container_concurrency: settings.container_concurrency,
            queue_depth: settings.queue_depth,
            timeout: settings.timeout,
            response_start_timeout: settings.response_start_timeout,
            idle_timeout: settings.idle_timeout,
            ignore: settings.ignore.clone(),
            access_log: wanted.access_log,
            resources: wanted.sidecar.clone(),
        })
    }
}
