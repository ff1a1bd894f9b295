//! What Istio is told of activators: a WorkloadEntry each, which it selects as it selects pods.
//!
//! An entry has the workload's own service account and labels, so for callers of the mesh nothing but
//! an address changes when a workload falls asleep: the same identity is expected, the same subsets
//! hold it. Its port is keyed by the name that the Services target. Everybody else reads the
//! EndpointSlice, which is then hidden from Istio ([`Audience::AllButIstio`]).
//!
//! An entry with a service account is spoken to in mutual TLS, which only a pod with Istio's container
//! can end: so there are entries only for workloads that are in the mesh.
//!
//! [`Audience::AllButIstio`]: crate::objects::Audience::AllButIstio

mod entries;
mod host;
mod kinds;
mod locality;
mod rules;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::{CustomResource, ResourceExt};
use lull_contract::{
    names::{
        HELD_LABEL, INJECTED_ANNOTATION, ISTIO_INJECT, POD_LABEL, activator_entry, connect_rule,
    },
    ports::traffic_port_name,
    scaled_workload::ScaledWorkload,
};
use lull_injection::{Record, Renumbered};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{objects, pod::Pod};
pub use entries::Entries;
pub use host::Host;
pub use kinds::MeshMode;
pub use locality::{is_about, locality};
#[cfg(test)]
pub(crate) use rules::tests::object;
pub use rules::{
    Around, AuthorizationPolicy, DestinationRule, Distribution, ISTIOD, Istiod, MESH_CONFIG,
    MeshConfig, MeshOptions, NATIVE_SIDECARS, Ours, PeerAuthentication, RuleKind, Rules,
    SELECT_ENTRIES, Sidecar, TimedRoute, VirtualService, ignores_entries,
};

/// Group and version of what Lull writes of Istio's.
const API_VERSION: &str = "networking.istio.io/v1";

/// What Lull writes of a WorkloadEntry.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "WorkloadEntry",
    plural = "workloadentries",
    namespaced,
    schema = "disabled",
    doc = "An endpoint that is no pod, as Istio knows it."
)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntrySpec {
    /// IP address.
    pub address: String,
    /// Name of a Service's target port to the port at [`address`](Self::address).
    pub ports: BTreeMap<String, u16>,
    /// What Services and subsets select it by.
    pub labels: BTreeMap<String, String>,
    /// Service account whose identity callers expect.
    pub service_account: String,
    /// Where it is; empty: not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
}

/// Who a workload's pods are for the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// Labels of the template.
    pub labels: BTreeMap<String, String>,
    /// Name of their service account.
    pub service_account: String,
    /// What the template itself says about Istio's container, if anything.
    pub inject: Option<bool>,
    /// App ports that Services may target by the numbers that they had.
    pub renumbered: Vec<Renumbered>,
}

/// What Lull's DestinationRule for a Service says to callers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallerPolicy {
    /// How long they may try to connect.
    pub connect_timeout: Option<Duration>,
    /// Value of [`POD_LABEL`] of the pods that they call as long as one is there; then activators.
    pub pods_first: Option<String>,
}

/// What tells whether a workload is in the mesh.
#[derive(Debug, Clone, Copy)]
pub struct Signs<'a> {
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// [`PodIdentity::inject`].
    pub inject: Option<bool>,
    /// Lull has written entries for it.
    pub has_entries: bool,
    /// Lull has written a slice for it that Istio reads.
    pub has_open_slice: bool,
}

/// Whether the workload is in the mesh.
///
/// Pods know it; while there are none, what has been written when there were some holds. A workload
/// that never had any is taken for one of the mesh, where that is not said to be off: its first pods
/// tell.
#[must_use]
pub fn is_meshed(signs: &Signs<'_>) -> bool {
    let (leaving, staying): (Vec<_>, Vec<_>) = signs.pods.iter().partition(|pod| pod.is_leaving);
    if let Some(pods) = [staying, leaving].iter().find(|pods| !pods.is_empty()) {
        return pods.iter().any(|pod| pod.is_meshed);
    }
    signs.has_entries || signs.inject.unwrap_or(!signs.has_open_slice)
}

/// The entry that tells Istio of `activator` for `workload`; `None` where it has no address.
#[must_use]
pub fn entry(workload: &ScaledWorkload, identity: &PodIdentity, activator: &Pod) -> Option<Value> {
    let address = activator.ip.as_ref()?;
    let name = activator_entry(&workload.name_any(), &activator.name);
    let ports = workload.spec.ports.iter();
    let own = ports.map(|port| (traffic_port_name(port.app_port), port.activator_port));
    let earlier = identity.renumbered.iter().filter_map(|number| {
        let mut ports = workload.spec.ports.iter();
        let port = ports.find(|port| port.app_port == number.is)?;
        Some((traffic_port_name(number.was), port.activator_port))
    });
    // In this order: a number that one port had may be another's by now.
    let ports: BTreeMap<String, u16> = earlier.chain(own).collect();
    let mut labels = identity.labels.clone();
    // The private Service is for pods alone, and by it pods come first ([`CallerPolicy::pods_first`]).
    labels.remove(POD_LABEL);
    labels.insert(HELD_LABEL.to_owned(), workload.uid().unwrap_or_default());
    let spec = WorkloadEntrySpec {
        address: address.clone(),
        ports,
        locality: locality_for(identity, activator),
        labels,
        service_account: identity.service_account.clone(),
    };
    Some(json!({
        "apiVersion": API_VERSION,
        "kind": "WorkloadEntry",
        "metadata": objects::metadata(workload, &name),
        "spec": spec,
    }))
}

/// The activator's locality. Where the template has Istio's label for it, that one holds for the pods
/// wherever they are, and so for the entries, which have the same labels.
fn locality_for(identity: &PodIdentity, activator: &Pod) -> String {
    match locality::own_locality(&identity.labels) {
        Some(_) => String::new(),
        None => locality(&activator.labels).unwrap_or_default(),
    }
}

/// Whether `entry` already says what `wanted` would make it say.
#[must_use]
pub fn entry_is(entry: &WorkloadEntry, wanted: &Value) -> bool {
    WorkloadEntrySpec::deserialize(&wanted["spec"]).is_ok_and(|wanted| wanted == entry.spec)
}

/// The DestinationRule that says `policy` to callers of the Service called `service`.
///
/// The host is the Service's short name: the mesh may call its DNS domain what it likes.
#[must_use]
pub fn callers_rule(workload: &ScaledWorkload, service: &str, policy: &CallerPolicy) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "DestinationRule",
        "metadata": objects::metadata(workload, &connect_rule(service)),
        "spec": {
            "host": service,
            "trafficPolicy": policy.traffic_policy(),
        },
    })
}

/// The `trafficPolicy` by which callers may take so long to connect.
#[must_use]
pub fn connect_timeout_policy(connect_timeout: Duration) -> Value {
    let limit = istio_duration(connect_timeout);
    json!({ "connectionPool": { "tcp": { "connectTimeout": limit } } })
}

/// As Istio's objects write it.
#[must_use]
pub fn istio_duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

// === impl CallerPolicy ===

impl CallerPolicy {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The `trafficPolicy` that says it.
    #[must_use]
    pub fn traffic_policy(&self) -> Value {
        let mut policy = self
            .connect_timeout
            .map_or_else(|| json!({}), connect_timeout_policy);
        if let Some(pods) = &self.pods_first {
            let priorities = [format!("{POD_LABEL}={pods}")];
            let setting = json!({ "enabled": true, "failoverPriority": priorities });
            policy["loadBalancer"] = json!({ "localityLbSetting": setting });
            // Without it Istio makes no priorities. This one leaves nobody out. By the last of it Envoys
            // are told of pods that are ready alone: others would count as failed ones, and a part of the
            // calls, or for a moment all, would go to activators.
            policy["outlierDetection"] = json!({
                "consecutive5xxErrors": 0, "consecutiveGatewayErrors": 0, "minHealthPercent": 1,
            });
        }
        policy
    }
}

// === impl PodIdentity ===

impl PodIdentity {
    /// Of the pods that `template` makes.
    #[must_use]
    pub fn of(template: &PodTemplateSpec) -> Self {
        let metadata = template.metadata.clone().unwrap_or_default();
        let labels = metadata.labels.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let inject = labels
            .get(ISTIO_INJECT)
            .or_else(|| annotations.get(ISTIO_INJECT));
        let spec = template.spec.as_ref();
        // The second is the first's old name.
        let account = spec.and_then(|spec| {
            let names = [&spec.service_account_name, &spec.service_account];
            names.into_iter().flatten().find(|name| !name.is_empty())
        });
        let record = annotations.get(INJECTED_ANNOTATION);
        let record = record.and_then(|text| Record::parse(text));
        Self {
            renumbered: record.map(|record| record.renumbered).unwrap_or_default(),
            inject: inject.and_then(|value| value.parse().ok()),
            service_account: account.map_or_else(|| "default".to_owned(), Clone::clone),
            labels,
        }
    }
}

#[cfg(test)]
mod tests;
