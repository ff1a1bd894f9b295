//! Which processes a cluster has and how each is called.

use std::path::Path;

use serde_json::{Value, json};

use crate::build::Components;
use crate::families::Families;
use crate::network::{AGENT_QUEUE, DNS_IP, Subnet};
use crate::paths::Paths;
use crate::process::Service;

/// Labels of where a node is: each in a zone of its own.
fn place(node: usize) -> String {
    format!("topology.kubernetes.io/region=test,topology.kubernetes.io/zone=test-{node}")
}

/// The name that a node registers with.
pub(crate) fn node_name(node: usize) -> String {
    format!("node{node}")
}

/// The process that keeps a node's mount namespace.
pub(crate) fn holder_name(node: usize) -> String {
    format!("mounts-n{node}")
}

/// The process that enforces NetworkPolicies for a node's pods.
pub(crate) fn agent_name(node: usize) -> String {
    format!("network-policies-n{node}")
}

/// Names of all processes, the agents that enforce NetworkPolicies among them or not.
pub(crate) fn names(nodes: usize, network_policies: bool) -> Vec<String> {
    let per_node = |name: &'static str| (0..nodes).map(move |node| format!("{name}-n{node}"));
    let api_server = ["etcd", "kube-apiserver"];
    let control = ["kube-controller-manager", "kube-scheduler", "coredns"];
    let of_nodes = ["mounts", "containerd", "kubelet", "kube-proxy"]
        .into_iter()
        .flat_map(per_node);
    // Nodes and pods are all that these work for.
    let control = control.into_iter().filter(|_| nodes > 0);
    let per_cluster = api_server.into_iter().chain(control).map(str::to_owned);
    let agents = (0..nodes).filter(|_| network_policies).map(agent_name);
    per_cluster.chain(of_nodes).chain(agents).collect()
}

/// Makes the command lines of one cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Services<'a> {
    pub(crate) components: &'a Components,
    pub(crate) paths: &'a Paths,
    pub(crate) subnet: &'a Subnet,
    pub(crate) families: Families,
}

// === impl Services ===

impl Services<'_> {
    /// Data isn't safe from power cuts here, and start-up is much faster for it.
    pub(crate) fn etcd(&self) -> Service {
        let data = self.path("etcd");
        self.kubernetes(
            "etcd",
            &[
                &format!("--data-dir={data}"),
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        )
    }

    pub(crate) fn api_server(&self) -> Service {
        let (key, ip) = (self.path("sa.key"), self.subnet.node(0));
        let services = self.families.service_cidrs();
        self.kubernetes(
            "kube-apiserver",
            &[
                "--etcd-servers=http://127.0.0.1:2379",
                &format!("--service-account-key-file={key}"),
                &format!("--service-account-signing-key-file={key}"),
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--token-auth-file={}", self.path("tokens.csv")),
                "--authorization-mode=RBAC",
                "--secure-port=6443",
                "--bind-address=0.0.0.0",
                &format!("--advertise-address={ip}"),
                &format!("--cert-dir={}", self.path("certs")),
                &format!("--service-cluster-ip-range={services}"),
                "--allow-privileged=true",
                "--kubelet-preferred-address-types=InternalIP",
                "--profiling=false",
            ],
        )
    }

    /// The short monitor period bounds how long a node that became Ready may stay tainted. The long
    /// grace period is for an API server that stands still: a controller manager that elects a leader
    /// would end and begin anew then; ours goes on, and would blame the nodes for their silence.
    /// HorizontalPodAutoscalers are looked at every 2 s instead of every 15.
    pub(crate) fn controller_manager(&self) -> Service {
        self.kubernetes(
            "kube-controller-manager",
            &[
                &self.kubeconfig(),
                &format!("--service-account-private-key-file={}", self.path("sa.key")),
                &format!("--root-ca-file={}", self.path("certs/ca.crt")),
                &format!("--cluster-cidr={}", self.families.pod_cidrs()),
                &format!("--flex-volume-plugin-dir={}", self.path("volume-plugins")),
                "--use-service-account-credentials=true",
                "--node-monitor-period=1s",
                "--node-monitor-grace-period=5m",
                "--horizontal-pod-autoscaler-sync-period=2s",
                "--leader-elect=false",
                "--kube-api-qps=100",
                "--kube-api-burst=200",
                "--profiling=false",
            ],
        )
    }

    pub(crate) fn scheduler(&self) -> Service {
        self.kubernetes(
            "kube-scheduler",
            &[
                &self.kubeconfig(),
                "--leader-elect=false",
                "--kube-api-qps=100",
                "--kube-api-burst=200",
                "--profiling=false",
            ],
        )
    }

    pub(crate) fn coredns(&self) -> Service {
        let words = [
            shown(&self.components.coredns),
            "-conf".into(),
            self.path("Corefile"),
        ];
        Service {
            name: "coredns".into(),
            node: 0,
            mounts: false,
            command: words.into(),
        }
    }

    pub(crate) fn containerd(&self, node: usize) -> Service {
        let config = shown(&self.paths.node(node).join("containerd.toml"));
        let command = vec!["containerd".into(), "--config".into(), config];
        Service {
            name: format!("containerd-n{node}"),
            node,
            mounts: true,
            command,
        }
    }

    pub(crate) fn kubelet(&self, node: usize) -> Service {
        let config = shown(&self.paths.node(node).join("kubelet.json"));
        let addresses = self.families.node_ips(self.subnet, node);
        let service = self.kubernetes(
            "kubelet",
            &[
                &format!("--config={config}"),
                &self.kubeconfig(),
                &format!("--hostname-override={}", node_name(node)),
                &format!("--node-ip={addresses}"),
                &format!("--node-labels={}", place(node)),
            ],
        );
        Service {
            name: format!("kubelet-n{node}"),
            node,
            mounts: true,
            ..service
        }
    }

    /// The kernel's connection table is the whole machine's: it stays as it is.
    pub(crate) fn kube_proxy(&self, node: usize) -> Service {
        let service = self.kubernetes(
            "kube-proxy",
            &[
                &self.kubeconfig(),
                &format!("--hostname-override={}", node_name(node)),
                "--proxy-mode=nftables",
                &format!("--cluster-cidr={}", self.families.pod_cidrs()),
                "--conntrack-max-per-core=0",
                "--oom-score-adj=0",
            ],
        );
        Service {
            name: format!("kube-proxy-n{node}"),
            node,
            ..service
        }
    }

    /// Judges what a node's pods send and get.
    pub(crate) fn agent(&self, program: &Path, node: usize) -> Service {
        let command = vec![
            shown(program),
            self.kubeconfig(),
            format!("--hostname-override={}", node_name(node)),
            format!("--nfqueue-id={AGENT_QUEUE}"),
        ];
        Service {
            name: agent_name(node),
            node,
            mounts: false,
            command,
        }
    }

    fn kubernetes(&self, component: &str, arguments: &[&str]) -> Service {
        let mut command = vec![shown(&self.components.kubernetes), component.to_owned()];
        command.extend(arguments.iter().map(|word| (*word).to_owned()));
        Service {
            name: component.to_owned(),
            node: 0,
            mounts: false,
            command,
        }
    }

    fn kubeconfig(&self) -> String {
        format!("--kubeconfig={}", self.paths.kubeconfig().display())
    }

    fn path(&self, name: &str) -> String {
        shown(&self.paths.file(name))
    }
}

/// The Service that gives CoreDNS its usual address. It has no selector: CoreDNS is a process on
/// node 0, not a pod.
pub(crate) fn dns_service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"clusterIP": DNS_IP, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ]},
    })
}

/// Where the DNS Service leads.
pub(crate) fn dns_slice(ip: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
            "kubernetes.io/service-name": "kube-dns",
            "endpointslice.kubernetes.io/managed-by": "lull-cluster",
        }},
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_nodes_there_is_an_api_server_and_what_it_needs() {
        assert_eq!(names(0, true), ["etcd", "kube-apiserver"]);
        assert!(names(1, false).contains(&"kubelet-n0".to_owned()));
    }

    #[test]
    fn each_node_has_an_agent_where_network_policies_are_enforced() {
        let agents = |asked: bool| {
            let mut all = names(2, asked);
            all.retain(|name| name.starts_with("network-policies"));
            all
        };
        assert!(agents(false).is_empty());
        assert_eq!(agents(true), ["network-policies-n0", "network-policies-n1"]);
    }
}
