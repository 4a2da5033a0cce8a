//! The control groups of a node: one of its own in each hierarchy, for its pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::process::{forget_folder, hold_folder};

const ROOT: &str = "/sys/fs/cgroup";
/// For processes that were killed to be gone.
const EMPTY: Duration = Duration::from_secs(10);

/// Removed when dropped, or by the guard.
#[derive(Debug)]
pub(super) struct Cgroups {
    name: String,
}

// === impl Cgroups ===

impl Cgroups {
    /// Makes them, named like the node's folder.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Self> {
        let name = folder.file_name().and_then(|name| name.to_str()).context("the folder has a name")?.to_owned();
        let cgroups = Self { name };
        cgroups.make()?;
        for path in cgroups.paths() {
            hold_folder(&path)?;
        }
        Ok(cgroups)
    }

    fn make(&self) -> anyhow::Result<()> {
        if unified() {
            // So that pods can have limits. This is the machine's own, and is not undone: most machines have it so.
            for controller in fs::read_to_string(format!("{ROOT}/cgroup.controllers"))?.split_whitespace() {
                // One that cannot be had is missed by the kubelet, which says so.
                fs::write(format!("{ROOT}/cgroup.subtree_control"), format!("+{controller}")).ok();
            }
        }
        for path in self.paths() {
            if !path.is_dir() {
                fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
            }
            // In version 1 a group without these takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (own, above) = (path.join(file), path.with_file_name(file));
                if own.exists() && above.exists() {
                    fs::write(own, fs::read(above)?)?;
                }
            }
        }
        Ok(())
    }

    /// Removes all that is in them.
    pub(super) fn empty(&self) -> anyhow::Result<()> {
        self.remove()?;
        self.make()
    }

    /// The name that they all have.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn remove(&self) -> anyhow::Result<()> {
        remove(&self.name)
    }

    fn paths(&self) -> Vec<PathBuf> {
        hierarchies().into_iter().map(|top| top.join(&self.name)).collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let paths = self.paths();
        // If not now, the guard does it at the end.
        if self.remove().is_ok() {
            for path in &paths {
                forget_folder(path);
            }
        }
    }
}

/// Removes the control groups of this name, whose processes have been killed.
pub(super) fn remove(name: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    for path in hierarchies().into_iter().map(|top| top.join(name)) {
        while path.is_dir() {
            if remove_tree(&path).is_ok() {
                break;
            }
            ensure!(start.elapsed() < EMPTY, "the control group {} is still in use", path.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Leaves first; what looks like files in there goes with them.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Version 2 has one hierarchy, version 1 one for each controller.
fn hierarchies() -> Vec<PathBuf> {
    if unified() {
        return vec![PathBuf::from(ROOT)];
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

fn unified() -> bool {
    Path::new(ROOT).join("cgroup.procs").exists()
}
