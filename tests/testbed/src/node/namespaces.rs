//! The namespaces in which a node runs, and the doors into them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::cgroups::Cgroups;
use super::{ADDRESS, NAME, leftovers};
use crate::binaries::Machine;
use crate::process::{Child, ScratchDir};

/// What process 1 does first.
const INIT: &str = include_str!("init.sh");
/// For the namespaces to be set up.
const SETUP: Duration = Duration::from_secs(30);

/// Namespaces of its own for a node.
#[derive(Debug)]
pub struct Namespaces {
    state: Mutex<State>,
    forward: PathBuf,
    path: String,
    // After the processes in it.
    cgroups: Cgroups,
    dir: Arc<ScratchDir>,
}

/// What a restart replaces.
#[derive(Debug, Default)]
struct State {
    doors: Vec<(Door, Vec<Child>)>,
    /// The one outside: with it, process 1 ends, and with that all others in the namespaces.
    unshare: Option<Child>,
    /// Process 1, by its id outside.
    init: u32,
}

/// A way through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// From 127.0.0.1 outside to 127.0.0.1 within.
    In(u16),
    /// From the node's address within to 127.0.0.1 outside.
    Out(u16),
}

// === impl Namespaces ===

impl Namespaces {
    /// Makes them.
    pub(super) fn start(machine: &Machine, dir: Arc<ScratchDir>) -> anyhow::Result<Self> {
        let folder = dir.path();
        ensure!(
            !["/var", "/run", "/sys", "/proc"].iter().any(|taken| folder.starts_with(taken)),
            "a node's files may not lie in {}: set TMPDIR to a folder elsewhere",
            folder.display()
        );
        let path = [&machine.runtime, &machine.unpacked].map(|folder| folder.display().to_string()).join(":");
        let path = format!("{path}:{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let namespaces = Self {
            state: Mutex::default(),
            forward: machine.forward.clone(),
            path,
            cgroups: Cgroups::create(folder)?,
            dir,
        };
        namespaces.enter(machine)?;
        Ok(namespaces)
    }

    /// Ends all processes in them and makes new ones, with the same doors out.
    pub(super) fn restart(&self, machine: &Machine) -> anyhow::Result<()> {
        let doors = {
            let mut state = self.state();
            state.unshare = None;
            std::mem::take(&mut state.doors)
        };
        self.cgroups.empty()?;
        self.enter(machine)?;
        for (door, children) in doors {
            drop(children);
            // The others are opened by those whose ports they are.
            if let Door::Out(port) = door {
                self.admit(port)?;
            }
        }
        Ok(())
    }

    fn enter(&self, machine: &Machine) -> anyhow::Result<()> {
        let ready = self.dir.path().join("namespaces-ready");
        fs::remove_file(&ready).ok();
        let args = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"];
        let args = args.into_iter().chain(["sh", "-c", INIT]);
        let (dir, app) = (self.dir.path().display().to_string(), machine.app.display().to_string());
        let env = [("DIR", dir.as_str()), ("APP", &app), ("ADDRESS", ADDRESS), ("NAME", NAME), ("PATH", &self.path)];
        let unshare = Child::spawn("the namespaces", "unshare", args, &env, &self.log("namespaces"))?;
        leftovers::record(self.dir.path(), unshare.pid())?;
        let start = Instant::now();
        while !ready.exists() {
            ensure!(unshare.is_running(), "no namespaces: {}", unshare.log_tail(5));
            ensure!(start.elapsed() < SETUP, "the namespaces are not ready: {}", unshare.log_tail(5));
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = unshare.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let init = children.split_whitespace().next().context("the namespaces have no process 1")?.parse()?;
        let mut state = self.state();
        state.unshare = Some(unshare);
        state.init = init;
        Ok(())
    }

    /// Starts a program in them. It ends with its handle, and with them.
    pub(crate) fn spawn<'a>(
        &self,
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = &'a str>,
        env: &[(&str, &str)],
        log: &Path,
    ) -> anyhow::Result<Child> {
        let words = self.words(program)?;
        let args = words.into_iter().chain(args.into_iter().map(str::to_owned));
        let env: Vec<_> = [("PATH", self.path.as_str())].into_iter().chain(env.iter().copied()).collect();
        Child::spawn(name, "nsenter", args, &env, log)
    }

    /// The arguments of nsenter that run `program` in them.
    pub(super) fn words(&self, program: &Path) -> anyhow::Result<Vec<String>> {
        let program = program.to_str().with_context(|| format!("{} is not UTF-8", program.display()))?;
        let target = format!("--target={}", self.state().init);
        let kinds = ["--mount", "--pid", "--net", "--ipc", "--uts"].map(str::to_owned);
        Ok([target].into_iter().chain(kinds).chain(["--".to_owned(), program.to_owned()]).collect())
    }

    /// What is looked through for programs in them.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The name of the control group for its pods.
    pub(super) fn cgroup(&self) -> &str {
        self.cgroups.name()
    }

    /// Makes 127.0.0.1:`port` in them reachable at 127.0.0.1:`port` of the machine.
    pub(crate) fn open(&self, port: u16) -> anyhow::Result<()> {
        let (socket, address) = (self.socket(&format!("in-{port}")), format!("127.0.0.1:{port}"));
        let within = self.spawn("a door", &self.forward, [socket.as_str(), &address], &[], &self.log("doors"))?;
        let outside = self.outside(&address, &socket)?;
        self.put(Door::In(port), vec![within, outside]);
        Ok(())
    }

    /// Makes 127.0.0.1:`port` of the machine reachable at the node's address.
    pub(super) fn admit(&self, port: u16) -> anyhow::Result<()> {
        let socket = self.socket(&format!("out-{port}"));
        let outside = self.outside(&socket, &format!("127.0.0.1:{port}"))?;
        let address = format!("{ADDRESS}:{port}");
        let within = self.spawn("a door", &self.forward, [address.as_str(), &socket], &[], &self.log("doors"))?;
        self.put(Door::Out(port), vec![within, outside]);
        Ok(())
    }

    fn outside(&self, listen: &str, dial: &str) -> anyhow::Result<Child> {
        let door = Child::spawn("a door", &self.forward, [listen, dial], &[], &self.log("doors"))?;
        leftovers::record(self.dir.path(), door.pid())?;
        if let Some(status) = door.wait_blocking(Duration::from_millis(50)) {
            bail!("no door from {listen} to {dial}, {status}: {}", door.log_tail(3));
        }
        Ok(door)
    }

    fn put(&self, door: Door, children: Vec<Child>) {
        let mut state = self.state();
        state.doors.retain(|(other, _)| *other != door);
        state.doors.push((door, children));
    }

    fn socket(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let mut state = self.state();
        state.doors.clear();
        // Before the control groups go: those have to be empty.
        state.unshare = None;
    }
}
