//! What the status page shows of the reports.

use lull_contract::{report::CallerCount, view::PodShare};

use super::Demand;

/// Pods that are shown at most.
const MAX_PODS: usize = 32;

// === impl Demand ===

impl Demand {
    /// Who was held how often, at all activators together; the busiest first.
    #[must_use]
    pub fn callers(&self) -> Vec<CallerCount> {
        let told = self.activators.values().flat_map(|known| &known.callers);
        let mut all: Vec<CallerCount> = Vec::new();
        for caller in told {
            match all.iter_mut().find(|other| other.address == caller.address) {
                Some(known) => known.holds = known.holds.saturating_add(caller.holds),
                None => all.push(caller.clone()),
            }
        }
        all.sort_by(|a, b| {
            let by_holds = b.holds.cmp(&a.holds);
            by_holds.then_with(|| a.address.cmp(&b.address))
        });
        all
    }

    /// Load by pod, the busiest first; at most 32.
    #[must_use]
    pub fn pod_shares(&self) -> Vec<PodShare> {
        let shares = self.pods.iter().map(|(pod, heard)| PodShare {
            pod: pod.to_string(),
            in_flight: heard.load.in_flight,
            requests: heard.load.requests,
        });
        let mut shares: Vec<PodShare> = shares.collect();
        shares.sort_by(|a, b| {
            let by_load = (b.in_flight, b.requests).cmp(&(a.in_flight, a.requests));
            by_load.then_with(|| a.pod.cmp(&b.pod))
        });
        shares.truncate(MAX_PODS);
        shares
    }
}
