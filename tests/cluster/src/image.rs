//! Images from plain files: docker-archive tars with one layer, the same bytes for the same files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::exec::checked;
use crate::paths::Paths;
use crate::state::find;

/// Folders that programs expect, writable by all because the user is any number.
const FOLDERS: [&str; 5] = ["tmp", "etc", "run", "var", "var/lib"];
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What goes into an image.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// Full name with tag: `localhost/lull/activator:dev`.
    pub name: String,
    /// The command that a container runs, as words.
    pub entrypoint: Vec<String>,
    /// User and group as in a Dockerfile's `USER`: `65532` or `65532:65532`.
    pub user: String,
    /// Source on this machine (symlinks are followed) and absolute path in the image.
    pub files: Vec<(PathBuf, String)>,
}

/// Writes an image as a docker-archive tar.
///
/// # Errors
/// When a file can't be read or the tar can't be written.
pub fn write_image(spec: &ImageSpec, out: &Path) -> Result<()> {
    let layer = layer(&spec.files)?;
    let digest = hex(&layer);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"User": spec.user, "Entrypoint": spec.entrypoint, "Env": [PATH]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created_by": "lull-cluster make-image"}],
    });
    let config = config.to_string().into_bytes();
    let (config_name, layer_name) = (
        format!("{}.json", hex(&config)),
        format!("{digest}/layer.tar"),
    );
    let manifest =
        json!([{"Config": config_name, "RepoTags": [spec.name], "Layers": [layer_name]}]);
    let file = File::create(out).with_context(|| format!("can't write {}", out.display()))?;
    let mut archive = Builder::new(BufWriter::new(file));
    append(&mut archive, &layer_name, &layer)?;
    append(&mut archive, &config_name, &config)?;
    append(
        &mut archive,
        "manifest.json",
        manifest.to_string().as_bytes(),
    )?;
    Ok(archive.into_inner()?.flush()?)
}

/// Imports image tars (docker-archive or OCI) on every node of a cluster, nodes side by side.
///
/// # Errors
/// When the cluster isn't there or containerd refuses a file.
pub fn load_image(cluster: &str, files: &[PathBuf]) -> Result<()> {
    let (info, paths) = (find(cluster)?, Paths::try_new(cluster)?);
    std::thread::scope(|scope| {
        let import = |node| {
            let paths = &paths;
            scope.spawn(move || files.iter().try_for_each(|file| import(paths, node, file)))
        };
        let nodes: Vec<_> = (0..info.nodes).map(import).collect();
        nodes.into_iter().try_for_each(crate::up::join)
    })
}

/// Imports one tar on one node.
pub(crate) fn import(paths: &Paths, node: usize, file: &Path) -> Result<()> {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(paths.socket(node));
    checked(
        ctr.args(["--namespace", "k8s.io", "images", "import"])
            .arg(file),
    )
    .with_context(|| format!("can't import {} on node {node}", file.display()))?;
    Ok(())
}

fn layer(files: &[(PathBuf, String)]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut made = BTreeSet::new();
    for folder in FOLDERS {
        tar.append_data(
            &mut header(EntryType::Directory, 0o1777, 0),
            folder,
            &[][..],
        )?;
        made.insert(PathBuf::from(folder));
    }
    for (source, target) in files {
        let inner = target.trim_start_matches('/');
        ensure!(
            target.starts_with('/') && !inner.is_empty(),
            "{target:?} is no absolute path"
        );
        let mut parents: Vec<_> = Path::new(inner).ancestors().skip(1).collect();
        parents.pop(); // the empty path: the image's root
        for folder in parents.into_iter().rev() {
            if made.insert(folder.to_owned()) {
                tar.append_data(&mut header(EntryType::Directory, 0o755, 0), folder, &[][..])?;
            }
        }
        let bytes = fs::read(source).with_context(|| format!("can't read {}", source.display()))?;
        let executable = fs::metadata(source)?.permissions().mode() & 0o111 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        tar.append_data(
            &mut header(EntryType::Regular, mode, bytes.len()),
            inner,
            &bytes[..],
        )?;
    }
    Ok(tar.into_inner()?)
}

fn append(archive: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, bytes.len());
    Ok(archive.append_data(&mut header, name, bytes)?)
}

/// Root's, from 1970: nothing of the machine or the moment gets into the image.
fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(target: &str) -> ImageSpec {
        let this = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/image.rs"));
        ImageSpec {
            name: "localhost/lull/test:dev".into(),
            entrypoint: vec!["/app".into()],
            user: "65532".into(),
            files: vec![(this, target.into())],
        }
    }

    fn written(name: &str, target: &str) -> Result<Vec<u8>> {
        let out = std::env::temp_dir().join(format!("lull-{name}-{}.tar", std::process::id()));
        write_image(&spec(target), &out)?;
        let bytes = fs::read(&out)?;
        fs::remove_file(out)?;
        Ok(bytes)
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(
            written("one", "/app").unwrap(),
            written("two", "/app").unwrap()
        );
    }

    #[test]
    fn the_manifest_names_the_image_and_its_parts_are_there() {
        let bytes = written("parts", "/usr/local/bin/app").unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names.len(), 3);
        assert!(names[0].ends_with("/layer.tar"), "{names:?}");
        assert_eq!(names[2], "manifest.json");
        assert!(String::from_utf8_lossy(&bytes).contains("localhost/lull/test:dev"));
    }

    #[test]
    fn a_layer_has_the_folders_above_a_file_once() {
        let this = spec("/").files.remove(0).0;
        let layer = layer(&[(this.clone(), "/opt/x/a".into()), (this, "/opt/x/b".into())]).unwrap();
        let mut archive = tar::Archive::new(&layer[..]);
        let entries = archive.entries().unwrap();
        let names = entries.map(|e| e.unwrap().path().unwrap().display().to_string());
        let names: Vec<_> = names.skip(FOLDERS.len()).collect();
        assert_eq!(names, ["opt", "opt/x", "opt/x/a", "opt/x/b"]);
    }

    #[test]
    fn a_relative_target_is_refused() {
        assert!(
            written("relative", "app")
                .unwrap_err()
                .to_string()
                .contains("absolute")
        );
    }
}
