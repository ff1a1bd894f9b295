//! Which address families a cluster has, and where nodes, pods and Services live in each.
//!
//! No route of the host leads to the IPv6 addresses, so they are the same in every cluster; IPv4 is the
//! first family wherever there are both.

use serde::{Deserialize, Serialize};

use crate::network::{POD_CIDR, SERVICE_CIDR, Subnet};

/// Where pods have their IPv6 addresses: node `i` has `fd10:244:0:i::/64`.
const POD_CIDR_V6: &str = "fd10:244::/56";
/// Where Services have theirs: no larger than the API server takes.
const SERVICE_CIDR_V6: &str = "fd10:96::/112";
/// First half of the addresses on the link between the host and node 0, of which the host has none.
const HOST_LINK_V6: &str = "fd10:213:0:0";
/// First half of the addresses on the link between the nodes.
const NODE_LINK_V6: &str = "fd10:213:0:1";

/// Address families of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// IPv4 and IPv6: nodes and pods have an address of each, Services may ask for one or both.
    Dual,
}

// === impl Families ===

impl Families {
    /// Whether there is IPv6.
    pub(crate) fn has_ipv6(self) -> bool {
        self == Self::Dual
    }

    /// Where pods live, as Kubernetes' flags take it.
    pub(crate) fn pod_cidrs(self) -> String {
        self.list(POD_CIDR, POD_CIDR_V6)
    }

    /// Where Services live, as Kubernetes' flags take it.
    pub(crate) fn service_cidrs(self) -> String {
        self.list(SERVICE_CIDR, SERVICE_CIDR_V6)
    }

    /// The addresses that a node has as Kubernetes sees it.
    pub(crate) fn node_ips(self, subnet: &Subnet, node: usize) -> String {
        self.list(&subnet.node(node), &node_v6(node))
    }

    /// The subnets from which a node's pods get their addresses, one of each family.
    pub(crate) fn pod_subnets(self, node: usize) -> Vec<String> {
        let ipv4 = format!("10.244.{node}.0/24");
        let ipv6 = self.has_ipv6().then(|| pods_v6(node));
        [ipv4].into_iter().chain(ipv6).collect()
    }

    /// Where a pod's packets may go, of each family: anywhere.
    pub(crate) fn anywhere(self) -> Vec<&'static str> {
        let ipv6 = self.has_ipv6().then_some("::/0");
        ["0.0.0.0/0"].into_iter().chain(ipv6).collect()
    }

    fn list(self, ipv4: &str, ipv6: &str) -> String {
        match self {
            Self::Ipv4 => ipv4.to_owned(),
            Self::Dual => format!("{ipv4},{ipv6}"),
        }
    }
}

fn node_v6(node: usize) -> String {
    match node {
        0 => format!("{HOST_LINK_V6}::2"),
        _ => format!("{NODE_LINK_V6}::10"),
    }
}

fn pods_v6(node: usize) -> String {
    format!("fd10:244:0:{node}::/64")
}

/// What `ip` is told to give the first node, whose namespace is `ns`, its IPv6 address: the same as for
/// IPv4, but for the host, which is not reached.
pub(crate) fn host_link(ns: &str) -> [String; 2] {
    let node = node_v6(0);
    [
        format!("-n {ns} addr add {node}/64 dev eth0"),
        format!("-n {ns} route add default via {HOST_LINK_V6}::6 dev eth0"),
    ]
}

/// The same for the link between two nodes, and for the way to the pods of the other one.
pub(crate) fn node_link(first: &str, second: &str) -> [String; 6] {
    let (near, far) = (format!("{NODE_LINK_V6}::9"), node_v6(1));
    let (near_pods, far_pods) = (pods_v6(0), pods_v6(1));
    [
        format!("-n {first} addr add {near}/64 dev eth1"),
        format!("-n {second} addr add {far}/64 dev eth0"),
        format!("-n {second} route add {HOST_LINK_V6}::/64 via {near}"),
        format!("-n {second} route add {near_pods} via {near}"),
        format!("-n {second} route add default via {NODE_LINK_V6}::e dev eth0"),
        format!("-n {first} route add {far_pods} via {far}"),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    /// The network of `a/len`, and `len`.
    fn network(cidr: &str) -> (u128, u32) {
        let (address, length) = cidr.split_once('/').unwrap();
        let length: u32 = length.parse().unwrap();
        let address = u128::from(address.parse::<Ipv6Addr>().unwrap());
        (address >> (128 - length), length)
    }

    fn is_within(cidr: &str, address: &str) -> bool {
        let (network, length) = network(cidr);
        u128::from(address.parse::<Ipv6Addr>().unwrap()) >> (128 - length) == network
    }

    #[test]
    fn ipv4_alone_says_what_it_always_said() {
        let subnet = Subnet::pick(&[]).unwrap();
        let families = Families::default();
        assert_eq!(families.pod_cidrs(), POD_CIDR);
        assert_eq!(families.service_cidrs(), SERVICE_CIDR);
        assert_eq!(families.node_ips(&subnet, 0), subnet.node(0));
        assert_eq!(families.pod_subnets(1), ["10.244.1.0/24"]);
        assert_eq!(families.anywhere(), ["0.0.0.0/0"]);
    }

    #[test]
    fn dual_stack_has_ipv4_first_and_an_ipv6_of_everything() {
        let subnet = Subnet::pick(&[]).unwrap();
        let dual = Families::Dual;
        for (both, ipv4) in [
            (dual.pod_cidrs(), POD_CIDR),
            (dual.service_cidrs(), SERVICE_CIDR),
            (dual.node_ips(&subnet, 1), subnet.node(1).as_str()),
        ] {
            let (first, second) = both.split_once(',').unwrap();
            assert_eq!(first, ipv4);
            let address = second.split('/').next().unwrap();
            address.parse::<Ipv6Addr>().unwrap();
        }
        assert_eq!(dual.pod_subnets(0).len(), 2);
        assert_eq!(dual.anywhere(), ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn the_nodes_pods_are_apart_and_within_the_clusters() {
        let [first, second] = [pods_v6(0), pods_v6(1)];
        assert_ne!(network(&first), network(&second));
        for pods in [first, second] {
            let (address, _) = pods.split_once('/').unwrap();
            assert!(is_within(POD_CIDR_V6, address), "{pods}");
        }
        assert!(!is_within(SERVICE_CIDR_V6, &node_v6(0)));
    }
}
