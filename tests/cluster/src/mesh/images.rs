//! Istio's two images, from scratch: its programs, Envoy, iptables and the libraries they need.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::build::MeshComponents;
use crate::exec::checked;
use crate::image::{ImageSpec, write_image};
use crate::paths::cache_root;
use crate::report::step;

/// What the images' names begin with; there is no registry.
pub(super) const HUB: &str = "localhost/istio";
/// The user that Istio's charts run both as.
const USER: &str = "1337:1337";
/// One Debian binary under these names; the agent's `istio-iptables` calls them.
const IPTABLES: [&str; 6] = [
    "iptables",
    "iptables-restore",
    "iptables-save",
    "ip6tables",
    "ip6tables-restore",
    "ip6tables-save",
];
/// Libraries of iptables' matches and targets begin with one of these.
const EXTENSIONS: [&str; 3] = ["libxt_", "libipt_", "libip6t_"];

/// Images in tars, all of one tag.
#[derive(Debug)]
pub(super) struct Images {
    /// Changes with what is in the images, so a tag that is on a node is the right one.
    pub(super) tag: String,
    /// Full name and tar of each.
    pub(super) tars: Vec<(String, PathBuf)>,
}

/// Writes the images that aren't in the cache.
///
/// # Errors
/// When a part is missing on this machine or a tar can't be written.
pub(super) fn ensure(parts: &MeshComponents) -> Result<Images> {
    let specs = [("pilot", pilot(parts)), ("proxyv2", proxy(parts)?)];
    let tag = tag(specs.iter().map(|(_, spec)| spec));
    let folder = cache_root()?.join(format!("components/istio-images-{tag}"));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut tars = Vec::new();
    for (name, mut spec) in specs {
        spec.name = format!("{HUB}/{name}:{tag}");
        let tar = folder.join(format!("{name}.tar"));
        if !tar.exists() {
            step(&format!("image {name}"), || written_whole(&spec, &tar))?;
        }
        tars.push((spec.name, tar));
    }
    Ok(Images { tag, tars })
}

fn written_whole(spec: &ImageSpec, tar: &Path) -> Result<()> {
    let fresh = tar.with_extension(format!("tmp-{}", std::process::id()));
    write_image(spec, &fresh)?;
    Ok(fs::rename(fresh, tar)?)
}

/// 16 hex digits. The programs' paths have keys of what they were built from.
fn tag<'a>(specs: impl Iterator<Item = &'a ImageSpec>) -> String {
    let mut hash = Sha256::new();
    for ImageSpec { files, user, .. } in specs {
        let files = files
            .iter()
            .map(|(from, to)| format!("{} {to}\n", from.display()));
        hash.update(format!("{user}\n{}", files.collect::<String>()));
    }
    let digest = hash.finalize();
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn pilot(parts: &MeshComponents) -> ImageSpec {
    let program = "/usr/local/bin/pilot-discovery";
    ImageSpec {
        name: String::new(),
        entrypoint: vec![program.into()],
        user: USER.into(),
        files: vec![(parts.pilot_discovery.clone(), program.into())],
    }
}

fn proxy(parts: &MeshComponents) -> Result<ImageSpec> {
    let agent = "/usr/local/bin/pilot-agent";
    let iptables = Path::new("/usr/sbin/iptables");
    let bootstrap = parts
        .source
        .join("tools/packaging/common/envoy_bootstrap.json");
    // By their places in the image: some are needed by more than one program.
    let mut files = BTreeMap::from([
        (agent.to_owned(), parts.pilot_agent.clone()),
        ("/usr/local/bin/envoy".to_owned(), parts.envoy.clone()),
        (
            "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json".to_owned(),
            bootstrap,
        ),
    ]);
    for name in ["passwd", "group", "nsswitch.conf"] {
        files.insert(format!("/etc/{name}"), own_file(name));
    }
    for name in IPTABLES {
        files.insert(format!("/usr/sbin/{name}"), iptables.to_owned());
    }
    let extensions = extensions()?;
    let libraries = libraries(&[parts.envoy.as_path(), iptables])?;
    let as_here = extensions.into_iter().chain(libraries);
    files.extend(as_here.map(|path| (path.display().to_string(), path)));
    Ok(ImageSpec {
        name: String::new(),
        entrypoint: vec![agent.into()],
        user: USER.into(),
        files: files.into_iter().map(|(to, from)| (from, to)).collect(),
    })
}

fn own_file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("components/istio/image");
    folder.join(name)
}

/// iptables opens these by itself, so no list of libraries has them.
fn extensions() -> Result<Vec<PathBuf>> {
    let folder = format!("/usr/lib/{}-linux-gnu/xtables", std::env::consts::ARCH);
    let entries = fs::read_dir(&folder).with_context(|| format!("{folder} (package iptables)"))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if EXTENSIONS.iter().any(|begin| name.starts_with(begin)) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The libraries and the loader that programs are linked with.
fn libraries(programs: &[&Path]) -> Result<Vec<PathBuf>> {
    let listing = checked(Command::new("ldd").args(programs))?;
    Ok(listing.lines().filter_map(library).collect())
}

/// `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x7f..)`, or the loader's path alone. The line that
/// names a program ends with a colon; what the kernel provides has no path.
fn library(line: &str) -> Option<PathBuf> {
    let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
    (!path.ends_with(':')).then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let lines = [
            "/usr/sbin/iptables:",
            "\tlinux-vdso.so.1 (0x00007ffc5b5f2000)",
            "\tlibxtables.so.12 => /lib/x86_64-linux-gnu/libxtables.so.12 (0x00007f0a2c000000)",
            "\t/lib64/ld-linux-x86-64.so.2 (0x00007f0a2c4c2000)",
        ];
        let found: Vec<_> = lines.iter().filter_map(|line| library(line)).collect();
        let expected = [
            "/lib/x86_64-linux-gnu/libxtables.so.12",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn a_tag_changes_with_a_source_and_with_a_place() {
        let spec = |from: &str, to: &str| ImageSpec {
            name: String::new(),
            entrypoint: Vec::new(),
            user: USER.into(),
            files: vec![(from.into(), to.into())],
        };
        let tag_of = |from, to| tag([spec(from, to)].iter());
        assert_eq!(tag_of("/cache/a-1/a", "/a").len(), 16);
        assert_ne!(tag_of("/cache/a-1/a", "/a"), tag_of("/cache/a-2/a", "/a"));
        assert_ne!(tag_of("/cache/a-1/a", "/a"), tag_of("/cache/a-1/a", "/b"));
    }
}
