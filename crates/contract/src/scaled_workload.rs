//! The `ScaledWorkload` resource: resolved settings, allocated ports and the status of a workload.
//!
//! The autoscaler alone writes it, from the annotations; activators read it. It is all the state
//! that Lull keeps.

mod view;

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::view::is_odd;
use crate::{
    settings::{AppProtocol, Settings},
    view::{KeptAwake, WakeView},
};

// Objects that are stored outlive the version that wrote them, and for a while two versions run side by side:
// a field that is added has a default, in the spec its own `#[serde(default)]` (tests/formats.rs).

/// Desired state, made from a workload's annotations.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "lull.dev",
    version = "v1alpha1",
    kind = "ScaledWorkload",
    shortname = "sw",
    category = "lull",
    namespaced,
    status = "ScaledWorkloadStatus",
    doc = "A workload that Lull puts to sleep and wakes. Made by Lull from the annotations on the workload; do not edit.",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".status.mode","description":"Serve: callers reach the pods; Proxy: callers reach the activators"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Desired","type":"integer","jsonPath":".status.desired"}"#,
    printcolumn = r#"{"name":"In flight","type":"integer","jsonPath":".status.inFlight"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ScaledWorkloadSpec {
    /// The object whose `/scale` is written.
    pub target: Target,
    /// Labels that the workload's pods carry.
    pub pod_selector: BTreeMap<String, String>,
    /// One entry for each app port that Lull serves; none in a dry run.
    pub ports: Vec<WorkloadPort>,
    /// Settings after annotations and defaults.
    pub settings: Settings,
    /// Replicas that the workload had when it was enrolled; it gets at least these when it leaves.
    pub original_replicas: u32,
}

/// The scaled object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Group and version, for instance `apps/v1`.
    pub api_version: String,
    /// Kind, for instance `Deployment`.
    pub kind: String,
    /// Name, in the ScaledWorkload's namespace.
    pub name: String,
    /// Uid: a recreated object is another one.
    pub uid: String,
}

/// An app port and the activator port that stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadPort {
    /// The app's own port.
    pub app_port: u16,
    /// How its bytes are treated.
    pub protocol: AppProtocol,
    /// Where every activator listens for it.
    pub activator_port: u16,
}

/// Observed state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaledWorkloadStatus {
    /// Where the public Services point.
    pub mode: Mode,
    /// Step of the workload's life.
    pub state: State,
    /// Pods that can take traffic.
    pub ready: u32,
    /// Pods that the last decision wants.
    pub desired: u32,
    /// Requests in flight at pods plus held at activators.
    pub in_flight: u64,
    /// Of those, held at activators.
    pub held: u64,
    /// Why it is as it is, in a few words.
    pub reason: String,
    /// Public Services that Lull has switched to named ports.
    pub services: Vec<String>,
    /// Addresses of ready pods without a sidecar, where the template has lost it.
    pub plain_pods: Vec<String>,
    /// Last change of `state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Time>,
    /// Pod-seconds that it has been asleep for, until `stateSince`: its original count, by time.
    pub saved_pod_seconds: u64,
    /// The last wakes, the newest first; at most ten.
    pub wakes: Vec<WakeView>,
    /// Who keeps it awake, or has before it fell asleep; at most four callers. As it was when this status
    /// was written: it is no reason to write one.
    #[serde(skip_serializing_if = "KeptAwake::is_empty")]
    pub kept_awake: KeptAwake,
    /// Details for people and tools.
    pub conditions: Vec<Condition>,
}

/// Where the public Services of a workload point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Not enrolled: the Services are as the user made them.
    #[default]
    Direct,
    /// The pods.
    Serve,
    /// Activators (and pods, where they are ready and capacity is not short).
    Proxy,
}

/// Step of a workload's life; each is safe to be resumed by another autoscaler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Waiting for sidecars and Services.
    #[default]
    Enrolling,
    /// Pods carry the traffic.
    Awake,
    /// Pods and activators: burst capacity is short.
    Bursting,
    /// Activators are being added before the pods go.
    FallingAsleep,
    /// No pods.
    Asleep,
    /// Pods have been asked for.
    Waking,
    /// Pods are ready; activators are about to be taken out.
    Settling,
    /// Services and template are being given back.
    Leaving,
    /// Nothing is done, only said what would be (`lull.dev/scale: "dry-run"`).
    Planned,
}

// === impl State ===

impl State {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Enrolling,
        Self::Awake,
        Self::Bursting,
        Self::FallingAsleep,
        Self::Asleep,
        Self::Waking,
        Self::Settling,
        Self::Leaving,
        Self::Planned,
    ];
}

// === impl ScaledWorkloadSpec ===

impl ScaledWorkloadSpec {
    /// Whether it only stands for a plan: a workload that Lull runs has ports.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.ports.is_empty()
    }

    /// Pods that are saved while it sleeps: as many as it had when it was enrolled.
    #[must_use]
    pub fn saved_pods(&self) -> u32 {
        self.original_replicas.max(1)
    }
}

// === impl Mode ===

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// === impl State ===

impl State {
    /// Where the public Services point in this state.
    #[must_use]
    pub fn mode(self) -> Mode {
        match self {
            Self::Enrolling | Self::Leaving | Self::Planned => Mode::Direct,
            Self::Awake => Mode::Serve,
            Self::Bursting | Self::FallingAsleep | Self::Asleep | Self::Waking | Self::Settling => {
                Mode::Proxy
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The CustomResourceDefinition as it is installed.
///
/// # Errors
/// Where it can't be written as JSON, which would be a fault of this crate.
pub fn crd() -> serde_json::Result<Value> {
    let mut crd = serde_json::to_value(ScaledWorkload::crd())?;
    bound_unsigned_formats(&mut crd);
    Ok(crd)
}

/// Kubernetes knows no unsigned formats, and warns of each at every install; bounds stand in their place: with
/// one object beyond them no list of ScaledWorkloads could be read.
fn bound_unsigned_formats(value: &mut Value) {
    if let Value::Object(fields) = value {
        let format = fields.get("format").and_then(Value::as_str);
        let is_u32 = format == Some("uint32");
        if format.is_some_and(|format| format.starts_with("uint")) {
            fields.remove("format");
        }
        if is_u32 {
            fields.insert("maximum".to_owned(), f64::from(u32::MAX).into());
        }
        fields.values_mut().for_each(bound_unsigned_formats);
    } else if let Value::Array(values) = value {
        values.iter_mut().for_each(bound_unsigned_formats);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the CRD says of a spec.
    fn spec_schema() -> Value {
        let crd = crd().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"].clone()
    }

    #[test]
    fn the_crd_has_no_format_that_kubernetes_warns_of() {
        let text = crd().unwrap().to_string();
        assert!(text.contains("minimum") && !text.contains("uint"), "{text}");
    }

    #[test]
    fn the_crd_takes_no_number_and_no_duration_that_cannot_be_read() {
        let schema = spec_schema();
        let spec = &schema["properties"];
        let settings = &spec["settings"]["properties"];
        let (most, own) = (f64::from(u32::MAX), &spec["originalReplicas"]);
        for count in [own, &settings["minScale"], &settings["queueDepth"]] {
            assert_eq!(count["maximum"], most, "{count}");
        }
        for name in ["window", "holdTimeout", "idleTimeout", "connectTimeout"] {
            let duration = &settings[name];
            assert!(duration["pattern"].is_string(), "{name}: {duration}");
        }
    }

    #[test]
    fn the_crd_asks_for_no_setting_that_an_older_version_may_not_have_written() {
        let spec = spec_schema();
        assert!(spec["required"].is_array(), "{spec}");
        let settings = &spec["properties"]["settings"];
        assert!(settings["required"].is_null(), "{settings}");
        assert_eq!(settings["properties"]["window"]["default"], "60s");
    }

    #[test]
    fn the_crd_has_the_columns_that_people_look_at() {
        let crd = crd().unwrap();
        let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
            .as_array()
            .unwrap();
        let names: Vec<&str> = columns.iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(
            names,
            [
                "Mode",
                "State",
                "Ready",
                "Desired",
                "In flight",
                "Reason",
                "Age"
            ]
        );
        assert_eq!(crd["spec"]["names"]["shortNames"][0], "sw");
    }
}
