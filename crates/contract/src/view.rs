//! What the autoscaler's status page serves as JSON, for the page itself and for `kubectl lull`.
//!
//! | path | what |
//! |---|---|
//! | [`LIST_PATH`] | a [`WorkloadList`] |
//! | `LIST_PATH/<namespace>/<name>` | a [`WorkloadDetail`]; 404 where there is no such workload |
//! | [`EVENTS_PATH`] | server-sent events, each with a [`Change`] as its data |
//!
//! A field may be added at any time and a reader leaves alone what it does not know. What a replica
//! does not lead it has from the one that does ([`LED_QUERY`]), and where that one does not answer from
//! the ScaledWorkload's status ([`WorkloadView::is_live`] says so); the wakes are then those that were
//! written there. Times are RFC 3339 in UTC.

mod kept_awake;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

pub use self::kept_awake::{AwakeShare, KeptAwake};
use crate::report::Ways;

/// Path of the list of workloads.
pub const LIST_PATH: &str = "/workloads";
/// Query of [`LIST_PATH`] and of what is below it, by which replicas ask each other: only for what the
/// replica that is asked leads, and it asks nobody for more. One of a version that does not know it yet
/// tells of everything; what it leads is live ([`WorkloadView::is_live`]).
pub const LED_QUERY: &str = "led";
/// Path of the stream of changes.
pub const EVENTS_PATH: &str = "/events";
/// The phase of a wake at whose end a pod could take what was held.
pub const ANSWERING_PHASE: &str = "answering";
/// Wakes that are kept of each workload, the newest ones.
pub const MAX_WAKES: usize = 10;
/// Changes of the count that are kept of each workload, the newest ones.
pub const MAX_CHANGES: usize = 32;
/// Callers that are named at most of those who were held, and of those who keep a workload awake.
pub const MAX_CALLERS: usize = 8;
/// Callers that are named at most of one wake.
pub const MAX_WAKE_CALLERS: usize = 3;
/// Callers that a status names at most of what keeps a workload awake.
pub const MAX_AWAKE_WRITTEN: usize = 4;
/// Moments of [`WorkloadDetail::line`], the newest ones.
pub const MAX_MOMENTS: usize = 120;

/// Every workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadList {
    /// Replica of the autoscaler that answers.
    pub replica: String,
    /// By namespace and name.
    pub workloads: Vec<WorkloadView>,
    /// Pods of activators that are ready and that this replica, or one that it has asked, has not heard
    /// for a while, by name: as long as there is one, none of that replica's workloads falls asleep.
    pub silent_activators: Vec<String>,
}

/// One workload as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadView {
    /// Namespace.
    pub namespace: String,
    /// Name of the ScaledWorkload.
    pub name: String,
    /// Group and version of the scaled object, for instance `apps/v1`; empty where an older autoscaler
    /// answers.
    pub target_api_version: String,
    /// Its kind, for instance `Deployment`.
    pub target_kind: String,
    /// Its name, in the same namespace.
    pub target_name: String,
    /// Whether this is told by the replica that leads it: else the numbers are from the status.
    pub is_live: bool,
    /// `Direct`, `Serve` or `Proxy`.
    pub mode: String,
    /// Step of its life, for instance `Asleep` (docs/architecture.md).
    pub state: String,
    /// Since when it is in that state.
    pub since: Option<String>,
    /// Pods that take traffic.
    pub ready: u32,
    /// Pods that the last decision wants.
    pub desired: u32,
    /// Requests in flight at pods plus held at activators.
    pub in_flight: u64,
    /// Of those, held at activators.
    pub held: u64,
    /// Why it is as it is, in a few words.
    pub reason: String,
    /// Conditions that are not as they should be.
    pub conditions: Vec<ConditionView>,
    /// Pod-seconds that it was asleep for before `since`: its original count of pods, by time.
    pub saved_pod_seconds: u64,
    /// Pods that are saved now, which add to it with each second; 0 where it is not asleep.
    pub saving_pods: u32,
}

/// A condition that is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionView {
    /// Its type: `Enrolled` or `Warnings`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// In one word.
    pub reason: String,
    /// What was found, and what to do.
    pub message: String,
}

/// One workload with what has happened to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadDetail {
    /// Replica of the autoscaler whose answer it is: the one that leads the workload, where that answers.
    pub replica: String,
    /// As it is now.
    pub workload: WorkloadView,
    /// At most [`MAX_WAKES`], the newest first.
    pub wakes: Vec<WakeView>,
    /// Changes of the count since that replica leads it, the newest first; at most [`MAX_CHANGES`].
    pub history: Vec<CountChange>,
    /// Callers who were held at activators, the busiest first; at most [`MAX_CALLERS`].
    pub callers: Vec<CallerShare>,
    /// Who keeps it awake, or has before it fell asleep, as its pods tell; at most [`MAX_CALLERS`].
    pub kept_awake: KeptAwake,
    /// How callers have come to the activators, since each of these started.
    pub ways: Ways,
    /// Load by pod, the busiest first.
    pub pods: Vec<PodShare>,
    /// Load and pods in the last minutes, the oldest first; at most [`MAX_MOMENTS`].
    pub line: Vec<Moment>,
}

/// A wake that has ended, or was seen to begin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct WakeView {
    /// When the first one came who was held.
    pub at: String,
    /// Who was first at each activator, at most three; empty where that is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<Caller>,
    /// Pods that were asked for.
    pub scaled_to: u32,
    /// From the first one held to the first byte of its answer, milliseconds; none where no answer
    /// has been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
    /// From the first one held until a pod could take requests, milliseconds, also where who was held
    /// had given up by then and tried anew; none where nobody was held, or that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    /// Phases in their order, each with the time from the first one held to it.
    pub phases: Vec<PhaseView>,
}

/// The end of a phase of a wake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PhaseView {
    /// Its name: `created`, `scheduled`, `running`, `listening`, `answering` or `first-byte`.
    pub name: String,
    /// From the first one held to its end, milliseconds.
    pub ms: u64,
}

/// Who called, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Caller {
    /// Its address, as Lull's proxy saw it: that of another proxy where there is one in between. Empty
    /// where it is known by its account.
    pub address: String,
    /// What it asked for: the server name of TLS, or method, host and path of a plain request
    /// (without its query); empty where neither is seen.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub asked: String,
    /// `namespace/name` of its pod; none where no pod with that address was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `namespace/name` of that pod's workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// `namespace/name` of its service account, where a mesh has seen its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// A change of the count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CountChange {
    /// When.
    pub at: String,
    /// Pods before.
    pub from: u32,
    /// Pods after.
    pub to: u32,
    /// Why, in a few words.
    pub reason: String,
}

/// How much of the traffic is a caller's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CallerShare {
    /// Who.
    pub caller: Caller,
    /// Requests and connections of it that were held, since the activators started; where there are
    /// many callers, an upper bound.
    pub holds: u64,
    /// Of those of all callers that are known, percent.
    pub percent: u8,
}

/// What is in flight at a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodShare {
    /// Name of the pod.
    pub pod: String,
    /// Requests in flight at its last report.
    pub in_flight: u64,
    /// Requests that it has had since it started.
    pub requests: u64,
}

/// Load and pods at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Moment {
    /// How long ago, seconds.
    pub ago: u32,
    /// Requests in flight at pods plus held at activators.
    pub in_flight: u64,
    /// Pods that take traffic.
    pub ready: u32,
    /// Pods that are wanted.
    pub desired: u32,
}

/// What has changed since the event before; the first one has every workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Change {
    /// Workloads that are new or another than they were.
    pub changed: Vec<WorkloadView>,
    /// `namespace/name` of those that are gone.
    pub gone: Vec<String>,
    /// All of [`WorkloadList::silent_activators`], whatever has changed.
    pub silent_activators: Vec<String>,
}

// === impl WorkloadView ===

impl WorkloadView {
    /// `namespace/name`, by which changes tell of it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Pod-seconds saved, where it has been in its state for `seconds`.
    #[must_use]
    pub fn saved_after(&self, seconds: u64) -> u64 {
        let now = u64::from(self.saving_pods).saturating_mul(seconds);
        self.saved_pod_seconds.saturating_add(now)
    }
}

// === impl Caller ===

impl Caller {
    /// By what it is known best: its workload, pod or account, else its address.
    #[must_use]
    pub fn name(&self) -> &str {
        let known = self.workload.as_deref().or(self.pod.as_deref());
        known.or(self.account.as_deref()).unwrap_or(&self.address)
    }

    /// In one line, for instance `default/shop (10.0.0.7): GET shop.default/cart`.
    #[must_use]
    pub fn text(&self) -> String {
        let name = self.name();
        let mut text = if name == self.address || self.address.is_empty() {
            name.to_owned()
        } else {
            format!("{name} ({})", self.address)
        };
        if !self.asked.is_empty() {
            // Writing to a String can't fail.
            let _ = write!(text, ": {}", self.asked);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_named_by_what_is_known_of_it() {
        let address = Caller {
            address: "10.0.0.7".to_owned(),
            ..Caller::default()
        };
        assert_eq!(address.text(), "10.0.0.7");
        let known = Caller {
            asked: "GET shop.default/cart".to_owned(),
            workload: Some("default/web".to_owned()),
            ..address
        };
        assert_eq!(
            known.text(),
            "default/web (10.0.0.7): GET shop.default/cart"
        );
        let account = Caller {
            account: Some("default/web".to_owned()),
            ..Caller::default()
        };
        assert_eq!(account.text(), "default/web");
    }

    #[test]
    fn what_a_sleeping_workload_saves_grows_with_time() {
        let asleep = WorkloadView {
            saved_pod_seconds: 100,
            saving_pods: 3,
            ..WorkloadView::default()
        };
        assert_eq!(asleep.saved_after(10), 130);
        let awake = WorkloadView {
            saving_pods: 0,
            ..asleep
        };
        assert_eq!(awake.saved_after(10), 100);
    }

    #[test]
    fn fields_are_named_as_in_kubernetes_and_those_of_other_versions_are_left_alone() {
        let text = r#"{"workload":{"name":"shop","inFlight":3,"isLive":true,"new":1},"wakes":[{"totalMs":612}]}"#;
        let detail: WorkloadDetail = serde_json::from_str(text).unwrap();
        assert_eq!(detail.workload.in_flight, 3);
        assert!(detail.workload.is_live);
        assert_eq!(detail.wakes[0].total_ms, Some(612));
        let value = serde_json::to_value(&detail).unwrap();
        assert_eq!(value["workload"]["savedPodSeconds"], 0);
        let condition = serde_json::to_value(ConditionView::default()).unwrap();
        assert!(condition.get("type").is_some());
    }
}
