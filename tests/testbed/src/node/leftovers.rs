//! What a run has left whose guard was killed as well: found by a file in its folder, and removed by the next start.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::cgroups;

/// The file in a node's folder. A line for each process outside of its namespaces, the first for the test's: its id and
/// when it was started, as an id may be another process's by now.
const RECORD: &str = "processes";

/// Notes a process of the node in `folder`.
pub(super) fn record(folder: &Path, pid: u32) -> anyhow::Result<()> {
    let path = folder.join(RECORD);
    let mut file = fs::File::options().create(true).append(true).open(&path)?;
    if fs::metadata(&path)?.len() == 0 {
        writeln!(file, "{}", identity(std::process::id()).context("this process is there")?)?;
    }
    if let Some(process) = identity(pid) {
        writeln!(file, "{process}")?;
    }
    Ok(())
}

/// Removes what runs have left whose processes are gone.
pub(super) fn remove() -> anyhow::Result<()> {
    for entry in fs::read_dir(std::env::temp_dir().canonicalize()?)? {
        let entry = entry?;
        // Another user's folder could name any process.
        let own = entry.metadata().is_ok_and(|folder| folder.uid() == rustix::process::geteuid().as_raw());
        let path = entry.path();
        if !own {
            continue;
        }
        let Ok(record) = fs::read_to_string(path.join(RECORD)) else { continue };
        let mut lines = record.lines();
        if lines.next().is_none_or(runs) {
            continue;
        }
        for pid in lines.filter(|line| runs(line)).filter_map(|line| line.split(' ').next()?.parse().ok()) {
            // Each has a process group of its own.
            if let Some(group) = Pid::from_raw(pid) {
                kill_process_group(group, Signal::KILL).ok();
            }
        }
        let name = path.file_name().and_then(|name| name.to_str()).context("a folder's name is UTF-8")?;
        cgroups::remove(name)?;
        let removed = fs::remove_dir_all(&path);
        // Another process may be about the same.
        ensure!(removed.is_ok() || !path.exists(), "cannot remove {}: {removed:?}", path.display());
    }
    Ok(())
}

fn runs(identity_then: &str) -> bool {
    let pid = identity_then.split(' ').next().and_then(|pid| pid.parse().ok());
    pid.and_then(identity).is_some_and(|now| now == identity_then)
}

/// A process's id and its start time.
fn identity(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything. The state follows it, and the start time is the 20th field after that.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let began = fields.nth(18)?;
    (state != "Z").then(|| format!("{pid} {began}"))
}
