//! Building the binary with all components, once for each state of its sources.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::process::Child;

/// What the binary is made of: with these its name in the cache changes.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];
/// The line of `go.mod` with the version of Kubernetes.
const KUBERNETES: &str = "k8s.io/kubernetes";
/// Where the components look for their version. Unset, they call themselves `v0.0.0-master+$Format:%H$`, at which
/// `kubectl version` fails and Helm refuses any chart with a `kubeVersion`.
const VERSION_PACKAGE: &str = "k8s.io/component-base/version";
/// The pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(15);
/// Longer than any build that still makes headway.
const LONGEST: Duration = Duration::from_secs(3600);

/// The path of the binary, built if it is not there yet.
pub(super) fn multi_call() -> anyhow::Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("controlplane");
    let cache = target_folder()?.join("testbed").join("bin");
    let args = build_args(&kubernetes_version(&sources)?);
    let binary = cache.join(format!("k8s-{:016x}", fingerprint(&sources, &args)?));
    if binary.is_file() {
        return Ok(binary);
    }
    fs::create_dir_all(&cache)?;
    let _lock = lock(&cache.join("lock"))?;
    // Another process may have built it while this one waited for the lock.
    if !binary.is_file() {
        build(&sources, &args, &binary)?;
    }
    Ok(binary)
}

fn build(sources: &Path, args: &[String], binary: &Path) -> anyhow::Result<()> {
    remove_leftovers(binary.parent().unwrap_or(sources))?;
    let part = binary.with_extension("part");
    let log = binary.with_extension("log");
    say(&format!(
        "building etcd and Kubernetes {} from their Go modules; about 8 minutes on two cores the first time \
         (log: {})",
        kubernetes_version(sources)?,
        log.display()
    ));
    let mut all_args: Vec<&OsStr> = vec!["-C".as_ref(), sources.as_ref(), "build".as_ref()];
    all_args.extend(args.iter().map(AsRef::<OsStr>::as_ref));
    all_args.extend(["-o".as_ref(), part.as_os_str(), ".".as_ref()]);
    let start = Instant::now();
    let go = Child::spawn("go build", go()?, all_args, &[("CGO_ENABLED", "0"), ("GOWORK", "off")], &log)?;
    let status = loop {
        if let Some(status) = go.wait_blocking(PROGRESS) {
            break status;
        }
        if start.elapsed() > LONGEST {
            bail!("go build has not ended after {LONGEST:?}: {}", go.log_tail(20));
        }
        say(&format!("still building, {} s", start.elapsed().as_secs()));
    };
    if !status.success() {
        bail!("go build failed ({status}):\n{}", go.log_tail(40));
    }
    // Renamed when complete: whoever sees the name sees the whole file.
    fs::rename(&part, binary)?;
    fs::remove_file(&log)?;
    say(&format!("built in {} s", start.elapsed().as_secs()));
    Ok(())
}

/// `go build` flags. Half the cores, as a test run has other work to do meanwhile, but no fewer than two.
fn build_args(version: &str) -> Vec<String> {
    let jobs = std::thread::available_parallelism().map_or(2, |cores| (cores.get() / 2).max(2));
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let stamps = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")];
    let stamps = stamps.map(|(field, value)| format!("-X {VERSION_PACKAGE}.{field}={value}")).join(" ");
    vec!["-trimpath".to_owned(), "-buildvcs=false".to_owned(), format!("-p={jobs}"), format!("-ldflags=-s -w {stamps}")]
}

/// The version of Kubernetes in `go.mod`, its only place.
fn kubernetes_version(sources: &Path) -> anyhow::Result<String> {
    let go_mod = fs::read_to_string(sources.join("go.mod"))?;
    go_mod
        .lines()
        .filter_map(|line| line.trim().strip_prefix(KUBERNETES)?.split_whitespace().next())
        .find(|version| version.starts_with('v'))
        .map(str::to_owned)
        .with_context(|| format!("go.mod does not require {KUBERNETES}"))
}

/// FNV-1a over the sources and flags: stable over time, which the standard hasher does not promise.
fn fingerprint(sources: &Path, args: &[String]) -> anyhow::Result<u64> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for name in SOURCES {
        add(&fs::read(sources.join(name)).with_context(|| format!("cannot read {name} of the control plane"))?);
    }
    // The number of jobs changes nothing in the binary.
    for arg in args.iter().filter(|arg| !arg.starts_with("-p=")) {
        add(arg.as_bytes());
    }
    Ok(hash)
}

/// Cargo's target folder of this workspace.
fn target_folder() -> anyhow::Result<PathBuf> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("this crate lies in tests/testbed")?;
    Ok(workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())))
}

fn go() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("go")).find(|program| program.is_file()).context(
        "the control plane of the tests is built with Go, and there is no `go` in PATH: install Go 1.26 or newer, or \
         set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, kube-controller-manager and kubectl",
    )
}

/// Held while building, by the open file: it is free again however its holder ends.
fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say("waiting for another process that builds the control plane");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(file)
}

/// Halves of builds that were killed. Only the holder of the lock may call this.
fn remove_leftovers(cache: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// To the process's own stderr, past the capture of the test harness, which would keep minutes of silence. That nobody
/// can be told is no reason to stop.
fn say(line: &str) {
    writeln!(std::io::stderr(), "testbed: {line}").ok();
}
