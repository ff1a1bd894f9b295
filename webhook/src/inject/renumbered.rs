//! App ports that have another number than in the template before, under the same name.
//!
//! Without Lull a Service that targets a port by its name leads to pods of both templates. With Lull
//! it targets a named port of the sidecar, whose name has the app port's number in it: so the new
//! sidecar's port is called by both numbers, and the Service goes on with the older one until no older
//! pod is left. The autoscaler sees to that.

use lull_contract::AppPort;
use lull_injection::Renumbered;
use serde_json::Value;

use super::{Before, ports};

/// Most earlier numbers that are kept: each is a port more in every pod.
const MOST: usize = 4;

// === impl Before ===

impl Before<'_> {
    /// Ports that pods of this template, or of an earlier one, know by numbers that are not among those
    /// `served` in a template without our parts, `base`, which comes in its place.
    pub(super) fn renumbered(&self, base: &Value, served: &[AppPort]) -> Vec<Renumbered> {
        let Some(record) = &self.record else {
            return Vec::new();
        };
        let is_served = |number: u16| served.iter().any(|port| port.number == number);
        let called = |name: &str| {
            let mut same = ports::named(base).filter(|(other, _)| *other == name);
            same.find_map(|(_, number)| is_served(number).then_some(number))
        };
        let now = |number: u16| {
            if is_served(number) {
                return Some(number);
            }
            let mut same = ports::named(&self.base).filter(|(_, other)| *other == number);
            same.find_map(|(name, _)| called(name))
        };
        let own = record.sidecar.ports.iter();
        let own = own.map(|port| (port.number, port.number));
        // Once all pods are of this template, nobody needs what came before it.
        let earlier = record.renumbered.iter().filter(|_| !self.is_rolled_out);
        let earlier = earlier.map(|port| (port.was, port.is));
        own.chain(earlier)
            .filter(|(was, _)| !is_served(*was))
            .filter_map(|(was, then)| now(then).map(|is| Renumbered { was, is }))
            .take(MOST)
            .collect()
    }
}

/// Whether there are pods of `old`, and all are of its template, as its controller tells.
pub(super) fn is_rolled_out(old: &Value) -> bool {
    let number = |pointer: &str| old.pointer(pointer).and_then(Value::as_u64);
    let generation = number("/metadata/generation");
    let updated = number("/status/updatedReplicas").filter(|updated| *updated > 0);
    generation.is_some()
        && generation == number("/status/observedGeneration")
        && updated.is_some()
        && updated == number("/status/replicas")
}
