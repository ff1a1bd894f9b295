//! Programs built from the sources in `components/`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{CertManager, Components, Knative};
use crate::exec::{checked, in_path};
use crate::paths::cache_root;
use crate::process::tail;
use crate::report::{note, step};

const PLAIN_FLAGS: &str = "-s -w";
const C_FLAGS: &str = "-static -Os -s";
/// How often a long build says that it still runs.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The module that has istiod, the agent, their charts and Envoy's bootstrap.
const ISTIO_MODULE: &str = "istio.io/istio";

/// The module that cert-manager is made of, with its chart.
const CERT_MANAGER_MODULE: &str = "github.com/cert-manager/cert-manager";

/// The module that Knative Serving is made of, with its manifests.
const KNATIVE_MODULE: &str = "knative.dev/serving";
/// Those that have the manifests which Knative's own repository links to.
const KNATIVE_NETWORKING_MODULE: &str = "knative.dev/networking";
const KNATIVE_CACHING_MODULE: &str = "knative.dev/caching";

/// A Go program: a folder in `components/` with a go.mod, and what to build there.
#[derive(Debug)]
struct GoProgram {
    name: &'static str,
    folder: &'static str,
    package: &'static str,
    /// Kubernetes' minor version and patch, where it is one. Unstamped, Istio and Helm take it for a
    /// very old one.
    stamp: Option<(u8, u8)>,
    /// Measured on 2 cores without Go's build cache.
    cold_minutes: u8,
}

const KUBERNETES: GoProgram = GoProgram {
    name: "kubernetes",
    folder: "kubernetes",
    package: ".",
    stamp: Some((37, 2)),
    cold_minutes: 8,
};
const KUBERNETES_OLDEST: GoProgram = GoProgram {
    name: "kubernetes-oldest",
    folder: "kubernetes-oldest",
    package: ".",
    stamp: Some((33, 13)),
    cold_minutes: 5,
};
const HELM: GoProgram = GoProgram {
    name: "helm",
    folder: "helm",
    package: "helm.sh/helm/v3/cmd/helm",
    stamp: None,
    cold_minutes: 1,
};
const COREDNS: GoProgram = GoProgram {
    name: "coredns",
    folder: "coredns",
    package: ".",
    stamp: None,
    cold_minutes: 2,
};
const PILOT_DISCOVERY: GoProgram = GoProgram {
    name: "pilot-discovery",
    folder: "istio",
    package: "istio.io/istio/pilot/cmd/pilot-discovery",
    stamp: None,
    cold_minutes: 4,
};
const PILOT_AGENT: GoProgram = GoProgram {
    name: "pilot-agent",
    folder: "istio",
    package: "istio.io/istio/pilot/cmd/pilot-agent",
    stamp: None,
    cold_minutes: 1, // most of it is istiod's
};
const CERT_MANAGER: GoProgram = GoProgram {
    name: "cert-manager",
    folder: "cert-manager",
    package: ".",
    stamp: None,
    cold_minutes: 3,
};
const NETWORK_POLICIES: GoProgram = GoProgram {
    name: "network-policies",
    folder: "network-policies",
    package: ".",
    stamp: None,
    cold_minutes: 2,
};
const HEY: GoProgram = GoProgram {
    name: "hey",
    folder: "hey",
    package: "github.com/rakyll/hey",
    stamp: None,
    cold_minutes: 1,
};

/// Knative's programs, of which the first built brings nearly all that the others need.
const KNATIVE: [GoProgram; 5] = [
    knative(
        "knative-controller",
        "knative.dev/serving/cmd/controller",
        4,
    ),
    knative("knative-activator", "knative.dev/serving/cmd/activator", 1),
    knative(
        "knative-autoscaler",
        "knative.dev/serving/cmd/autoscaler",
        1,
    ),
    knative("knative-queue", "knative.dev/serving/cmd/queue", 1),
    knative("knative-webhook", "knative.dev/serving/cmd/webhook", 1),
];

const fn knative(name: &'static str, package: &'static str, cold_minutes: u8) -> GoProgram {
    GoProgram {
        name,
        folder: "knative",
        package,
        stamp: None,
        cold_minutes,
    }
}

/// Istio's two programs, and the source that they are from.
#[derive(Debug)]
pub(super) struct Istio {
    pub(super) pilot_discovery: PathBuf,
    pub(super) pilot_agent: PathBuf,
    pub(super) source: PathBuf,
}

/// Builds what isn't in the cache.
///
/// # Errors
/// When a compiler is missing or a build fails, with the end of its output.
pub(super) fn ensure() -> Result<Components> {
    let cache = cache_root()?.join("components");
    let compiler = go_version()?;
    let kubernetes = KUBERNETES.ensure(&cache, &compiler)?;
    Ok(Components {
        kubectl: kubectl(&kubernetes)?,
        kubernetes,
        helm: HELM.ensure(&cache, &compiler)?,
        coredns: COREDNS.ensure(&cache, &compiler)?,
        pause: pause(&cache)?,
    })
}

/// Builds etcd and the API server of the oldest supported Kubernetes, where they aren't in the cache.
///
/// # Errors
/// As for [`ensure`].
pub(super) fn ensure_oldest() -> Result<PathBuf> {
    let cache = cache_root()?.join("components");
    KUBERNETES_OLDEST.ensure(&cache, &go_version()?)
}

/// Builds what of Istio isn't in the cache.
///
/// # Errors
/// As for [`ensure`].
pub(super) fn ensure_istio() -> Result<Istio> {
    let cache = cache_root()?.join("components");
    let compiler = go_version()?;
    Ok(Istio {
        pilot_discovery: PILOT_DISCOVERY.ensure(&cache, &compiler)?,
        pilot_agent: PILOT_AGENT.ensure(&cache, &compiler)?,
        source: module_source(PILOT_DISCOVERY.folder, ISTIO_MODULE)?,
    })
}

/// The file with the definitions of Istio's kinds, as its chart has them; nothing is built.
///
/// # Errors
/// Where Go is missing, or the source can't be downloaded.
pub fn istio_kinds() -> Result<PathBuf> {
    let source = module_source(PILOT_DISCOVERY.folder, ISTIO_MODULE)?;
    Ok(source.join("manifests/charts/base/files/crd-all.gen.yaml"))
}

/// Builds hey, a load generator, where it isn't in the cache.
///
/// # Errors
/// Where a tool is missing, or it can't be downloaded or built.
pub fn ensure_hey() -> Result<PathBuf> {
    let cache = cache_root()?.join("components");
    HEY.ensure(&cache, &go_version()?)
}

/// Builds the agent that enforces NetworkPolicies, where it isn't in the cache.
///
/// # Errors
/// As for [`ensure`].
pub(crate) fn ensure_network_policies() -> Result<PathBuf> {
    let cache = cache_root()?.join("components");
    NETWORK_POLICIES.ensure(&cache, &go_version()?)
}

/// Builds cert-manager where it isn't in the cache.
///
/// # Errors
/// As for [`ensure`].
pub(super) fn ensure_cert_manager() -> Result<CertManager> {
    let cache = cache_root()?.join("components");
    Ok(CertManager {
        program: CERT_MANAGER.ensure(&cache, &go_version()?)?,
        chart: module_source(CERT_MANAGER.folder, CERT_MANAGER_MODULE)?
            .join("deploy/charts/cert-manager"),
    })
}

/// Builds what of Knative Serving isn't in the cache.
///
/// # Errors
/// As for [`ensure`].
pub(super) fn ensure_knative() -> Result<Knative> {
    let cache = cache_root()?.join("components");
    let compiler = go_version()?;
    let mut programs = BTreeMap::new();
    for program in &KNATIVE {
        programs.insert(program.name, program.ensure(&cache, &compiler)?);
    }
    let manifests =
        |module| -> Result<PathBuf> { Ok(module_source("knative", module)?.join("config")) };
    Ok(Knative {
        programs,
        manifests: manifests(KNATIVE_MODULE)?,
        networking_manifests: manifests(KNATIVE_NETWORKING_MODULE)?,
        caching_manifests: manifests(KNATIVE_CACHING_MODULE)?,
    })
}

/// Where Go keeps the source of a module that a component needs, fetched where it isn't there.
fn module_source(component: &str, module: &str) -> Result<PathBuf> {
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", module])
        .current_dir(source(component));
    let told: Value = serde_json::from_str(&checked(&mut go)?)?;
    let folder = told["Dir"].as_str();
    Ok(folder
        .with_context(|| format!("go doesn't say where {module} is: {told}"))?
        .into())
}

// === impl GoProgram ===

impl GoProgram {
    fn ensure(&self, cache: &Path, compiler: &str) -> Result<PathBuf> {
        let source = source(self.folder);
        let key = key(&source, &[&self.flags(), compiler])?;
        let target = cache.join(format!("{}-{key}", self.name)).join(self.name);
        if target.exists() {
            return Ok(target);
        }
        note(format_args!(
            "  ...   build {}: about {} min cold",
            self.name, self.cold_minutes
        ));
        step(&format!("build {}", self.name), || {
            self.build(&source, &target)
        })?;
        Ok(target)
    }

    /// The linker's.
    fn flags(&self) -> String {
        let Some((minor, patch)) = self.stamp else {
            return PLAIN_FLAGS.into();
        };
        let stamp = "-X k8s.io/component-base/version.git";
        format!(
            "{PLAIN_FLAGS} {stamp}Version=v1.{minor}.{patch} {stamp}Major=1 {stamp}Minor={minor} \
             {stamp}TreeState=clean"
        )
    }

    /// Builds under another name first: a build that was cut short is never taken for a whole one.
    fn build(&self, source: &Path, target: &Path) -> Result<()> {
        let fresh = prepare(target)?;
        let log = target.with_extension("log");
        let mut go = Command::new("go");
        go.args(["build", "-trimpath", "-ldflags", &self.flags(), "-o"])
            .arg(&fresh);
        go.arg(self.package)
            .current_dir(source)
            .env("CGO_ENABLED", "0");
        let output = File::create(&log)?;
        let child = go
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let status = wait(child, self.name)?;
        if !status.success() {
            bail!(
                "go build of {} failed; the end of {}:\n{}",
                self.name,
                log.display(),
                tail(&log)
            );
        }
        Ok(fs::rename(fresh, target)?)
    }
}

fn pause(cache: &Path) -> Result<PathBuf> {
    let source = source("pause");
    let key = key(&source, &[C_FLAGS])?;
    let target = cache.join(format!("pause-{key}")).join("pause");
    if target.exists() {
        return Ok(target);
    }
    step("build pause", || {
        let fresh = prepare(&target)?;
        let mut gcc = Command::new("gcc");
        gcc.args(C_FLAGS.split(' '))
            .arg("-o")
            .arg(&fresh)
            .arg(source.join("pause.c"));
        checked(&mut gcc).context("can't build pause (packages gcc, libc6-dev)")?;
        Ok(fs::rename(fresh, &target)?)
    })?;
    Ok(target)
}

fn kubectl(kubernetes: &Path) -> Result<PathBuf> {
    let target = kubernetes.with_file_name("kubectl");
    if !target.exists() {
        let fresh = prepare(&target)?;
        let program = kubernetes.display().to_string().replace('\'', r"'\''");
        fs::write(
            &fresh,
            format!("#!/bin/sh\nexec '{program}' kubectl \"$@\"\n"),
        )?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
        fs::rename(fresh, &target)?;
    }
    Ok(target)
}

/// Makes the target's folder and gives a name beside it that no other run uses.
fn prepare(target: &Path) -> Result<PathBuf> {
    let folder = target.parent().context("a program lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(target.with_extension(format!("tmp-{}", std::process::id())))
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("components")
        .join(name)
}

fn go_version() -> Result<String> {
    if !in_path("go") {
        bail!("Go is missing: install Go 1.26 or newer (https://go.dev/dl) and put it in PATH");
    }
    checked(Command::new("go").arg("version"))
}

/// 16 hex digits that change with any source file or any of `extra`.
fn key(source: &Path, extra: &[&str]) -> Result<String> {
    let folder = fs::read_dir(source).with_context(|| source.display().to_string())?;
    let mut files = folder
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let bytes = fs::read(file)?;
        // Lengths keep the border between two files from moving unnoticed.
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    }
    extra.iter().for_each(|text| {
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    });
    Ok(hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn wait(mut child: Child, name: &str) -> Result<ExitStatus> {
    let start = Instant::now();
    let mut next = HEARTBEAT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > next {
            note(format_args!(
                "  ...   still building {name}: {} s",
                start.elapsed().as_secs()
            ));
            next += HEARTBEAT;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_16_digits_and_depends_on_flags() {
        let one = key(&source("pause"), &["-Os"]).unwrap();
        assert_eq!(one.len(), 16);
        assert_eq!(one, key(&source("pause"), &["-Os"]).unwrap());
        assert_ne!(one, key(&source("pause"), &["-O2"]).unwrap());
        assert_ne!(
            key(&source("pause"), &["ab", "c"]).unwrap(),
            key(&source("pause"), &["a", "bc"]).unwrap()
        );
    }

    #[test]
    fn kubernetes_says_the_version_that_it_is_built_from() {
        for program in [KUBERNETES, KUBERNETES_OLDEST] {
            let modules = fs::read_to_string(source(program.folder).join("go.mod")).unwrap();
            let (minor, patch) = program.stamp.unwrap();
            let required = format!("k8s.io/kubernetes v1.{minor}.{patch}\n");
            assert!(modules.contains(&required), "{}: {required}", program.name);
        }
    }

    #[test]
    fn a_missing_source_is_named() {
        let error = key(Path::new("/no/such/source"), &[]).unwrap_err();
        assert!(error.to_string().contains("/no/such/source"));
    }
}
