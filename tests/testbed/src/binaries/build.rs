//! Building programs from their Go modules, once for each state of their sources.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::process::Child;

/// Where Kubernetes' components look for their version. Unset, they call themselves `v0.0.0-master+$Format:%H$`, at which
/// `kubectl version` fails and Helm refuses any chart with a `kubeVersion`.
const VERSION_PACKAGE: &str = "k8s.io/component-base/version";
/// The pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(15);
/// Longer than any build that still makes headway.
const LONGEST: Duration = Duration::from_secs(3600);

/// A program that is built by Go, or a folder of them.
pub(super) struct Program {
    /// Its module, a folder beside this crate.
    folder: &'static str,
    /// How its file in the cache begins.
    prefix: &'static str,
    /// What of the module is built.
    package: &'static str,
    /// Whether that is more than one program: then the cache has a folder of this name.
    several: bool,
    /// The module that gives it its version; none for what is of this repository.
    versioned_by: Option<&'static str>,
    /// What it is called where it is waited for.
    what: &'static str,
    minutes: u32,
    /// Whether it is stamped with its version, as Kubernetes is.
    stamped: bool,
}

/// All components of Kubernetes in one.
pub(super) const KUBERNETES: Program = Program {
    folder: "controlplane",
    prefix: "k8s",
    package: ".",
    several: false,
    versioned_by: Some("k8s.io/kubernetes"),
    what: "etcd and Kubernetes",
    minutes: 8,
    stamped: true,
};

/// Helm's command line.
pub(super) const HELM: Program = Program {
    folder: "helm",
    prefix: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    several: false,
    versioned_by: Some("helm.sh/helm/v4"),
    what: "Helm",
    minutes: 3,
    stamped: false,
};

/// What runs containers on a node: containerd, its shim and client, and the plugins of the pods' network.
pub(super) const RUNTIME: Program = Program {
    folder: "node/runtime",
    prefix: "runtime",
    package: "tool",
    several: true,
    versioned_by: Some("github.com/containerd/containerd/v2"),
    what: "containerd",
    minutes: 2,
    stamped: false,
};

/// The name server of a node's pods.
pub(super) const DNS: Program = Program {
    folder: "node/dns",
    prefix: "coredns",
    package: ".",
    several: false,
    versioned_by: Some("github.com/coredns/coredns"),
    what: "CoreDNS",
    minutes: 2,
    stamped: false,
};

/// Programs of this repository for a node and in its pods.
pub(super) const SMALL: Program = Program {
    folder: "node/small",
    prefix: "small",
    package: "./...",
    several: true,
    versioned_by: None,
    what: "the programs of a node's pods",
    minutes: 1,
    stamped: false,
};

// === impl Program ===

impl Program {
    /// The path of the binary, built if it is not there yet.
    pub(super) fn find(&self) -> anyhow::Result<PathBuf> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.folder);
        let cache = target_folder()?.join("testbed").join("bin");
        let args = self.build_args(&self.version(&sources)?);
        let binary = cache.join(format!("{}-{:016x}", self.prefix, fingerprint(&sources, &args)?));
        if binary.exists() {
            return Ok(binary);
        }
        fs::create_dir_all(&cache)?;
        // One build at a time: each alone takes all the cores that it is given.
        let _lock = lock(&cache.join("lock"))?;
        // Another process may have built it while this one waited for the lock.
        if !binary.exists() {
            self.build(&sources, &args, &binary)?;
        }
        Ok(binary)
    }

    fn build(&self, sources: &Path, args: &[String], binary: &Path) -> anyhow::Result<()> {
        remove_leftovers(binary.parent().unwrap_or(sources))?;
        let part = binary.with_extension("part");
        if self.several {
            fs::create_dir(&part)?;
        }
        let log = binary.with_extension("log");
        say(&format!(
            "building {} from Go modules; about {} min on two cores the first time (log: {})",
            format!("{} {}", self.what, self.version(sources)?).trim(),
            self.minutes,
            log.display()
        ));
        let go = go()?;
        // Behind the tests that run meanwhile.
        let mut all_args: Vec<&OsStr> = vec!["-n".as_ref(), "10".as_ref(), go.as_ref()];
        all_args.extend::<[&OsStr; 3]>(["-C".as_ref(), sources.as_ref(), "build".as_ref()]);
        all_args.extend(args.iter().map(AsRef::<OsStr>::as_ref));
        all_args.extend(["-o".as_ref(), part.as_os_str(), self.package.as_ref()]);
        let start = Instant::now();
        let go = Child::spawn("go build", "nice", all_args, &[("CGO_ENABLED", "0"), ("GOWORK", "off")], &log)?;
        let status = loop {
            if let Some(status) = go.wait_blocking(PROGRESS) {
                break status;
            }
            if start.elapsed() > LONGEST {
                bail!("go build has not ended after {LONGEST:?}: {}", go.log_tail(20));
            }
            say(&format!("still building {}, {} s", self.what, start.elapsed().as_secs()));
        };
        if !status.success() {
            bail!("go build failed ({status}):\n{}", go.log_tail(40));
        }
        // Renamed when complete: whoever sees the name sees the whole file.
        fs::rename(&part, binary)?;
        fs::remove_file(&log)?;
        say(&format!("built {} in {} s", self.what, start.elapsed().as_secs()));
        Ok(())
    }

    /// `go build` flags. Half the cores, as a test run has other work to do meanwhile, but no fewer than two.
    fn build_args(&self, version: &str) -> Vec<String> {
        let jobs = std::thread::available_parallelism().map_or(2, |cores| (cores.get() / 2).max(2));
        let mut linked = "-s -w".to_owned();
        if self.stamped {
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            let stamps = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")];
            linked.extend(stamps.map(|(field, value)| format!(" -X {VERSION_PACKAGE}.{field}={value}")));
        }
        vec!["-trimpath".to_owned(), "-buildvcs=false".to_owned(), format!("-p={jobs}"), format!("-ldflags={linked}")]
    }

    /// The version in `go.mod`, its only place.
    fn version(&self, sources: &Path) -> anyhow::Result<String> {
        let Some(module) = self.versioned_by else { return Ok(String::new()) };
        let go_mod = fs::read_to_string(sources.join("go.mod"))?;
        go_mod
            .lines()
            .map(|line| line.trim().trim_start_matches("require "))
            .filter_map(|line| line.strip_prefix(module)?.split_whitespace().next())
            .find(|version| version.starts_with('v'))
            .map(str::to_owned)
            .with_context(|| format!("go.mod does not require {module}"))
    }
}

/// FNV-1a over the sources and flags: stable over time, which the standard hasher does not promise.
fn fingerprint(sources: &Path, args: &[String]) -> anyhow::Result<u64> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for path in ["go.mod", "go.sum"].map(|name| sources.join(name)).into_iter().chain(go_files(sources)?) {
        // A module without dependencies has no sums.
        if path.extension().is_some_and(|extension| extension != "sum") || path.is_file() {
            add(&fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    // The number of jobs changes nothing in the binary.
    for arg in args.iter().filter(|arg| !arg.starts_with("-p=")) {
        add(arg.as_bytes());
    }
    Ok(hash)
}

/// All sources in a folder and those within, in an order.
fn go_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            files.extend(go_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "go") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Cargo's target folder of this workspace.
pub(super) fn target_folder() -> anyhow::Result<PathBuf> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("this crate lies in tests/testbed")?;
    Ok(workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())))
}

fn go() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("go")).find(|program| program.is_file()).context(
        "the control plane of the tests is built with Go, and there is no `go` in PATH: install Go 1.26 or newer, or \
         set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, kube-controller-manager, kubectl and helm",
    )
}

/// Held while building, by the open file: it is free again however its holder ends.
pub(super) fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say("waiting for another process that builds");
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
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    Ok(())
}

/// To the process's own stderr, past the capture of the test harness, which would keep minutes of silence. That nobody
/// can be told is no reason to stop.
pub fn say(line: &str) {
    writeln!(std::io::stderr(), "testbed: {line}").ok();
}
