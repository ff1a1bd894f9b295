//! A folder for configurations and logs of one run.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A new folder that goes when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

// === impl Scratch ===

impl Scratch {
    /// Makes a folder in the system's place for temporary files.
    ///
    /// # Errors
    /// Where it can't be made.
    pub fn try_new() -> anyhow::Result<Self> {
        let name = format!(
            "lull-bench-{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
