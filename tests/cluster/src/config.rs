//! The configuration files of a cluster's processes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::exec::checked;
use crate::families::Families;
use crate::network::DNS_IP;
use crate::paths::Paths;
use crate::state::State;

/// The image that every pod's first container uses; never pulled, we import our own.
pub(crate) const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// Writes the files that don't depend on the API server: the admin's token, the key that signs
/// service accounts, and each node's configuration.
///
/// # Errors
/// When a file can't be written or openssl fails.
pub(crate) fn write(paths: &Paths, state: &State) -> Result<()> {
    let token = random_hex()?;
    secret(
        &paths.file("tokens.csv"),
        &format!("{token},admin,admin,\"system:masters\"\n"),
    )?;
    secret(
        &paths.file("admin.header"),
        &format!("Authorization: Bearer {token}\n"),
    )?;
    let key = checked(Command::new("openssl").args(["genrsa", "2048"]))
        .context("can't make the service account key")?;
    secret(&paths.file("sa.key"), &key)?;
    fs::write(
        paths.file("Corefile"),
        corefile(paths, &state.subnet.node(0)),
    )?;
    for node in 0..state.nodes {
        let folder = paths.node(node);
        let network = cni(node, state.families).to_string();
        fs::write(folder.join("cni/10-lull.conflist"), network)?;
        fs::write(folder.join("containerd.toml"), containerd(paths, node))?;
        fs::write(
            folder.join("kubelet.json"),
            kubelet(paths, node).to_string(),
        )?;
    }
    Ok(())
}

/// Takes the CA out of the API server's own certificate file: the server made both and put the CA
/// last. Nothing if the file isn't complete yet.
pub(crate) fn write_ca(paths: &Paths) -> Result<Option<()>> {
    let chain = fs::read_to_string(paths.file("certs/apiserver.crt")).unwrap_or_default();
    let Some(start) = chain.rfind("-----BEGIN CERTIFICATE-----") else {
        return Ok(None);
    };
    let ca = &chain[start..];
    if start == 0 || !ca.trim_end().ends_with("-----END CERTIFICATE-----") {
        return Ok(None);
    }
    fs::write(paths.file("certs/ca.crt"), ca)?;
    Ok(Some(()))
}

/// Writes the administrator's kubeconfig, readable by its owner only.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_kubeconfig(paths: &Paths, server: &str) -> Result<()> {
    let (name, ca) = (
        format!("lull-{}", paths.name),
        fs::read(paths.file("certs/ca.crt"))?,
    );
    let header = fs::read_to_string(paths.file("admin.header"))?;
    let token = header.trim().rsplit(' ').next().unwrap_or_default();
    let ca = base64(&ca);
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: {name}
clusters:
  - name: {name}
    cluster:
      server: {server}
      certificate-authority-data: {ca}
users:
  - name: {name}
    user:
      token: {token}
contexts:
  - name: {name}
    context:
      cluster: {name}
      user: {name}
"
    );
    secret(&paths.kubeconfig(), &text)
}

/// The cluster DNS answers for the cluster and says of any other name that there is none: nothing
/// outside can be reached anyway, and a refusal would make resolvers try for seconds.
fn corefile(paths: &Paths, ip: &str) -> String {
    let kubeconfig = paths.kubeconfig();
    let kubeconfig = kubeconfig.display();
    format!(
        "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {ip}
    errors
    ready {ip}:8181
    cache 5
    loadbalance
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
.:53 {{
    bind {ip}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"
    )
}

fn cni(node: usize, families: Families) -> Value {
    let subnets = families.pod_subnets(node).into_iter();
    let routes = families.anywhere().into_iter();
    let ipam = json!({
        "type": "host-local",
        "ranges": subnets.map(|subnet| json!([{"subnet": subnet}])).collect::<Vec<_>>(),
        "routes": routes.map(|route| json!({"dst": route})).collect::<Vec<_>>(),
    });
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
        "hairpinMode": true, "ipam": ipam,
    });
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "0.4.0", "name": "lull", "plugins": [bridge, portmap]})
}

/// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE runc can't lower it and dies. `opt` would make
/// folders in `/opt`, the other plugins look for file systems that aren't used.
fn containerd(paths: &Paths, node: usize) -> String {
    let (folder, socket) = (paths.node(node), paths.socket(node));
    let (folder, socket) = (folder.display(), socket.display());
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-run"
disabled_plugins = [
    "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
disable_apparmor = true
disable_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
"#
    )
}

/// No request may fail because this machine is nearly full or has cgroup v1; images are imported
/// once, so they must never be collected.
fn kubelet(paths: &Paths, node: usize) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}/n{node}", paths.cgroup()),
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "containerLogMaxFiles": 2,
        "containerLogMaxSize": "5Mi",
        "containerRuntimeEndpoint": format!("unix://{}", paths.socket(node).display()),
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%",
            "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "kubeAPIBurst": 100,
        "kubeAPIQPS": 50,
        "makeIPTablesUtilChains": false,
        "maxPods": 250,
        "nodeStatusUpdateFrequency": "5s",
        "oomScoreAdj": 0,
        "resolvConf": "",
        "serializeImagePulls": false,
        "syncFrequency": "10s",
        "volumePluginDir": paths.node(node).join("kubelet/volume-plugins"),
    })
}

/// Creates a file that only its owner can read, from the first byte on.
fn secret(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    Ok(file.write_all(text.as_bytes())?)
}

fn random_hex() -> Result<String> {
    let mut bytes = [0_u8; 24];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_the_standard_says() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let (one, two) = (random_hex().unwrap(), random_hex().unwrap());
        assert_eq!(one.len(), 48);
        assert_ne!(one, two);
    }

    #[test]
    fn each_node_has_a_pod_subnet_of_its_own() {
        let ipam = |families| cni(1, families)["plugins"][0]["ipam"].clone();
        let ipv4 = ipam(Families::Ipv4);
        assert_eq!(ipv4["ranges"], json!([[{"subnet": "10.244.1.0/24"}]]));
        assert_eq!(ipv4["routes"], json!([{"dst": "0.0.0.0/0"}]));
        let dual = ipam(Families::Dual);
        assert_eq!(dual["ranges"][1], json!([{"subnet": "fd10:244:0:1::/64"}]));
        assert_eq!(dual["routes"][1], json!({"dst": "::/0"}));
    }
}
