//! What an injected pod template runs with, as its record (the annotation `lull.dev/injected`) says.
//!
//! The webhook writes it. It is what pods have, whatever annotations and cluster-wide defaults say
//! by now: those reach a pod with the next rollout only.

use serde::{Deserialize, Serialize};

use crate::{AppPort, HumanDuration, annotations::SidecarResources, settings::Ignore};

/// What the sidecar was told; a change of it renders the sidecar anew.
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
    /// Whether it tells who calls.
    #[serde(default = "is_so", skip_serializing_if = "is_default")]
    pub name_callers: bool,
    /// Collector that gets spans; `None` = no spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Requests and limits.
    pub resources: SidecarResources,
}

/// The part of a record that every reader understands.
#[derive(Deserialize)]
struct Record {
    sidecar: Sidecar,
}

/// What holds where nothing is said.
fn is_so() -> bool {
    true
}

fn is_default(value: &bool) -> bool {
    *value
}

// === impl Sidecar ===

impl Sidecar {
    /// The sidecar that `record`, a value of `lull.dev/injected`, tells of; `None` where it can't be
    /// read.
    #[must_use]
    pub fn recorded(record: &str) -> Option<Self> {
        let record: Record = serde_json::from_str(record).ok()?;
        Some(record.sidecar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sidecar_is_read_out_of_a_record_with_more_in_it() {
        let record = r#"{"version":"1","sidecar":{"ports":[{"number":8080,"protocol":"http"}],
            "containerConcurrency":7,"queueDepth":70,"timeout":"9s","new":true,
            "ignore":{"paths":[],"userAgents":["kube-probe/"]},
            "resources":{"cpuRequest":"25m","memoryRequest":"16Mi","memoryLimit":"256Mi"}}}"#;
        let sidecar = Sidecar::recorded(record).expect("a record");
        assert_eq!(sidecar.container_concurrency, 7);
        assert_eq!(sidecar.timeout, HumanDuration::from_secs(9));
        assert_eq!(sidecar.idle_timeout, None);
        assert!(
            sidecar.name_callers,
            "those before could not be told otherwise"
        );
        for broken in ["", "{}", "[]", r#"{"sidecar":{}}"#] {
            assert_eq!(Sidecar::recorded(broken), None, "{broken}");
        }
    }
}
