//! What a workload's own spec says against it.

use std::time::Duration;

use lull_contract::settings::{DRAIN_APP_STOP, DRAIN_MIN};

use super::{Finding, Reason, Rollout, Situation};

/// Findings about the workload itself.
pub(super) fn find(situation: &Situation<'_>, findings: &mut Vec<Finding>) {
    let template = situation.template;
    let mut found = |reason, message: String| {
        findings.push(Finding::new(reason, situation.workload, message));
    };
    if template.host_network {
        let text = "has hostNetwork: the sidecar's ports would be the node's, and pods could not \
                    share a node; take hostNetwork or lull.dev/scale away";
        found(Reason::HostNetwork, text.to_owned());
    } else if !template.host_ports.is_empty() {
        // With hostNetwork the API server gives every port one.
        let ports: Vec<String> = template.host_ports.iter().map(u16::to_string).collect();
        let text = format!(
            "has a hostPort for {}: callers of nodes' addresses go past Lull, wake nobody and are \
             refused while it sleeps; give them a Service, or set lull.dev/min-scale: \"1\"",
            ports.join(", ")
        );
        found(Reason::HostPort, text);
    }
    if template.windows {
        let text = "is for nodes with Windows, where the sidecar does not run; take lull.dev/scale \
                    away";
        found(Reason::Windows, text.to_owned());
    }
    if template.app_ports.is_empty() {
        let text = "declares no TCP port in any container; set lull.dev/ports to the ports that \
                    the app listens on, for instance lull.dev/ports: \"8080\"";
        found(Reason::NoPort, text.to_owned());
    }
    if !situation.loopback_only.is_empty() {
        found(Reason::LoopbackOnly, loopback(situation.loopback_only));
    }
    if let Some((reason, text)) = rollout(template.rollout, situation.is_enrolled) {
        found(reason, text);
    }
    if !template.pre_stops.is_empty() {
        let text = format!(
            "has a preStop of its own in {}, which is kept: the container stops when that hook \
             has ended, whether or not the queue-proxy has drained; let the hook end with a GET of \
             port {} /wait-for-drain at the pod's address, or last {} s, or take it away",
            template.pre_stops.join(", "),
            template.admin_port,
            DRAIN_MIN.0.as_secs()
        );
        found(Reason::OwnPreStop, text);
    }
    grace(situation, &mut found);
}

/// What is with pods that listen on `ports` where nobody calls them.
fn loopback(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!(
        "has pods that listen on {} at 127.0.0.1 alone: the queue-proxy calls the app at the pod's \
         address, so these pods don't get ready; let the app listen on all addresses (0.0.0.0, or ::)",
        ports.join(", ")
    )
}

fn rollout(rollout: Rollout, is_enrolled: bool) -> Option<(Reason, String)> {
    match rollout {
        // What has the sidecar keeps it: a pause that comes later is the user's own business.
        Rollout::Paused if !is_enrolled => Some((
            Reason::Paused,
            "is paused, so its pods would not get the sidecar; resume it (kubectl rollout resume)"
                .to_owned(),
        )),
        Rollout::OnDelete => Some((
            Reason::ManualRollout,
            "has the update strategy OnDelete: pods get the sidecar when you delete them, and it \
             is enrolled when all have it"
                .to_owned(),
        )),
        Rollout::Partition(first) => Some((
            Reason::ManualRollout,
            format!(
                "has a rolling update's partition of {first}: pods below that number stay without \
                 the sidecar, and it is enrolled (and put to sleep) only when all have it; set the \
                 partition to 0"
            ),
        )),
        Rollout::Automatic | Rollout::Paused => None,
    }
}

/// A pod that is let go must be able to end what it has.
fn grace(situation: &Situation<'_>, found: &mut impl FnMut(Reason, String)) {
    let grace = situation.template.grace;
    let least = DRAIN_MIN.0 + DRAIN_APP_STOP;
    if grace < least {
        let text = format!(
            "has terminationGracePeriodSeconds: {}, less than a drain takes ({} s for late \
             arrivals and {} s for the app to stop); set it to {} at least",
            grace.as_secs(),
            DRAIN_MIN.0.as_secs(),
            DRAIN_APP_STOP.as_secs(),
            least.as_secs()
        );
        found(Reason::ShortGrace, text);
    }
    let Some(timeout) = situation.asks.timeout else {
        return;
    };
    let least = whole_seconds(timeout) + DRAIN_APP_STOP;
    if grace < least {
        let text = format!(
            "has lull.dev/timeout: {} s and terminationGracePeriodSeconds: {}: longer requests are \
             cut when their pod is let go; set the grace period to {} at least",
            timeout.as_secs_f64(),
            grace.as_secs(),
            least.as_secs()
        );
        found(Reason::GraceBelowTimeout, text);
    }
}

/// Rounded up, as a grace period is written.
fn whole_seconds(duration: Duration) -> Duration {
    let more = u64::from(duration.subsec_nanos() > 0);
    Duration::from_secs(duration.as_secs().saturating_add(more))
}
