//! Apps that listen at loopback alone, where we never call them, from the kernel's tables: nobody has to
//! connect there to know.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::{
    bypass::{address, tables},
    config::Config,
};

/// State of a socket that is listened on (`include/net/tcp_states.h`).
const LISTEN: &str = "0A";
/// Between two looks, and before the first: an app that starts is asked every few milliseconds, and the
/// tables of a busy pod are long.
const EVERY: Duration = Duration::from_secs(1);

/// What was seen last.
#[derive(Debug)]
pub(crate) struct Seen {
    looked: Instant,
    ports: Vec<u16>,
}

/// App ports that are listened on at loopback alone, of those at which the app is asked whether it is ready,
/// in order. Of others it follows nothing: an app that takes its time to start may have one at loopback on
/// purpose, and is ready all the same.
pub(crate) fn only(config: &Config) -> Vec<u16> {
    let listened: Vec<(IpAddr, u16)> = tables().flat_map(|table| listened_in(&table)).collect();
    let apps = config.ports.iter().map(|port| port.app);
    let probes = config.startup_probes.iter().chain(&config.app_probes);
    let mut ports = asked(apps, probes.map(|probe| probe.port));
    ports.retain(|port| is_only(*port, &listened, config.pod_ip));
    ports.into_iter().collect()
}

/// Those of the app's ports that are among the `probed` ones.
fn asked(apps: impl Iterator<Item = u16>, probed: impl Iterator<Item = u16>) -> BTreeSet<u16> {
    let probed = BTreeSet::from_iter(probed);
    apps.filter(|port| probed.contains(port)).collect()
}

fn is_only(port: u16, listened: &[(IpAddr, u16)], pod_ip: IpAddr) -> bool {
    let mut at = listened
        .iter()
        .filter(|(_, other)| *other == port)
        .map(|(at, _)| *at)
        .peekable();
    // One for all addresses, and the pod's own, take our calls.
    at.peek().is_some() && at.all(|at| at.is_loopback() && at != pod_ip.to_canonical())
}

fn listened_in(table: &str) -> Vec<(IpAddr, u16)> {
    table.lines().filter_map(listener).collect()
}

/// A line is `sl local remote state ...`, addresses as `0700000A:1F90`.
fn listener(line: &str) -> Option<(IpAddr, u16)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != LISTEN {
        return None;
    }
    let (at, port) = local.split_once(':')?;
    Some((address(at)?, u16::from_str_radix(port, 16).ok()?))
}

// === impl Seen ===

impl Seen {
    /// Nothing, of an app that begins to start.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            looked: now,
            ports: Vec::new(),
        }
    }

    /// Whether that `port`, which refuses connections, is listened on at loopback alone, as far as is known
    /// of late.
    pub(crate) fn explains(&mut self, port: u16, config: &Config, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked) >= EVERY {
            self.looked = now;
            self.ports = only(config);
        }
        self.ports.contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532
   2: 0700000A:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532
   3: 00000000:1F92 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532
   4: 0700000A:1F93 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532
   5: 0100007F:1F94 0100007F:D431 01 00000000:00000000 00:00000000 00000000 65532
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:1F95 00000000000000000000000000000000:0000 0A
   1: 00000000000000000000000000000000:1F96 00000000000000000000000000000000:0000 0A
   2: 0000000000000000FFFF00000100007F:1F97 00000000000000000000000000000000:0000 0A
";

    #[test]
    fn a_port_is_at_loopback_alone_where_nothing_else_takes_our_calls() {
        let pod_ip: IpAddr = "10.0.0.7".parse().unwrap();
        let mut listened = listened_in(TCP);
        listened.extend(listened_in(TCP6));
        let rows = [
            (8080, true, "127.0.0.1"),
            (8081, false, "127.0.0.1 and the pod's address"),
            (8082, false, "all addresses"),
            (8083, false, "the pod's address alone, as works too"),
            (8084, false, "nobody listens"),
            (8085, true, "::1"),
            (8086, false, "all addresses of IPv6, and mostly of IPv4"),
            (8087, true, "127.0.0.1, mapped"),
        ];
        for (port, expected, why) in rows {
            assert_eq!(is_only(port, &listened, pod_ip), expected, "{port}: {why}");
        }
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(!is_only(8080, &listened, loopback), "where we call it");
    }

    #[test]
    fn a_port_at_which_the_app_is_not_asked_explains_nothing() {
        let of = |probed: &[u16]| {
            let ports = asked([9090, 8080].into_iter(), probed.iter().copied());
            Vec::from_iter(ports)
        };
        assert_eq!(of(&[8080, 9090, 8080]), [8080, 9090], "each once, in order");
        assert_eq!(of(&[8080]), [8080], "9090 may be at loopback on purpose");
        assert!(of(&[7000]).is_empty(), "no port that Lull serves");
    }

    #[test]
    fn any_line_is_answered_without_a_panic() {
        for line in [
            "",
            "0:",
            "0: :1 :1 0A",
            "0: 0100007F:1F9G 0:0 0A",
            "a b c 0A",
        ] {
            assert!(listened_in(line).is_empty(), "{line}");
        }
    }
}
