//! What a ScaledWorkload says of itself, in the form of the status page: what a reader has that does
//! not lead it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::{ScaledWorkload, State};
use crate::view::{ConditionView, WorkloadView};

// === impl ScaledWorkload ===

impl ScaledWorkload {
    /// What its status says of the workload.
    #[must_use]
    pub fn view(&self) -> WorkloadView {
        let target = &self.spec.target;
        let status = self.status.clone().unwrap_or_default();
        let odd = status.conditions.into_iter().filter(is_odd);
        WorkloadView {
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            target_api_version: target.api_version.clone(),
            target_kind: target.kind.clone(),
            target_name: target.name.clone(),
            mode: status.mode.to_string(),
            state: status.state.to_string(),
            since: status.state_since.map(|time| time.0.to_string()),
            ready: status.ready,
            desired: status.desired,
            in_flight: status.in_flight,
            held: status.held,
            reason: status.reason,
            conditions: odd.map(ConditionView::from).collect(),
            saved_pod_seconds: status.saved_pod_seconds,
            saving_pods: match status.state {
                State::Asleep => self.spec.saved_pods(),
                _ => 0,
            },
            ..WorkloadView::default()
        }
    }
}

/// Whether it is not as it should be.
#[must_use]
pub fn is_odd(condition: &Condition) -> bool {
    let is_true = condition.status == "True";
    match condition.type_.as_str() {
        "Warnings" => is_true,
        // Something has come in the way of an enrolled workload, which is kept awake.
        "Enrolled" if is_true => !condition.message.is_empty(),
        // A dry run is what its user wants.
        "Enrolled" => condition.reason != "DryRun",
        _ => !is_true,
    }
}

// === impl ConditionView ===

impl From<Condition> for ConditionView {
    fn from(condition: Condition) -> Self {
        Self {
            kind: condition.type_,
            status: condition.status,
            reason: condition.reason,
            message: condition.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Settings;

    fn condition(kind: &str, status: &str, (reason, message): (&str, &str)) -> Value {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    #[test]
    fn the_status_stands_in_for_the_page() {
        let enrolled = condition("Enrolled", "True", ("Enrolled", ""));
        let warned = condition("Warnings", "True", ("ShortGrace", "is short"));
        let scaled: ScaledWorkload = serde_json::from_value(json!({
            "apiVersion": "lull.dev/v1alpha1", "kind": "ScaledWorkload",
            "metadata": { "name": "shop", "namespace": "web" },
            "spec": {
                "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "1" },
                "podSelector": {}, "ports": [], "settings": Settings::default(),
                "originalReplicas": 1,
            },
            "status": {
                "mode": "Proxy", "state": "Asleep", "reason": "idle",
                "stateSince": "2026-01-01T00:00:00Z", "conditions": [enrolled, warned],
            },
        }))
        .unwrap();
        let view = scaled.view();
        assert_eq!(
            (view.state.as_str(), view.mode.as_str()),
            ("Asleep", "Proxy")
        );
        assert_eq!(view.since.as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(view.target_api_version, "apps/v1");
        let reasons: Vec<&str> = view.conditions.iter().map(|c| c.reason.as_str()).collect();
        assert_eq!(reasons, ["ShortGrace"]);
        assert!(!view.is_live && view.saving_pods == 1);
    }

    #[test]
    fn only_what_is_not_as_it_should_be_is_odd() {
        let rows = [
            ("Enrolled", "True", ("Enrolled", ""), false),
            ("Enrolled", "True", ("PolicyBlocks", "keeps Lull out"), true),
            (
                "Enrolled",
                "True",
                ("Headless", "Service shop is headless"),
                true,
            ),
            ("Enrolled", "False", ("Waiting", "pods"), true),
            ("Enrolled", "False", ("DryRun", "would do it"), false),
            ("Warnings", "False", ("None", ""), false),
            ("Warnings", "True", ("NotHeld", "Service shop is odd"), true),
            ("Warnings", "True", ("ShortGrace", "is short"), true),
        ];
        for (kind, status, told, expected) in rows {
            let condition = condition(kind, status, told);
            let read: Condition = serde_json::from_value(condition.clone()).unwrap();
            assert_eq!(is_odd(&read), expected, "{condition}");
        }
    }
}
