//! A real Kubernetes cluster without Docker, for tests and demos.
//!
//! etcd, the control plane, kubelet, kube-proxy, CoreDNS and containerd run as plain processes in
//! network namespaces of their own:
//!
//! ```text
//! host netns            lull-<name> (node 0)                     lull-<name>-n1 (node 1)
//! P.1 ----- veth ----- P.2  API server :6443, etcd, DNS :53
//!                      P.9 ------------- veth -----------------  P.10
//!                      cni0 10.244.0.1/24 -- pods                cni0 10.244.1.1/24 -- pods
//! ```
//!
//! `P` is a /24 that no route of the host overlaps, picked per cluster, so clusters stand side by
//! side. With [`Families::Dual`] nodes, pods and Services have IPv6 addresses besides, to which no route
//! of the host leads. Default routes end at an address that nobody has: no packet leaves the machine.
//!
//! Each node's containerd and kubelet share a private mount namespace, and everything sits in
//! cgroups under `/lull-<name>`. Killing the cgroup's processes therefore takes along every pod,
//! overlay mount and pod network namespace, also after a crash.
//!
//! Without nodes there are etcd and the API server alone, in node 0's network namespace: enough for
//! what needs no pods, and so the oldest supported Kubernetes can be had.
//!
//! NetworkPolicies are enforced where [`Options::network_policies`] asks for it: the bridge of Debian's
//! plugins knows none. The kernel then queues each node's first packets of connections for an agent
//! that judges them by the policies, as kube-network-policies does.
//!
//! [`mesh()`] puts a real Istio on it.

mod api;
mod build;
mod cgroup;
mod config;
mod down;
mod exec;
mod families;
mod image;
mod mesh;
mod mounts;
mod network;
mod paths;
mod pause;
mod process;
mod report;
mod services;
mod state;
mod up;

pub use build::{
    CertManager, Components, Knative, Kubernetes, ensure as build,
    ensure_cert_manager as cert_manager, ensure_envoy as envoy, ensure_hey as hey,
    ensure_knative as knative, istio_kinds,
};
pub use down::{down, leftovers};
pub use families::Families;
pub use image::{ImageSpec, load_image, write_image};
pub use mesh::mesh;
pub use network::enter;
pub use pause::{Paused, pause, paused, resume};
pub use report::line;
pub use state::{ClusterInfo, Status, find, status};
pub use up::{Options, up};
