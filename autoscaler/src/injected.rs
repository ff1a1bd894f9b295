//! What a workload runs with: its annotations and the cluster-wide defaults, but for what its
//! sidecars were told when they were injected.

use std::collections::BTreeMap;

use lull_contract::{
    Settings,
    annotations::{self, AnnotationError, Defaults},
    injected::Sidecar,
};

/// The settings that hold for a workload whose template has `record` (`lull.dev/injected`).
///
/// A changed default of the sidecar reaches pods with the user's next rollout only. Until then the
/// limit that pods keep is the one that counts.
///
/// # Errors
/// Every wrong annotation.
pub(crate) fn settings(
    annotations: &BTreeMap<String, String>,
    defaults: &Defaults,
    record: Option<&str>,
) -> Result<Settings, Vec<AnnotationError>> {
    let sidecar = record.and_then(Sidecar::recorded);
    annotations::parse_injected(annotations, defaults, sidecar.as_ref())
        .map(|wanted| wanted.settings)
}

#[cfg(test)]
mod tests {
    use lull_contract::HumanDuration;

    use super::*;

    /// As the webhook writes it, of a sidecar without a limit.
    const RECORD: &str = r#"{"version":"0.1.0","image":"x","imagePullPolicy":"Never",
        "sidecar":{"ports":[{"number":8080,"protocol":"http"}],"containerConcurrency":0,
        "queueDepth":0,"timeout":"300s","ignore":{"paths":[],"userAgents":["kube-probe/"]},
        "resources":{"cpuRequest":"25m","memoryRequest":"16Mi","memoryLimit":"256Mi"}},
        "smallPorts":{"admin":8022,"report":9090,"metrics":9091}}"#;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_the_pods_were_told_outlives_a_changed_default() {
        let defaults = map(&[
            ("container-concurrency", "10"),
            ("timeout", "20s"),
            ("window", "30s"),
        ]);
        let defaults = Defaults::parse(&defaults).unwrap();
        let annotations = map(&[("lull.dev/scale", "true")]);
        let running = settings(&annotations, &defaults, Some(RECORD)).unwrap();
        assert_eq!(running.container_concurrency, 0);
        assert_eq!(running.target_burst_capacity, 0);
        assert_eq!(running.timeout, HumanDuration::from_secs(300));
        assert_eq!(running.hold_timeout, HumanDuration::from_secs(300));
        assert_eq!(running.ignore.user_agents, ["kube-probe/"]);
        assert_eq!(running.window, HumanDuration::from_secs(30));

        for unreadable in [None, Some("{}")] {
            let next = settings(&annotations, &defaults, unreadable).unwrap();
            assert_eq!(next.container_concurrency, 10);
            assert_eq!(next.target_burst_capacity, 200);
        }
    }

    #[test]
    fn a_wrong_annotation_is_a_fault_whatever_the_record_says() {
        let annotations = map(&[("lull.dev/timeout", "soon")]);
        let faults = settings(&annotations, &Defaults::default(), Some(RECORD)).unwrap_err();
        assert_eq!(faults[0].key, "lull.dev/timeout");
    }
}
