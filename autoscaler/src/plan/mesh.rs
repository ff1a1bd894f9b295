//! Istio's objects: what of them can't hold as it did, and what would cut a wake short.
//!
//! ```text
//! pods.rs      rules at the pods, by port and by address   callers.rs      how callers reach them
//! mtls.rs      mutual TLS by port                          istiods.rs      what istiod itself is told
//! connect.rs   for how long callers try to connect         long_wakes.rs   wakes that take longer
//! locality.rs  where callers are sent by locality     standby.rs      whether activators may stand by
//! ```

mod callers;
mod connect;
mod istiods;
mod locality;
mod long_wakes;
mod mtls;
mod pods;
mod standby;

use std::time::Duration;

use lull_contract::settings::MESH_CONNECT_TIMEOUT;

pub(super) use self::{connect::rules, standby::is_possible as stands_by};
use super::{Finding, PlannedService, Reason, Situation};
use crate::mesh::Around;

/// A wake that nobody wonders at: scheduling, an image that is there, Istio's container and the app.
/// It is also Istio's own connect timeout.
const USUAL_WAKE: Duration = MESH_CONNECT_TIMEOUT.0;

/// As long as a wake of the workload may take: as a usual one, or as its own take.
fn usual_wake(situation: &Situation<'_>) -> Duration {
    USUAL_WAKE.max(situation.longest_wake.unwrap_or_default())
}

/// The mesh around a workload.
#[derive(Debug, Clone, Copy)]
pub struct Mesh<'a> {
    /// The workload's pods have Istio's container, or will have it.
    pub is_member: bool,
    /// Namespace of the workload.
    pub namespace: &'a str,
    /// Service account of its pods.
    pub account: &'a str,
    /// What may be about it.
    pub rules: &'a Around,
}

/// Findings about Istio's objects; `services` are those that carry the workload's traffic.
pub(super) fn find(
    situation: &Situation<'_>,
    services: &[PlannedService],
    findings: &mut Vec<Finding>,
) {
    let Some(mesh) = situation.mesh else {
        return;
    };
    if mesh.is_member {
        let mut found = Vec::new();
        pods::find(situation, &mesh, &mut found);
        found.extend(mtls::find(situation, &mesh));
        istiods::find(situation, &mesh, &mut found);
        found.extend(locality::of_mesh(situation, &mesh));
        // A cache has no order.
        found.sort_by(|a, b| (a.reason, &a.object).cmp(&(b.reason, &b.object)));
        findings.extend(found);
    }
    callers::find(situation, &mesh, services, findings);
}

// === impl Mesh ===

impl Mesh<'_> {
    /// What a finding is about: without the namespace where that is the workload's own.
    fn object(&self, kind: &str, (namespace, name): (&str, &str)) -> String {
        if namespace == self.namespace {
            format!("{kind} {name}")
        } else {
            format!("{kind} {namespace}/{name}")
        }
    }
}
