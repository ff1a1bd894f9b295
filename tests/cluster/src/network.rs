//! Network namespaces, links and routes of a cluster.
//!
//! All links are routed point to point. Default routes lead to an address in the link's own subnet
//! that nobody has: client-go and the API server want a default route, but neither the host nor
//! another machine must ever get a packet through it, even where the host forwards.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec::{checked, fed, run};
use crate::families::{self, Families};
use crate::paths::Paths;

/// Where pods live: node `i` has `10.244.i.0/24`.
pub(crate) const POD_CIDR: &str = "10.244.0.0/16";
/// Where Services live.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The cluster DNS Service, as every Kubernetes distribution has it.
pub(crate) const DNS_IP: &str = "10.96.0.10";

/// The queue of the agent that enforces NetworkPolicies, in each node's network namespace.
pub(crate) const AGENT_QUEUE: u16 = 100;

/// What makes a namespace forward.
const FORWARD: &str = "echo 1 > /proc/sys/net/ipv4/ip_forward
[ -e /proc/sys/net/bridge ] || modprobe br_netfilter
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables";
/// The same of IPv6. Addresses are used at once, as in IPv4, and not after a second in which nobody else
/// claimed them; interfaces take that from the default when they are made.
const FORWARD_V6: &str = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 1 > /proc/sys/net/bridge/bridge-nf-call-ip6tables";

/// First two octets to try for a cluster's own /24, the last one reserved for tests of networks.
const RANGES: [(u8, u8); 3] = [(10, 213), (172, 30), (198, 18)];

/// The /24 of one cluster, as its first three octets: `10.213.4`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Subnet(String);

// === impl Subnet ===

impl Subnet {
    /// Gives the first /24 that overlaps none of `taken` (`a.b.c.d/len`, as `ip route` has them).
    ///
    /// # Errors
    /// When every candidate is taken.
    pub(crate) fn pick(taken: &[String]) -> Result<Self> {
        let taken: Vec<_> = taken.iter().filter_map(|prefix| bounds(prefix)).collect();
        for (a, b) in RANGES {
            for c in 0..=255_u8 {
                let first = u32::from_be_bytes([a, b, c, 0]);
                if taken
                    .iter()
                    .all(|(low, high)| *high < first || *low > first + 255)
                {
                    return Ok(Self(format!("{a}.{b}.{c}")));
                }
            }
        }
        bail!("no free /24 for the cluster: take others down (lull-cluster status)")
    }

    pub(crate) fn prefix(&self) -> String {
        format!("{}.0/24", self.0)
    }

    /// The host's end of the link to node 0.
    pub(crate) fn host(&self) -> String {
        format!("{}.1", self.0)
    }

    /// The address that a node has as Kubernetes sees it.
    pub(crate) fn node(&self, node: usize) -> String {
        match node {
            0 => format!("{}.2", self.0),
            _ => format!("{}.10", self.0),
        }
    }

    /// The host's interface; the subnet makes it unique on the machine and fits in 15 characters.
    pub(crate) fn host_link(&self) -> String {
        format!("lull-{}", self.0.replace('.', "-"))
    }

    fn at(&self, last: u8) -> String {
        format!("{}.{last}", self.0)
    }
}

/// The subnets that the host's routes use.
///
/// # Errors
/// When `ip` can't be run or prints no JSON.
pub(crate) fn host_routes() -> Result<Vec<String>> {
    let json = run("ip", "-j -4 route show table all")?;
    let routes: Vec<serde_json::Value> =
        serde_json::from_str(&json).context("ip route prints no JSON")?;
    Ok(routes
        .iter()
        .filter_map(|route| route["dst"].as_str().map(str::to_owned))
        .collect())
}

/// Makes the namespaces, links and routes of a cluster. The first namespace is there without nodes,
/// too: the control plane runs in it.
///
/// # Errors
/// When a step fails; what was made before stays for `down` to take away.
pub(crate) fn create(
    paths: &Paths,
    (subnet, families): (&Subnet, Families),
    nodes: usize,
) -> Result<()> {
    for node in 0..nodes.max(1) {
        let ns = paths.netns(node);
        run("ip", &format!("netns add {ns}"))?;
        run("ip", &format!("-n {ns} link set lo up"))?;
        forward(paths, node, families)?;
    }
    let (first, second) = (paths.netns(0), paths.netns(1));
    link_to_host(&first, subnet)?;
    if families.has_ipv6() {
        ip(&families::host_link(&first))?;
    }
    if nodes > 1 {
        link_nodes(&first, &second, subnet)?;
        if families.has_ipv6() {
            ip(&families::node_link(&first, &second))?;
        }
    }
    Ok(())
}

/// Takes the host's end of the link away, at once: deleting the namespace does it only later.
pub(crate) fn delete_host_link(subnet: &Subnet) -> Result<()> {
    let link = subnet.host_link();
    if Path::new("/sys/class/net").join(&link).exists() {
        run("ip", &format!("link del {link}"))?;
    }
    Ok(())
}

/// A command that runs `program` in node 0's or node 1's network namespace.
///
/// `nsenter`, because `ip netns exec` mounts another `/sys` and so hides the cgroups.
///
/// # Errors
/// When the cluster or node isn't there.
pub fn enter(cluster: &str, node: usize, program: &str) -> Result<Command> {
    let paths = Paths::try_new(cluster)?;
    let file = paths.netns_file(node);
    if !file.exists() {
        bail!("no node {node} of a cluster {cluster:?} here: see lull-cluster status");
    }
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", file.display()))
        .arg("--")
        .arg(program);
    Ok(command)
}

/// Lets the node route between pods, and lets kube-proxy see what goes from pod to pod on one
/// bridge (without that, answers from a pod on the same node would bypass the Service's address
/// translation).
fn forward(paths: &Paths, node: usize, families: Families) -> Result<()> {
    let script = match families {
        Families::Ipv4 => FORWARD.to_owned(),
        Families::Dual => format!("{FORWARD}\n{FORWARD_V6}"),
    };
    let file = paths.netns_file(node);
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", file.display()))
        .args(["--", "sh", "-ec", script.as_str()]);
    checked(&mut command).context("can't set up forwarding (kernel module br_netfilter)")?;
    Ok(())
}

/// Hands the first packet of each connection to or from a node's pods to the agent that enforces
/// NetworkPolicies. While it isn't there, nothing passes.
///
/// What root sends on the node passes by it: kubelet's probes, which a pod's own node may always send.
///
/// # Errors
/// When the rules are refused.
pub(crate) fn queue_for_agent(paths: &Paths, node: usize) -> Result<()> {
    let mut restore = enter(&paths.name, node, "iptables-restore")?;
    fed(&mut restore, first_packets(node).as_bytes())
        .context("can't queue packets (kernel option NETFILTER_XT_TARGET_NFQUEUE)")?;
    Ok(())
}

/// After the translation of Services' addresses, so that source and destination are pods'. By iptables:
/// a kernel may have its NFQUEUE and not the one of nftables.
fn first_packets(node: usize) -> String {
    let pods = format!("10.244.{node}.0/24");
    let queue = format!("-j NFQUEUE --queue-num {AGENT_QUEUE}");
    format!(
        "*mangle
-A POSTROUTING -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A POSTROUTING -m owner --uid-owner 0 -j ACCEPT
-A POSTROUTING -s {pods} {queue}
-A POSTROUTING -d {pods} {queue}
COMMIT
"
    )
}

/// Whether the agent of a node takes what is queued for it.
///
/// # Errors
/// When the node isn't there or the kernel keeps no list of queues.
pub(crate) fn is_queue_read(paths: &Paths, node: usize) -> Result<bool> {
    let mut cat = enter(&paths.name, node, "cat")?;
    let queues = checked(cat.arg("/proc/net/netfilter/nfnetlink_queue"))?;
    let number = AGENT_QUEUE.to_string();
    let mut numbers = queues.lines().map(|line| line.split_whitespace().next());
    Ok(numbers.any(|first| first == Some(number.as_str())))
}

fn link_to_host(ns: &str, subnet: &Subnet) -> Result<()> {
    let (link, host, node) = (subnet.host_link(), subnet.host(), subnet.node(0));
    let (nodes, dead_end) = (subnet.at(8), subnet.at(6));
    ip(&[
        format!("link add {link} type veth peer name eth0 netns {ns}"),
        format!("-n {ns} addr add {node}/29 dev eth0"),
        format!("-n {ns} link set eth0 up"),
        format!("addr add {host}/29 dev {link}"),
        format!("link set {link} up"),
        format!("route add {nodes}/29 via {node}"),
        format!("-n {ns} route add default via {dead_end} dev eth0"),
    ])
}

fn link_nodes(first: &str, second: &str, subnet: &Subnet) -> Result<()> {
    let (near, far, dead_end) = (subnet.at(9), subnet.node(1), subnet.at(14));
    let host = subnet.at(0);
    ip(&[
        format!("-n {first} link add eth1 type veth peer name eth0 netns {second}"),
        format!("-n {first} addr add {near}/29 dev eth1"),
        format!("-n {first} link set eth1 up"),
        format!("-n {second} addr add {far}/29 dev eth0"),
        format!("-n {second} link set eth0 up"),
        format!("-n {second} route add {host}/29 via {near}"),
        format!("-n {second} route add 10.244.0.0/24 via {near}"),
        format!("-n {second} route add default via {dead_end} dev eth0"),
        format!("-n {first} route add 10.244.1.0/24 via {far}"),
    ])
}

fn ip(lines: &[String]) -> Result<()> {
    lines.iter().try_for_each(|line| run("ip", line).map(drop))
}

/// First and last address of `a.b.c.d/len` or `a.b.c.d`; nothing for `default`.
fn bounds(prefix: &str) -> Option<(u32, u32)> {
    let (address, length) = prefix.split_once('/').unwrap_or((prefix, "32"));
    let address = u32::from(address.parse::<std::net::Ipv4Addr>().ok()?);
    let length: u32 = length
        .parse()
        .ok()
        .filter(|length| (1..=32).contains(length))?;
    let mask = u32::MAX << (32 - length);
    Some((address & mask, address | !mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(taken: &[&str]) -> String {
        let taken: Vec<_> = taken.iter().map(|prefix| (*prefix).to_owned()).collect();
        Subnet::pick(&taken).unwrap().prefix()
    }

    #[test]
    fn the_first_free_subnet_is_picked() {
        assert_eq!(pick(&["default", "192.0.2.0/24"]), "10.213.0.0/24");
        assert_eq!(pick(&["10.213.0.0/29", "10.213.1.77"]), "10.213.2.0/24");
    }

    #[test]
    fn a_route_that_covers_a_whole_range_moves_on_to_the_next() {
        assert_eq!(pick(&["10.0.0.0/8"]), "172.30.0.0/24");
        assert_eq!(pick(&["10.0.0.0/8", "172.16.0.0/12"]), "198.18.0.0/24");
    }

    #[test]
    fn no_free_subnet_is_an_error() {
        assert!(Subnet::pick(&["128.0.0.0/1".into(), "0.0.0.0/1".into()]).is_err());
    }

    #[test]
    fn both_directions_of_a_nodes_own_pods_are_queued_for_the_agent() {
        let rules = first_packets(1);
        for direction in ["-s", "-d"] {
            let rule = format!("{direction} 10.244.1.0/24 -j NFQUEUE --queue-num 100\n");
            assert!(rules.contains(&rule), "{rules}");
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        assert!(Subnet("198.18.255".into()).host_link().len() <= 15);
    }
}
