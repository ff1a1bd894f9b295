//! Connections on the app's ports that went round us, from the kernel's tables.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::config::Config;

/// State of an established connection (`include/net/tcp_states.h`).
const ESTABLISHED: &str = "01";
/// The tables of this network namespace; the second is missing where there is no IPv6.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// For how long kubelet's own check of the app has a connection, at most: it comes as often as the
/// autoscaler asks, so where both met once they would meet again and again, and keep the workload
/// awake.
const CHECK: Duration = Duration::from_millis(200);

/// Both ends of a connection as the kernel prints them, which tells connections apart.
type Ends = (String, String);

/// Established connections on the app's ports whose other end is not the pod itself, from where
/// we dial; where there are any, those that are still there after the time of one of kubelet's checks.
pub(crate) async fn count(config: &Config) -> u64 {
    let seen = foreign(config);
    if seen.is_empty() {
        return 0;
    }
    tokio::time::sleep(CHECK).await;
    seen.intersection(&foreign(config)).count() as u64
}

fn foreign(config: &Config) -> BTreeSet<Ends> {
    let ports: Vec<u16> = config.ports.iter().map(|port| port.app).collect();
    tables()
        .flat_map(|table| foreign_in(&table, &ports, config.pod_ip))
        .collect()
}

/// The tables of all sockets, as the kernel prints them.
pub(crate) fn tables() -> impl Iterator<Item = String> {
    TABLES
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
}

/// A set, as the kernel lists a connection twice where its table changes while it is being read.
fn foreign_in(table: &str, ports: &[u16], pod_ip: IpAddr) -> BTreeSet<Ends> {
    table
        .lines()
        .filter_map(connection)
        .filter(|connection| {
            ports.contains(&connection.local_port) && connection.remote != pod_ip.to_canonical()
        })
        .map(
            |Connection {
                 ends: (local, remote),
                 ..
             }| (local.to_owned(), remote.to_owned()),
        )
        .collect()
}

/// An established connection.
struct Connection<'a> {
    local_port: u16,
    remote: IpAddr,
    ends: (&'a str, &'a str),
}

/// A line is `sl local remote state ...`, addresses as `0700000A:1F90`.
fn connection(line: &str) -> Option<Connection<'_>> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != ESTABLISHED {
        return None;
    }
    Some(Connection {
        local_port: u16::from_str_radix(local.split_once(':')?.1, 16).ok()?,
        remote: address(remote.split_once(':')?.0)?,
        ends: (local, remote),
    })
}

/// The kernel prints addresses as 32-bit words in the machine's byte order.
pub(crate) fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    // The tables below are from a little-endian machine, as all are on which this is built.
    use proptest::prelude::*;

    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532
   1: 0700000A:1F90 0900000A:D431 01 00000000:00000000 00:00000000 00000000 65532
   2: 0700000A:1F90 0700000A:D432 01 00000000:00000000 00:00000000 00000000 65532
   3: 0700000A:D432 0700000A:1F90 01 00000000:00000000 00:00000000 00000000 65532
   4: 0700000A:1F90 0900000A:D433 06 00000000:00000000 00:00000000 00000000 65532
   5: 0700000A:1F91 0900000A:D434 01 00000000:00000000 00:00000000 00000000 65532
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st
   0: 0000000000000000FFFF00000700000A:1F90 0000000000000000FFFF00000700000A:D431 01
   1: 0000000000000000FFFF00000700000A:1F90 0000000000000000FFFF00000900000A:D431 01
   2: B80D0120000000000000000001000000:1F90 B80D0120000000000000000002000000:D431 01
";

    fn pod() -> IpAddr {
        "10.0.0.7".parse().unwrap()
    }

    #[test]
    fn only_established_foreign_connections_on_the_apps_ports_count() {
        assert_eq!(foreign_in(TCP, &[8080], pod()).len(), 1);
        assert_eq!(foreign_in(TCP, &[8080, 8081], pod()).len(), 2);
        assert_eq!(foreign_in(TCP, &[9000], pod()).len(), 0);
    }

    #[test]
    fn a_connection_that_is_listed_twice_counts_once() {
        let line = TCP.lines().nth(2).unwrap();
        let table = format!("{TCP}{line}\n");
        assert_eq!(foreign_in(&table, &[8080], pod()).len(), 1);
    }

    #[test]
    fn ipv6_and_mapped_addresses_are_understood() {
        assert_eq!(foreign_in(TCP6, &[8080], pod()).len(), 2);
        assert_eq!(
            address("B80D0120000000000000000001000000")
                .unwrap()
                .to_string(),
            "2001:db8::1"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(text in ".{0,200}", hex in "[0-9A-Fé:]{0,40} 01") {
            foreign_in(&text, &[1], pod());
            foreign_in(&format!("0: {hex}:1 {hex}:1 01"), &[1], pod());
        }
    }
}
