//! Where and with what was measured.

use anyhow::Context as _;
use tokio::process::Command;

use crate::{Bench, Cores};

/// Lines that say what machine this is and which versions are compared.
///
/// # Errors
/// Where a program can't be asked for its version.
pub async fn facts(bench: &Bench) -> anyhow::Result<String> {
    let envoy = bench.programs.envoy.as_os_str();
    let envoy = output(Command::new(envoy).arg("--version")).await?;
    // "… version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
    let envoy = envoy.split('/').rev().nth(3).unwrap_or("?").to_owned();
    let haproxy = output(Command::new("haproxy").arg("-v")).await?;
    let haproxy = haproxy.split_whitespace().nth(2).unwrap_or("?").to_owned();
    let nginx = output(Command::new("nginx").arg("-v")).await?;
    let nginx = nginx.trim().rsplit('/').next().unwrap_or("?").to_owned();
    let git = output(Command::new("git").args(["describe", "--always", "--dirty"])).await;
    let ours = git.unwrap_or_else(|_| "?".to_owned());
    let (rounds, seconds) = (bench.rounds, bench.time.as_secs());
    Ok(format!(
        "{}\nLull {}, HAProxy {haproxy}, Envoy {envoy}; app: nginx {nginx}.\n\
         {rounds} rounds of {seconds} s; median (least..most).",
        machine(&bench.cores),
        ours.trim(),
    ))
}

fn machine(cores: &Cores) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, model)| model);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{} cores of {model}, Linux {}.",
        cores.count(),
        kernel.trim()
    )
}

/// What `command` says; HAProxy says its version on one stream, nginx on the other.
async fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.kill_on_drop(true).output().await;
    let output = output.context("ask for a version (make bench installs what is missing)")?;
    let both = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&both).into_owned())
}
