//! What a workload's annotations say that matters for its plan.

use std::{collections::BTreeMap, time::Duration};

use lull_contract::{
    Class, Quantity, Settings,
    annotations::{self, PORTS, SidecarResources, TIMEOUT},
};
use lull_injection::resources::{Amounts, Resources};

/// What the annotations say that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asks {
    /// Who decides about the number of pods.
    pub class: Class,
    /// Fewest pods.
    pub min_scale: u32,
    /// Fewest pods that a wake starts.
    pub fewest: u32,
    /// Longest request, where the user has said so for this workload.
    pub timeout: Option<Duration>,
    /// Longest time that activators hold a TLS or TCP connection.
    pub connection_hold: Duration,
    /// How long callers in a mesh may try to connect, where the user has said so.
    pub connect_timeout: Option<Duration>,
    /// Activators are to stay among a mesh's endpoints while the workload is awake.
    pub standby: bool,
    /// The user takes activators for callers that may come in.
    pub accepts_activator_source: bool,
    /// The user has said which ports Lull serves, and what they speak.
    pub names_ports: bool,
    /// What the sidecar is to ask for, where the template has none yet.
    pub sidecar: Resources<Quantity>,
}

// === impl Asks ===

impl Asks {
    /// What a workload with these annotations asks for, of which `settings` are made and, where the
    /// template has no sidecar yet, `sidecar`.
    #[must_use]
    pub fn of(
        annotations: &BTreeMap<String, String>,
        settings: &Settings,
        sidecar: Option<&SidecarResources>,
    ) -> Self {
        let has_own_timeout = annotations.contains_key(TIMEOUT);
        Self {
            class: settings.class,
            min_scale: settings.min_scale,
            fewest: settings.min_scale.max(settings.activation_scale).max(1),
            timeout: has_own_timeout.then_some(settings.timeout.0),
            connection_hold: settings.connection_hold_timeout.0,
            connect_timeout: settings.connect_timeout.map(|timeout| timeout.0),
            standby: settings.standby,
            accepts_activator_source: annotations::accepts_activator_source(annotations),
            names_ports: annotations.contains_key(PORTS),
            sidecar: sidecar.map(amounts).unwrap_or_default(),
        }
    }
}

fn amounts(sidecar: &SidecarResources) -> Resources<Quantity> {
    let Resources { requests, limits } = Resources::<&str>::from(sidecar);
    let read = |amounts: Amounts<&str>| Amounts {
        cpu: amounts.cpu.and_then(Quantity::read),
        memory: amounts.memory.and_then(Quantity::read),
    };
    Resources {
        requests: read(requests),
        limits: read(limits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_counts_only_where_the_workload_has_its_own() {
        let settings = Settings::default();
        let plain = Asks::of(&BTreeMap::new(), &settings, None);
        assert_eq!((plain.class, plain.timeout), (settings.class, None));
        let annotations = BTreeMap::from([(TIMEOUT.to_owned(), "9s".to_owned())]);
        let own = Asks::of(&annotations, &settings, None);
        assert_eq!(own.timeout, Some(settings.timeout.0));
    }
}
