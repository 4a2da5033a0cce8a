//! Reading meters of processes, and what machine this is.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

/// Clock ticks in a second, as `/proc` counts CPU time (`getconf CLK_TCK`; fixed on Linux).
const TICKS: u64 = 100;

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cores: usize,
    processor: String,
    memory_gib: f64,
    kernel: String,
}

// === impl Machine ===

impl Machine {
    pub(super) fn look() -> anyhow::Result<Self> {
        let processors = std::fs::read_to_string("/proc/cpuinfo")?;
        let processor = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: processor.map_or_else(String::new, |(_, name)| name.to_owned()),
            memory_gib: mebibytes(Path::new("/proc/meminfo"), "MemTotal:")? / 1024.0,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, processor, memory_gib, kernel } = self;
        write!(f, "{cores} cores ({processor}), {memory_gib:.0} GiB, Linux {kernel}")
    }
}

/// CPU time that a process has used, all its threads.
pub(super) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold anything: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Resident memory in MiB: now, and at its highest.
pub(super) fn memory(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = format!("/proc/{pid}/status");
    let status = Path::new(&status);
    Ok((mebibytes(status, "VmRSS:")?, mebibytes(status, "VmHWM:")?))
}

/// A line of a file in `/proc` that is in kB.
fn mebibytes(file: &Path, name: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
