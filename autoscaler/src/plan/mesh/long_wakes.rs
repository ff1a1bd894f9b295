//! Wakes that have taken longer lately than a caller's connection has time to be made.
//!
//! When one of an Envoy's connections to a host times out, Envoy fails all requests that wait for one
//! there, those whose own connections have just been begun included. So what matters is one try, however
//! many more would follow.

use std::time::Duration;

use lull_contract::{
    annotations::{CONNECT_TIMEOUT, HOLD_TIMEOUT},
    settings::{MAX_CONNECT_TIMEOUT, MESH_CONNECT_TIMEOUT},
};

use super::{
    Finding, Mesh, PlannedService, Reason, Situation,
    connect::{has_rule_for_all, rule_for},
};
use crate::mesh::{DestinationRule, connect_timeout_policy, istio_duration};

/// Time that is advised for a wake, as a multiple of how long wakes take.
const ROOM: u32 = 2;

/// What a caller's connection has time for, and what it would need.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// How long the caller's Envoy tries.
    connect: Duration,
    /// How long the activator holds.
    hold: Duration,
    /// How long a wake took.
    wake: Duration,
}

/// Of callers for whom no rule holds.
pub(super) fn without_rule(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    services: &[PlannedService],
) -> Option<Finding> {
    let asked = situation.asks.connect_timeout;
    let times = Times::too_short(situation, mesh, asked)?;
    let names = services.iter().map(|service| service.name.as_str());
    let names: Vec<&str> = names.filter(|name| !has_rule_for_all(mesh, name)).collect();
    let remedy = times.remedy_without_rule(mesh, &names);
    let text = format!(
        "took up to {} to wake lately, and {}; {remedy}",
        istio_duration(times.wake),
        times.text()
    );
    (!names.is_empty()).then(|| Finding::new(Reason::LongWakes, situation.workload, text))
}

/// Of callers for whom `rule` holds.
pub(super) fn of_rule(
    situation: &Situation<'_>,
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
) -> Option<(Reason, String)> {
    let times = Times::too_short(situation, mesh, rule.connect_timeout)?;
    let text = format!(
        "is about {}, which took up to {} to wake lately, and {}; {}",
        situation.workload,
        istio_duration(times.wake),
        times.text(),
        times.remedy_in_rule(situation.workload)
    );
    Some((Reason::LongWakes, text))
}

// === impl Times ===

impl Times {
    /// Where callers with this connect timeout, or Istio's own, have less time than the workload's
    /// wakes took. Who never sleeps is not woken.
    fn too_short(
        situation: &Situation<'_>,
        mesh: &Mesh<'_>,
        connect: Option<Duration>,
    ) -> Option<Self> {
        let times = Self {
            connect: connect.unwrap_or(MESH_CONNECT_TIMEOUT.0),
            hold: situation.asks.connection_hold,
            wake: situation.longest_wake?,
        };
        let sleeps = situation.asks.min_scale == 0;
        let is_short = times.connect.min(times.hold) <= times.wake;
        (mesh.is_member && sleeps && is_short).then_some(times)
    }

    fn text(self) -> String {
        format!(
            "callers in the mesh try to connect for {}, activators hold them for {}: where one such try \
             ends before the wake does, all requests that wait behind the same Envoy get 503",
            istio_duration(self.connect),
            istio_duration(self.hold)
        )
    }

    fn advised(self) -> Duration {
        self.wake.saturating_mul(ROOM)
    }

    fn hold_line(self) -> String {
        format!("{HOLD_TIMEOUT}: \"{}\"", istio_duration(self.advised()))
    }

    /// By the annotation, as far as that goes: Lull writes the rules then, and holds for as long.
    fn remedy_without_rule(self, mesh: &Mesh<'_>, services: &[&str]) -> String {
        let most = MAX_CONNECT_TIMEOUT.0;
        if self.connect > self.wake {
            return format!("set {}", self.hold_line());
        }
        if self.wake < most {
            let timeout = istio_duration(self.advised().min(most));
            return format!("set {CONNECT_TIMEOUT}: \"{timeout}\"");
        }
        let rule = |name: &&str| rule_for(mesh, name, self.advised()).to_string();
        let rules: Vec<String> = services.iter().map(rule).collect();
        format!("set {} and apply {}", self.hold_line(), rules.join(", "))
    }

    fn remedy_in_rule(self, workload: &str) -> String {
        let policy = connect_timeout_policy(self.advised());
        let in_rule =
            (self.connect <= self.wake).then(|| format!("put into its trafficPolicy {policy}"));
        let at_workload =
            (self.hold <= self.wake).then(|| format!("set {} on {workload}", self.hold_line()));
        let both: Vec<String> = in_rule.into_iter().chain(at_workload).collect();
        both.join(" and ")
    }
}
