//! A temporary folder that goes with the test process.

use std::path::Path;

use anyhow::Context as _;
use tempfile::TempDir;

use super::guard;

/// A temporary folder, removed when dropped or when this process ends in any way.
#[derive(Debug)]
pub struct ScratchDir {
    folder: TempDir,
}

// === impl ScratchDir ===

impl ScratchDir {
    /// A new empty folder that only this user can read.
    pub fn new() -> anyhow::Result<Self> {
        let parent = std::env::temp_dir().canonicalize().context("there is no folder for temporary files")?;
        let folder = tempfile::Builder::new().prefix(guard::FOLDER_PREFIX).tempdir_in(parent)?;
        guard::hold_folder(folder.path())?;
        Ok(Self { folder })
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // If it cannot be removed now, the guard still knows of it and tries at the end.
        if std::fs::remove_dir_all(self.folder.path()).is_ok() {
            guard::forget_folder(self.folder.path());
        }
    }
}
