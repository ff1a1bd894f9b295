//! Port numbers that components use to find each other (design: "Ports").

use std::ops::RangeInclusive;

/// First queue-proxy traffic port; further app ports get the next free numbers.
pub const QUEUE_PROXY_TRAFFIC_FIRST: u16 = 8012;
/// Read-only admin of queue-proxy and activator: `/ready`, `/live`, `/config`, `/wait-for-drain`.
pub const ADMIN: u16 = 8022;
/// Reports of queue-proxy and activator for the autoscaler.
pub const REPORT: u16 = 9090;
/// Prometheus text, on every component.
pub const METRICS: u16 = 9091;
/// The webhook's admission server (TLS).
pub const WEBHOOK: u16 = 9443;
/// The autoscaler's status page and its JSON ([`crate::view`]).
pub const STATUS_PAGE: u16 = 8023;
/// Where the autoscaler allocates one activator port per (workload, app port).
///
/// Below Linux' ephemeral range (32768..) so that an outgoing connection never sits on a port that
/// is to be opened; above the well-known and our own ports.
pub const ACTIVATOR_RANGE: RangeInclusive<u16> = 10_000..=31_999;

/// The sidecar's small ports on a pod, which are kept out of the mesh's capture.
pub const SIDECAR_SMALL_PORTS: [u16; 3] = [ADMIN, REPORT, METRICS];

/// Name of the container port behind which the queue-proxy serves `app_port`.
#[must_use]
pub fn traffic_port_name(app_port: u16) -> String {
    format!("lull-{app_port}")
}

/// The app port that a container port called `name` stands for, if it is one of ours.
#[must_use]
pub fn app_port_of(name: &str) -> Option<u16> {
    name.strip_prefix("lull-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_name_and_number_round_trip_and_fit_kubernetes() {
        for port in [1, 80, 8080, u16::MAX] {
            let name = traffic_port_name(port);
            assert!(name.len() <= 15, "{name} is longer than a port name may be");
            assert_eq!(app_port_of(&name), Some(port));
        }
        assert_eq!(app_port_of("http"), None);
        assert_eq!(app_port_of("lull-x"), None);
    }
}
